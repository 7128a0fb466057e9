import jax
import numpy as np
import pytest
import smoke
from network_options import create
from random_trees import random_init

from experiments import turns
from experiments.turns import Contender
from kd_jax.networks import pretrained

WITHOUT = 'import sys\nfor name in ("tensorflow", "torch"): sys.modules[name] = None\n'
RUN = (
    WITHOUT + 'import runpy\nrunpy.run_module("experiments.bench_train_step", run_name="__main__")'
)
TINY = ['--network=resnet10', '--layer_width=4', '--stem=small', '--height=32', '--width=16']
TINY += ['--batch=16', '--rounds=1', '--seconds=0.01']


def test_the_bench_runs_without_tensorflow_and_torch():
    odd = [flag.replace('batch=16', 'batch=6') for flag in TINY]
    done, refused = smoke.ended(
        smoke.python('-c', RUN, *TINY, '--dtype=bfloat16'), smoke.python('-c', RUN, *odd)
    )
    assert done[0] == 0, done[2]
    lines = done[1].splitlines()
    assert lines[0].startswith('resnet10, width 4, small stem, 32x16, batch 16, bfloat16')
    assert lines[0].endswith('no torch')
    rows = {line.split()[0]: line.split()[1:] for line in lines[1:] if line.split()}
    for name in ('training', 'inference'):
        rate, milliseconds = map(float, rows[name][:2])
        assert rate * milliseconds == pytest.approx(16000, rel=0.05)
        assert rows[name][3] == 's'
        assert rows[name][5] == 'MiB'
        assert rows[name][6].endswith('%')
    assert refused[0] == 1
    assert '--batch=6: give a multiple of 4' in refused[2]
    assert 'Traceback' not in refused[2]


def test_contenders_take_turns():
    told = []
    contenders = [Contender(name, lambda name=name: told.append(name)) for name in 'ab']
    times = turns.take(contenders, rounds=3, seconds=0.0)
    assert told == ['a', 'a', 'b', 'b', *'ab' * 3]  # two calls to warm up, then turns
    assert [len(times[name]) for name in 'ab'] == [3, 3]


def test_a_ratio_is_the_median_of_rounds():
    times = {'fast': [1.0, 1.0, 2.0], 'slow': [3.0, 2.0, 2.0]}
    assert turns.ratio(times, of='fast', to='slow') == (2.0, 1.0, 3.0)


@pytest.mark.parametrize('neck', ['bnneck', 'fc_bn_relu'])
@pytest.mark.parametrize('name', ['resnet50bam', 'osnet_x0_25', 'densenet121', 'mobilenet_v2'])
def test_torchs_networks_load_our_exports_and_give_the_same(name, neck):
    torch = pytest.importorskip('torch')
    from experiments import torch_networks

    network = create(name, width=16, neck=neck, last_block_relu='code')
    images = np.random.default_rng(0).normal(size=(2, 64, 32, 3)).astype(np.float32)
    variables = random_init(network.init, images)
    twin = torch_networks.like(network).eval()
    torch_networks.load(twin, pretrained.tensors(network, variables))
    with torch.inference_mode():
        found = twin(torch.from_numpy(images).permute(0, 3, 1, 2))
    outputs = jax.jit(network.apply)(variables, images)
    for theirs, ours in zip(found, (outputs.embedding, outputs.logits)):
        np.testing.assert_allclose(theirs, ours, rtol=1e-3, atol=1e-4 * np.abs(ours).max())
