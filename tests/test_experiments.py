"""Experiments run as their docstrings say, row by row, and go on where they stopped."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]


def experiment(name: str, workdir: Path, *arguments: str) -> str:
    command = [sys.executable, '-m', f'experiments.{name}', f'--workdir={workdir}', *arguments]
    command += ['--config=configs/umts_carousel.py:smoke', '--seeds=0']
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_table1_is_resumed_row_by_row(tmp_path):
    rows = 'Baseline', 'T-net', 'UMTS(b5)', 'single-shot net', 'control: single shot'
    rows += ('control: class prototypes',)
    experiment('umts_table1', tmp_path, f'--rows={",".join(rows[:2])}')
    trained = tmp_path / 'seed0' / 't_net' / 'result.json'
    before = trained.stat().st_mtime_ns
    printed = experiment('umts_table1', tmp_path, f'--rows={",".join(rows)}')
    assert trained.stat().st_mtime_ns == before
    lines = [line for line in printed.splitlines() if line.startswith('|')]
    assert [line.split(' | ')[0].strip('| ') for line in lines[2:]] == list(rows)
    assert '76.6 / 72.8' in printed
    found = json.loads((tmp_path / 'table.json').read_text())
    mAP = 100 * found['UMTS(b5)']['0']['mAP']
    gain = mAP - 100 * found['Baseline']['0']['mAP']
    assert f'| UMTS(b5) | 1 | {mAP:.1f} |' in printed
    assert f'| {gain:+.1f} |' in next(line for line in lines if 'UMTS(b5)' in line)


def test_figure3_trains_every_scheme(tmp_path):
    printed = experiment('umts_figure3', tmp_path)
    for scheme in ('A: single images', 'B: mean of K shots', 'C: K shots stacked', 'UMTS'):
        assert f'| {scheme} | 1 |' in printed


@pytest.fixture(scope='module')
def rows():
    sys.path.insert(0, str(ROOT))
    from experiments import rows

    return rows


def plant_classic(root: Path) -> None:
    """Four people of eight images; two classic splits that test one or two of them."""
    rng, names = np.random.default_rng(0), {}
    (root / 'images_labeled').mkdir()
    for person in (1, 2, 3, 4):
        names[person] = [
            f'1_{person:03d}_{v}_{5 * v - 5 + k:02d}.png' for v in (1, 2) for k in (1, 2)
        ]
        for name in names[person]:
            pixels = rng.integers(0, 256, (8, 4, 3), np.uint8)
            Image.fromarray(pixels).save(root / 'images_labeled' / name)

    def split(*tested):
        parts = {'train': sorted({1, 2, 3, 4} - {*tested}), 'query': tested, 'gallery': tested}
        return {
            key: [[name, person, 0] for person in people for name in names[person]]
            for key, people in parts.items()
        }

    splits = [split(1), split(1, 3), *[split(4)] * 18]
    (root / 'splits_classic_labeled.json').write_text(json.dumps(splits))


def test_the_classic_protocol_is_a_mean_over_splits(tmp_path, rows):
    from configs import supervised_cuhk03_classic
    from experiments import cuhk03_classic

    plant_classic(tmp_path)
    config = supervised_cuhk03_classic.get_config('smoke')
    config.data = supervised_cuhk03_classic.get_config().data
    config.data.update(root=str(tmp_path), height=32, width=16, feed='device')
    config.evaluate.protocol = 'cuhk03_classic'
    config.sampling.update(identities=2, sets=2)
    found = cuhk03_classic.run(config, [0, 1], tmp_path / 'runs')
    assert json.loads((tmp_path / 'runs' / 'table.json').read_text()) == found
    assert [one['queries'] for one in found.values()] == [4, 8]
    assert found['0']['rank-1'] == 1  # of one identity
    lines = cuhk03_classic.text(found).splitlines()
    mean = 50 * (found['0']['rank-1'] + found['1']['rank-1'])
    assert lines[-1].startswith(f'| mean of 2 | {mean:.1f} ± ')
    trained = (tmp_path / 'runs' / 'split0' / 'result.json').stat().st_mtime_ns
    assert cuhk03_classic.run(config, [0], tmp_path / 'runs')['0']['mAP'] == found['0']['mAP']
    assert (tmp_path / 'runs' / 'split0' / 'result.json').stat().st_mtime_ns == trained


VALUES = (0.5, 0.6, 0.7), (0.4, 0.4)


def test_every_ranking_has_a_table(rows):
    """By the average precision that its protocol quotes."""
    other = {'protocol': 'i2v', 'quoted': 'mAP_trapezoid', 'mAP': 0.9, 'mAP_trapezoid': 0.25}
    one = {'protocol': 'market', 'quoted': 'mAP', 'mAP': 0.5, 'mAP_trapezoid': 0.4, 'rank-1': 0.75}
    summary = one | {'also': [other | {'rank-1': 0.125}]}
    text = rows.text({'Baseline': {0: summary, 1: summary}}, ('Baseline',), 'none', {})
    first, second = text.split('\n\n')
    assert first.startswith('| market | seeds | mAP | rank-1 |')
    assert '| Baseline | 2 | 50.0 ± 0.0 | 75.0 ± 0.0 |' in first
    assert second.startswith('| i2v | seeds |')
    assert '| Baseline | 2 | 25.0 ± 0.0 | 12.5 ± 0.0 |' in second


def test_spread_and_paired_gain(rows):
    of, base = ({k: {'quoted': 'mAP', 'mAP': v} for k, v in enumerate(vs)} for vs in VALUES)
    assert rows.spread([0.5, 0.6, 0.7]) == '60.0 ± 10.0'
    assert rows.gain(of, base) == '+15.0 ± 7.1'
    assert rows.gain(of, {}) == '–'
