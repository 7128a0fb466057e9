"""kd_jax.export: the file of a student, with and without kd_jax, and what is refused."""

import json
import os
import subprocess
import sys
import zipfile

import jax
import numpy as np
import photos
import pytest
import random_trees
import smoke
from safetensors import safe_open

from kd_jax import checkpoints, evaluate, export, exporting, own_images, parallel, recipes, runs
from kd_jax.checkpoints import Restored
from kd_jax.networks import pretrained, state_dicts, torch_names
from kd_jax.runs import RunError

COMMAND = '-m', 'kd_jax.export'
SIZE = 32, 16, 3


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    """The file of a UMTS student, and what was told of it."""
    file = tmp_path_factory.mktemp('exported') / 'new' / 'student.zip'
    return file, exporting.run(smoke.finished(), 'last', file)


@pytest.fixture(scope='module')
def student(exported):
    return export.load(exported[0])


def noise(count, size=SIZE, seed=1):
    return np.random.default_rng(seed).integers(0, 256, (count, *size), np.uint8)


def of_run(images, run=None):
    """A run's own embeddings, by its network alone; several shots are stacked."""
    restored = checkpoints.restore_network(run or smoke.finished())
    shots = images.shape[-1] // 3
    mean, std = [0.485, 0.456, 0.406] * shots, [0.229, 0.224, 0.225] * shots
    pixels = (images / 255.0 - mean) / std
    found = jax.jit(restored.network.apply)(restored.variables, pixels.astype(np.float32))
    return np.asarray(found.embedding)


def assert_same(found, wanted, limit=1e-6):
    assert found.dtype == np.float32
    assert found.shape == wanted.shape
    assert exporting.difference(np.asarray(found), wanted) <= limit


def untrained(config, classes=8):
    """A network of a config with random variables, as if it had been restored."""
    network = recipes.network(config, classes)
    variables = random_trees.random_init(network.init, recipes.blank_input(config))
    return Restored(network, variables, config, 0)


def own(restored, images, shots=1):
    """What evaluation ranks of each image."""
    mesh = parallel.mesh()
    embedded, variables = evaluate.opened(restored, mesh)
    sets = np.repeat(images[:, None], shots, axis=1)
    return np.asarray(embedded(variables, parallel.shard(sets, mesh)))


# What the function is.


def test_any_number_of_images_gives_the_embeddings_of_the_run(student):
    images = noise(13)
    wanted = of_run(images)
    for count in (1, 2, 5, 13):
        assert_same(student(images[:count]), wanted[:count])
    assert_same(student(jax.numpy.asarray(images)), wanted)


def test_one_function_is_for_all_platforms_and_batches(exported):
    written = zipfile.ZipFile(exported[0]).read('function')
    function = jax.export.deserialize(bytearray(written))
    assert function.platforms == ('cpu', 'cuda', 'tpu')
    assert [str(value) for value in function.in_avals] == ['uint8[b,32,16,3]']
    assert [str(value) for value in function.out_avals] == ['float32[b,32]']


METHODS = {
    'vkd_carousel': {},
    'ksl_carousel': {},
    'factorized_carousel': {},
    'supervised_carousel': {'network.conv': 'auto', 'method.feature': 'neck', 'data.channels': 1},
}


@pytest.mark.parametrize('name', METHODS)
def test_students_of_every_method(name):
    config = smoke.config(name)
    config.update_from_flattened_dict(METHODS[name])
    restored = untrained(config)
    images = noise(4, (*SIZE[:2], config.data.channels))
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


def test_what_is_told(exported):
    file, told = exported
    head, parameters, shapes, _, heads, *rows = told.splitlines()
    megabytes = file.stat().st_size / 1e6
    assert head == f'{file}: step 8 of {smoke.finished()}, {megabytes:.2f} MB'
    assert parameters == '19,604 parameters, without the classifier'
    assert shapes == 'reads uint8[b, 32, 16, 3]; gives float32[b, 32]; on cpu, cuda, tpu'
    assert heads == 'batch   difference from the run   ms per image (cpu)'
    assert [int(row.split()[0]) for row in rows] == [1, 8, 32]
    assert all(float(row.split()[1]) <= 1e-6 and float(row.split()[2]) > 0 for row in rows)
    assert list(file.parent.iterdir()) == [file]


def test_facts_are_those_of_embeddings_by_the_run(exported, student):
    facts, network = student.facts, own_images.opened(smoke.finished(), 'last')
    assert {key: facts[key] for key in network.facts} == network.facts
    assert student.size == tuple(facts['size']) == SIZE
    assert (facts['width'], facts['resize'], facts['parameters']) == (32, 'bilinear', 19_604)
    assert facts['network'] == smoke.config().network.to_dict()
    assert facts['versions']['jax'] == jax.__version__
    assert json.loads(zipfile.ZipFile(exported[0]).read('facts.json')) == facts


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


# Without kd_jax.

BLOCKED = """
import sys
from importlib.machinery import PathFinder

find = PathFinder.find_spec
blocked = sys.argv.pop().split()

def find_spec(name, path=None, target=None):
    return None if name in blocked else find(name, path, target)

PathFinder.find_spec = staticmethod(find_spec)
import numpy as np
FILE, images, out = sys.argv[1], np.load(sys.argv[2]), sys.argv[3]
"""
KEPT = """
try:
    import kd_jax
except ImportError:
    np.save(out, embeddings)
"""


def elsewhere(tmp_path, code, blocked, *, path=''):
    """What Python makes of a file and some images in another directory, without some modules."""
    return subprocess.run(
        [sys.executable, '-W', 'error', '-c', BLOCKED + code, *map(str, tmp_path), blocked],
        cwd=tmp_path[2].parent,
        env=os.environ | {'PYTHONPATH': path},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ('code', 'blocked', 'path'),
    [
        (None, 'kd_jax flax orbax jaxtyping', ''),
        (
            'from kd_jax import export\n'
            'np.save(out, export.load(FILE)(images))\n'
            'assert not [name for name in sys.modules if name.startswith("kd_jax.")'
            ' and name != "kd_jax.export"]',
            'flax orbax optax ml_collections',
            str(smoke.ROOT),
        ),
    ],
    ids=['documented lines', 'load'],
)
def test_a_file_is_loaded_without_the_code_of_its_model(exported, tmp_path, code, blocked, path):
    """The lines are those of the module's docstring."""
    lines = [line for line in export.__doc__.splitlines() if line.startswith('    ')]
    assert len(lines) == 3
    code = code or '\n'.join(line.strip() for line in lines) + KEPT
    images, out = tmp_path / 'images.npy', tmp_path / 'embeddings.npy'
    np.save(images, noise(7))
    done = elsewhere((exported[0], images, out), code, blocked, path=path)
    assert done.returncode == 0, done.stderr
    assert_same(np.load(out), of_run(noise(7)))


# What is refused.


@pytest.mark.parametrize(
    ('images', 'given'),
    [
        (noise(2, (16, 32, 3)), r'uint8\[2, 16, 32, 3\]'),
        (noise(2, (32, 16, 1)), r'uint8\[2, 32, 16, 1\]'),
        (noise(1)[0], r'uint8\[32, 16, 3\]'),
        (noise(0), r'uint8\[0, 32, 16, 3\]'),
        (noise(2).astype(np.float32), r'float32\[2, 32, 16, 3\]'),
        (noise(2).astype(np.int64), r'int64\[2, 32, 16, 3\]'),
    ],
)
def test_images_of_other_sizes_and_dtypes(student, images, given):
    message = rf'student\.zip reads uint8\[b, 32, 16, 3\], b at least 1, but was given {given}$'
    with pytest.raises(ValueError, match=message):
        student(images)


def rezipped(**members):
    def change(file):
        with zipfile.ZipFile(file) as archive:
            kept = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(file, 'w') as archive:
            for name, content in {**kept, **members}.items():
                if content is not None:
                    archive.writestr(name, content)

    return change


def flipped(place):
    """A bit of the function, or so many bytes before the end."""

    def change(file):
        content = bytearray(file.read_bytes())
        content[place] ^= 4
        file.write_bytes(content)

    return change


DAMAGES = {
    'empty': lambda file: file.write_bytes(b''),
    'half': lambda file: file.write_bytes(file.read_bytes()[:50_000]),
    'bit of the function': flipped(60_000),
    'bit of the directory': flipped(-30),
    'of something else': lambda file: file.write_bytes(b'mine'),
    'another zip': rezipped(function=None, **{'facts.json': None, 'mine.txt': b''}),
    'no function': rezipped(function=None),
    'facts of something else': rezipped(**{'facts.json': '[1]'}),
    'facts that are none': rezipped(**{'facts.json': '{'}),
}


@pytest.mark.parametrize('damage', DAMAGES)
def test_damaged_files_and_those_of_others(exported, tmp_path, damage):
    file = tmp_path / 'student.zip'
    file.write_bytes(exported[0].read_bytes())
    export.load(file)
    DAMAGES[damage](file)
    with pytest.raises(ValueError, match=f'{file} is damaged, or no student by kd_jax.export'):
        export.load(file)


def test_files_that_jax_cannot_read_or_that_are_not_there(exported, tmp_path):
    file = tmp_path / 'student.zip'
    file.write_bytes(exported[0].read_bytes())
    rezipped(function=b'of another jax')(file)
    message = f'{file}, written by jax {jax.__version__}, cannot be read by jax .*export the run'
    with pytest.raises(ValueError, match=message):
        export.load(file)
    for missing in (tmp_path, tmp_path / 'none.zip'):
        with pytest.raises(ValueError, match=f'{missing}: no such file'):
            export.load(missing)


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


@pytest.mark.parametrize('suffix', ['.pth', '.pt', '.npz'])
def test_weights_in_other_files(tmp_path, suffix):
    out = tmp_path / f'a{suffix}'
    with pytest.raises(RunError, match=f'{out}: weights are written to files .safetensors'):
        exporting.run(smoke.finished(), 'last', out)
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


# PyTorch's names.


@pytest.mark.parametrize('part', ['.', 'teachers/teacher'])
def test_tensors_are_read_again_bit_for_bit(tmp_path, part):
    file, run = tmp_path / 'a.safetensors', smoke.finished() / part
    told = exporting.run(run, 'last', file)
    restored = checkpoints.restore_network(run)
    blank = jax.tree.map(np.zeros_like, restored.variables)
    found = pretrained.load(restored.network, blank, file, classifier=True)
    jax.tree.map(np.testing.assert_array_equal, found, restored.variables)
    with safe_open(file, 'np') as opened:
        names, metadata = list(opened.keys()), opened.metadata()
    assert 'layer1.0.conv1.weight' in names
    assert told.splitlines()[1].startswith(f'{len(names)} tensors of resnet10, in PyTorch’s names')
    assert (metadata['step'], metadata['run']) == ('8', str(run))
    assert json.loads(metadata['network'])['name'] == 'resnet10'
    assert list(tmp_path.iterdir()) == [file]


def test_tensors_of_a_run_that_is_not_finished(tmp_path):
    """Of the checkpoint that was asked for, while the run goes on."""
    found = {which: tmp_path / f'{which}.safetensors' for which in checkpoints.WHICH}
    for which, file in found.items():
        exporting.run(photos.run(), which, file)
    kernels = [state_dicts.read(file)['conv1.weight'] for file in found.values()]
    wanted = [
        checkpoints.restore_network(photos.run(), which).variables['params']['conv1']['kernel']
        for which in found
    ]
    for kernel, one in zip(kernels, wanted):
        np.testing.assert_array_equal(kernel, torch_names.to_torch(np.asarray(one)))
    assert not np.array_equal(*kernels)


def test_a_network_without_names_in_pytorch_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_names, 'RULES', {})
    with pytest.raises(RunError, match='resnet10 has no names in PyTorch'):
        exporting.run(smoke.finished(), 'last', tmp_path / 'a.safetensors')
    assert list(tmp_path.iterdir()) == []


def test_tensors_that_are_read_otherwise_are_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, 'load', lambda network, blank, *_, **__: blank)
    with pytest.raises(RunError, match='65 tensors were not read as they were written'):
        exporting.run(smoke.finished(), 'last', tmp_path / 'a.safetensors')
    assert list(tmp_path.iterdir()) == []


def test_the_command_line(tmp_path):
    run, out = smoke.finished(), tmp_path / 'new' / 'student.zip'
    done, none, word = smoke.ended(
        smoke.python(*COMMAND, f'--run={run}', f'--out={out}'),
        smoke.python(*COMMAND, f'--run={tmp_path}/nowhere', f'--out={tmp_path}/a.zip'),
        smoke.python(*COMMAND, f'--run={run}', f'--out={tmp_path}/a.zip', '--checkpoint=first'),
    )
    assert (done[0], len(done[1].splitlines())) == (0, 8)
    assert done[1].startswith(f'{out}: step 8 of {run}, ')
    assert_same(export.load(out)(noise(3)), of_run(noise(3)))
    message = f'kd_jax: {tmp_path}/nowhere is no run: it has no config.json\n'
    assert none == (1, '', message)
    assert word[0] == 1
    assert 'last|best' in word[2]
    assert [path.name for path in tmp_path.iterdir()] == ['new']
