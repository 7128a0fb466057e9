"""What is counted in records, and the messages about what spoils training."""

import numpy as np
import pytest

from kd_jax.data import findings
from kd_jax.data.records import from_rows


def records(*rows, folder='images'):
    """Images of (identity, camera), and of a tracklet each."""
    return from_rows(
        [(f'{folder}/{i}.jpg', pid, camera, i, i) for i, (pid, camera) in enumerate(rows)]
    )


TRAIN = records((1, 0), (1, 1), (2, 0), (2, 1), folder='train')
QUERY = records((3, 0), (4, 1), folder='query')
GALLERY = records((3, 1), (4, 0), (0, 0), folder='gallery')
TESTS = {'': (QUERY, GALLERY)}


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
    assert findings.warnings(TRAIN, 2) == []


def only(train=TRAIN, tests=TESTS):
    """The one problem there is."""
    (problem,) = findings.problems(train, tests)
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


def test_a_gallery_of_strangers():
    query = records((5, 0), (6, 1), (6, 0), (0, 0), folder='query')
    tests = {**TESTS, '800': (query, GALLERY)}
    assert only(tests=tests).startswith(
        'query_800: the gallery has no image of any of the 2 identities of 4 queries'
    )
    tests['800'] = (records((5, 0), (3, 1), folder='query'), GALLERY)
    assert findings.problems(TRAIN, tests) == []


@pytest.mark.parametrize('pool', [False, True])
def test_cameras_are_for_the_protocol_to_judge(pool):
    query, gallery = records((3, 2), (4, 2)), records((3, 2), (4, 2), folder='gallery')
    assert findings.problems(TRAIN, {'': (query, query if pool else gallery)}) == []


def test_results_with_no_match_and_with_some():
    counts = {'mars i2v': (7, 0, 0), 'mars v2v': (7, 3, 4), 'atrw': (9, 2, 1), 'i2v': (9, 9, 0)}
    results = {name: findings.Queries(*numbers) for name, numbers in counts.items()}
    assert [queries.valid for queries in results.values()] == [7, 0, 6, 0]
    none, absent = findings.unanswered(results)
    assert none.startswith(
        'mars v2v: none of 7 queries has a match: 3 are not in the gallery, and 4 only as junk'
    )
    assert absent.startswith('i2v: none of 9 queries has a match: 9 are not in the gallery')
    (some,) = findings.partly_answered(results)
    assert some == (
        'atrw: 3 of 9 queries have no match: 2 are not in the gallery, and 1 only as junk'
    )


def test_one_camera_is_told_with_its_remedy():
    (message,) = findings.unanswered({'market': findings.Queries(3, 1, 2, camera=0)})
    assert message.startswith('market: all queries and gallery images are of camera c1, and')
    assert message.endswith('--config.evaluate.same_camera=keep is for data with one camera')


def test_warnings():
    train = records((1, 0), (1, 1), (2, 0))
    fewer, one = findings.warnings(train, 3)
    assert fewer.startswith('2 of 2 training identities have fewer than 3 images')
    assert one.startswith('1 of 2 training identities have one image only')
