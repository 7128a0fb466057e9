"""How an image gets the size that is asked for: stretched in two ways, or in its shape on black."""

import numpy as np
import pytest
from PIL import Image

from configs import vkd_atrw
from configs.datasets import SETTINGS
from kd_jax import data
from kd_jax.data import images
from kd_jax.data.cache import cached
from kd_jax.data.records import from_rows

STRETCHED = {'bilinear': Image.Resampling.BILINEAR, 'bicubic': Image.Resampling.BICUBIC}
NAMES = [f'bounding_box_train/000{pid}_c{camera}s1_1_0' for pid in (1, 2) for camera in (1, 2)]
NAMES += ['query/0003_c1s1_1_0', 'bounding_box_test/0003_c2s1_1_0']


def noise(height, width, low=0):
    pixels = np.random.default_rng(0).integers(low, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def decoded(image, height, width, resize, channels=3):
    return images.decode(image, height=height, width=width, channels=channels, resize=resize)


@pytest.fixture
def root(tmp_path):
    """Six images in Market-1501's layout."""
    for name in NAMES:
        file = tmp_path / f'{name}.png'
        file.parent.mkdir(exist_ok=True)
        noise(20, 5).save(file)
    return tmp_path


@pytest.mark.parametrize('resize', STRETCHED)
@pytest.mark.parametrize(('height', 'width'), [(8, 8), (40, 3)])
def test_stretched_with_pillows_filter(resize, height, width):
    image = noise(20, 10)
    expected = np.asarray(image.resize((width, height), STRETCHED[resize]))
    np.testing.assert_array_equal(decoded(image, height, width, resize), expected)


@pytest.mark.parametrize(
    ('given', 'wanted', 'inner', 'top_left'),
    [
        ((40, 20), (16, 16), (16, 8), (0, 4)),  # tall: black at both sides
        ((20, 40), (16, 16), (8, 16), (4, 0)),  # wide: black above and below
        ((40, 20), (16, 13), (16, 8), (0, 3)),  # five columns are left: three of them are first
        ((20, 40), (13, 16), (8, 16), (3, 0)),
        ((10, 7), (17, 17), (17, 11), (0, 3)),  # 11.9 columns, rounded down
        ((4, 2), (16, 16), (16, 8), (0, 4)),  # smaller than wanted: enlarged
        ((30, 10), (24, 8), (24, 8), (0, 0)),  # of the same shape
        ((110, 55), (224, 224), (224, 112), (0, 56)),
        ((55, 55), (224, 224), (224, 224), (0, 0)),  # floats would make 223 of it
        ((300, 1), (16, 16), (16, 1), (0, 8)),  # narrower than a pixel
    ],
)
@pytest.mark.parametrize('channels', [1, 3])
def test_padded_in_its_own_shape_on_black(given, wanted, inner, top_left, channels):
    image = noise(*given, low=64)
    pixels = decoded(image, *wanted, 'pad', channels)
    assert pixels.shape == (*wanted, channels)
    (height, width), (top, left) = inner, top_left
    within = slice(top, top + height), slice(left, left + width)
    shrunk = image.convert(images.MODES[channels]).resize((width, height), STRETCHED['bicubic'])
    expected = np.zeros((*wanted, channels), np.uint8)
    expected[within] = np.asarray(shrunk).reshape(height, width, channels)
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize('resize', images.FILTERS)
def test_an_image_of_the_size_stays_as_it_is(resize):
    image = noise(12, 6)
    np.testing.assert_array_equal(decoded(image, 12, 6, resize), np.asarray(image))


@pytest.mark.parametrize('feed', data.FEEDS)
def test_pixels_of_a_data_set_are_resized_as_asked(root, feed):
    """Time after time from one folder: what is decoded once is of one way only."""
    found = {}
    for resize in (*images.FILTERS, 'bilinear'):
        dataset = data.load(
            name='folder', root=str(root), height=16, width=8, resize=resize, feed=feed
        )
        pixels = dataset.train.pixels.read(np.arange(4))
        expected = decoded(noise(20, 5), 16, 8, resize)
        np.testing.assert_array_equal(pixels, np.stack([expected] * 4))
        found[resize] = dataset.fingerprint
    assert len(set(found.values())) == 3


def test_a_cache_is_of_one_way_of_resizing(tmp_path):
    noise(20, 5).save(tmp_path / '1.png')
    opened = []

    def open_image(path):
        opened.append(path)
        return Image.open(tmp_path / path)

    options = {'split': 'train', 'home': tmp_path, 'height': 16, 'width': 8, 'channels': 3}
    for resize in (*images.FILTERS, *images.FILTERS):
        cached(from_rows([('1.png', 1, 0, 0, 0)]), open_image, resize=resize, **options)
    assert len(opened) == len(list((tmp_path / '.kd_jax').glob('train-*.npy'))) == 3


@pytest.mark.parametrize('feed', data.FEEDS)
def test_an_unknown_word_is_refused_with_the_choices(root, feed):
    with pytest.raises(ValueError, match=r"data\.resize='cubic': .* bilinear, bicubic, pad$"):
        data.load(name='folder', root=str(root), height=6, width=4, resize='cubic', feed=feed)


def test_vkd_reads_as_its_code_does():
    """Three data sets are stretched bicubically and tigers padded; all others are as they were."""
    chosen = {name: setting.resize for name, setting in SETTINGS.items()}
    vkd = {name: chosen.pop(name) for name in ('mars', 'duke_video_vkd', 'veri776_tracks')}
    assert set(vkd.values()) == {'bicubic'}
    assert chosen.pop('atrw_vkd') == 'pad'
    assert set(chosen.values()) == {'bilinear'}
    config = vkd_atrw.get_config('')
    assert [one.data.resize for one in (config, config.teachers.teacher)] == ['pad', 'pad']
    config.data.resize = 'bicubic'
    assert config.teachers.teacher.data.resize == 'bicubic'
