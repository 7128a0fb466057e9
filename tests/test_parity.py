"""Every backbone gives what its PyTorch original gives, from the same weights and images.

golden/networks.npz was made once, by PyTorch 2.13.0 on a CPU in float64, with numpy 2.4.6. Of
reduced networks (`CASES`), which are torchvision 0.28.0's ResNet, DenseNet and MobileNetV2 and
torchreid 0.2.5's OSNet, with weights and images from `draw` in torch's layouts, rounded to float32,
it holds under CASE/

    eval/                 with running statistics: `embedding`, the mean over the last stage's
                          pixels, and `stage1` to `stage4`
    train/                with the statistics of the batch: `embedding`
    train/gradient/NAME   of sum(embedding · cotangent), by three weights
    train/after/NAME      running statistics of a norm after that one pass, and
    train/count           how many values of a channel it normalised

each array as its `digest`. The originals were changed as VKD's code changes them: the first
convolution of the last stage that has a stride, and its shortcut's, to stride 1 (`last_stride`, not
in DenseNet); and ReLUs to nothing (`last_block_relu`): 'code' the member `relu` of the last
residual block, which acts behind all its norms, and 'paper' the same where it acts behind the sum;
in 'paper' DenseNet is called without the ReLU behind `features`, and MobileNetV2's last ReLU6 is
gone. BAM was written in torch from a description of VKD's, with VKD's names, and gives bam/out_*.

bam/ and lastblock/ were made by running VKD's code (github aimagelab/VKD, a56b12e, MIT) in float64
on random parameters.
"""

import zlib
from functools import cache, partial
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network_options import create

from kd_jax import trees
from kd_jax.networks import cpu_convolution
from kd_jax.networks.bam import BAM
from kd_jax.networks.mobilenet import Row
from kd_jax.networks.resnet import Block
from kd_jax.networks.torch_names import from_torch, to_torch, torch_name, torch_names

GOLDEN = Path(__file__).parent / 'golden' / 'networks.npz'
ORACLE = Path(__file__).parents[2] / 'shared' / 'oracle' / 'vkd_losses.npz'
NO_ORACLE = pytest.mark.skipif(not ORACLE.exists(), reason=f'{ORACLE.name} is not beside us')
TOLERANCE = {'float32': 1e-4, 'float64': 1e-6}  # of the largest magnitude in an array
# With it no input of a ReLU of `basic_code` is so near to zero that rounding would turn it over.
SEED = 18
IMAGES = (4, 3, 64, 32)  # NCHW; not square, so that swapped axes show

TABLE = (Row(1, 1, 16, 1, 1), Row(1, 6, 24, 2, 2), Row(2, 6, 32, 1, 2))
TABLE += (Row(3, 6, 40, 1, 2), Row(4, 6, 48, 1, 2))
RESNET = {'width': 16, 'blocks': (1, 1, 1, 2)}
DENSENET = {'width': 16, 'blocks': (1, 1, 1, 2), 'last_stride': 2}
MOBILENET = {'width': 64, 'table': TABLE}

# Name in the golden file -> name of the network, and what is changed in it.
CASES = {
    'basic_all': ('resnet18', RESNET),
    'basic_paper': ('resnet18', RESNET | {'last_block_relu': 'paper'}),
    'basic_code': ('resnet18', RESNET | {'last_block_relu': 'code'}),
    'bottleneck_all': ('resnet50', RESNET | {'last_stride': 2}),
    'bam_code': ('resnet50bam', RESNET | {'last_block_relu': 'code'}),
    'osnet_x0_25': ('osnet_x0_25', {'width': 64}),
    'densenet_all': ('densenet121', DENSENET),
    'densenet_paper': ('densenet121', DENSENET | {'last_block_relu': 'paper'}),
    'mobilenet_all': ('mobilenet_v2', MOBILENET | {'last_stride': 2}),
    'mobilenet_paper': ('mobilenet_v2', MOBILENET | {'last_block_relu': 'paper'}),
}
FIELDS = ('blocks', 'table')  # that are no options of `create`
WITH_BAM = create('resnet50bam')


def draw(name, shape, seed=SEED):
    """The tensor of a torch name; torch's layout decides about the kind."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    if name.endswith('running_var') or (name.endswith('weight') and len(shape) == 1):
        return rng.uniform(0.5, 1.5, shape)
    deviation = {'images': 1, 'cotangent': 1, 'weight': np.sqrt(2 / np.prod(shape[1:]))}
    return deviation.get(name.rsplit('.', 1)[-1], 0.2) * rng.normal(size=shape)


def digest(values):
    """The root mean square, which all of an array decides, and up to 128 values, evenly spaced."""
    values = np.asarray(values, np.float64)
    places = np.linspace(0, values.size - 1, min(128, values.size)).astype(int)
    return np.append(np.sqrt((values**2).mean()), values.ravel()[places])


def golden(group, path=GOLDEN):
    with np.load(path) as file:
        return {k[len(group) + 1 :]: file[k] for k in file.files if k.startswith(group + '/')}


def assert_near(actual, expected, what='', dtype='float32'):
    atol = TOLERANCE[dtype] * np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=atol, err_msg=what)


def nhwc(values):
    return jnp.float32(values.transpose(0, 2, 3, 1))


def nchw(values):
    return np.asarray(values).transpose(0, 3, 1, 2)


def drawn(case, conv):
    """The network of a case, its variables, the torch names of those, and images."""
    name, changes = CASES[case]
    options = {'stem': 'imagenet', 'conv': conv} | changes
    fields = {key: options.pop(key) for key in FIELDS if key in options}
    network = create(name, **options).clone(**fields)
    images = nhwc(draw('images', IMAGES))
    shapes = jax.eval_shape(network.init, jax.random.key(0), images)
    names = torch_names(network, shapes)
    shapes = {path: to_torch(np.empty(x.shape)).shape for path, x in trees.named(shapes).items()}
    leaves = {k: jnp.float32(from_torch(draw(names[k], v))) for k, v in shapes.items()}
    return network, trees.unnamed(leaves), names, images


def trained(case, conv, dtype):
    """The embedding; gradients and statistics by torch name and in torch's layout."""
    network, variables, names, images = drawn(case, conv)
    network = network.clone(dtype=dtype)
    variables, images = jax.tree.map(lambda x: x.astype(dtype), (variables, images))

    def value(params, statistics):
        given = {'params': params, 'batch_stats': statistics}
        outputs, after = network.apply(given, images, train=True, mutable='batch_stats')
        cotangent = jnp.float32(draw('cotangent', outputs.embedding.shape))
        return (outputs.embedding * cotangent).sum(), (outputs.embedding, after)

    gradient = jax.jit(jax.grad(value, has_aux=True))
    params, (embedding, after) = gradient(variables['params'], variables['batch_stats'])
    leaves = trees.named({'params': params} | after).items()
    return embedding, {names[path]: to_torch(np.asarray(leaf)) for path, leaf in leaves}


def unbiased(after, before, count):
    """PyTorch puts the unbiased variance of the batch in the running one, Flax the biased."""
    return 0.9 * before + (after - 0.9 * before) * count / (count - 1)


def check_inference(case, conv):
    network, variables, _, images = drawn(case, conv)
    outputs = jax.jit(lambda *given: network.apply(*given))(variables, images)
    facts = golden(f'{case}/eval')
    assert_near(digest(outputs.embedding), facts['embedding'], 'embedding')
    for number, stage in enumerate(outputs.stages, 1):
        assert_near(digest(nchw(stage)), facts[f'stage{number}'], f'stage {number}')


def check_training(case, conv, dtype):
    with jax.enable_x64(dtype == 'float64'):
        embedding, ours = trained(case, conv, dtype)
    facts = golden(f'{case}/train')
    assert_near(digest(embedding), facts['embedding'], 'embedding', dtype)
    for name, expected in golden(f'{case}/train/gradient').items():
        assert_near(digest(ours[name]), expected, name, dtype)
    for name, expected in golden(f'{case}/train/after').items():
        actual = ours[name]
        if name.endswith('running_var'):
            actual = unbiased(actual, draw(name, actual.shape), facts['count'])
        assert_near(digest(actual), expected, name, dtype)


@pytest.mark.parametrize('case', CASES)
def test_inference(case):
    check_inference(case, 'cpu')


def test_inference_by_xlas_convolutions():
    check_inference('mobilenet_paper', 'xla')


@pytest.mark.parametrize(
    ('case', 'conv'),
    [
        ('bam_code', 'xla'),
        ('osnet_x0_25', 'xla'),
        ('densenet_paper', 'cpu'),
        ('mobilenet_paper', 'cpu'),
    ],
)
def test_training(case, conv):
    """In float64: in float32 rounding turns a ReLU over here and there, and its gradient."""
    check_training(case, conv, 'float64')


def test_training_by_convolutions_of_large_images(monkeypatch):
    """Winograd's, and gradients by patches: otherwise only above `SMALL` multiply-adds."""
    monkeypatch.setattr(cpu_convolution, 'SMALL', 0)
    check_training('basic_code', 'cpu', 'float32')


# The numbers of VKD's code.


@pytest.fixture(params=[GOLDEN, pytest.param(ORACLE, marks=NO_ORACLE)], ids=['golden', 'oracle'])
def source(request):
    return request.param


def output(module, place, facts):
    """What a module gives for VKD's images with VKD's weights.

    `place` is what the module is called in a network, as which it has a torch name.
    """
    images = nhwc(facts['x'])
    shapes = jax.eval_shape(module.init, jax.random.key(0), images)
    leaves = {}
    for path in trees.named(shapes):
        name = torch_name(WITH_BAM, path.replace('/', f'/{place}/', 1)).split('.', 2)[2]
        leaves[path] = jnp.float32(from_torch(facts[f'param/{name}']))
    return nchw(applied(module, trees.unnamed(leaves), images))


@partial(jax.jit, static_argnums=0)
def applied(module, variables, images):
    return module.apply(variables, images, mutable='batch_stats')[0]


@cache
def layers(conv, train=False):
    norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5)
    return create(conv=conv).layers(norm)


@pytest.mark.parametrize('conv', ['cpu', 'xla'])
@pytest.mark.parametrize('mode', ['eval', 'train'])
def test_bam_of_vkd(mode, conv, source):
    facts = golden('bam', source)
    actual = output(BAM(layers(conv, mode == 'train')), 'bam1', facts)
    assert_near(actual, facts[f'out_{mode}'])


@pytest.mark.parametrize(('relus', 'key'), [('all', 'out_standard_relu'), ('code', 'out_vkd')])
@pytest.mark.parametrize(('kind', 'features'), [('basic', 16), ('bottleneck', 8)])
def test_last_block_of_vkd(kind, features, relus, key, source):
    facts = golden(f'lastblock/{kind}', source)
    block = Block(features, 1, kind == 'bottleneck', relus, layers('cpu'))
    assert_near(output(block, 'layer1_0', facts), facts[key])
