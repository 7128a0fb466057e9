"""CUHK03's classic protocol whole: a run for each of its 20 splits, rank-k as their mean ± std.

python -m experiments.cuhk03_classic --config=configs/supervised_cuhk03_classic.py \
    --workdir=runs/cuhk03_classic --config.data.root=DIR

Each split has 1,367 other identities to train on and 100 to test on; its rank-k is a mean over 10
draws of the gallery. Started again it goes on where it stopped.
"""

import json
from pathlib import Path

import numpy as np
from absl import flags, logging
from ml_collections import ConfigDict

from experiments import rows
from kd_jax import data, results, runs

SPLITS = flags.DEFINE_list('splits', [str(k) for k in range(20)], 'Which of the 20 splits.')


def run(config: ConfigDict, splits: list[int], workdir: Path) -> dict[str, dict]:
    """The summary of every split's student, kept after each in table.json beside earlier ones."""
    file = workdir / 'table.json'
    found = json.loads(file.read_text()) if file.exists() else {}
    for split in splits:
        config.data.classic_split = split
        logging.info('split %d', split)
        dataset = data.load(**config.data)
        found[str(split)] = rows.trained(config, workdir / f'split{split}', dataset)
        workdir.mkdir(parents=True, exist_ok=True)
        runs.write_json(file, found)
    return found


def text(found: dict[str, dict]) -> str:
    """A Markdown table with a row for every split, and their mean ± sample std."""
    names = [f'rank-{k}' for k in results.RANKS]
    lines = ['| split | ' + ' | '.join(names) + ' |', '|' + '---|' * (1 + len(names))]
    for split, one in found.items():
        lines.append(
            f'| {split} | ' + ' | '.join(f'{100 * one[name]:.1f}' for name in names) + ' |'
        )
    columns = np.array([[one[name] for name in names] for one in found.values()])
    means = [rows.spread(column.tolist()) for column in columns.T]
    return '\n'.join([*lines, f'| mean of {len(found)} | ' + ' | '.join(means) + ' |'])


def main(_) -> None:
    config = rows.CONFIG.value
    if config.evaluate.protocol != 'cuhk03_classic':
        raise ValueError('--config must have evaluate.protocol=cuhk03_classic and a classic split')
    print(text(run(config, [int(split) for split in SPLITS.value], Path(rows.WORKDIR.value))))


if __name__ == '__main__':
    rows.start(main)
