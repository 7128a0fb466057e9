"""Experiments run as their docstrings say, row by row, and go on where they stopped."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_spread_and_paired_gain(rows):
    of = {0: {'mAP': 0.5}, 1: {'mAP': 0.6}, 2: {'mAP': 0.7}}
    base = {0: {'mAP': 0.4}, 1: {'mAP': 0.4}}
    assert rows.spread([0.5, 0.6, 0.7]) == '60.0 ± 10.0'
    assert rows.gain(of, base) == '+15.0 ± 7.1'
    assert rows.gain(of, {}) == '–'
