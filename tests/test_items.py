"""A test set of three kinds: tracklets of their own, images of shown tracklets, unknown ones."""

import numpy as np
import pytest

from kd_jax.data.records import from_rows
from kd_jax.retrieval import items

# (path, identity, camera, tracklet, frame)
QUERY = [('a1', 1, 0, 0, 11), ('a2', 1, 0, 0, 12), ('a3', 1, 0, 0, 13), ('b1', 2, 1, 7, 5)]
QUERY += [('b2', 2, 1, 7, 6), ('c1', 3, 0, -1, -1)]
GALLERY = [('d1', 2, 1, 7, 1), ('e1', 1, 1, 4, 3), ('e2', 1, 1, 4, 4), ('f1', 9, 2, -1, -1)]


def planted(query=QUERY, gallery=GALLERY):
    return items.test_of(from_rows(query), from_rows(gallery))


def test_rows_count_through_query_and_gallery():
    test = planted()
    assert test.records.paths.tolist() == [row[0] for row in QUERY + GALLERY]
    assert test.query.tolist() == [0, 1, 2, 3, 4, 5]
    assert test.gallery.tolist() == [6, 7, 8, 9]


def test_a_pool_is_counted_once():
    records = from_rows(QUERY)
    test = items.test_of(records, records)
    assert test.pool
    assert test.query.tolist() == test.gallery.tolist() == [0, 1, 2, 3, 4, 5]
    twin = items.test_of(records, from_rows(QUERY))
    assert not twin.pool
    assert len(twin.records.pids) == 12


def test_images():
    test = planted()
    query, gallery = (side(test, 'image', 8) for side in (items.query_items, items.gallery_items))
    assert query.rows.tolist() == [[0], [1], [2], [3], [4], [5]]
    assert query.pids.tolist() == [1, 1, 1, 2, 2, 3]
    assert gallery.rows.tolist() == [[6], [7], [8], [9]]
    assert (gallery.cameras.tolist(), gallery.frames.tolist()) == ([1, 1, 1, 2], [1, 3, 4, -1])


def test_first_images():
    """Of a query's own tracklet the first; each of one that the gallery shows; each of none."""
    first = items.query_items(planted(), 'first', 8)
    assert first.rows.tolist() == [[0], [3], [4], [5]]


def test_query_tracklets_are_as_the_gallery_shows_them():
    found = items.query_items(planted(), 'tracklet', 2)
    assert found.rows.tolist() == [[0, 2], [6, 6], [6, 6]]
    assert found.pids.tolist() == [1, 2, 2]
    assert found.tracklets.tolist() == [0, 7, 7]


def test_gallery_tracklets_in_the_order_in_which_they_come():
    found = items.gallery_items(planted(), 'tracklet', 2)
    assert found.rows.tolist() == [[6, 6], [7, 8]]
    assert found.pids.tolist() == [2, 1]


def test_the_images_of_a_tracklet_are_a_group():
    found = items.gallery_items(planted(), 'nearest', 2)
    assert found.rows.tolist() == [[6], [7], [8]]
    assert found.groups.tolist() == [0, 1, 1]


def test_without_known_tracklets_there_are_no_items():
    test = planted(QUERY[-1:], GALLERY[-1:])
    assert items.query_items(test, 'tracklet', 4).pids.size == 0
    assert items.gallery_items(test, 'tracklet', 4).pids.size == 0
    assert items.gallery_items(test, 'nearest', 4).pids.size == 0


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
    assert items.spread(np.arange(count), frames).tolist() == expected


def test_the_queries_join_the_gallery_first():
    test = planted()
    parts = items.query_items(test, 'tracklet', 2), items.gallery_items(test, 'tracklet', 2)
    both = items.joined(*parts)
    assert both.rows.tolist() == [[0, 2], [6, 6], [6, 6], [6, 6], [7, 8]]
    assert both.pids.tolist() == [1, 2, 2, 2, 1]
    assert both.groups is None
