import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax import views

IMAGES = jnp.arange(2 * 3 * 4 * 5 * 2).reshape(2, 3, 4, 5, 2)  # s n h w c


def test_singles_are_side_by_side():
    singles = views.singles(IMAGES)
    assert singles.shape == (6, 4, 5, 2)
    for s in range(2):
        for n in range(3):
            np.testing.assert_array_equal(singles[s * 3 + n], IMAGES[s, n])


def test_stacked_channel_is_image_times_colours_plus_colour():
    stacked = views.stacked(IMAGES)
    assert stacked.shape == (2, 4, 5, 6)
    for n in range(3):
        for colour in range(2):
            np.testing.assert_array_equal(stacked[..., n * 2 + colour], IMAGES[:, n, :, :, colour])


def test_a_set_of_one_image_is_read_alike_by_all():
    reads = [views.read(IMAGES[:, :1], word) for word in views.READS]
    for read in reads:
        np.testing.assert_array_equal(read, IMAGES[:, 0])


@pytest.mark.parametrize(
    ('reads', 'expected'),
    [('singles', views.singles), ('mean', views.singles), ('stacked', views.stacked)],
)
def test_read(reads, expected):
    np.testing.assert_array_equal(views.read(IMAGES, reads), expected(IMAGES))


def test_read_refuses_other_words():
    with pytest.raises(ValueError, match=r"method\.reads='both': .*singles, mean, stacked"):
        views.read(IMAGES, 'both')


def test_set_mean_undoes_singles():
    vectors = views.singles(IMAGES).reshape(6, -1).astype(jnp.float32)
    expected = np.asarray(IMAGES).mean(axis=1).reshape(2, -1)
    np.testing.assert_array_equal(views.set_mean(vectors, 2), expected)


def test_per_image_is_in_the_order_of_singles():
    marks = views.singles(
        jnp.broadcast_to(jnp.array([7, 9])[:, None, None, None, None], (2, 3, 1, 1, 1))
    )
    np.testing.assert_array_equal(views.per_image(jnp.array([7, 9]), 3), marks.ravel())
