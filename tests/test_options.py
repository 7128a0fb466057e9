"""A reader's options on a command line: types by their defaults."""

import argparse
from types import SimpleNamespace

import pytest

from kd_jax import data
from kd_jax.data import check, options
from kd_jax.data.records import DataError


def read(*, root, detected=False, flip=True, camera=3, ratio=0.5, release='v1', sizes=(800, 1600)):
    """Splits of it all."""


@pytest.fixture
def reader(monkeypatch):
    monkeypatch.setattr(data, 'reader', lambda name: SimpleNamespace(read=read))


def values(*arguments):
    parser = argparse.ArgumentParser(allow_abbrev=False)
    options.add_reader_options(parser, 'any')
    return options.reader_options(parser.parse_args(arguments), 'any')


DEFAULTS = {'detected': False, 'flip': True, 'camera': 3, 'ratio': 0.5, 'release': 'v1'}
DEFAULTS |= {'sizes': (800, 1600)}


def test_defaults(reader):
    assert values() == DEFAULTS == options.reader_defaults('any')


@pytest.mark.parametrize(
    ('argument', 'expected'),
    [
        ('--detected', {'detected': True}),
        ('--detected=true', {'detected': True}),
        ('--detected=False', {'detected': False}),
        ('--flip=false', {'flip': False}),
        ('--camera=-1', {'camera': -1}),
        ('--ratio=0.25', {'ratio': 0.25}),
        ('--release=v2', {'release': 'v2'}),
        ('--sizes=2400', {'sizes': (2400,)}),
        ('--sizes=800,2400,', {'sizes': (800, 2400)}),
        ('--sizes=', {'sizes': ()}),
    ],
)
def test_values(reader, argument, expected):
    found = values(argument)
    assert found == {**DEFAULTS, **expected}
    assert all(type(found[key]) is type(DEFAULTS[key]) for key in found)


@pytest.mark.parametrize(
    ('argument', 'words'),
    [
        ('--detected=yes', "argument --detected: 'yes': choose true or false"),
        ('--sizes=800;1600', "argument --sizes: '800;1600': give them like 800,1600"),
        ('--camera=front', "argument --camera: invalid int value: 'front'"),
        ('--root=x', 'unrecognized arguments: --root=x'),
        ('--detect', 'unrecognized arguments: --detect'),
    ],
)
def test_refused_values(reader, capsys, argument, words):
    with pytest.raises(SystemExit) as exit:
        values(argument)
    assert exit.value.code == 2
    assert words in capsys.readouterr().err


def test_help_lists_the_options_and_what_the_reader_says(reader, capsys):
    with pytest.raises(SystemExit):
        values('--help')
    text = ' '.join(capsys.readouterr().out.split())
    assert 'options of any: Splits of it all.' in text
    assert '--detected [true|false] by default false' in text
    assert '--sizes A,B,... by default 800,1600' in text
    assert '--root' not in text


def test_a_flag_of_the_command_does_not_meet_an_option_inside(reader):
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument('--where', dest='camera')
    options.add_reader_options(parser, 'any')
    args = parser.parse_args(['--where=here', '--camera=7'])
    assert args.camera == 'here'
    assert options.reader_options(args, 'any')['camera'] == 7


@pytest.mark.parametrize(
    ('arguments', 'name'),
    [
        (['--dataset=folder', '--root=x', '--other=3'], 'folder'),
        (['--shots', '3', '--dataset', 'carousel'], 'carousel'),
        (['--root=x'], ''),
        (['--data=folder'], ''),
        (['--dataset'], ''),
    ],
)
def test_name_of_the_data_set(arguments, name):
    assert options.named(arguments) == name


def test_unknown_data_set():
    with pytest.raises(ValueError, match=r"name='nothing': .*carousel.*folder"):
        options.named(['--dataset=nothing'])


def test_needs_root():
    assert options.needs_root('folder')
    assert not options.needs_root('carousel')


@pytest.mark.parametrize('name', data.readers())
def test_options_of_every_reader_stand_beside_those_of_the_command(name):
    root = ['--root=x'] if options.needs_root(name) else []
    args = check.parsed([f'--dataset={name}', *root])
    assert options.reader_options(args, name) == options.reader_defaults(name)


@pytest.mark.parametrize('kind', [DataError, ValueError])
def test_remedies_name_the_flags_of_the_command(kind):
    """And leave alone what only looks like one."""
    text = 'evaluate.csv: set --config.data.version=v2, evaluate.protocol or --config.evaluate.'
    with pytest.raises(kind) as told, options.own_flags():
        raise kind(f'{text}same_camera=keep')
    assert str(told.value) == ('evaluate.csv: set --version=v2, --protocol or --same_camera=keep')
