"""mAP by the number of gallery frames (VKD, Porrello et al., ECCV 2020, figure 3).

    python -m experiments.vkd_gallery --config=configs/vkd_carousel.py --workdir=runs/vkd_table1 \
      --frames=1,2,3,4

Teacher, student and the student that is not distilled, trained as by vkd_table1 or found in its
--workdir, ranked again with tracklets of so many frames. Prints tables, and writes them to
gallery.json and, drawn, to gallery.png in --workdir.
"""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from absl import flags

from experiments import rows, vkd_rows, vkd_table1
from kd_jax import checkpoints, data, evaluate, parallel, runs

mpl.use('agg')
from matplotlib import pyplot as plt

FRAMES = flags.DEFINE_list('frames', ['1', '2', '4', '8', '16'], 'Frames of a tracklet.')
Curves = dict[str, dict[str, dict[int, list[float]]]]  # ranking -> row -> frames -> mAP by seed


def curves(found: rows.Table, frames: list[int], workdir: Path, dataset: data.Dataset) -> Curves:
    """The average precision of every row, seed, ranking of tracklets and number of frames."""
    by_ranking: Curves = {}
    for row, seeds in found.items():
        for seed in seeds:
            for count, summary in scored(rows.run_of(row, seed, workdir), frames, dataset):
                of_row = by_ranking.setdefault(summary['protocol'], {}).setdefault(row, {})
                of_row.setdefault(count, []).append(rows.quoted(summary))
    return by_ranking


def scored(run: Path, frames: list[int], dataset: data.Dataset):
    """(frames, summary) of each ranking of tracklets of a run."""
    restored, mesh = checkpoints.restore_network(run), parallel.mesh()
    network = evaluate.opened(restored, mesh)
    for count in frames:
        options = {**restored.config.evaluate, 'frames': count}
        summary = evaluate.score(*network, dataset, mesh, **options)
        for one in (summary, *summary['also']):
            if one['protocol'].split()[-1] in ('i2v', 'v2v', 'v2i'):
                yield count, one


def text(found: Curves) -> str:
    """A table for each ranking: mAP, mean ± std over seeds, by row and number of frames."""
    parts = []
    for ranking, by_row in found.items():
        frames = list(next(iter(by_row.values())))
        lines = [f'| {ranking}, frames | ' + ' | '.join(map(str, frames)) + ' |']
        lines.append('|' + '---|' * (len(frames) + 1))
        for row, values in by_row.items():
            cells = [row, *(rows.spread(values[count]) for count in frames)]
            lines.append('| ' + ' | '.join(cells) + ' |')
        parts.append('\n'.join(lines))
    return '\n\n'.join(parts)


def draw(found: Curves, path: Path) -> None:
    """A panel for each ranking, a line for each row, its std as a band."""
    figure, axes = plt.subplots(1, len(found), figsize=(4.6 * len(found), 3.6), squeeze=False)
    for ax, (ranking, by_row) in zip(axes[0], found.items()):
        for row, values in by_row.items():
            frames = list(values)
            means = np.array([100 * np.mean(values[count]) for count in frames])
            stds = np.array(
                [100 * np.std(values[count], ddof=len(values[count]) > 1) for count in frames]
            )
            ax.plot(frames, means, marker='o', label=row)
            ax.fill_between(frames, means - stds, means + stds, alpha=0.15)
        ax.set(title=ranking, xlabel='frames of a gallery tracklet', ylabel='mAP', xticks=frames)
        ax.grid(alpha=0.3)
    axes[0][0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main(_):
    workdir, config = Path(rows.WORKDIR.value), rows.CONFIG.value
    networks = [vkd_rows.network_of(config)]
    trained = rows.run(vkd_table1.table(networks, workdir), workdir)
    found = curves(trained, list(map(int, FRAMES.value)), workdir, data.load(**config.data))
    runs.write_json(workdir / 'gallery.json', found)
    draw(found, workdir / 'gallery.png')
    print(text(found))


if __name__ == '__main__':
    rows.start(main)
