import numpy as np
import pytest

from kd_jax.data import sampling

IMAGES = (1, 2, 3, 5, 8, 13)  # of identities 0..5
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(6), IMAGES)).astype(np.int32)
RARE_CAMERAS = np.random.default_rng(1).choice(4, len(LABELS), p=(0.7, 0.1, 0.1, 0.1))
TRACKLETS = np.random.default_rng(2).integers(0, 5, len(LABELS))
INDEX = sampling.index(LABELS, RARE_CAMERAS, TRACKLETS)
GROUPS = {'camera': RARE_CAMERAS, 'tracklet': TRACKLETS}


def draw(step, seed=0, **options):
    options = {'identities': 3, 'sets': 2, 'shots': 4, 'views': 'any', **options}
    return sampling.plan(INDEX, seed, step, **options)


def assert_equal(one, other):
    for a, b in zip(one, other):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def sets_of(identity, **options):
    """Many sets of one identity, by its number of images."""
    plans = [draw(step, identities=6, **options) for step in range(30)]
    return np.concatenate([p.rows[p.labels == IMAGES.index(identity)] for p in plans])


def test_a_plan_depends_on_seed_and_step_only():
    first = draw(7, seed=3)
    for step in (0, 8, 7, 100):
        draw(step, seed=step)
    assert_equal(draw(7, seed=3), first)
    assert_equal(draw(7, seed=3)._replace(keys=first.keys), first)
    for other in (draw(8, seed=3), draw(7, seed=4), draw(3, seed=7)):
        assert (other.rows != first.rows).any()
        assert not np.isin(other.keys, first.keys).any()


def test_shapes_and_types():
    plan = draw(0)
    assert plan.rows.shape == plan.keys.shape == (6, 4)
    assert plan.labels.shape == (6,)
    assert (plan.labels.dtype, plan.keys.dtype) == (np.int32, np.uint32)


def test_a_set_shows_the_identity_of_its_label():
    for step in range(20):
        plan = draw(step)
        np.testing.assert_array_equal(LABELS[plan.rows], np.repeat(plan.labels, 4).reshape(6, 4))


@pytest.mark.parametrize(('identities', 'steps'), [(1, 6), (2, 3), (3, 2), (6, 1), (4, 1), (5, 1)])
def test_an_identity_comes_once_in_an_epoch(identities, steps):
    orders = []
    for epoch in range(8):
        plans = [
            draw(epoch * steps + place, identities=identities, sets=1) for place in range(steps)
        ]
        orders.append(np.concatenate([plan.labels for plan in plans]).tolist())
        assert len(set(orders[-1])) == len(orders[-1]) == identities * steps
    assert len(set(map(tuple, orders))) > 4
    assert {label for order in orders for label in order} == set(range(6))


def test_sets_of_an_identity_stand_side_by_side():
    labels = draw(0, identities=3, sets=4).labels.reshape(3, 4)
    assert (labels == labels[:, :1]).all()
    assert len(set(labels[:, 0])) == 3


@pytest.mark.parametrize('images', [5, 8, 13])
def test_shots_without_replacement_where_there_are_enough(images):
    sets = sets_of(images, shots=5)
    assert all(len(set(rows)) == 5 for rows in sets)
    assert len(np.unique(sets)) == images  # and in time all of them


@pytest.mark.parametrize('images', [1, 2, 3])
def test_shots_with_replacement_where_there_are_too_few(images):
    for rows in sets_of(images, shots=5):
        assert len(set(rows)) == images  # all that there are


def test_first_images_of_an_identitys_sets_differ():
    plans = [draw(step, identities=6, sets=4) for step in range(10)]
    for plan in plans:
        for label, images in enumerate(IMAGES):
            firsts = plan.rows[plan.labels == label, 0]
            assert len(set(firsts)) == min(4, images)


@pytest.mark.parametrize('views', ['camera', 'tracklet'])
@pytest.mark.parametrize('images', [5, 8, 13])
def test_shots_spread_over_groups(views, images):
    groups, identity = GROUPS[views], IMAGES.index(images)
    pool = groups[identity == LABELS]
    for shots in (2, 3, 5):
        most = min(shots, len(np.unique(pool)))
        spread = [
            len(np.unique(groups[rows])) for rows in sets_of(images, shots=shots, views=views)
        ]
        assert set(spread) == {most}
        assert len(sets_of(images, shots=shots, views=views)[0]) == shots


def test_groups_are_taken_in_turns():
    """No group comes a third time while another one has a second image left."""
    groups = np.tile([0, 1, 2], 4)
    index = sampling.index(np.zeros(12, np.int32), groups, groups)
    for step in range(10):
        plan = sampling.plan(index, 0, step, identities=1, sets=1, shots=7, views='camera')
        assert sorted(np.bincount(groups[plan.rows[0]])) == [2, 2, 3]
        assert len(set(plan.rows[0])) == 7


def test_any_views_do_not_spread():
    groups = {len(np.unique(RARE_CAMERAS[rows])) for rows in sets_of(13, shots=3)}
    assert len(groups) > 1


def test_keys_of_all_images_and_steps_differ():
    keys = np.concatenate([draw(step).keys.ravel() for step in range(20)])
    assert len(np.unique(keys)) == len(keys) == 20 * 24
    assert keys.max() > 2**31  # all 32 bits are used


def test_short_identities():
    assert [sampling.short_identities(INDEX, k) for k in (1, 2, 4, 14)] == [0, 1, 3, 6]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'identities': 7}, r'sampling\.identities=7\b.* only 6 identities'),
        ({'identities': 0}, r'sampling\.identities.*from 1'),
        ({'sets': 0}, r'sampling\.sets.*from 1'),
        ({'shots': -1}, r'sampling\.shots.*from 1'),
        ({'views': 'all'}, r"sampling\.views='all': choose one of any, camera, tracklet"),
    ],
)
def test_check_refuses(options, message):
    good = {'identities': 6, 'sets': 1, 'shots': 40, 'views': 'any'}
    sampling.check(INDEX, **good)
    with pytest.raises(ValueError, match=message):
        sampling.check(INDEX, **{**good, **options})


class TestShotsOf:
    PIDS = np.array([5, 0, 7, 5, 0, 5, 9, 9, 5])

    def test_one_shot_is_the_image_itself(self):
        rows = sampling.shots_of(self.PIDS, 1, seed=0)
        np.testing.assert_array_equal(rows, np.arange(9)[:, None])

    @pytest.mark.parametrize('shots', [2, 3, 4, 6])
    def test_the_image_then_others_of_its_identity(self, shots):
        for seed in range(5):
            rows = sampling.shots_of(self.PIDS, shots, seed)
            assert rows.shape == (9, shots)
            np.testing.assert_array_equal(rows[:, 0], np.arange(9))
            assert (self.PIDS[rows] == self.PIDS[:, None]).all()
            for row in (0, 3, 5, 8):
                assert len(set(rows[row])) == min(shots, 4)

    def test_distractors_are_nobody_and_repeat_themselves(self):
        rows = sampling.shots_of(self.PIDS, 4, seed=0)
        np.testing.assert_array_equal(rows[[1, 4]], [[1] * 4, [4] * 4])

    def test_an_only_image_is_repeated(self):
        assert sampling.shots_of(self.PIDS, 3, seed=0)[2].tolist() == [2, 2, 2]

    def test_same_seed_same_shots(self):
        one, two, other = (sampling.shots_of(self.PIDS, 3, seed) for seed in (0, 0, 1))
        np.testing.assert_array_equal(one, two)
        assert (one != other).any()
