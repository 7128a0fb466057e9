"""Which rows of an image or feature map a partial network sees, and how they are stretched."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base_factorized, factorized_carousel, factorized_cuhk03, factorized_folder
from kd_jax import views

FRACTIONAL = [((2 / 7, 5 / 7), 16, 7), ((0.0, 3 / 7), 8, 7), ((4 / 7, 1.0), 256, 224)]
STRETCHED = [((0.25, 0.75), 32, 48), ((0.1, 0.15), 10, 4), ((0.0, 1.0), 5, 3)]
# The paper's figure 1: the first and the last of so many stripes, counted from 1.
STRIPES = [(1, 2, 4), (2, 3, 4), (3, 4, 4), (1, 3, 7), (3, 5, 7), (5, 7, 7)]


def weights_by_a_loop(part, source, target):
    """Bilinear interpolation at the centres of equal cells of a part, one weight at a time."""
    low, high = part[0] * source, part[1] * source
    weights = np.zeros((target, source))
    for i in range(target):
        centre = low + (i + 0.5) * (high - low) / target - 0.5
        centre = min(max(centre, 0.0), source - 1.0)
        below = min(int(np.floor(centre)), source - 1)
        above = min(below + 1, source - 1)
        weights[i, below] += 1.0 - (centre - below)
        weights[i, above] += centre - below
    return weights


# One axis.


@pytest.mark.parametrize(
    ('part', 'source', 'rows'),
    [
        ((0.0, 0.5), 16, slice(0, 8)),
        ((0.25, 0.75), 16, slice(4, 12)),
        ((0.5, 1.0), 16, slice(8, 16)),
        ((3 / 7, 5 / 7), 7, slice(3, 5)),
    ],
)
def test_bounds_on_the_grid_are_a_slice(part, source, rows):
    """Exactly, but for the rounding of sevenths."""
    found = views.sampling_matrix(part, source, rows.stop - rows.start)
    exact = set(np.float64(part) * 4 % 1) == {0.0}
    np.testing.assert_allclose(found, np.eye(source)[rows], atol=0 if exact else 1e-12)


@pytest.mark.parametrize('size', [1, 2, 7, 16])
def test_all_of_it_in_its_own_size_is_itself(size):
    np.testing.assert_array_equal(views.sampling_matrix((0.0, 1.0), size, size), np.eye(size))


@pytest.mark.parametrize(('part', 'source', 'target'), FRACTIONAL + STRETCHED)
def test_weights_are_those_of_a_plain_loop(part, source, target):
    found = views.sampling_matrix(part, source, target)
    assert found.shape == (target, source)
    assert (found >= 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(found, weights_by_a_loop(part, source, target), atol=1e-12)


@pytest.mark.parametrize('part', [(0.0, 1.0), (2 / 7, 5 / 7), (0.25, 0.75)])
def test_a_ramp_stays_a_ramp_inside(part):
    """Row y holds y: a centre holds where it is, up to half a row past either end."""
    source, target = 14, 40
    found = views.sampling_matrix(part, source, target) @ np.arange(source)
    low, high = part[0] * source, part[1] * source
    expected = np.linspace(low, high, 2 * target + 1)[1::2] - 0.5
    inside = (expected >= 0) & (expected <= source - 1)
    assert inside.sum() > 30
    np.testing.assert_allclose(found[inside], expected[inside], atol=1e-12)
    np.testing.assert_allclose(found, np.clip(expected, 0, source - 1), atol=1e-12)


# Maps.


def test_a_part_of_a_map_is_stretched_along_both_axes():
    """A plain loop over the pixels of some images with three channels."""
    maps = np.random.default_rng(0).normal(size=(2, 9, 4, 3)).astype(np.float32)
    part, size = (2 / 7, 5 / 7), (5, 6)
    rows, columns = weights_by_a_loop(part, 9, 5), weights_by_a_loop((0.0, 1.0), 4, 6)
    expected = np.zeros((2, *size, 3))
    for b, i, j in np.ndindex(2, *size):
        for y, x in np.ndindex(9, 4):
            expected[b, i, j] += rows[i, y] * columns[j, x] * maps[b, y, x]
    found = jax.jit(views.part_of, static_argnums=(1, 2))(jnp.asarray(maps), part, size)
    assert (found.shape, found.dtype) == (expected.shape, jnp.float32)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_half_a_map_in_its_own_size_is_a_slice():
    maps = jnp.asarray(np.random.default_rng(1).normal(size=(2, 8, 4, 3)), jnp.float32)
    np.testing.assert_array_equal(views.part_of(maps, (0.0, 0.5), (4, 4)), maps[:, :4])
    np.testing.assert_array_equal(views.part_of(maps, (0.0, 1.0), (8, 4)), maps)


def test_narrow_maps_stay_narrow():
    maps = jnp.ones((1, 8, 4, 3), jnp.bfloat16)
    assert views.part_of(maps, (0.0, 0.5), (3, 3)).dtype == jnp.bfloat16


# The parts of the paper.


def test_parts_are_the_papers_stripes():
    """By their ordinals, the first and the last of them in it: so the head is in two views."""
    expected = [(Fraction(first - 1, n), Fraction(last, n)) for first, last, n in STRIPES]
    assert len(base_factorized.PARTS) == 6
    for part, bounds in zip(base_factorized.PARTS, expected):
        assert part == tuple(map(float, bounds))


@pytest.mark.parametrize('group', [slice(0, 3), slice(3, 6), slice(0, 6)])
def test_parts_cover_the_image_and_overlap(group):
    parts = base_factorized.PARTS[group]
    heights = (np.arange(1000) + 0.5) / 1000
    seen = np.array([(low < heights) & (heights < high) for low, high in parts])
    assert seen.any(axis=0).all()
    by_group = {3: (1, 2), 6: (2, 4)}[len(parts)]  # how many views see a height
    assert (seen.sum(axis=0).min(), seen.sum(axis=0).max()) == by_group


def test_neighbours_share_a_stripe():
    first, second = base_factorized.PARTS[:3], base_factorized.PARTS[3:]
    for (low, high), width in ((first[:2], 1 / 4), (first[1:], 1 / 4), (second[:2], 1 / 7)):
        np.testing.assert_allclose(low[1] - high[0], width)
    np.testing.assert_allclose(second[1][1] - second[2][0], 1 / 7)


@pytest.mark.parametrize('module', [factorized_carousel, factorized_cuhk03, factorized_folder])
def test_teachers_see_the_parts_in_order(module):
    six, holistic = (module.get_config(variant) for variant in ('', 'holistic'))
    names = [f'part{number}' for number in range(6)]
    assert list(six.teachers) == names
    assert list(holistic.teachers) == sorted(['holistic', *names])
    for config in (six, holistic):
        seen = tuple(config.teachers[name].network.part for name in names)
        assert seen == base_factorized.PARTS
        assert 'part' not in config.network
    assert holistic.teachers.holistic.network.part == ()
