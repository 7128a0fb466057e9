"""Draws people of carousel before all cameras, most of them in the same outfits.

python -m experiments.carousel_sheet
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image

from kd_jax.data import carousel

mpl.use('agg')
from matplotlib import pyplot as plt

OUT = Path(__file__).parent / 'results' / 'carousel_sheet.png'
OUTFITS, SHARING = 2, 4  # outfits on the sheet, and people who wear each
CAMERAS, FRAMES = 4, 3  # columns
HEIGHT, WIDTH = 48, 24  # of an image
GAP, WIDE_GAP = 2, 8  # pixels between images, and between cameras or outfits
ZOOM = 2  # screen pixels of a pixel, in both directions
MARGINS = 20, 12  # pixels for the names, left and on top
COLOURS = 224  # of the file, as noise does not compress


def wearers(seed: int, identities: int) -> np.ndarray:
    """The first training people of each of the first outfits, outfit by outfit."""
    outfits = carousel.draw_people(seed, identities + 64).outfits[:identities]
    return np.concatenate([np.flatnonzero(outfits == k)[:SHARING] for k in range(OUTFITS)])


def places(groups: int, members: int, length: int) -> np.ndarray:
    """Where images begin along one axis, with a wide gap after each group."""
    number = np.arange(groups * members)
    return GAP + number * (length + GAP) + number // members * WIDE_GAP


def sheet(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pixels, and where rows and columns of images begin."""
    source = carousel.read(seed=seed)
    train, people = source.train, wearers(seed, 256)
    top, left = places(OUTFITS, SHARING, HEIGHT), places(CAMERAS, FRAMES, WIDTH)
    canvas = np.full((top[-1] + HEIGHT + GAP, left[-1] + WIDTH + GAP, 3), 255, np.uint8)
    for y, person in zip(top, people):
        shots = np.flatnonzero(train.pids == person + 1).reshape(CAMERAS, -1)[:, :FRAMES].ravel()
        for x, path in zip(left, train.paths[shots]):
            canvas[y : y + HEIGHT, x : x + WIDTH] = np.asarray(source.open(path))
    return canvas, top, left


def draw(canvas: np.ndarray, top: np.ndarray, left: np.ndarray) -> None:
    """Writes the pixels with the names of cameras above and of outfits beside them."""
    height, width = canvas.shape[0] + MARGINS[1], canvas.shape[1] + MARGINS[0]
    figure = plt.figure(figsize=(width * ZOOM / 100, height * ZOOM / 100), dpi=100)
    axes = figure.add_axes((MARGINS[0] / width, 0, 1 - MARGINS[0] / width, 1 - MARGINS[1] / height))
    axes.imshow(canvas, interpolation='nearest')
    middles = left.reshape(CAMERAS, FRAMES).mean(1) + WIDTH / 2
    axes.set_xticks(middles, [f'camera {camera}' for camera in range(CAMERAS)])
    middles = top.reshape(OUTFITS, SHARING).mean(1) + HEIGHT / 2
    words = [f'{SHARING} people in one outfit'] * OUTFITS
    axes.set_yticks(middles, words, rotation=90, va='center')
    axes.tick_params(length=0, labeltop=True, labelbottom=False, labelsize=11)
    axes.spines[:].set_visible(False)
    figure.canvas.draw()
    image = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3].copy())
    image.quantize(COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(
        OUT, optimize=True
    )
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seed', type=int, default=0, help='seed of the data set')
    draw(*sheet(parser.parse_args().seed))


if __name__ == '__main__':
    main()
