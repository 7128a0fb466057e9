"""Draws the picture of UMTS in the README, with images of carousel.

python -m experiments.draw_umts
"""

from pathlib import Path

import matplotlib as mpl
import numpy as np

from kd_jax import data

mpl.use('agg')
from matplotlib import pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

OUT = Path(__file__).parent / 'results' / 'umts.png'
BLUE, ORANGE, GREY, GREEN = '#3b6ea8', '#c8641e', '#666666', '#3d8b4f'
SHOTS = 4
STAGES = ('1', '2', '3', '4', '5')


def box(ax, x, y, width, text, colour, height=0.9, size=11):
    """A rounded box with a text in its middle."""
    style = 'round,pad=0.02,rounding_size=0.12'
    patch = FancyBboxPatch((x, y), width, height, boxstyle=style, fc=colour, ec='none', alpha=0.16)
    ax.add_patch(patch)
    ax.text(x + width / 2, y + height / 2, text, ha='center', va='center', color=colour, size=size)


def arrow(ax, start, end, colour, style='-|>', line='-'):
    """A straight arrow."""
    ax.add_patch(
        FancyArrowPatch(start, end, arrowstyle=style, mutation_scale=11, color=colour, ls=line)
    )


def pictures(ax, images, x, y, step, size):
    """Images in a row, or behind one another where the step is smaller than they are wide."""
    for i, image in enumerate(images):
        left = x + i * step
        bottom = y - (0.12 * i if step < size / 2 else 0)
        ax.imshow(image, extent=(left, left + size / 2, bottom, bottom + size), zorder=2 + i)
    ax.set_aspect('equal')


def network(ax, y, colour, name, name_at, head):
    """Five stages in a row, each with its projection head on the other network's side."""
    for i, stage in enumerate(STAGES):
        x = 5.1 + 2.0 * i
        box(ax, x, y, 1.5, f'stage {stage}' if i < 4 else 'FC (5)', colour)
        if i:
            arrow(ax, (x - 0.5, y + 0.45), (x, y + 0.45), colour)
        box(ax, x + 0.3, head, 0.9, r'$\theta$', colour, height=0.55)
    ax.text(5.1, name_at, name, color=colour, size=12, weight='bold')


def draw(images: np.ndarray):
    """The whole picture from K images of one identity."""
    figure, ax = plt.subplots(figsize=(12.5, 5.4), dpi=110)
    network(ax, 6.1, BLUE, 'T-net, frozen: reads K shots stacked in channels', 7.3, 5.1)
    network(ax, 1.0, ORANGE, 'student: reads one image', 0.5, 2.35)
    pictures(ax, images, 0.35, 5.9, 0.45, 2.1)
    pictures(ax, images, 0.1, 0.5, 1.15, 2.0)
    arrow(ax, (3.2, 6.55), (5.1, 6.55), BLUE)
    arrow(ax, (4.65, 1.45), (5.1, 1.45), ORANGE)
    for i in range(len(STAGES)):
        x = 5.85 + 2.0 * i
        arrow(ax, (x, 6.1), (x, 5.67), BLUE)
        arrow(ax, (x, 1.9), (x, 2.35), ORANGE)
        arrow(ax, (x, 5.08), (x, 2.93), GREY, style='<|-|>', line='--')
    loss = r'$\frac{1}{2}e^{-v}\,\|\theta_t(y)-\theta_s(x_k)\|^2+v$'
    ax.text(9.85, 4.0, f'at every stage and for every shot:  {loss}', ha='center', va='center',
            size=14, color='black', backgroundcolor='white', zorder=9)  # fmt: skip
    ax.text(15.1, 6.5, 'identity +\ntriplet loss\n(before)', color=BLUE, size=10, va='center')
    ax.text(15.1, 1.45, 'identity +\ntriplet loss', color=ORANGE, size=10, va='center')
    ax.text(0.1, 0.05, 'the same K shots, each for itself', color=ORANGE, size=10)
    ax.text(10.2, 0.5, 'kept;  T-net, θ and v are dropped', color=GREEN, size=11)
    ax.set_xlim(0, 16.9)
    ax.set_ylim(-0.1, 8.2)
    ax.axis('off')
    figure.savefig(OUT, bbox_inches='tight', pad_inches=0.05)
    print(OUT)


def main():
    dataset = data.load(name='carousel', height=48, width=24, train_identities=16)
    records = dataset.train.records
    rows = np.flatnonzero(records.pids == records.pids[0])
    first_of_cameras = np.unique(records.cameras[rows], return_index=True)[1][:SHOTS]
    OUT.parent.mkdir(exist_ok=True)
    draw(dataset.train.pixels.read(rows[first_of_cameras]))


if __name__ == '__main__':
    main()
