"""What is too short for sets whose images all differ is counted, and told."""

import numpy as np
import pytest
import smoke

from kd_jax import data, recipes
from kd_jax.data import sampling

FRAMES = ((6,), (1, 5), (4, 4, 4), (2, 2, 3, 5))  # of each tracklet, by identity
OF_IMAGES = ('any', 'camera', 'tracklet')
OF_FRAMES = ('chunk', 'temporal', 'random')


def planted():
    """An index in which tracklets of all identities are numbered from 0."""
    images = [
        (identity, number)
        for identity, lengths in enumerate(FRAMES)
        for number, length in enumerate(lengths)
        for _ in range(length)
    ]
    labels, tracklets = np.random.default_rng(0).permutation(images).T
    return sampling.index(labels, np.zeros_like(labels), tracklets)


INDEX = planted()


def told(views, sets=2, shots=4):
    return sampling.shortages(INDEX, identities=4, sets=sets, shots=shots, views=views)


@pytest.mark.parametrize('views', OF_IMAGES)
def test_images_of_identities(views):
    """Of 6, 6, 12 and 12, whatever their tracklets are."""
    assert told(views, shots=6, sets=6) == []
    assert told(views, shots=1, sets=9) == ['2 identities have fewer than 9 images: repeated']
    assert told(views, shots=7) == ['2 identities have fewer than 7 images: repeated']
    assert told(views, shots=13) == ['4 identities have fewer than 13 images: repeated']


def test_tracklets_of_identities():
    """Each view is of another one; of the sets there may be any number."""
    one = '1 identities have one tracklet: all views are of it'
    assert told('multiview', shots=2) == [one]
    assert told('multiview') == [one, '2 identities have fewer than 4 tracklets']
    assert told('multiview', shots=5, sets=9) == [one, '3 identities have fewer than 5 tracklets']


@pytest.mark.parametrize('views', OF_FRAMES)
def test_frames_of_tracklets(views):
    """All views are of one, and the sets of an identity of others."""
    frames = '4 tracklets have fewer than 4 frames: repeated'
    assert told(views, shots=1, sets=1) == []
    assert told(views, sets=1) == [frames]
    assert told(views) == [
        frames,
        '1 identities have fewer than 2 tracklets: drawn with replacement',
    ]
    again = '3 identities have fewer than 4 tracklets: drawn with replacement'
    assert told(views, shots=1, sets=4) == [again]


def test_all_views_are_looked_at():
    assert {*OF_IMAGES, 'multiview', *OF_FRAMES} == set(sampling.VIEWS)


def test_a_plan_tells_of_them(caplog):
    """Of 8 identities with 8 tracklets of 4 frames each."""
    caplog.set_level('INFO')
    config = smoke.config('vkd_carousel')
    dataset = data.load(**config.data)
    recipes.plan(config, dataset)
    assert 'fewer' not in caplog.text
    config.sampling.update(views='chunk', shots=5, sets=9)
    recipes.plan(config, dataset)
    assert '64 tracklets have fewer than 5 frames: repeated\n' in caplog.text
    assert '8 identities have fewer than 9 tracklets: drawn with replacement\n' in caplog.text
