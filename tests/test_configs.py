import functools
import importlib
import inspect
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from absl import flags
from ml_collections import ConfigDict, config_flags

from configs import base
from kd_jax import assembly, data, lineage, parallel, recipes
from kd_jax.data import Dataset, Split
from kd_jax.data.images import Pixels
from kd_jax.data.records import Records
from kd_jax.retrieval.protocols import PROTOCOLS

FOLDER = Path(base.__file__).parent
SHARED = {'base', 'base_factorized', 'base_ksl', 'base_vkd', 'datasets'}
NAMES = sorted({path.stem for path in FOLDER.glob('*.py')} - SHARED)
# ml_collections' own way of opening a config file.
LOADS_MODULES = pytest.mark.filterwarnings('ignore:the load_module:DeprecationWarning')
SUBTREES = sorted(recipes.KEYS - {'seed', 'teachers'})


def module(name):
    return importlib.import_module(f'configs.{name}')


def opened(name, variant=''):
    return module(name).get_config(variant)


def variants(name):
    documented = ['tiny'] if '`:tiny`' in module(name).__doc__ else []
    return ['', 'smoke', *documented]


CASES = [(name, variant) for name in NAMES for variant in variants(name)]
IDS = [':'.join(case).rstrip(':') for case in CASES]
UMTS = [case for case in CASES if case[0].startswith('umts')]


@functools.cache
def fake(protocol):
    """Twenty identities of four images that nobody will look at."""
    pids = np.repeat(np.arange(20), 4)
    numbers = np.arange(80)
    query = Records(numbers.astype(str), pids, numbers % 2, numbers, numbers)
    gallery = query._replace(paths=np.char.add('again', query.paths))
    pixels = Pixels(lambda rows: None, None)
    asking, asked = Split(query, pixels), Split(gallery, pixels)
    rule = PROTOCOLS[protocol]
    gallery = asking if rule.pool else asked
    return Dataset('fake', asking, asking, gallery, '', tracklets=rule.joined)


def assemble(config):
    """The parts of a config, once those of its teachers have been put together."""
    for teacher in config.teachers.values():
        assemble(teacher)
    _check_data(**config.data)
    protocol = config.evaluate.protocol.split(',')[0] if 'evaluate' in config else 'market'
    return assembly.assemble(config, fake(protocol), lineage.teachers(config, Path()))


def _check_data(**options):
    """The data part binds, to `load` and what is left to the reader, without reading anything."""
    bound = inspect.signature(data.load).bind(**options)
    reader = importlib.import_module(f'kd_jax.data.{options["name"]}').read
    inspect.signature(reader).bind(**bound.arguments.get('options', {}))


def plain(config):
    return json.loads(config.to_json())


def test_all_configs_are_here():
    assert {'supervised_carousel', 'supervised_folder', 'umts_carousel', 'umts_cuhk03'} <= set(
        NAMES
    )
    assert {name for name, variant in CASES if variant == 'tiny'} >= {
        'supervised_folder',
        'umts_folder',
    }


@pytest.mark.parametrize('case', CASES, ids=IDS)
def test_every_subtree_binds(case):
    config = opened(*case)
    parts = assemble(config)
    assert parts.course.steps > 0
    assert parts.plan(0).rows.shape == (
        config.sampling.identities * config.sampling.sets,
        config.sampling.shots,
    )


def _networks():
    """Cases that differ in a network, in what it reads or in its method; tracing takes seconds."""
    found = {}
    for case in CASES:
        config = opened(*case)
        size = [config.data[key] for key in ('height', 'width', 'channels')]
        parts = [(one.network, one.method) for one in (config, *config.teachers.values())]
        found.setdefault(repr((size, [[plain(part) for part in pair] for pair in parts])), case)
    return list(found.values())


@pytest.mark.parametrize('case', _networks(), ids=':'.join)
def test_networks_read_their_images(case):
    """Every network of a config, its teachers' too, takes what its config feeds it."""
    config = opened(*case)
    method = assemble(config).method
    batch = recipes.blank_batch(config)
    variables = jax.eval_shape(method.init, jax.random.key(0), batch)
    teachers = {}
    for name, teacher in config.teachers.items():
        init = recipes.network(teacher, classes=20).init
        teachers[name] = jax.eval_shape(init, jax.random.key(0), recipes.blank_input(teacher))
    teach = jax.vmap(method.teach, in_axes=None, axis_name=parallel.AXIS, axis_size=1)
    jax.eval_shape(teach, teachers, batch)
    vectors = jax.eval_shape(method.embed, variables, batch.images)
    assert vectors.shape[0] == 1


@pytest.mark.parametrize('case', CASES, ids=IDS)
def test_configs_survive_json(case):
    config = opened(*case)
    again = ConfigDict(plain(config))
    assert plain(again) == plain(config)
    assert recipes.network(again, 20) == recipes.network(config, 20)
    assemble(again)


@pytest.mark.parametrize('name', NAMES)
def test_docstrings_give_the_command(name):
    assert f'--config=configs/{name}.py' in module(name).__doc__


@pytest.mark.parametrize('name', NAMES)
def test_two_readings_share_nothing(name):
    first, before = opened(name), plain(opened(name))
    first.seed = 77
    first.network.width = 77
    assert plain(opened(name)) == before


@pytest.mark.parametrize('name', NAMES)
def test_wrong_variants(name):
    with pytest.raises(ValueError, match=r"variant 'smok': choose one of smoke"):
        opened(name, 'smok')
    if (name, 'tiny') not in CASES:
        with pytest.raises(ValueError, match="variant 'tiny'"):
            opened(name, 'tiny')


# Misspelt keys.


@pytest.mark.parametrize('subtree', SUBTREES)
@pytest.mark.parametrize('name', ['supervised_carousel', 'umts_carousel'])
def test_a_misspelt_key_is_named(name, subtree):
    config = opened(name, 'smoke')
    config[subtree].misspelt = 1
    with pytest.raises(TypeError, match='misspelt'):
        data.load(**config.data) if subtree == 'data' else assemble(config)


@pytest.mark.parametrize('subtree', SUBTREES)
@pytest.mark.parametrize('name', ['supervised_carousel', 'umts_carousel'])
def test_a_missing_key_is_named(name, subtree):
    """The first key of each part; all have no default in any signature."""
    config = opened(name, 'smoke')
    key = {'network': 'width', 'method': 'feature', 'data': 'height', 'optimizer': 'schedule'}
    key = key.get(subtree, next(iter(config[subtree])))
    del config[subtree][key]
    with pytest.raises(TypeError, match=key):
        data.load(**config.data) if subtree == 'data' else assemble(config)


def test_surplus_and_missing_parts():
    config = opened('umts_carousel', 'smoke')
    config.optimiser = ConfigDict({'name': 'adam'})
    with pytest.raises(TypeError, match=r"missing or surplus: \['optimiser'\]"):
        assemble(config)
    del config.optimiser
    del config.evaluate
    with pytest.raises(TypeError, match=r"missing or surplus: \['evaluate'\]"):
        assemble(config)


# What the configs say.


def test_the_numbers_of_the_paper():
    """UMTS on CUHK03 (AAAI 2020, §4) and, where it is silent, methods.md §1.2."""
    config = opened('umts_cuhk03')
    teacher = config.teachers.teacher
    assert config.data.name == 'cuhk03'
    assert not config.data.detected
    assert (config.data.height, config.data.width) == (256, 128)
    assert config.sampling.identities == 16
    assert config.sampling.sets == 1
    assert config.sampling.shots == 4
    assert config.method.name == 'umts'
    assert tuple(config.method.stages) == (1, 2, 3, 4, 5)
    assert tuple(config.method.weights) == (0.1, 0.1, 0.1, 0.1, 0.5)
    assert tuple(config.method.reductions) == (16, 16, 16, 16, 4)
    assert config.method.uncertainty
    assert not config.method.joint
    assert config.method.teacher_reads == 'stacked'
    assert config.method.teacher_head == 'trained'
    assert not config.method.head_bn_affine
    for one in (config, teacher):
        assert one.method.margin == 0.3
        assert one.method.label_smoothing == 0.1
        assert one.network.name == 'resnet50'
        assert one.network.width == 64
        assert one.network.stem == 'imagenet'
        assert one.network.neck == 'fc_bn_relu'
        assert one.network.last_stride == 1
        assert one.optimizer.name == 'adam'
        assert one.optimizer.learning_rate == 8e-4
        assert one.optimizer.weight_decay == 5e-4
        assert tuple(one.optimizer.boundaries) == (40, 80, 120, 160, 200, 240, 280)
        assert one.optimizer.factor == 0.5
        assert one.optimizer.warmup == 'exponential'
        assert (one.optimizer.warmup_start, one.optimizer.warmup_epochs) == (8e-6, 20)
        assert one.train.epochs == 300
        assert one.train.steps_per_epoch == 0  # from the data: 7,368 images / 64 = 115
        assert one.augment.erase == one.augment.flip == 0.5
        assert one.augment.erase_teacher
        assert one.evaluate.metric == 'euclidean'
    # Scheme C: 16 identities × 4 stacks of 4 shots.
    assert teacher.method.name == 'supervised'
    assert teacher.method.reads == 'stacked'
    assert (teacher.sampling.identities, teacher.sampling.sets, teacher.sampling.shots) == (
        16,
        4,
        4,
    )
    assert (config.evaluate.shots, teacher.evaluate.shots) == (1, 4)
    network = recipes.network(config, classes=767)
    assert network.neck_width == 512


def test_detected_boxes_are_a_data_set_of_their_own():
    labeled, detected = opened('umts_cuhk03'), opened('umts_cuhk03_detected')
    assert detected.data.detected
    assert detected.teachers.teacher.data.detected
    detected.data.detected = False
    assert plain(detected) == plain(labeled)


@pytest.mark.parametrize('case', UMTS, ids=[':'.join(case).rstrip(':') for case in UMTS])
def test_what_is_set_on_the_student_reaches_its_teacher(case):
    config = opened(*case)
    teacher = config.teachers.teacher
    assert plain(teacher.data) == plain(config.data)
    config.seed = 7
    config.data.cache_dir = 'elsewhere'
    config.sampling.shots = 3
    assert teacher.seed == 7
    assert teacher.data.cache_dir == 'elsewhere'
    assert teacher.sampling.shots == teacher.evaluate.shots == 3
    config.evaluate.update(same_camera='keep', metric='cosine', shots_of='image', frames=5)
    scored = {key: value for key, value in teacher.evaluate.items() if key != 'shots'}
    assert scored == {key: value for key, value in config.evaluate.items() if key != 'shots'}
    assert config.sampling.sets == config.evaluate.shots == 1
    if teacher.network.inflate > 1:
        assert teacher.network.inflate == 3


def test_nothing_is_mirrored_that_mirrored_is_another():
    """An identity of ATRW is one flank of a tiger; with flips, the other is one too."""
    config = opened('supervised_atrw')
    assert config.augment.flip == 0
    config.data.flips = True
    recipes.augmentation(config)
    config.augment.flip = 0.5
    with pytest.raises(ValueError, match=r'augment\.flip=0\.5 would show mirrored images'):
        assemble(config)


def on_the_command_line(name, *arguments):
    values = flags.FlagValues()
    argv = ['main', f'--config={FOLDER / name}', *(f'--config.{a}' for a in arguments)]
    holder = config_flags.DEFINE_config_file('config', flag_values=values, sys_argv=argv)
    values(argv)
    return holder.value


@LOADS_MODULES
def test_the_command_line_reaches_the_teacher():
    config = on_the_command_line(
        'umts_cuhk03.py',
        'seed=7',
        'data.root=images',
        'sampling.shots=2',
        'method.margin=0.5',
        'teachers.teacher.train.epochs=3',
    )
    teacher = config.teachers.teacher
    assert config.seed == teacher.seed == 7
    assert config.data.root == teacher.data.root == 'images'
    assert teacher.sampling.shots == teacher.evaluate.shots == 2
    assert (config.method.margin, teacher.method.margin) == (0.5, 0.3)
    assert (config.train.epochs, teacher.train.epochs) == (300, 3)
    longer = on_the_command_line('umts_cuhk03.py', 'train.epochs=60')
    assert (longer.train.epochs, longer.teachers.teacher.train.epochs) == (60, 60)
    assemble(config)


@LOADS_MODULES
@pytest.mark.parametrize('name', ['supervised_carousel.py', 'umts_carousel.py:smoke'])
def test_a_soft_margin_becomes_a_number_on_the_command_line(name):
    assert on_the_command_line(name).method.margin is None
    config = on_the_command_line(name, 'method.margin=0.3')
    assert config.method.margin == 0.3
    if name.startswith('umts'):
        assert config.teachers.teacher.method.margin is None
        config = on_the_command_line(name, 'teachers.teacher.method.margin=0.2')
        assert config.teachers.teacher.method.margin == 0.2
        assert config.method.margin is None


@pytest.mark.parametrize('name', NAMES)
def test_smoke_takes_seconds_and_no_data(name):
    config = opened(name, 'smoke')
    for one in (config, *config.teachers.values()):
        assert one.data.name == 'carousel'
        assert one.data.height * one.data.width <= 1024
        assert one.network.name == 'resnet10'
        assert one.network.width <= 8
        course = recipes.Course(**one.train)
        assert course.steps <= 16
        assert one.sampling.identities * one.sampling.sets * one.sampling.shots <= 32
        assert one.sampling.identities * one.sampling.sets % 4 == 0  # for four devices


def test_an_epoch_of_tracklets_shows_each_once():
    """Not each of their frames, of which MARS has half a million."""
    config, dataset = opened('supervised_mars'), fake('mars')
    config.sampling.update(identities=2, sets=1, shots=1)
    records = dataset.train.records._replace(tracklets=np.arange(80) // 8)
    video = dataset._replace(train=dataset.train._replace(records=records))
    assert recipes.course(config, video).steps_per_epoch == 5
    assert recipes.course(config, video._replace(tracklets=False)).steps_per_epoch == 40
