import pytest

from experiments import paper_scaling
from experiments.paper_scaling import Exchange

PROGRAM = """
  %all-reduce.1 = f32[64]{0} all-reduce(%a), channel_id=1, to_apply=%add
  %all-reduce.2 = (f32[2,3]{1,0}, bf16[4]{0}, f32[]) all-reduce(%a, %b, %c), channel_id=2
  %gathered = s32[8]{0} all-gather(%d), channel_id=3, dimensions={0}
  %other = f32[100]{0} add(%all-reduce.1, %all-reduce.1)
"""


def test_collectives_are_counted_with_the_bytes_of_their_results():
    assert paper_scaling.exchange(PROGRAM) == Exchange(3, 64 * 4 + 6 * 4 + 4 * 2 + 4, 8 * 4)


def test_a_step_that_is_compiled_has_them():
    """Its gradients are reduced: at least four bytes for each parameter."""
    config = paper_scaling.config_of('device')
    config.network.update(name='resnet10', width=8, dtype='float32')
    config.data.update(height=32, width=16)
    moved = paper_scaling.counted(config)
    parameters = 8 * 3 * 49 + 64 * 8 * 8  # of the stem and more
    assert moved.reduced > 4 * parameters
    assert moved.gathered > 0
    assert moved.count >= 2


@pytest.mark.parametrize('name', paper_scaling.MACHINES)
def test_exchanging_takes_longer_among_more_chips(name):
    machine, moved = paper_scaling.MACHINES[name], Exchange(100, 10**8, 10**5)
    took = [paper_scaling.seconds(machine, moved, chips) for chips in (1, 8, 64, 256)]
    assert took == sorted(took)
    alone = paper_scaling.seconds(machine._replace(hop=0.0), moved, 1)
    assert alone == 0


def test_all_reduces_carry_each_byte_twice():
    machine = paper_scaling.MACHINES['TPU v5e']._replace(hop=0.0)
    took = paper_scaling.seconds(machine, Exchange(1, 10**9, 0), 2)
    assert took == pytest.approx(2 * 0.5 * 10**9 / machine.link)
