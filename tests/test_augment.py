from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from kd_jax import parallel
from kd_jax.data import augment
from kd_jax.views import Batch

SETS, SHOTS, HEIGHT, WIDTH = 64, 2, 16, 8
FILL = (90.0, 91.0, 92.0)  # no pixel has these after normalisation
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (SETS, SHOTS, HEIGHT, WIDTH, 3), np.uint8)
KEYS = RNG.integers(2**32, size=(SETS, SHOTS), dtype=np.uint32)
NOTHING = {'crop': 'none', 'pad': 2, 'crop_probability': 1.0, 'flip': 0.0, 'erase': 0.0}
NOTHING |= {'erase_fill': FILL, 'erase_teacher': True}
ALL = {'crop': 'translate', 'flip': 0.5, 'erase': 0.5, 'erase_teacher': False}


def batch_of(images=IMAGES, keys=KEYS):
    return Batch(
        jnp.array(images), jnp.arange(len(keys)), jnp.zeros(keys.shape, int), jnp.array(keys)
    )


def make(**options):
    return augment.make(**{**NOTHING, **options})


@cache
def compiled(**options):
    return jax.jit(make(**options))


def seen(images=IMAGES, keys=KEYS, **options):
    """What the student sees, an image a row."""
    images = compiled(**options)(batch_of(images, keys))[0].images
    return np.asarray(images).reshape(-1, *images.shape[2:])


def pixels(*batch, **options):
    """What the student sees, back in pixel values."""
    values = seen(*batch, **options) * np.array(augment.IMAGENET_STD) + augment.IMAGENET_MEAN
    return np.round(255 * values, 3)


def flat(images=IMAGES):
    return images.reshape(-1, *images.shape[2:])


def ways(image, crops):
    """Every crop of an image, plain and flipped, by (crop, flipped)."""
    return {(k, f): c[:, ::-1] if f else c for k, c in crops(image).items() for f in (False, True)}


def padded_crops(image, pad=2):
    """All crops of an image padded with black."""
    big = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    places = np.ndindex(2 * pad + 1, 2 * pad + 1)
    return {(y, x): big[y : y + HEIGHT, x : x + WIDTH] for y, x in places}


def enlarged(image):
    """Bilinear interpolation to 9/8 of the size, pixel by pixel; edges are continued."""
    height, width = HEIGHT * 9 // 8, WIDTH * 9 // 8
    big = np.empty((height, width, image.shape[2]))
    for i in range(height):
        for j in range(width):
            y = min(max((i + 0.5) * HEIGHT / height - 0.5, 0), HEIGHT - 1)
            x = min(max((j + 0.5) * WIDTH / width - 0.5, 0), WIDTH - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, HEIGHT - 1), min(left + 1, WIDTH - 1)
            upper = image[top, left] * (1 - x + left) + image[top, right] * (x - left)
            lower = image[bottom, left] * (1 - x + left) + image[bottom, right] * (x - left)
            big[i, j] = upper * (1 - y + top) + lower * (y - top)
    return big


def translated_crops(image):
    big = enlarged(image.astype(float))
    rows, columns = (big.shape[k] - image.shape[k] + 1 for k in (0, 1))
    places = np.ndindex(rows, columns)
    return {(y, x): big[y : y + HEIGHT, x : x + WIDTH] for y, x in places}


def drawn(images, results, crops, atol):
    """The (crop, flipped) that each result is; fails where it is none or several."""
    found = []
    for image, result in zip(images, results):
        same = [k for k, c in ways(image, crops).items() if np.abs(c - result).max() <= atol]
        assert len(same) == 1
        found += same
    return found


def test_pad_is_a_crop_of_the_padded_image():
    results = pixels(crop='pad', flip=0.5)
    np.testing.assert_allclose(results, np.rint(results), atol=1e-3)
    found = drawn(flat(), np.rint(results), padded_crops, atol=0)
    assert {y for (y, _), _ in found} == {x for (_, x), _ in found} == set(range(5))
    assert len(set(found)) > 40  # of 50
    assert 40 < sum(flipped for _, flipped in found) < 88  # of 128


def test_translate_is_a_crop_of_the_enlarged_image():
    results = pixels(IMAGES[:12], KEYS[:12], crop='translate', flip=0.5)
    found = drawn(flat(IMAGES[:12]), results, translated_crops, atol=1e-3)
    assert {place for place, _ in found} == set(np.ndindex(3, 2))
    assert {flipped for _, flipped in found} == {True, False}


@pytest.mark.parametrize('crop', ['pad', 'translate'])
def test_crop_probability(crop):
    never = pixels(crop=crop, crop_probability=0.0)
    np.testing.assert_allclose(never, flat(), atol=1e-3)
    sometimes = pixels(crop=crop, crop_probability=0.5)
    moved = np.abs(sometimes - flat()).max(axis=(1, 2, 3)) > 1
    assert 30 < moved.sum() < 90  # of 128, where 1 in 25 of the pad crops is the image itself


@pytest.mark.parametrize('crop', ['none', 'pad'])
def test_flip_probability(crop):
    never, always = (pixels(crop=crop, crop_probability=0.0, flip=flip) for flip in (0.0, 1.0))
    np.testing.assert_allclose(never, flat(), atol=1e-3)
    np.testing.assert_allclose(always, flat()[:, :, ::-1], atol=1e-3)


def test_flip_and_crop_and_erasing_are_drawn_apart():
    results = pixels(crop='pad', crop_probability=0.5, flip=0.5)
    found = drawn(flat(), np.rint(results), padded_crops, atol=0)
    kinds = [(crop == (2, 2), flipped) for crop, flipped in found]
    erased = (seen(crop='pad', crop_probability=0.5, flip=0.5, erase=0.5) == FILL).any((1, 2, 3))
    counts = np.unique([(*kind, e) for kind, e in zip(kinds, erased)], axis=0, return_counts=True)
    assert len(counts[1]) == 8
    assert counts[1].min() >= 5  # 16 are expected of each


def test_erasing_is_one_rectangle_within_bounds():
    results, clean = seen(erase=1.0), seen()
    masks = (results == FILL).all(axis=-1)
    hit = masks.any(axis=(1, 2))
    assert hit.mean() > 0.95
    for mask in masks[hit]:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        h, w = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert mask.sum() == h * w
        assert (h + 0.5) * (w + 0.5) >= 0.02 * HEIGHT * WIDTH  # sides are rounded
        assert (h - 0.5) * (w - 0.5) <= 0.4 * HEIGHT * WIDTH
        assert (h + 0.5) / (w - 0.5) >= 0.3
        assert (h - 0.5) / (w + 0.5) <= 1 / 0.3
    np.testing.assert_array_equal(results[~masks], clean[~masks])
    assert masks.any(axis=0).all()  # it comes everywhere
    assert len(np.unique(masks, axis=0)) > 100


def test_erasing_probability():
    erased = (seen(erase=0.5) == FILL).any(axis=(1, 2, 3))
    assert 40 < erased.sum() < 88  # of 128


def test_teachers_see_the_same_geometry_without_erasing():
    options = {**ALL, 'erase': 1.0}
    student, clean = (flat(np.asarray(b.images)) for b in compiled(**options)(batch_of()))
    mask = (student == FILL).all(axis=-1)
    assert mask.any(axis=(1, 2)).mean() > 0.95
    assert not (clean == FILL).any()
    np.testing.assert_array_equal(student[~mask], clean[~mask])
    assert np.abs(clean - seen()).max() > 0.1


def test_teachers_see_the_erasing_on_request():
    student, taught = compiled(**{**ALL, 'erase_teacher': True})(batch_of())
    assert (student.images == jnp.array(FILL)).any()
    np.testing.assert_array_equal(student.images, taught.images)


def test_only_images_change():
    batch = batch_of()
    for copy in compiled(**ALL)(batch):
        assert copy.images.shape == batch.images.shape
        assert copy.images.dtype == jnp.float32
        jax.tree.map(np.testing.assert_array_equal, copy[1:], batch[1:])


def test_draws_belong_to_the_key_not_to_the_place():
    order = np.random.default_rng(1).permutation(SETS * SHOTS)
    images, keys = flat()[order].reshape(IMAGES.shape), KEYS.ravel()[order].reshape(KEYS.shape)
    np.testing.assert_array_equal(seen(images, keys, **ALL), seen(**ALL)[order])
    others = seen(IMAGES, KEYS + np.uint32(1), **ALL)
    assert (others != seen(**ALL)).any(axis=(1, 2, 3)).mean() > 0.8


def test_every_key_draws_for_itself():
    same = np.broadcast_to(IMAGES[:1, :1], IMAGES.shape)
    results = pixels(same, **ALL)
    assert len(np.unique(results, axis=0)) > 60  # 12 crops and flips, half of them erased
    alike = seen(same, np.full_like(KEYS, 2**32 - 1), **ALL)
    assert len(np.unique(alike, axis=0)) == 1


def test_one_device_equals_four():
    mesh = parallel.mesh(jax.devices()[:4])
    options = {'mesh': mesh, 'in_specs': P('batch'), 'out_specs': P('batch')}
    step = jax.jit(jax.shard_map(make(**ALL), check_vma=False, **options))
    for copy, expected in zip(step(batch_of()), compiled(**ALL)(batch_of())):
        np.testing.assert_allclose(copy.images, expected.images, rtol=0, atol=1e-5)


def test_grey_images():
    grey = IMAGES[..., :1]
    results = seen(grey, crop='pad', flip=0.5, erase=0.5)
    colour = seen(np.repeat(grey, 3, axis=-1), crop='pad', flip=0.5, erase=0.5)
    erased = (results == np.mean(FILL))[..., 0]
    np.testing.assert_array_equal(erased, (colour == FILL).all(axis=-1))
    mean, std = np.mean(augment.IMAGENET_MEAN), np.mean(augment.IMAGENET_STD)
    pixels = np.rint(colour[..., :1] * 255 * 0.229 + 255 * 0.485)
    expected = np.where(erased[..., None], np.mean(FILL), (pixels / 255 - mean) / std)
    np.testing.assert_allclose(results, expected, atol=1e-5)


@pytest.mark.parametrize('kind', [np.uint8, np.float32])
def test_normalise(kind):
    mean, std = np.array((0.485, 0.456, 0.406)), np.array((0.229, 0.224, 0.225))
    found = augment.normalise(jnp.array(IMAGES, kind))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, (IMAGES / 255 - mean) / std, atol=1e-6)


def test_nothing_is_only_normalised():
    np.testing.assert_allclose(seen(), augment.normalise(jnp.array(flat())), atol=1e-6)


def test_unknown_crop():
    with pytest.raises(ValueError, match=r"augment\.crop='cut': choose one of none, pad, translat"):
        make(crop='cut')


def test_misspelt_key():
    with pytest.raises(TypeError, match='flipp'):
        make(flipp=0.5)
