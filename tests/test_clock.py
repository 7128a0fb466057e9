import re

import pytest

from kd_jax import clock
from kd_jax.clock import Clock


@pytest.fixture
def seconds(monkeypatch):
    """What the clock reads; a test moves it on."""
    now = [0.0]
    monkeypatch.setattr(clock.time, 'perf_counter', lambda: now[0])
    return now


def test_what_has_no_name_is_training(seconds):
    watch = Clock()
    seconds[0] += 6
    with watch('evaluation'):
        seconds[0] += 3
    with watch('evaluation'):
        seconds[0] += 1
    assert watch.text() == 'in 10.0 s: training 60.0 %, evaluation 40.0 %'


def test_the_wait_for_items_is_counted_and_their_use_is_not(seconds):
    def slow():
        for number in range(3):
            seconds[0] += 1
            yield number
        seconds[0] += 1  # found to be the end

    watch, found = Clock(), []
    for number in watch.each('waiting for images', slow()):
        seconds[0] += 4
        found.append(number)
    assert found == [0, 1, 2]
    assert watch.spent == {'waiting for images': 4}
    assert 'training 75.0 %, waiting for images 25.0 %' in watch.text()


def test_what_fails_is_counted_too(seconds):
    def fails():
        seconds[0] += 2
        raise KeyError

    watch = Clock()
    with pytest.raises(KeyError), watch('checkpoints'):
        fails()
    assert watch.spent == {'checkpoints': 2}


def test_no_time_at_all_is_no_error(seconds):
    assert re.fullmatch(r'in 0\.0 s: training \d+\.\d %', Clock().text())
