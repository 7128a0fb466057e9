"""Views as VKD's code draws them: within a tracklet, or over the tracklets of an identity."""

from pathlib import Path

import numpy as np
import pytest

from kd_jax.data import sampling

GOLDEN = np.load(Path(__file__).parent / 'golden' / 'frames.npz')
DRAWS = 60


def plan(tracklets, step, views, *, shots, sets=1, identities=1):
    """The rows of a step on images of those tracklets, all of one identity, and of another one."""
    tracklets = np.asarray([*tracklets, *[9999] * 3])
    labels = np.repeat([0, 1], [len(tracklets) - 3, 3])
    index = sampling.index(labels, np.zeros(len(labels), np.int64), tracklets)
    options = {'identities': 2, 'sets': sets, 'shots': shots, 'views': views}
    drawn = sampling.plan(index, 0, step, **options)
    return drawn.rows[drawn.labels == 0]


def draws(tracklets, views, shots, sets=1):
    return np.stack([plan(tracklets, k, views, shots=shots, sets=sets) for k in range(DRAWS)])


@pytest.mark.parametrize('shots', [1, 2, 4, 8])
def test_the_first_of_each_chunk_is_vkds(shots):
    for length, expected in enumerate(GOLDEN[f'chunk_first_S{shots}'], 1):
        np.testing.assert_array_equal(sampling.spread(np.arange(length), shots), expected)
        rows = plan([5] * length, 0, 'temporal', shots=shots)
        np.testing.assert_array_equal(rows, expected[None])


@pytest.mark.parametrize('length', [1, 2, 5, 8, 9, 16, 17, 30, 40])
@pytest.mark.parametrize('shots', [1, 2, 8])
def test_a_frame_of_each_chunk_is_as_vkd_draws_it(shots, length):
    """The least and the largest frame of each chunk that its sampler was seen to draw."""
    seen = draws([5] * length, 'chunk', shots)[:, 0]
    least, most = (GOLDEN[f'chunk_random_{end}_S{shots}'][length - 1] for end in ('min', 'max'))
    assert (seen >= least).all()
    assert (seen <= most).all()
    kinds = GOLDEN[f'chunk_random_nunique_S{shots}'][length - 1]
    found = [len(np.unique(column)) for column in seen.T]
    assert all(n <= k for n, k in zip(found, kinds))
    assert all(n > 1 for n, k in zip(found, kinds) if k > 1)


@pytest.mark.parametrize('case', ['n1', 'n3', 'n8'])
def test_multiview_goes_round_the_tracklets(case):
    """View v is of tracklet order[v mod n], in VKD's draws as in ours."""
    lengths = GOLDEN[f'multiview_{case}_lens']
    tracklets = np.repeat(np.arange(len(lengths)), lengths)
    ours = tracklets[draws(tracklets, 'multiview', 8)[:, 0]]
    for shown in (GOLDEN[f'multiview_{case}_draws'][:, :, 0], ours):
        for order in shown:
            count = len(lengths)
            assert sorted(order[:count]) == list(range(count))
            np.testing.assert_array_equal(order, np.resize(order[:count], 8))
    assert (len(np.unique(ours, axis=0)) > 1) == (case != 'n1')
    rows = draws(tracklets, 'multiview', 8)
    assert set(rows.ravel().tolist()) == set(range(len(tracklets)))


def test_random_frames_of_a_tracklet_differ_as_far_as_there_are_enough():
    for rows in draws([5] * 6, 'random', 4)[:, 0]:
        assert len(set(rows.tolist())) == 4
    for rows in draws([5] * 3, 'random', 4)[:, 0]:
        assert set(rows.tolist()) == {0, 1, 2}


@pytest.mark.parametrize('views', ['chunk', 'temporal', 'random'])
def test_a_set_is_of_one_tracklet_and_the_sets_of_an_identity_of_several(views):
    tracklets = np.repeat([3, 4, 8], [5, 4, 6])
    for rows in draws(tracklets, views, 3, sets=2):
        shown = tracklets[rows]
        assert (shown == shown[:, :1]).all()
        assert shown[0, 0] != shown[1, 0]


@pytest.mark.parametrize('views', ['chunk', 'temporal', 'random'])
def test_too_few_tracklets_are_all_drawn_with_replacement(views):
    """As VKD's code draws them: four of three miss one of them in 5 of 9 batches."""
    tracklets = np.repeat([3, 4, 8], [5, 4, 6])
    shown = tracklets[draws(tracklets, views, 3, sets=4)][:, :, 0]
    kinds = [len(set(row.tolist())) for row in shown]
    assert 0.25 < np.mean(np.array(kinds) == 3) < 0.65


def test_images_of_an_unknown_tracklet_are_one():
    rows = draws([-1] * 6, 'multiview', 4)[:, 0]
    assert set(rows.ravel().tolist()) == set(range(6))
