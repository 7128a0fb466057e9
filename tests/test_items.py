"""A test set of three kinds: tracklets of their own, images of shown tracklets, unknown ones."""

import numpy as np
import pytest

from kd_jax.data import sampling
from kd_jax.data.records import from_rows
from kd_jax.retrieval import items

# (path, identity, camera, tracklet, frame)
QUERY = [('a1', 1, 0, 0, 11), ('a2', 1, 0, 0, 12), ('a3', 1, 0, 0, 13), ('b1', 2, 1, 7, 5)]
QUERY += [('b2', 2, 1, 7, 6), ('c1', 3, 0, -1, -1)]
GALLERY = [('d1', 2, 1, 7, 1), ('e1', 1, 1, 4, 3), ('e2', 1, 1, 4, 4), ('f1', 9, 2, -1, -1)]


def planted(query=QUERY, gallery=GALLERY, tracklets=True):
    return items.together(from_rows(query), from_rows(gallery), tracklets)


def test_rows_count_through_query_and_gallery():
    test = planted()
    assert test.records.paths.tolist() == [row[0] for row in QUERY + GALLERY]
    assert test.query.tolist() == [0, 1, 2, 3, 4, 5]
    assert test.gallery.tolist() == [6, 7, 8, 9]


def test_a_pool_is_counted_once():
    records = from_rows(QUERY)
    test = items.together(records, records)
    assert test.pool
    assert test.query.tolist() == test.gallery.tolist() == [0, 1, 2, 3, 4, 5]
    twin = items.together(records, from_rows(QUERY))
    assert not twin.pool
    assert len(twin.records.pids) == 12


def test_images():
    test = planted()
    query, gallery = (side(test, 'image', 8) for side in (items.query_items, items.gallery_items))
    assert query.rows.tolist() == [[0], [1], [2], [3], [4], [5]]
    assert query.pids.tolist() == [1, 1, 1, 2, 2, 3]
    assert gallery.rows.tolist() == [[6], [7], [8], [9]]
    assert (gallery.cameras.tolist(), gallery.frames.tolist()) == ([1, 1, 1, 2], [1, 3, 4, -1])


def test_a_query_tracklet_asks_once():
    """With its own frames, whatever the gallery shows of it."""
    first, whole = (items.query_items(planted(), kind, 2) for kind in ('first', 'tracklet'))
    assert first.rows.tolist() == [[0], [3]]
    assert whole.rows.tolist() == [[0, 2], [3, 4]]
    assert whole.pids.tolist() == [1, 2]


def test_query_images_ask_each_where_there_are_images():
    """As tracklets those that the gallery shows, with its frames."""
    test = planted(tracklets=False)
    first, whole = (items.query_items(test, kind, 2) for kind in ('first', 'tracklet'))
    assert first.rows.tolist() == [[0], [1], [2], [3], [4], [5]]
    assert whole.rows.tolist() == [[6, 6], [6, 6]]
    assert whole.pids.tolist() == [2, 2]
    assert whole.tracklets.tolist() == [7, 7]


def test_gallery_tracklets_in_the_order_in_which_they_come():
    found = items.gallery_items(planted(), 'tracklet', 2)
    assert found.rows.tolist() == [[6, 6], [7, 8]]
    assert found.pids.tolist() == [2, 1]


def test_images_of_tracklets():
    """The first of each, or all where the data set does not consist of tracklets."""
    assert items.gallery_items(planted(), 'shown', 2).rows.tolist() == [[6], [7]]
    found = items.gallery_items(planted(tracklets=False), 'shown', 2)
    assert found.rows.tolist() == [[6], [7], [8]]
    assert found.groups is None


def test_the_images_of_a_tracklet_are_a_group():
    found = items.gallery_items(planted(), 'nearest', 2)
    assert found.rows.tolist() == [[6], [7], [8]]
    assert found.groups.tolist() == [0, 1, 1]


def test_without_known_tracklets_there_are_no_items():
    test = planted(QUERY[-1:], GALLERY[-1:])
    assert items.query_items(test, 'tracklet', 4).pids.size == 0
    assert items.gallery_items(test, 'tracklet', 4).pids.size == 0
    assert items.gallery_items(test, 'nearest', 4).pids.size == 0
    assert items.gallery_items(test, 'shown', 4).pids.size == 0


@pytest.mark.parametrize(
    ('count', 'frames', 'expected'),
    [
        (1, 3, [0, 0, 0]),
        (2, 3, [0, 1, 1]),
        (3, 3, [0, 1, 2]),
        (4, 3, [0, 2, 3]),
        (7, 3, [0, 3, 6]),
        (9, 3, [0, 3, 6]),
        (16, 8, [0, 2, 4, 6, 8, 10, 12, 14]),
        (17, 8, [0, 3, 6, 9, 12, 15, 16, 16]),
    ],
)
def test_the_first_frame_of_each_chunk(count, frames, expected):
    assert sampling.spread(np.arange(count), frames).tolist() == expected


def test_the_queries_join_the_gallery_first():
    test = planted()
    parts = items.query_items(test, 'tracklet', 2), items.gallery_items(test, 'tracklet', 2)
    both = items.joined(*parts)
    assert both.rows.tolist() == [[0, 2], [3, 4], [6, 6], [7, 8]]
    assert both.pids.tolist() == [1, 2, 2, 1]
    assert both.groups is None
