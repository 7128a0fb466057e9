"""Imports run one way, and TensorFlow is needed by nothing but the feeds that read ahead."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = [
    {'export', 'losses', 'views', 'networks', 'trees', 'parallel', 'retrieval', 'data'},
    {'clock', 'preemption', 'runs', 'hosts', 'damage', 'locking', 'retention'},
    {'heads', 'optimizers', 'methods', 'recipes', 'checkpoints', 'command', 'results'},
    {'beside', 'embedding', 'embeddings', 'leaf_table', 'lineage', 'logs', 'ranklist', 'stacked'},
    {'calibrate', 'differences', 'index', 'scoring'},
    {'comparison', 'evaluate', 'assembly', 'inspect'},
    {'analysis', 'keeping', 'loop', 'opened', 'own_images'},
    {'embed', 'exporting', 'search'},
    {'train'},
    {'main'},
]
FLOOR = {name: height for height, names in enumerate(FLOORS) for name in names}
SOURCES = {
    path.relative_to(ROOT / 'kd_jax'): path.read_text() for path in (ROOT / 'kd_jax').rglob('*.py')
}

TENSORFLOW = {'tensorflow', 'tensorflow_datasets'}

# As if neither TensorFlow package were installed; who looks for one is kept.
WITHOUT_TENSORFLOW = """
import sys
from importlib.machinery import PathFinder

asked, find = [], PathFinder.find_spec

def find_spec(name, path=None, target=None):
    if name.split('.')[0] in ('tensorflow', 'tensorflow_datasets'):
        asked.append(name)
        return None
    return find(name, path, target)

PathFinder.find_spec = staticmethod(find_spec)
"""


def imported(source):
    """The top names of kd_jax that a source imports, wherever in it and in whatever form."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, 'relative import'
            below = node.module == 'kd_jax'
            names |= {f'kd_jax.{a.name}' for a in node.names} if below else {node.module}
    return {name.split('.')[1] for name in names if name.startswith('kd_jax.')}


def without_command(source):
    """A source without its function `main`: a command stands on the top floor."""
    tree = ast.parse(source)
    tree.body = [n for n in tree.body if not isinstance(n, ast.FunctionDef) or n.name != 'main']
    return ast.unparse(tree)


def upward(module, source):
    """What a module imports from floors above its own, not counting its command."""
    return {n for n in imported(without_command(source)) if FLOOR[n] > FLOOR[module]}


def module_of(path):
    """Which name has the floor that a file stands on."""
    return 'main' if path.name == '__main__.py' else path.parts[0].removesuffix('.py')


def python(code, *arguments):
    """What Python prints as its last line, in the repository's root and without TensorFlow."""
    command = [sys.executable, '-W', 'ignore', '-c', WITHOUT_TENSORFLOW + code, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_every_file_is_on_a_floor():
    assert {path.parts[0].removesuffix('.py') for path in SOURCES} == {*FLOOR, '__init__'}


@pytest.mark.parametrize('path', SOURCES, ids=str)
def test_imports_point_down(path):
    module = module_of(path)
    if module == '__init__':
        assert imported(SOURCES[path]) == {'opened'}  # when called; test_open_run sees to it
    else:
        assert upward(module, SOURCES[path]) == set()


@pytest.mark.parametrize(
    'source',
    [
        'import kd_jax.train',
        'import os, kd_jax.train as t',
        'from kd_jax import losses, train',
        'from kd_jax.train import run',
        'def f():\n    if f:\n        from kd_jax import train',
        'from kd_jax import train\ndef main():\n    train.run()',
        'class A:\n    def main(self):\n        from kd_jax import train',
    ],
)
def test_the_walk_sees_an_upward_arrow(source):
    assert upward('evaluate', source) == {'train'}
    assert upward('train', source) == set()


def test_a_command_stands_on_the_top_floor():
    """A function `main` may import what the rest of its file must not, and a __main__.py too."""
    command = 'def main():\n    from kd_jax import train\n'
    assert upward('losses', command) == set()
    assert upward('losses', command + 'from kd_jax import evaluate') == {'evaluate'}
    assert module_of(Path('networks/__main__.py')) == 'main'
    assert module_of(Path('networks/cost.py')) == 'networks'
    assert module_of(Path('main.py')) == 'main'


def test_tensorflow_is_imported_by_feeds_and_builders_only():
    """And there only when called."""
    for path, source in SOURCES.items():
        tree = ast.parse(source)
        lines = {n.lineno for n in ast.walk(tree) if TENSORFLOW & _names(n)}
        if str(path) in ('data/pipeline.py', 'data/builders.py'):
            lines = {node.lineno for node in tree.body if TENSORFLOW & _names(node)}
        assert not lines, path


def _names(node):
    if isinstance(node, ast.Import):
        return {alias.name.split('.')[0] for alias in node.names}
    return {node.module.split('.')[0]} if isinstance(node, ast.ImportFrom) else set()


def test_importing_asks_for_no_tensorflow():
    code = 'import kd_jax.train, kd_jax.methods.umts, kd_jax.retrieval.ranking\nprint(asked)'
    assert python(code) == '[]'
    with pytest.raises(AssertionError, match="No module named 'tensorflow'"):
        python('import tensorflow')


def test_a_run_trains_to_its_end_without_tensorflow(tmp_path):
    code = """
import json
from configs import supervised_carousel
from kd_jax import train
config = supervised_carousel.get_config('smoke')
assert config.data.feed == 'device'
print(json.dumps(train.run(config, sys.argv[1])))
"""
    result = json.loads(python(code, str(tmp_path / 'run')))
    assert 0 < result['student']['mAP'] <= 1
    assert json.loads((tmp_path / 'run' / 'result.json').read_text()) == result
    rows = (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()
    assert json.loads(rows[-1])['step'] == 8
