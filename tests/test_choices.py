import shlex

import pytest

from kd_jax import data
from kd_jax.data import choices, options, prepare

CASES = [
    ('duke_video', 'merge', True),
    ('cuhk03', 'classic_split', 7),
    ('vehicleid', 'sizes', (1600, 2400)),
]


def read(*, root, detected=False, sizes=(800, 1600), word='', split=-1):
    pass


@pytest.mark.parametrize(
    ('given', 'name'),
    [
        ({}, 'default'),
        ({'root': '/x', 'detected': False}, 'default'),
        ({'detected': True}, 'detected_True'),
        ({'sizes': [800, 1600]}, 'default'),
        ({'sizes': (1600,), 'detected': True}, 'detected_True-sizes_1600'),
        ({'word': 'a/b c'}, 'word_a_b_c'),
    ],
)
def test_config_names(given, name):
    assert choices.config_name(read, given) == name
    with pytest.raises(TypeError, match='detectd'):
        choices.config_name(read, {'detectd': True})


@pytest.mark.parametrize(
    ('given', 'flags'),
    [
        ({}, ''),
        ({'root': '/x', 'detected': False, 'sizes': [800, 1600]}, ''),
        ({'sizes': (1600, 2400), 'detected': True}, '--detected=true --sizes=1600,2400 '),
        ({'word': 'a b', 'split': 3}, "--split=3 '--word=a b' "),
    ],
)
def test_commands(given, flags):
    found = choices.command('cuhk03', read, given, 'out/my data')
    flags = f"--dataset=cuhk03 {flags}--manual_dir=DIR '--data_dir=out/my data'"
    assert found == f'python -m kd_jax.data.prepare {flags}'


@pytest.mark.parametrize(('name', 'option', 'value'), CASES)
def test_a_command_is_read_as_it_was_meant(name, option, value):
    """By the parser of readers' options."""
    line = choices.command(name, data.reader(name).read, {option: value}, 'out')
    args = prepare.parsed(shlex.split(line)[3:])
    assert (args.dataset, args.manual_dir, args.data_dir) == (name, 'DIR', 'out')
    assert options.reader_options(args, name)[option] == value
