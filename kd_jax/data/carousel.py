"""Carousel, the built-in data set: turning figures before several cameras, drawn from a seed.

One view shows only part of an identity, several show it all (figures.py says which part). Many
people wear the same outfit, so that only their marks tell them apart, and every camera has its
own light, blur, distance, background and range of angles, so that neither raw pixels nor colour
histograms find a person again.
"""

import functools
import threading
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image

from kd_jax.data import figures, records

SIZE = 48, 24  # height and width of an image
CHUNK = 64  # images rendered at a time
EXPOSURE = 0.75, 1.1  # light in the darkest and in the brightest camera
CAST = 0.1  # the most by which a camera's red, green or blue leaves its exposure, as a logarithm
BLUR = 0.02, 0.2  # what a pixel takes from each neighbour in the sharpest and dullest camera
SCALE = 0.88, 1.0  # figure size in the farthest and in the nearest camera
YAW_SPREAD = np.deg2rad(75)  # the most by which a tracklet's middle angle leaves its camera's
YAW_STEP = np.deg2rad(18)  # turn of a figure from one frame to the next
EXPOSURE_JITTER = 0.08  # deviation of an image's exposure, as a logarithm
CAST_JITTER = 0.04  # deviation of an image's red, green and blue, as a logarithm
SCALE_JITTER = 0.06  # deviation of an image's scale, as a logarithm
SHIFT_JITTER = 0.02  # deviation of a figure's place, in image sizes
NOISE = 0.02  # deviation of a pixel
OCCLUDED = 0.2  # share of images in which a box stands before the figure
OCCLUDER = 0.2, 0.45  # shortest and longest side of that box, in image sizes
OCCLUDER_PLACE = 0.2, 0.8  # where the middle of that box may be, in image sizes
WALL = 12, 6  # patches of a background, down and across
WALL_GREY = 0.3, 0.7  # mean of the darkest and of the brightest camera's background
WALL_TINT = 0.1  # the most by which red, green or blue of a background leaves that mean
WALL_CONTRAST = 0.08  # deviation of a background's patches


class Cameras(NamedTuple):
    """What cameras differ in, one row a camera."""

    light: Float[np.ndarray, 'cameras 3']
    blur: Float[np.ndarray, 'cameras']
    scale: Float[np.ndarray, 'cameras']
    yaw: Float[np.ndarray, 'cameras']
    walls: Float[np.ndarray, 'cameras down across 3']


class Shots(NamedTuple):
    """Who stands before which camera, when and at what angle; one row an image."""

    who: Int[np.ndarray, 'n']
    camera: Int[np.ndarray, 'n']
    tracklet: Int[np.ndarray, 'n']
    frame: Int[np.ndarray, 'n']
    yaw: Float[np.ndarray, 'n']


def read(
    *,
    seed: int = 0,
    train_identities: int = 256,
    test_identities: int = 64,
    cameras: int = 4,
    tracklets: int = 2,
    frames: int = 4,
) -> records.Source:
    """Carousel of that seed, with `tracklets` of `frames` images for each identity and camera.

    One image of each test identity and camera is a query, all others are the gallery. Equal
    arguments give equal bytes; a split is rendered when its first image is opened. Raises
    ValueError for counts without a match for every query.
    """
    counts = (train_identities, test_identities, tracklets, frames)
    _check(counts, cameras, tracklets * frames)
    count = train_identities + test_identities
    people = draw_people(seed, count)
    places = _draw_cameras(cameras, _stream(seed, 1))
    shots = _draw_shots(count, tracklets, frames, places, _stream(seed, 2))
    asked = _draw_queries(count, cameras, tracklets * frames, _stream(seed, 3))
    known = shots.who < train_identities
    parts = {'train': known, 'query': ~known & asked, 'gallery': ~known & ~asked}
    splits = {name: Shots(*(column[rows] for column in shots)) for name, rows in parts.items()}
    columns = {name: _records(name, split, (cameras, tracklets)) for name, split in splits.items()}

    def render(name: str) -> UInt8[np.ndarray, 'n h w 3']:
        rng = _stream(seed, 4 + list(splits).index(name))
        return _render(people, places, splits[name], SIZE, rng)

    return records.Source(**columns, open=_opener(columns, render), home=None)


def draw_people(seed: int, count: int) -> figures.Identities:
    """Who identities 1 to `count` are, in the data set of that seed with that many in all."""
    return figures.draw_identities(count, _stream(seed, 0))


def _stream(seed: int, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, number])


def _check(counts: tuple[int, ...], cameras: int, images: int) -> None:
    if cameras < 2:
        raise ValueError(f'cameras={cameras}: the Market rule needs two, a match is of another one')
    if min(counts) < 1 or images < 2:
        raise ValueError('counts and sizes must be 1 or more, and tracklets * frames 2 or more')


def _draw_cameras(count: int, rng: np.random.Generator) -> Cameras:
    """Cameras spread evenly over each range, in an order of its own for each range."""

    def spread(low: float, high: float) -> np.ndarray:
        return rng.permutation(np.linspace(low, high, count))

    cast = np.stack([spread(-CAST, CAST) for _ in range(3)], axis=1)
    light = spread(*EXPOSURE)[:, None] * np.exp(cast)
    yaw = rng.permutation(count) * 2 * np.pi / count
    tint = np.stack([spread(-WALL_TINT, WALL_TINT) for _ in range(3)], axis=1)
    walls = (spread(*WALL_GREY)[:, None] + tint)[:, None, None]
    walls = walls + WALL_CONTRAST * rng.standard_normal((count, *WALL, 1))
    return Cameras(light, spread(*BLUR), spread(*SCALE), yaw, walls.astype(np.float32))


def _draw_shots(
    people: int, tracklets: int, frames: int, places: Cameras, rng: np.random.Generator
) -> Shots:
    """Everyone before every camera; in a tracklet one turns on, this way or that way."""
    grid = people, len(places.yaw), tracklets
    who, camera, tracklet, frame = np.indices((*grid, frames))
    middle = rng.uniform(-YAW_SPREAD, YAW_SPREAD, grid)[..., None]
    way = rng.choice((-1, 1), grid)[..., None]
    yaw = places.yaw[camera] + middle + way * YAW_STEP * (frame - (frames - 1) / 2)
    return Shots(*(column.ravel() for column in (who, camera, tracklet, frame, yaw)))


def _draw_queries(
    people: int, cameras: int, images: int, rng: np.random.Generator
) -> Bool[np.ndarray, 'n']:
    """One image of each identity and camera, at random."""
    picked = rng.integers(images, size=(people, cameras, 1))
    return (picked == np.arange(images)).ravel()


def _records(name: str, shots: Shots, grid: tuple[int, int]) -> records.Records:
    """The columns of a split; identities count from 1, as 0 is a distractor.

    No two tracklets have the same number; in the name of a path a tracklet counts from 0 for each
    identity and camera.
    """
    who, camera, tracklet, frame = shots[:4]
    unique = (who * grid[0] + camera) * grid[1] + tracklet
    numbers = np.stack((who + 1, camera, tracklet, frame), axis=1).tolist()
    paths = np.array([f'{name}/{i:04d}_c{c}_t{t}_f{f}.png' for i, c, t, f in numbers])
    return records.Records(paths, who + 1, camera, unique, frame)


def _opener(
    columns: dict[str, records.Records], render: Callable[[str], np.ndarray]
) -> Callable[[str], Image.Image]:
    """Opens an image by its path; the first one of a split renders the split."""
    rows = {path: row for part in columns.values() for row, path in enumerate(part.paths.tolist())}
    render = functools.cache(render)
    lock = threading.Lock()

    def open_image(path: str) -> Image.Image:
        if path not in rows:
            raise records.DataError(f'{path!r} is no image of this carousel: take one of its paths')
        with lock:  # else several threads would each render the split
            images = render(path.split('/')[0])
        return Image.fromarray(images[rows[path]])

    return open_image


def _render(
    people: figures.Identities,
    places: Cameras,
    shots: Shots,
    size: tuple[int, int],
    rng: np.random.Generator,
) -> UInt8[np.ndarray, 'n h w 3']:
    """The images of a split."""
    present, who = np.unique(shots.who, return_inverse=True)
    skins = figures.textures(figures.Identities(*(column[present] for column in people)))
    images = np.empty((len(who), *size, 3), np.uint8)
    for start in range(0, len(who), CHUNK):
        rows = slice(start, start + CHUNK)
        camera = Cameras(*(column[shots.camera[rows]] for column in places))
        images[rows] = _photograph(skins, who[rows], shots.yaw[rows], camera, size, rng)
    return images


def _photograph(
    skins: np.ndarray,
    who: Int[np.ndarray, 'n'],
    yaw: Float[np.ndarray, 'n'],
    camera: Cameras,
    size: tuple[int, int],
    rng: np.random.Generator,
) -> UInt8[np.ndarray, 'n h w 3']:
    """One image of each figure, by the camera of the same row."""
    n = len(who)
    down, across = ((np.arange(side) + 0.5) / side for side in size)
    scale = camera.scale * np.exp(SCALE_JITTER * rng.standard_normal(n))
    middle = 0.5 + SHIFT_JITTER * rng.standard_normal((2, n))
    colours, cover = figures.portray(skins, who, yaw, scale, middle, size)
    walls = _walls(camera.walls, down, across, rng)
    image = _occlude(colours + (1 - cover) * walls, down, across, rng)
    light = camera.light * np.exp(
        EXPOSURE_JITTER * rng.standard_normal((n, 1)) + CAST_JITTER * rng.standard_normal((n, 3))
    )
    image = _blur(image, camera.blur) * light[:, None, None].astype(np.float32)
    image += NOISE * rng.standard_normal(image.shape, np.float32)
    return np.rint(image.clip(0, 1) * 255).astype(np.uint8)


def _walls(
    walls: Float[np.ndarray, 'n down across 3'],
    down: Float[np.ndarray, 'h'],
    across: Float[np.ndarray, 'w'],
    rng: np.random.Generator,
) -> Float[np.ndarray, 'n h w 3']:
    """Backgrounds, each moved somewhere else."""
    n = len(walls)
    moved = (grid + rng.random((n, 1)) for grid in (down, across))
    row, column = (np.floor(z * k).astype(int) % k for z, k in zip(moved, WALL))
    return walls[np.arange(n)[:, None, None], row[:, :, None], column[:, None, :]]


def _occlude(
    scene: Float[np.ndarray, 'n h w 3'],
    down: Float[np.ndarray, 'h'],
    across: Float[np.ndarray, 'w'],
    rng: np.random.Generator,
) -> Float[np.ndarray, 'n h w 3']:
    """A box of some colour before a share of the scenes."""
    n = len(scene)
    middle, sides = (rng.uniform(*limits, (2, n, 1)) for limits in (OCCLUDER_PLACE, OCCLUDER))
    colour = rng.random((n, 1, 1, 3), np.float32)
    hit = rng.random((n, 1, 1, 1)) < OCCLUDED
    row, column = (np.abs(z - m) < s / 2 for z, m, s in zip((down, across), middle, sides))
    return np.where(hit & row[:, :, None, None] & column[:, None, :, None], colour, scene)


def _blur(
    images: Float[np.ndarray, 'n h w 3'], weight: Float[np.ndarray, 'n']
) -> Float[np.ndarray, 'n h w 3']:
    """A three-tap blur, down and across."""
    weight = weight.astype(np.float32)[:, None, None, None]
    for axis in (1, 2):
        place = np.arange(images.shape[axis])
        before, after = (images.take((place + k).clip(0, place[-1]), axis) for k in (-1, 1))
        images = (1 - 2 * weight) * images + weight * (before + after)
    return images
