"""kd_jax.differences: of two trees, of two smoke runs and of settings."""

import numpy as np
import pytest
import smoke
from sections import section

from kd_jax import checkpoints, differences, inspect, leaf_table, runs


def leaves(run):
    return leaf_table.leaves_of(checkpoints.restore_network(run))


def test_what_is_equal_is_named_by_the_largest_module():
    leaf = np.arange(3.0)
    one = {f'params/{name}': leaf for name in ('a/x/k', 'a/x/b', 'a/y/k', 'b/x/k', 'c/k', 'd/k')}
    other = one | {'params/a/y/k': leaf + 1, 'params/c/k': np.ones(4), 'params/e/x/k': leaf}
    del other['params/d/k']
    both = differences.matched(one, other)
    text = differences.text(both)
    assert 'equal: a/x/*, b/*\n' in text
    assert text.endswith('only in a: d/*\n\nonly in b: e/*')
    assert section(text, 'of other shapes') == {'c/k': ['3', '4']}
    assert section(text, 'of one name')['total'][:2] == ['4', '3']


def test_networks_with_nothing_in_common():
    one, other = ({f'params/{name}/k': np.ones(2)} for name in 'ab')
    text = differences.text(differences.matched(one, other))
    assert section(text, 'of one name') == {'total': ['0', '0']}
    assert 'only in a: a/*\n\nonly in b: b/*' in text


@pytest.mark.parametrize(
    ('a', 'b', 'expected'), [([3, 4], [3, 3], 0.2), ([0, 0], [0, 0], 0), ([0, 0], [0, 1], np.inf)]
)
def test_distance(a, b, expected):
    assert differences.distance([(np.array(a), np.array(b))]) == pytest.approx(expected)


def test_two_runs_differ_in_config_and_values(tmp_path):
    run = smoke.finished('supervised_carousel')
    smoke.planted(tmp_path / 'planted')
    text = inspect.text(run, tmp_path / 'planted')
    assert f'a: {run}, step 8\nb: {tmp_path}/planted, step 8' in text
    fingerprint = f"'{runs.fingerprint_of(run)}' -> ''"
    assert section(text, 'settings that differ') == {'fingerprint': [fingerprint]}
    equal = section(text, 'of one name')['total'][1]
    pair = leaves(run), leaves(tmp_path / 'planted')
    same = [np.array_equal(a, b) for a, b in zip(*(tree.values() for tree in pair))]
    assert int(equal) == sum(same) < len(same)


def test_config_keys_that_differ():
    text = inspect.text(smoke.finished('vkd_carousel'), smoke.finished('supervised_carousel'))
    found = section(text, 'settings that differ')
    assert found['config.method.name'] == ["'vkd' -> 'supervised'"]
    assert found['config.teachers'] == ['{...} -> (absent)']
    assert not [key for key in found if key.startswith('config.network')]


def test_a_copy_differs_in_nothing(tmp_path):
    run = smoke.finished('supervised_carousel')
    text = inspect.text(run, smoke.copy(run, tmp_path / 'copy'))
    assert 'no settings differ' in text
    total = section(text, 'of one name')['total']
    assert total == [total[0], total[0], '0', '0']


def test_subtrees_and_values_that_differ():
    one = {'a': 1, 'b': {'c': 1.0, 'd': (1, 2)}, 'e': {'f': 1}}
    other = {'a': 1, 'b': {'c': 1, 'd': (1, 3)}, 'e': 'runs/f', 'g': None}
    expected = [
        ('b.d', '(1, 2)', '(1, 3)'),
        ('e', differences.SUBTREE, "'runs/f'"),
        ('g', differences.ABSENT, 'None'),
    ]
    pair = runs.flat(one), runs.flat(other)
    assert differences.differing(*pair) == expected
    assert differences.differing(*reversed(pair)) == [(key, b, a) for key, a, b in expected]


def test_where_images_lie_is_no_difference(tmp_path):
    """As where a run goes on: but which images they are is."""
    restored = checkpoints.restore_network(smoke.finished('supervised_carousel'))
    moved = restored.config.copy_and_resolve_references()
    moved.data.update(feed='stream', cache_dir=str(tmp_path))
    run, elsewhere = smoke.finished('supervised_carousel'), restored._replace(config=moved)
    assert differences.settings((run, restored), (run, elsewhere)) == 'no settings differ'
    moved.data.height = 64
    told = differences.settings((run, restored), (run, elsewhere))
    assert told.splitlines()[1:] == ['config.data.height   32 -> 64']
