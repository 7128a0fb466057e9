"""Pictures of experiments/methods.py: mAP and rank-1 of all rows, and loss terms over training."""

from pathlib import Path

import matplotlib as mpl
import numpy as np

from experiments import rows
from kd_jax import runs

mpl.use('agg')
from matplotlib import pyplot as plt

BLUE, GREY = '#3b6ea8', '#b9c4cf'
TERMS = ('identity', 'triplet', *(f'stage{k}' for k in range(1, 6)), 'logits', 'distances')
TERMS += ('probabilities', 'hard', 'map', 'feature')
COLOURS = dict(zip(TERMS, plt.get_cmap('tab20').colors))


def draw(found: rows.Table, workdir: Path) -> None:
    """Write methods.png and terms.png."""
    found = {name: seeds for name, seeds in found.items() if seeds}
    dots(found, workdir / 'methods.png')
    terms({name: curves(name, list(seeds), workdir) for name, seeds in found.items()}, workdir)
    print(f'\n{workdir}/methods.png, {workdir}/terms.png')


def dots(found: rows.Table, path: Path) -> None:
    """mAP and rank-1 of every row: a dot for every seed, their mean, and a std to each side."""
    figure, panels = plt.subplots(1, 2, figsize=(10, 0.42 * len(found) + 1.2), sharey=True)
    for panel, key in zip(panels, ('mAP', 'rank-1')):
        for place, seeds in enumerate(found.values()):
            values = [rows.quoted(s) if key == 'mAP' else s[key] for s in seeds.values()]
            values = 100 * np.array(values)
            spread = values.std(ddof=1) if len(values) > 1 else 0.0
            panel.errorbar(values.mean(), place, xerr=spread, color=GREY, linewidth=6)
            panel.plot(values.mean(), place, '|', color='black', markersize=14)
            panel.plot(values, [place] * len(values), 'o', color=BLUE, markersize=4)
        panel.grid(axis='x', color='#e3e7ea')
        panel.set_axisbelow(True)
        panel.set_xlabel(f'{key}, %')
        panel.spines[['top', 'right']].set_visible(False)
    panels[0].set_yticks(range(len(found)), list(found))
    panels[0].invert_yaxis()
    save(figure, path)


def curves(name: str, seeds: list[int], workdir: Path) -> dict[str, tuple[list, list]]:
    """The terms of a row by name: steps, and the mean over seeds."""
    logs = [runs.metrics_of(rows.run_of(name, seed, workdir)) for seed in seeds]
    logs = [[row for row in log if 'evaluation' not in row] for log in logs]
    steps = [row['step'] for row in logs[0]]
    known = [term for term in TERMS if term in logs[0][0]]
    return {
        term: (steps, np.mean([[row[term] for row in log] for log in logs], axis=0))
        for term in known
    }


def terms(found: dict[str, dict], workdir: Path) -> None:
    """A panel for each row: its weighted terms by step, on a logarithmic axis."""
    columns = 4
    lines = -(-len(found) // columns)
    figure, panels = plt.subplots(
        lines, columns, figsize=(12, 2.7 * lines), sharex=True, sharey=True, squeeze=False
    )
    for panel, (name, of_row) in zip(panels.flat, found.items()):
        for term, (steps, values) in of_row.items():
            panel.plot(steps, np.maximum(values, 1e-4), label=term, color=COLOURS[term])
        panel.set_title(name, fontsize=10)
        panel.set_yscale('log')
        panel.legend(fontsize=7, frameon=False, ncols=2)
        panel.spines[['top', 'right']].set_visible(False)
    for panel in panels.flat[len(found) :]:
        panel.set_axis_off()
    figure.supxlabel('step', fontsize=10)
    figure.supylabel('weighted loss term', fontsize=10)
    save(figure, workdir / 'terms.png')


def save(figure: plt.Figure, path: Path) -> None:
    """Write and close a figure."""
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
