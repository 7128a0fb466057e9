"""experiments/inspect_run.ipynb as committed, and executed on smoke runs."""

import base64
import io
import re

import nbformat
import numpy as np
import pytest
import smoke
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from PIL import Image

NOTEBOOK = smoke.ROOT / 'experiments' / 'inspect_run.ipynb'
PICTURES = 5
LARGEST = 600_000  # bytes
SECONDS = 240  # for a cell, on a machine that does much else
PATHS = r'/(tmp|home|root|work|Users|var|opt)/|\.venv|site-packages'


def executed(monkeypatch, run, baseline):
    """The notebook after all its cells, started in its own directory as Jupyter does."""
    monkeypatch.setenv('KD_JAX_RUN', str(run))
    monkeypatch.setenv('KD_JAX_BASELINE', str(baseline))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == 'code':
            cell.outputs, cell.execution_count = [], None
    resources = {'metadata': {'path': str(NOTEBOOK.parent)}}
    NotebookClient(notebook, timeout=SECONDS, resources=resources).execute()
    return notebook


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get('outputs', [])]


def pictures(notebook):
    """The pixels of all that was drawn, from 0 to 1."""
    data = [found['data'] for found in outputs(notebook) if found.output_type == 'display_data']
    files = (io.BytesIO(base64.b64decode(one['image/jpeg'])) for one in data)
    return [np.asarray(Image.open(file).convert('L')) / 255 for file in files]


def printed(notebook):
    return ''.join(found.text for found in outputs(notebook) if found.output_type == 'stream')


def check(notebook):
    """It went through without a word on stderr, and what it drew is no blank paper."""
    kinds = {found.output_type for found in outputs(notebook)}
    assert kinds == {'stream', 'display_data'}
    assert {found.name for found in outputs(notebook) if found.output_type == 'stream'} == {
        'stdout'
    }
    drawn = pictures(notebook)
    assert len(drawn) == PICTURES
    for pixels in drawn:
        assert min(pixels.shape) > 200
        assert 0.02 < (pixels < 0.8).mean() < 0.9
    for word in ('ResNet Summary', 'log_variance', 'T-net', 'between sets', 'baseline, similarity'):
        assert word in printed(notebook)


def test_it_runs_on_other_runs(monkeypatch):
    runs = smoke.finished('umts_carousel'), smoke.finished('supervised_carousel')
    notebook = executed(monkeypatch, *runs)
    check(notebook)
    for run in runs:
        assert f"Run('{run}'" in printed(notebook)


def test_as_committed():
    """It has what the runs of its first cell gave, is small, and names no machine's paths."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    check(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == 'code']
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert NOTEBOOK.stat().st_size < LARGEST
    texts = [cell.source for cell in notebook.cells] + [printed(notebook)]
    assert not re.search(PATHS, '\n'.join(texts))
    assert "Run('runs/umts_carousel': umts, resnet10, step 1500)" in printed(notebook)


def test_a_run_that_is_not_there(monkeypatch, tmp_path):
    """One line says which command makes it."""
    run = tmp_path / 'umts_carousel'
    with pytest.raises(CellExecutionError) as refused:
        executed(monkeypatch, run, run)
    command = 'python -m kd_jax.main --config=configs/umts_carousel.py'
    assert refused.value.ename == 'SystemExit'
    assert refused.value.evalue == f'no finished run in {run}: {command} makes one'
    told = refused.value.traceback.rpartition('-----')[2]
    assert len(told.split('\n\n')) <= 4
