"""What is planted for measuring is what the readers read, all of it."""

import subprocess
import sys
from pathlib import Path

import pytest

from experiments import bench_readers, planted
from kd_jax import data

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize('reader', planted.LAYOUTS)
def test_every_planted_name_is_found(tmp_path, reader):
    root = planted.plant(tmp_path, reader, 240)
    found, seconds, peak = bench_readers.measure(reader, root)
    assert found == 240
    assert seconds > 0
    assert peak > 1


def test_every_reader_of_many_files_is_measured():
    assert {*data.readers()} - {*planted.LAYOUTS} == {'carousel', 'cuhk03'}


def test_the_table():
    command = [sys.executable, '-m', 'experiments.bench_readers', '--names=50']

    def run(readers):
        line = [*command, f'--readers={readers}']
        return subprocess.run(line, cwd=ROOT, check=False, capture_output=True, text=True)

    done = run('veri776,manifest')
    assert done.returncode == 0, done.stderr
    rows = [line.strip('| ').split(' | ') for line in done.stdout.splitlines()]
    assert rows[0] == ['reader', 'names', 'seconds', 'peak memory, MB']
    assert [row[:2] for row in rows[2:]] == [['veri776', '50'], ['manifest', '50']]
    assert 'no reader veri777; choose of folder, ' in run('veri777').stderr
