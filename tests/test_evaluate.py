"""kd_jax.evaluate: a run is scored again, alone or against another."""

import pytest
import smoke

from kd_jax import evaluate, results, runs
from kd_jax.runs import RunError


def test_a_run_is_scored_at_its_last_or_best_checkpoint(tmp_path):
    smoke.planted(tmp_path)
    config = smoke.config('supervised_carousel')
    found = {which: evaluate.run(tmp_path, config, which) for which in ('last', 'best')}
    assert found['best'] != found['last']
    assert evaluate.run(tmp_path, config) == found['last']


def test_a_run_that_is_none_is_named(tmp_path):
    with pytest.raises(RunError, match=f'{tmp_path} is no run'):
        evaluate.run(tmp_path, smoke.config())


def test_the_command_line(tmp_path):
    """A run as it was scored; its best by another metric; and what is no run."""
    planted = tmp_path / 'planted'
    smoke.planted(planted)
    command = '-m', 'kd_jax.evaluate'
    other = ('--config.evaluate.metric=euclidean', '--checkpoint=best')
    again, changed, none, itself, misspelt = smoke.ended(
        smoke.python(*command, f'--run={smoke.finished()}'),
        smoke.python(*command, '--run', planted, *other),
        smoke.python(*command, f'--run={tmp_path}/nowhere'),
        smoke.python(*command, f'--run={planted}', f'--against={planted}/'),
        smoke.python(*command, f'--run={planted}', '--config.evaluate.rerank.variant=zhong'),
    )
    name, result = smoke.finished().name, smoke.result(smoke.finished())
    table, intervals = again[1].split('\n\n')
    assert (again[0], table) == (0, results.table({name: result['student']}))
    assert intervals.startswith('95 % intervals')

    config = smoke.config('supervised_carousel')
    by_cosine = evaluate.run(planted, config, 'best')
    config.evaluate.metric = 'euclidean'
    by_distance = evaluate.scored_run(planted, config, 'best')
    assert by_cosine['mAP'] != by_distance[0].summary['mAP']
    assert changed[:2] == (0, evaluate.text({'planted': by_distance}) + '\n')

    message = f'kd_jax: {tmp_path}/nowhere is no run: it has no config.json\n'
    assert none == (1, '', message)
    assert misspelt[:2] == (1, '')
    assert misspelt[2].startswith('kd_jax: the config has no such key: ')
    assert itself == (1, '', f'kd_jax: --against={planted} is the run itself: give another\n')


def test_a_run_against_another_of_other_images(tmp_path):
    """By its own images, and all else as the first; both names, intervals, and their difference."""
    smoke.planted(tmp_path / 'planted')
    first, second = smoke.finished(), tmp_path / 'planted'
    config = runs.config_of(first)
    config.evaluate.metric = 'euclidean'
    other = evaluate.against(config, second)
    assert other.evaluate == config.evaluate
    assert other.data == runs.config_of(second).data
    assert other.method.name == 'supervised'
    found = {
        path.name: evaluate.scored_run(path, one)
        for path, one in ((first, config), (second, other))
    }
    assert [one[0].summary['metric'] for one in found.values()] == ['euclidean'] * 2
    table, intervals, difference = evaluate.text(found).split('\n\n')
    for name in found:
        assert name in table
        assert name in intervals
    head, _, mean, interval, p = difference.splitlines()
    assert head == f'{first.name} − planted'
    apart = 100 * (found[first.name][0].summary['mAP'] - found['planted'][0].summary['mAP'])
    assert mean.split()[:2] == ['market', f'{apart:+.1f}']
    assert interval.startswith('  95 % interval')
    assert 0 < float(p.split()[2]) <= 1


def test_both_runs_are_named_apart(tmp_path):
    paths = [tmp_path / 'a' / 'run', tmp_path / 'b' / 'run', tmp_path / 'other']
    assert [evaluate._name(path, paths) for path in paths] == [*map(str, paths[:2]), 'other']
