"""The tables of the check, cell by cell."""

import re

import numpy as np
from PIL import Image

from kd_jax.data import report
from kd_jax.data.findings import Queries
from kd_jax.data.records import Counts, Source, from_rows


def split(*rows):
    """Images of (identity, camera, tracklet)."""
    return from_rows([(f'{i}.jpg', *row, -1) for i, row in enumerate(rows)])


TRAIN = split((1, 0, 0), (1, 0, 0), (1, 1, 1), (2, 1, 2), (2, 2, 3), (5, 2, 4))
QUERY = split((3, 0, 0), (4, 1, 2))
GALLERY = split((3, 1, 1), (4, 1, 2), (4, 1, 2), (0, 0, -1), (0, 0, -1))
SOURCE = Source(TRAIN, QUERY, GALLERY, Image.open, None)


def cells(text):
    return [line.split() for line in text.splitlines()]


def test_splits_without_published_counts():
    head, *rows = cells(report.of_splits(SOURCE))
    assert head == ['splits', 'images', 'identities', 'cameras', 'tracklets', 'distractors']
    assert rows == [
        ['train', '6', '3', '3', '5', '0'],
        ['query', '2', '2', '2', '2', '0'],
        ['gallery', '5', '2', '2', '2', '2'],
    ]
    assert report.unpublished(SOURCE) == []


def test_published_counts_stand_below_and_others_are_marked():
    expected = {'train': Counts(6, 3, 3), 'gallery': Counts(1234, 2, 0, 3)}
    source = SOURCE._replace(expected=expected)
    rows = cells(report.of_splits(source))[1:]
    assert rows == [
        ['train', '6', '3', '3', '5', '0'],
        ['published', '6', '3', '3', '-'],
        ['query', '2', '2', '2', '2', '0'],
        ['gallery', '5!', '2', '2', '2!', '2'],
        ['published', '1,234', '2', '-', '3'],
    ]
    assert report.unpublished(source)[0].startswith('counts marked ! are not those published')
    assert report.unpublished(SOURCE._replace(expected={'train': expected['train']})) == []


def test_further_test_sets_and_pools_are_rows():
    source = SOURCE._replace(test='small', more={'large': (GALLERY, GALLERY)})
    names = [row[0] for row in cells(report.of_splits(source))]
    assert names == ['splits', 'train', 'query_small', 'gallery_small', 'test_large']


def test_images_per_identity_and_tracklet():
    identity, tracklet = report.of_shares(SOURCE).split('\n\n')
    assert cells(identity)[1:] == [
        ['train', '1', '2', '3'],
        ['query', '1', '1', '1'],
        ['gallery', '1', '1.5', '2'],
    ]
    assert cells(tracklet)[1] == ['train', '1', '1', '2']
    assert cells(tracklet)[3] == ['gallery', '1', '1.5', '2']


def test_tracklets_of_one_image_are_not_told():
    lone = [part._replace(tracklets=np.arange(len(part.pids))) for part in SOURCE[:3]]
    assert 'tracklet' not in report.of_shares(SOURCE._replace(**dict(zip(SOURCE._fields, lone))))


def test_identities():
    assert cells(report.of_identities(TRAIN, 2, 3)) == [
        ['training', 'identities', '3'],
        ['fewer', 'than', '2', 'images', '1', '33.3%'],
        ['fewer', 'than', '3', 'images', '2', '66.7%'],
        ['one', 'image', 'only', '1', '33.3%'],
        ['one', 'camera', 'only', '1', '33.3%'],
    ]


def test_queries():
    results = {'mars i2v': Queries(1980, 1980, 0), 'vehicleid 800': Queries(6532, 2, 30, camera=0)}
    text = report.of_queries(results)
    _, *rows, note = cells(text)
    assert re.split(' {3,}', text.splitlines()[0]) == [
        'queries',
        'all',
        'with a match',
        'not in the gallery',
        'only junk',
    ]
    assert rows == [
        ['mars', 'i2v', '1,980', '0', '1,980', '0'],
        ['vehicleid', '800', '6,532', '6,500', '2', '30'],
    ]
    assert note[0] == '(junk,'


def test_unreadable_images_are_listed_with_causes_and_counted():
    bad = {'a b/1.jpg': "cannot identify image file '/x/a b/1.jpg'", '2.jpg': 'truncated'}
    source = SOURCE._replace(query=GALLERY, gallery=GALLERY)
    lines = report.of_images(source, bad).splitlines()
    assert lines[1].split() == ['all', 'splits', '4', '2']
    assert lines[2:] == ['  a b/1.jpg: cannot identify image file', '  2.jpg: truncated']
    many = {f'{i}.jpg': 'x' for i in range(report.LISTED + 3)}
    lines = report.of_images(source, many).splitlines()
    assert len(lines) == 2 + report.LISTED + 1
    assert lines[-1] == '  and 3 more'
    assert report.of_images(source, None) == 'images not decoded'


def test_messages_are_wrapped_and_told_once():
    text = report.listed('problems', ['word ' * 40, 'short', 'short'])
    head, *lines = text.splitlines()
    assert head == 'problems (2)'
    assert all(len(line) <= report.WIDTH for line in lines)
    assert [line[:4] for line in lines] == ['  - ', '    ', '    ', '  - ']
    assert report.listed('warnings', []) == 'no warnings'


def test_columns_are_aligned():
    lines = report.table(
        ['a', 'bb', 'c'], [['long name of a row, and on', '1', '22'], ['x', '333']]
    )
    first, second, third = lines.splitlines()
    assert first.index('bb') + 2 == second.index('1') + 1 == third.index('333') + 3
    assert len(first) == len(second)
