"""What is counted in records, and the messages about what spoils training."""

import tracemalloc

import numpy as np
import pytest

from kd_jax.data import findings
from kd_jax.data.records import Records, from_rows


def records(*rows, folder='images'):
    """Images of (identity, camera), and of a tracklet each."""
    return from_rows(
        [(f'{folder}/{i}.jpg', pid, camera, i, i) for i, (pid, camera) in enumerate(rows)]
    )


TRAIN = records((1, 0), (1, 1), (2, 0), (2, 1), folder='train')
QUERY = records((3, 0), (4, 1), folder='query')
GALLERY = records((3, 1), (4, 0), (0, 0), folder='gallery')
TESTS = {'': (QUERY, GALLERY)}


def counted(query, gallery, same_camera):
    """`unmatched`, a query and a gallery image at a time."""
    absent = own = 0
    for q, (pid, camera) in enumerate(zip(query.pids, query.cameras)):
        others = [
            (int(gallery.cameras[g]) == camera and camera >= 0)
            for g in range(len(gallery.pids))
            if gallery.pids[g] == pid > 0 and not (query is gallery and q == g)
        ]
        absent += not others
        own += bool(others) and all(others) and not same_camera
    return findings.Unmatched(len(query.pids), absent, own)


@pytest.mark.parametrize('same_camera', [False, True])
@pytest.mark.parametrize('pool', [False, True])
def test_unmatched_equals_a_double_loop(same_camera, pool):
    rng = np.random.default_rng(0)
    seen = np.zeros(3, int)
    for _ in range(100):
        counts = rng.integers(1, 30, 2)
        query, gallery = (
            records(*zip(rng.integers(0, 9, n).tolist(), rng.integers(-1, 3, n).tolist()))
            for n in counts
        )
        gallery = query if pool else gallery
        found = findings.unmatched(query, gallery, same_camera)
        assert found == counted(query, gallery, same_camera)
        seen += (found.absent > 0, found.own_camera > 0, found.valid > 0)
    assert (seen > 0).tolist() == [True, not same_camera, True]


def test_why_a_query_has_no_match():
    query = records((3, 0), (4, 0), (5, 0), (6, -1), (0, 0))
    gallery = records((3, 1), (4, 0), (6, -1), (0, 1))
    found = findings.unmatched(query, gallery, False)
    assert found == findings.Unmatched(queries=5, absent=2, own_camera=1)
    assert found.valid == 2
    assert findings.unmatched(query, gallery, True) == findings.Unmatched(5, 2, 0)


def test_no_image_of_a_pool_matches_itself():
    pool = records((3, -1), (4, -1), (4, -1))
    same = Records(*(column.copy() for column in pool))
    assert findings.unmatched(pool, pool, True) == findings.Unmatched(3, 1, 0)
    assert findings.unmatched(pool, pool, False) == findings.Unmatched(3, 1, 0)
    assert findings.unmatched(pool, same, True) == findings.Unmatched(3, 0, 0)


def test_unmatched_takes_little_memory_and_long_identities():
    """As many as VERI-Wild's largest test set; a matrix of all pairs would be a gigabyte."""
    rng = np.random.default_rng(0)
    query, gallery = (
        Records(None, rng.integers(1, 10_000, n) * 2**45, rng.integers(0, 174, n), None, None)
        for n in (10_000, 128_517)
    )
    tracemalloc.start()
    found = findings.unmatched(query, gallery, False)
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()
    assert found.valid > 9_900


def test_images_per_identity_leaves_distractors_out():
    pids = np.array([0, 0, 0, 0, 7, 8, 8, 8, 9, 9])
    assert findings.images_per(pids, 0) == (1, 2, 3)
    assert findings.images_per(pids[4:8], 0) == (1, 2, 3)
    assert findings.images_per(pids, -1) == (1, 2.5, 4)
    assert findings.images_per(pids[:4], 0) is None


def test_identities_with_little_to_show():
    train = records((5, 0), (9, 2), (5, 1), (7, 1), (7, 1), (8, -1), (8, -1), (6, -1), (6, 0))
    found = findings.identities(train, 2, 3)
    assert found == findings.Identities(all=5, fewer={2: 1, 3: 5}, one_image=1, one_camera=2)
    nobody = findings.Identities(all=0, fewer={4: 0}, one_image=0, one_camera=0)
    assert findings.identities(from_rows([]), 4) == nobody


def test_nothing_to_say_about_good_data():
    assert findings.problems(TRAIN, TESTS) == []
    assert findings.warnings(TRAIN, TESTS, shots=2) == []
    unknown = {'': (records((3, -1)), records((3, -1), folder='other'))}
    assert findings.problems(TRAIN, unknown) == []


def only(train=TRAIN, tests=TESTS, **options):
    """The one problem there is."""
    (problem,) = findings.problems(train, tests, **options)
    return problem


def test_one_identity():
    assert only(records((1, 0), (1, 1))).startswith('train has 1 identity in 2 images')


def test_single_images_only():
    assert only(records((1, 0), (2, 0))).startswith('all 2 training identities have one image')


def test_empty_splits():
    nothing = from_rows([])
    found = findings.problems(nothing, {'': (QUERY, nothing), '1600': (nothing, nothing)})
    names = 'train', 'gallery', 'test_1600'
    assert [line.partition(',')[0] for line in found] == [f'{name} has 0 images' for name in names]


def test_identities_on_both_sides():
    query = records((3, 0), (2, 0), folder='query')
    gallery = records((3, 1), (0, 1), folder='gallery')
    assert only(tests={'800': (query, gallery)}).startswith(
        'identities 2 (1) are in train and in query_800'
    )


def test_a_distractor_of_the_gallery_is_no_identity_of_training():
    train = TRAIN._replace(pids=np.array([0, 0, 2, 2]))
    assert findings.problems(train, TESTS) == []


def test_images_on_both_sides():
    gallery = GALLERY._replace(paths=np.array([TRAIN.paths[3], 'gallery/1.jpg', TRAIN.paths[0]]))
    assert only(tests={'': (QUERY, gallery)}).startswith(
        'images train/0.jpg, train/3.jpg (2) are in train and in gallery'
    )


def test_no_query_has_a_match():
    strangers = records((5, 0), (3, 1), folder='query')
    assert only(tests={'': (strangers, GALLERY)}).startswith(
        'query: none of 2 queries has a match: the gallery has no image of 1 of their identities, '
        'and 1 only by their own camera'
    )
    assert findings.problems(TRAIN, {'': (strangers, GALLERY)}, same_camera=True) == []


@pytest.mark.parametrize('pool', [False, True])
def test_one_camera_under_the_market_rule(pool):
    query, gallery = records((3, 2), (4, 2), (3, 2)), records((3, 2), (4, 2), folder='gallery')
    tests = {'': (query, query if pool else gallery)}
    message = only(tests=tests)
    assert message.startswith(f'{"test" if pool else "query"}: all 3 queries and ')
    assert 'of camera c3, and the Market rule' in message
    assert '--config.evaluate.same_camera=keep' in message
    assert findings.problems(TRAIN, tests, same_camera=True) == []


def test_every_test_set_is_looked_at():
    tests = {**TESTS, '800': (records((5, 0), folder='query'), GALLERY)}
    assert only(tests=tests).startswith('query_800: none of 1 queries')


def test_warnings():
    train = records((1, 0), (1, 1), (2, 0))
    query = records((3, 0), (5, 1), folder='query')
    found = findings.warnings(train, {'': (query, GALLERY)}, shots=3)
    begins = '2 of 2 training identities have fewer', '1 of 2 training', 'query: 1 of 2 queries'
    assert len(found) == 3
    assert all(line.startswith(begin) for line, begin in zip(found, begins))


def test_no_match_at_all_is_a_problem_and_no_warning_too():
    tests = {'': (records((5, 0), folder='query'), GALLERY)}
    assert len(findings.problems(TRAIN, tests)) == 1
    assert findings.warnings(TRAIN, tests, shots=2) == []


def test_a_query_that_finds_itself():
    query, gallery = records((3, 0), (4, 1)), records((3, 0), (4, 1), (3, 1), (4, 0))
    tests = {'': (query, gallery)}
    assert findings.warnings(TRAIN, tests, shots=2) == []
    (found,) = findings.warnings(TRAIN, tests, shots=2, same_camera=True)
    assert found.startswith('query: images/0.jpg, images/1.jpg (2) of the queries are in')
    unknown = query._replace(cameras=np.array([-1, 1]))
    assert len(findings.warnings(TRAIN, {'': (unknown, gallery)}, shots=2)) == 1
    assert findings.warnings(TRAIN, {'': (gallery, gallery)}, shots=2, same_camera=True) == []
