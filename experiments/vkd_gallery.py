"""mAP by the number of a tracklet's frames (VKD, Porrello et al., ECCV 2020, figure 3).

    python -m experiments.vkd_gallery --config=configs/vkd_carousel.py --workdir=runs/vkd_table1 \
      --frames=1,2,3,4

Teacher, student and the student that is not distilled, trained as by vkd_table1 or found in its
--workdir, ranked again with tracklets of so many frames, in the query and in the gallery, by those
protocols of the config that rank tracklets. Prints tables, and writes them to gallery.json and,
drawn, to gallery.png in --workdir. --rows, --seeds and --networks choose as in vkd_table1.
"""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from absl import app, flags

from experiments import rows, vkd_networks, vkd_rows
from kd_jax import data, parallel, runs, scoring
from kd_jax.retrieval import protocols

mpl.use('agg')
from matplotlib import pyplot as plt

FRAMES = flags.DEFINE_list('frames', ['1', '2', '4', '8', '16'], 'Frames of a tracklet.')
Curves = dict[str, dict[str, dict[int, list[float]]]]  # ranking -> row -> frames -> mAP by seed


def of_tracklets(protocol: str) -> str:
    """Those of the protocols that rank tracklets; UsageError where none does."""
    ranked = {
        name: 'tracklet' in {kind for pair in rule.kinds.values() for kind in pair}
        for name, rule in protocols.PROTOCOLS.items()
    }
    found = [name for name in protocols.names(protocol) if ranked[name]]
    if not found:
        known = ', '.join(name for name in ranked if ranked[name])
        raise app.UsageError(
            f'--config.evaluate.protocol={protocol} ranks no tracklets: give some of {known}'
        )
    return ','.join(found)


def curves(frames: list[int], protocol: str, dataset: data.Dataset) -> Curves:
    """The average precision of every row, seed, ranking by `protocol` and number of frames."""
    by_ranking: Curves = {}
    for row, _, network, options in vkd_networks.opened(dataset):
        for count in frames:
            asked = {**options, 'protocol': protocol, 'frames': count}
            summary = scoring.score(*network, dataset, parallel.mesh(), **asked)
            for one in (summary, *summary['also']):
                of_row = by_ranking.setdefault(one['protocol'], {}).setdefault(row, {})
                of_row.setdefault(count, []).append(rows.quoted(one))
    return by_ranking


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
        ax.set(title=ranking, xlabel='frames of a tracklet', ylabel='mAP', xticks=frames)
        ax.grid(alpha=0.3)
    axes[0][0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main(_):
    workdir, config = Path(rows.WORKDIR.value), vkd_rows.config()
    vkd_networks.check()
    frames, protocol = rows.numbers(FRAMES, 1), of_tracklets(config.evaluate.protocol)
    found = curves(frames, protocol, data.load(**config.data))
    runs.write_json(workdir / 'gallery.json', found)
    draw(found, workdir / 'gallery.png')
    print(text(found))


if __name__ == '__main__':
    rows.start(main)
