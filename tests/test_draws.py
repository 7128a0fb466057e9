from pathlib import Path

import numpy as np

from kd_jax.retrieval import draws

FACTS = np.load(Path(__file__).parent / 'golden' / 'ranking.npz')


def test_one_image_of_each_identity():
    pids = np.array([5, 3, 5, 9, 3, 5])
    seen = [draws.one_of_each(pids, seed) for seed in range(40)]
    for rows in seen:
        assert sorted(pids[rows]) == [3, 5, 9]
        assert (np.diff(rows) > 0).all()
    assert {row for rows in seen for row in rows} == set(range(6))
    np.testing.assert_array_equal(draws.one_of_each(pids, 7), seen[7])


def curve(ranks, longest):
    """The mean over draws and queries with a rank, of having been found among the first k."""
    found = ranks[:, (ranks > 0).any(axis=0)]
    return np.array([(found <= k).mean() for k in range(1, longest + 1)])


def test_single_gallery_shot_agrees_with_torchreid():
    """Its curve is a mean over 3,000 draws; ours over as many, other ones."""
    facts = {key.rpartition('/')[2]: FACTS[key] for key in FACTS.files if 'cuhk03' in key}
    labels = [facts[key] for key in ('q_pids', 'g_pids', 'q_camids', 'g_camids')]
    order = np.argsort(np.argsort(facts['distmat'], axis=1, kind='stable'), axis=1)
    rule = {'same_camera': 'drop', 'pool': False, 'draws': 3000}
    ranks = draws.single_shot(lambda rows: order[rows], labels, block=7, **rule)
    error = facts['torchreid_cmc_stderr'] * np.sqrt(2)  # of a difference
    difference = curve(ranks, 20) - facts['torchreid_cmc_mean_of_3000_draws']
    assert (np.abs(difference) <= 4 * error + 1e-9).all()
    np.testing.assert_array_equal(
        ranks[:20], draws.single_shot(lambda rows: order[rows], labels, block=99, **rule)[:20]
    )


def shot(keys, labels, **rule):
    """The ranks of all queries in each of 200 draws."""
    rule = {'same_camera': 'drop', 'pool': False} | rule
    return draws.single_shot(lambda rows: np.array(keys)[rows], labels, draws=200, block=1, **rule)


def test_one_image_for_each_identity_is_drawn():
    """A query between two images of another identity is first or second, each about as often."""
    labels = [np.array([1]), np.array([1, 2, 2]), np.array([0]), np.array([1, 0, 0])]
    ranks = shot([[5, 4, 6]], labels)
    assert set(ranks[:, 0].tolist()) == {1, 2}
    assert 60 < (ranks == 1).sum() < 140


def test_images_by_the_own_camera_are_not_drawn():
    labels = [np.array([1]), np.array([1, 1, 2]), np.array([0]), np.array([0, 1, 0])]
    assert (shot([[1, 9, 5]], labels) == 2).all()
    assert set(shot([[1, 9, 5]], labels, same_camera='keep')[:, 0].tolist()) == {1, 2}
    unknown = [*labels[:2], np.array([-1]), np.array([-1, 1, 0])]
    assert set(shot([[1, 9, 5]], unknown)[:, 0].tolist()) == {1, 2}


def test_a_query_does_not_draw_itself_from_its_pool():
    pids, cameras = np.array([1, 1, 2]), np.array([-1, -1, -1])
    labels = [pids, pids, cameras, cameras]
    keys = [[0, 9, 5], [9, 0, 5], [7, 8, 0]]
    ranks = shot(keys, labels, pool=True)
    assert (ranks[:, :2] == 2).all()
    assert (ranks[:, 2] == 0).all()  # has no other image


def test_ties_go_to_the_earlier_image():
    labels = [np.array([2, 1]), np.array([1, 2]), np.array([0, 0]), np.array([1, 1])]
    assert (shot([[3, 3], [3, 3]], labels) == [2, 1]).all()


def test_an_identity_that_the_gallery_does_not_have_is_not_found():
    labels = [np.array([7, 3]), np.array([1, 3]), np.array([0, 0]), np.array([1, 1])]
    assert (shot([[1, 2], [1, 2]], labels) == [0, 2]).all()
