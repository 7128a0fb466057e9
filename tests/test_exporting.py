"""kd_jax.exporting: the function of a student, what is told of it, and what is not exported."""

import json
import resource
import zipfile
from pathlib import Path

import jax
import numpy as np
import photos
import pytest
import random_trees
import smoke
from exports import SIZE, assert_same, noise, of_run, student_file

from kd_jax import checkpoints, evaluate, export, exporting, own_images, parallel, recipes, runs
from kd_jax.checkpoints import Restored
from kd_jax.runs import RunError


def untrained(config, classes=8):
    """A network of a config with random variables, as if it had been restored."""
    network = recipes.network(config, classes)
    variables = random_trees.random_init(network.init, recipes.blank_input(config))
    return Restored(network, variables, config, 0, Path('run'))


def own(restored, images, shots=1):
    """What evaluation ranks of each image."""
    mesh = parallel.mesh()
    embedded, variables = evaluate.opened(restored, mesh)
    sets = np.repeat(images[:, None], shots, axis=1)
    return np.asarray(embedded(variables, parallel.shard(sets, mesh)))


def test_any_number_of_images_gives_the_embeddings_of_the_run():
    student = export.load(student_file())
    images = noise(13)
    wanted = of_run(images)
    for count in (1, 2, 5, 13):
        assert_same(student(images[:count]), wanted[:count])
    assert_same(student(jax.numpy.asarray(images)), wanted)


def test_one_function_is_for_all_platforms_and_batches():
    written = zipfile.ZipFile(student_file()).read('function')
    function = jax.export.deserialize(bytearray(written))
    assert function.platforms == ('cpu', 'cuda', 'tpu')
    assert [str(value) for value in function.in_avals] == ['uint8[b,32,16,3]']
    assert [str(value) for value in function.out_avals] == ['float32[b,32]']


@pytest.mark.parametrize('name', ['vkd_carousel', 'ksl_carousel', 'factorized_carousel'])
def test_students_of_the_other_methods(name):
    restored = checkpoints.restore_network(smoke.finished(name))
    found = exporting.function_of(restored, 1).call(noise(4))
    assert_same(found, own(restored, noise(4)))


def test_grey_images_and_another_feature():
    config = smoke.config('supervised_carousel')
    changes = {'network.conv': 'auto', 'method.feature': 'neck', 'data.channels': 1}
    config.update_from_flattened_dict(changes)
    restored, images = untrained(config), noise(4, (*SIZE[:2], 1))
    found = exporting.function_of(restored, 1).call(images)
    assert_same(found, own(restored, images))


@pytest.mark.parametrize('name', ['mobilenet_v2', 'resnet50bam'])
def test_other_backbones(name):
    config = smoke.config('supervised_carousel')
    config.network.update(name=name, neck='fc_bn_relu', neck_width=8)
    restored = untrained(config)
    assert_same(exporting.function_of(restored, 1).call(noise(4)), own(restored, noise(4)), 5e-6)


def test_bfloat16_and_parts_of_an_image():
    config = smoke.config('factorized_carousel').teachers.part0
    config.network.dtype = 'bfloat16'
    restored = untrained(config)
    function = exporting.function_of(restored, 1)
    assert_same(function.call(noise(4)), own(restored, noise(4)), exporting.COARSE)


def test_a_network_of_several_shots_is_shown_each_image_several_times(tmp_path):
    run, file = smoke.finished() / 'teachers' / 'teacher', tmp_path / 'teacher.zip'
    told = exporting.run(run, 'last', file)
    assert 'reads uint8[b, 32, 16, 3], each image 2 times; gives float32[b, 32]' in told
    found = export.load(file)(noise(4))
    assert_same(found, of_run(np.concatenate([noise(4)] * 2, axis=-1), run))
    assert_same(found, own(checkpoints.restore_network(run), noise(4), shots=2))


def test_the_classifier_stays_behind():
    few, many = (untrained(smoke.config('supervised_carousel'), n) for n in (8, 10_000))
    sizes = [len(exporting.function_of(one, 1).serialize()) for one in (few, many)]
    assert sizes[0] == sizes[1]


# The file, and what is told of it.


def test_what_is_told():
    file = student_file()
    told = file.with_name('told.txt')
    head, parameters, shapes, _, heads, *rows = told.read_text().splitlines()
    megabytes = file.stat().st_size / 1e6
    assert head == f'{file}: step 8 of {smoke.finished()}, {megabytes:.2f} MB'
    assert parameters == '19,604 parameters, without the classifier'
    assert shapes == 'reads uint8[b, 32, 16, 3]; gives float32[b, 32]; on cpu, cuda, tpu'
    assert heads == 'batch   difference from the run   ms per image (cpu)'
    assert [int(row.split()[0]) for row in rows] == [1, 8, 32]
    assert all(float(row.split()[1]) <= 1e-6 and float(row.split()[2]) > 0 for row in rows)
    assert {*file.parent.iterdir()} == {file, told}


def test_facts_are_those_of_embeddings_by_the_run():
    student = export.load(student_file())
    facts, network = student.facts, own_images.opened(smoke.finished(), 'last')
    assert {key: facts[key] for key in network.facts} == network.facts
    assert student.size == tuple(facts['size']) == SIZE
    assert (facts['width'], facts['resize'], facts['parameters']) == (32, 'bilinear', 19_604)
    assert facts['network'] == smoke.config().network.to_dict()
    assert facts['versions']['jax'] == jax.__version__
    assert json.loads(zipfile.ZipFile(student_file()).read('facts.json')) == facts


def test_the_best_checkpoint_is_another(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, 'BATCHES', (2,))
    run = smoke.copy(photos.run(), tmp_path / 'run')
    runs.write_json(run / 'result.json', {})
    found = {which: tmp_path / f'{which}.zip' for which in checkpoints.WHICH}
    for which, file in found.items():
        exporting.run(run, which, file)
    last, best = (export.load(file) for file in found.values())
    assert (last.facts['step'], best.facts['step']) == (8, 4)
    assert_same(last(noise(2)), of_run(noise(2), run))
    assert np.abs(last(noise(2)) - best(noise(2))).max() > 0.01


# What is refused.


def test_files_are_never_written_over(tmp_path):
    for name in ('a.zip', 'a.safetensors', 'folder.zip'):
        out = tmp_path / name
        out.mkdir() if 'folder' in name else out.write_text('mine')
        with pytest.raises(RunError, match=f'{out} exists, and is left as it is'):
            exporting.run(smoke.finished(), 'last', out)
    assert smoke.files(tmp_path) == {'a.zip': b'mine', 'a.safetensors': b'mine'}


def test_runs_that_are_none_or_not_finished(tmp_path):
    out = tmp_path / 'new' / 'a.zip'
    with pytest.raises(RunError, match=f'{tmp_path} is no run'):
        exporting.run(tmp_path, 'last', out)
    with pytest.raises(RunError, match=f'{photos.run()} is not finished'):
        exporting.run(photos.run(), 'last', out)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(('change', 'told'), [(1.01, r'\d\.\de-0\d'), (np.nan, 'nan')])
def test_a_file_that_does_not_embed_as_the_run_is_not_kept(tmp_path, monkeypatch, change, told):
    made = exporting.function_of

    def other(restored, shots):
        kernels = jax.tree.map(lambda leaf: leaf * change, restored.variables['params'])
        return made(restored._replace(variables=restored.variables | {'params': kernels}), shots)

    monkeypatch.setattr(exporting, 'function_of', other)
    monkeypatch.setattr(exporting, 'BATCHES', (2,))
    message = f'embeds 2 images otherwise than the run, by {told} of .* where 1e-04 is allowed'
    with pytest.raises(RunError, match=message):
        exporting.run(smoke.finished(), 'last', tmp_path / 'a.zip')
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('name', ['student.zip', 'student.safetensors'])
def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch, name):
    """No file may get larger than some bytes; the command tells an OSError in a line."""
    function = jax.export.deserialize(bytearray(zipfile.ZipFile(student_file()).read('function')))
    monkeypatch.setattr(exporting, 'function_of', lambda *_: function)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, before[1]))
    try:
        with pytest.raises(OSError, match='File too large'):
            exporting.run(smoke.finished(), 'last', tmp_path / name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []
