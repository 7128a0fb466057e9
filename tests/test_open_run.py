"""kd_jax.open_run: a run as a notebook wants it."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import smoke

import kd_jax
from kd_jax import checkpoints, data, embedding, evaluate, opened, parallel, runs
from kd_jax.retrieval import items
from kd_jax.runs import RunError

STUDENT, T_NET = 'umts_carousel', 'umts_carousel/teachers/teacher'


def run_of(name):
    top, *below = name.split('/')
    return smoke.finished(top).joinpath(*below)


def images(count, height=32, width=16, seed=0):
    shape = (count, height, width, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.fixture(scope='module')
def run():
    return kd_jax.open_run(smoke.finished(STUDENT))


def test_what_is_known_of_a_run(run):
    path = smoke.finished(STUDENT)
    restored = checkpoints.restore_network(path)
    assert run.config.to_json() == restored.config.to_json()
    assert (run.path, run.network, run.step) == (path, restored.network, 8)
    assert run.result == smoke.result(path)
    jax.tree.map(np.testing.assert_array_equal, run.variables, restored.variables)
    outputs = run.network.apply(run.variables, jnp.zeros((1, 32, 16, 3)))
    assert len(outputs.stages) == 4
    assert repr(run) == f"Run('{path}': umts, resnet10, step 8)"
    assert kd_jax.open_run(str(path)).step == 8


def test_metrics_are_columns(run):
    rows = smoke.rows(smoke.finished(STUDENT))
    found = run.metrics
    assert next(iter(found)) == 'step'
    assert found['step'].tolist() == sorted({row['step'] for row in rows})
    assert found['loss'].tolist() == [row['loss'] for row in rows if 'loss' in row]
    scored = {row['step']: row['evaluation']['mAP'] for row in rows if 'evaluation' in row}
    at = dict(zip(found['step'].tolist(), found['evaluation/mAP'].tolist()))
    assert {step: mAP for step, mAP in at.items() if not np.isnan(mAP)} == scored
    assert {str(column.dtype) for name, column in found.items() if name != 'step'} == {'float64'}
    assert {len(column) for column in found.values()} == {len(found['step'])}


def test_columns_of_several_protocols_and_of_none():
    also = {'mAP': 0.2, 'protocol': 'i2v', 'also': []}
    rows = [
        {'step': 1, 'loss': 2.0},
        {'step': 1, 'evaluation': {'mAP': 0.1, 'protocol': 'market', 'also': [also]}},
        {'step': 2, 'loss': 1.0, 'late': 3},
    ]
    found = opened.columns(rows)
    names = ['step', 'loss', 'evaluation/mAP', 'evaluation/i2v/mAP', 'late']
    assert list(found) == names
    expected = [[1, 2], [2, 1], [0.1, np.nan], [0.2, np.nan], [np.nan, 3]]
    for name, column in zip(names, expected):
        np.testing.assert_array_equal(found[name], column)
    assert {name: column.tolist() for name, column in opened.columns([]).items()} == {'step': []}


@pytest.mark.parametrize('name', [STUDENT, T_NET, 'vkd_carousel', 'ksl_carousel'])
def test_embeddings_are_those_that_evaluation_ranks(name):
    """A T-net reads each image as many times as it has shots."""
    path = run_of(name)
    restored, mesh = checkpoints.restore_network(path), parallel.mesh()
    config = restored.config
    query, gallery = data.load(**config.data).tests()['']
    test = items.together(query.records, gallery.records)
    rows = embedding.shots_of(test, config.evaluate.shots, 'image', 0)
    embedded, variables = evaluate.opened(restored, mesh)
    read = embedding.reader(query, gallery)
    ranked = embedding.embed_rows(
        lambda x: embedded(variables, x), read, rows, config.evaluate.batch, mesh
    )
    found = kd_jax.open_run(path).embed(read(np.arange(len(rows))))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, ranked, rtol=0, atol=1e-6)


@pytest.mark.parametrize('name', [STUDENT, T_NET])
def test_batches_of_any_size(name, monkeypatch):
    found = kd_jax.open_run(run_of(name))
    found.config.evaluate.batch = 8
    shown = images(19)
    whole = found.embed(shown)
    for size in (1, 3, 8):
        parts = [found.embed(shown[first : first + size]) for first in range(0, 19, size)]
        np.testing.assert_allclose(np.concatenate(parts), whole, rtol=0, atol=1e-6)
    assert found.embed(shown[:0]).shape == (0, whole.shape[1])


def test_images_of_jax_are_images(run):
    shown = images(2)
    np.testing.assert_array_equal(run.embed(jnp.asarray(shown)), run.embed(shown))


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        (images(2, 48, 24), r'images of shape \(2, 48, 24, 3\): .* reads \(b, 32, 16, 3\)'),
        (images(1)[0], r'images of shape \(32, 16, 3\): .* reads \(b, 32, 16, 3\)'),
        (images(2)[..., :1], r'images of shape \(2, 32, 16, 1\)'),
        (images(2)[None], r'images of shape \(1, 2, 32, 16, 3\)'),
        (images(2).transpose(0, 3, 1, 2), r'images of shape \(2, 3, 32, 16\)'),
        (images(2) / 255, 'images of float64: .* reads uint8, from 0 to 255'),
        (images(2).astype(int), 'images of int64: '),
        ([], r'images of shape \(0,\)'),
    ],
)
def test_other_images_are_refused(run, given, message):
    with pytest.raises(ValueError, match=message):
        run.embed(given)


def test_the_last_or_the_best_checkpoint_of_a_run_that_is_not_finished(tmp_path):
    variables = smoke.planted(tmp_path)
    for which, step in (('last', 8), ('best', 4)):
        found = kd_jax.open_run(tmp_path, which)
        assert (found.step, found.result, len(found.metrics['step'])) == (step, None, 0)
        jax.tree.map(np.testing.assert_array_equal, found.variables, variables[step])
    with pytest.raises(ValueError, match="checkpoint='first': choose one of last, best"):
        kd_jax.open_run(tmp_path, 'first')


def test_runs_that_are_none(tmp_path):
    with pytest.raises(RunError, match=f'{tmp_path} is no run: it has no config.json'):
        kd_jax.open_run(tmp_path)
    (tmp_path / 'config.json').write_text(json.dumps({'model': 'other'}))
    with pytest.raises(RunError, match='is no run of kd_jax'):
        kd_jax.open_run(tmp_path)
    begun = tmp_path / 'begun'
    runs.start(begun, smoke.config('supervised_carousel'), {'classes': 8, 'data': ''})
    with pytest.raises(RunError, match=f'{begun} has no checkpoint: train it first'):
        kd_jax.open_run(begun)


def test_importing_the_package_imports_neither_jax_nor_tensorflow():
    code = 'import kd_jax, sys; print(sorted({"jax", "numpy", "tensorflow"} & set(sys.modules)))'
    command = [sys.executable, '-c', code]
    done = subprocess.run(command, cwd=smoke.ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == '[]\n'


@pytest.mark.parametrize(
    'key', ['method.feature', 'data.channels', 'data.resize', 'sampling.shots', 'evaluate.batch']
)
def test_a_config_of_another_version_is_told(tmp_path, key):
    """Whichever part of it lacks a key."""
    smoke.planted(tmp_path)
    locked = json.loads((tmp_path / 'config.json').read_text())
    part, name = key.split('.')
    del locked['config'][part][name]
    (tmp_path / 'config.json').write_text(json.dumps(locked))
    with pytest.raises(RunError, match=rf'config\.json is of another version of kd_jax: .*{name}'):
        kd_jax.open_run(tmp_path).embed(np.zeros((1, 32, 16, 3), np.uint8))
