"""Tables of own images: CSV and Parquet, numbers and text, and every slip of who writes one."""

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from kd_jax import data
from kd_jax.data import manifest
from kd_jax.data.records import DataError

HEADS = 'path', 'split', 'identity', 'camera', 'tracklet', 'frame'
ROWS = (
    ('a/1.jpg', 'train', 'bea', 'yard', 't2', '9'),
    ('a/2.jpg', 'train', 'anna', 'door', 't1', '20'),
    ('a/3.jpg', 'train', 'anna', 'door', 't1', '3'),
    ('a/4.jpg', 'train', 'anna', 'door', '', ''),
    ('a/5.jpg', 'train', 'anna', 'yard', 't1', '5'),
    ('b/1.jpg', 'query', 'cleo', '', 't9', '1'),
    ('b/2.jpg', 'query', 'cleo', 'door', 't3', '2'),
    ('b/3.jpg', 'gallery', 'cleo', 'yard', '', '4'),
    ('b/4.jpg', 'gallery', 'cleo', 'door', 't3', '1'),
    ('b/5.jpg', 'gallery', 'dora', 'door', 't3', '1'),
    ('b/6.jpg', 'gallery', 'cleo', 'yard', '', '2'),
)
SMALL = (
    ('1.jpg', 'train', '7'),
    ('2.jpg', 'train', '30'),
    ('3.jpg', 'query', '4'),
    ('4.jpg', 'gallery', '4'),
)


def plant(root, rows=ROWS, heads=HEADS, absent=(), start=''):
    """A CSV of the rows, and an empty file for each that is not absent."""
    for path, *_ in rows:
        if path and path not in absent:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).touch()
    lines = [','.join(row) for row in (heads, *rows)]
    (root / 'own.csv').write_text(start + '\n'.join(lines), 'utf-8')
    return str(root / 'own.csv')


def read(root, *rows, heads=HEADS[:3], **options):
    """What is read of a CSV of few columns, with further rows."""
    return manifest.read(root=plant(root, (*SMALL, *rows), heads, **options))


def columns(records):
    return [column.tolist() for column in records]


def check(source):
    """Every column of ROWS: tracklets together and in time, the rows of none behind them."""
    assert columns(source.train) == [
        ['a/3.jpg', 'a/2.jpg', 'a/5.jpg', 'a/1.jpg', 'a/4.jpg'],
        [1, 1, 1, 2, 1],
        [0, 0, 1, 1, 0],
        [0, 0, 1, 2, -1],  # t1 in two cameras is two
        [3, 20, 5, 9, -1],
    ]
    assert columns(source.query) == [['b/1.jpg', 'b/2.jpg'], [3, 3], [-1, 0], [0, 1], [1, 2]]
    assert columns(source.gallery) == [
        ['b/4.jpg', 'b/5.jpg', 'b/3.jpg', 'b/6.jpg'],
        [3, 4, 3, 3],
        [0, 0, 1, 1],
        [1, 2, -1, -1],  # one with the query's, and t3 of another identity is another
        [1, 1, 4, 2],
    ]


def test_every_column(tmp_path):
    source = manifest.read(root=plant(tmp_path))
    check(source)
    assert source.home == tmp_path


def test_blanks_marks_order_and_other_columns(tmp_path):
    rows = [(row[0], *(f' {cell} ' for cell in row[:0:-1]), '0.5') for row in ROWS]
    heads = 'path', *(f' {head}' for head in HEADS[:0:-1]), 'weather'
    check(manifest.read(root=plant(tmp_path, rows, heads, start='\ufeff')))


def test_parquet_of_text_and_of_numbers(tmp_path):
    plant(tmp_path)
    table = dict(zip(HEADS, map(list, zip(*ROWS))))
    table['frame'] = [float(frame or 'nan') for frame in table['frame']]
    table['camera'] = pyarrow.array([cam or None for cam in table['camera']]).dictionary_encode()
    table['tracklet'] = [int(text[1:]) if text else None for text in table['tracklet']]
    file = tmp_path / 'camera=3' / 'own.parquet'  # a folder that must not become a column
    file.parent.mkdir()
    table['path'] = [f'../{path}' for path in table['path']]
    pyarrow.parquet.write_table(pyarrow.table({**table, 'extra': [0.5] * len(ROWS)}), file)
    source = manifest.read(root=str(file))
    for records in source[:3]:
        records.paths[:] = np.char.replace(records.paths, '../', '')
    check(source)
    assert source.home == file.parent


@pytest.mark.parametrize('other', ['5', 'eva'])
def test_junk_is_left_out(tmp_path, other):
    junk = ('5.jpg', 'gallery', '-1'), ('6.jpg', 'train', '-1')
    source = read(tmp_path, *junk, ('7.jpg', 'gallery', other), absent=('5.jpg',))
    assert source.train.paths.tolist() == ['1.jpg', '2.jpg']
    assert source.gallery.paths.tolist() == ['4.jpg', '7.jpg']
    assert source.gallery.pids.min() > 0


def test_distractors_belong_in_the_gallery(tmp_path):
    assert read(tmp_path, ('5.jpg', 'gallery', '0')).gallery.pids.tolist() == [4, 0]
    with pytest.raises(DataError, match=r'own\.csv: 6\.jpg \(1\) of the training .* distractor'):
        read(tmp_path, ('6.jpg', 'train', '0'))


def test_absolute_paths_and_a_cache_beside_the_table(tmp_path):
    rows = [(f'{tmp_path}/far/{path}', *rest) for path, *rest in (*SMALL, ('5.jpg', 'train', '7'))]
    (tmp_path / 'here').mkdir()
    root = plant(tmp_path / 'here', rows, HEADS[:3])
    for number, (path, *_) in enumerate(rows):
        Image.new('RGB', (4, 6), (number, 0, 0)).save(path, 'PNG')
    dataset = data.load(name='manifest', root=root, height=6, width=4)
    assert dataset.train.records.paths.tolist() == [rows[row][0] for row in (0, 1, 4)]
    assert dataset.gallery.pixels.read(np.array([0]))[0, 0, 0].tolist() == [3, 0, 0]
    assert len(list((tmp_path / 'here' / '.kd_jax').glob('*.npy'))) == 3
    assert not (tmp_path / 'far' / '.kd_jax').exists()


def test_an_image_on_both_sides_of_a_test(tmp_path):
    def read_with(query, gallery):
        rows = [(*row, '1', '', '') for row in SMALL]
        rows += [('5.jpg', 'query', *query, '', ''), ('./5.jpg', 'gallery', *gallery, '', '')]
        return manifest.read(root=plant(tmp_path, rows, HEADS))

    assert len(read_with(('4', '2'), ('4', '2')).gallery.pids) == 2
    for query, gallery in (
        [('4', ''), ('4', '')],
        [('4', '1'), ('4', '2')],
        [('4', '1'), ('5', '1')],
    ):
        with pytest.raises(DataError, match=r'own\.csv: 5\.jpg \(1\) in query and gallery would f'):
            read_with(query, gallery)


@pytest.mark.parametrize(
    ('rows', 'message'),
    [
        ([('5.jpg', 'train', '')], r'no identity; every image has one: rows 5 \(1\), from 1'),
        ([('', 'train', '3'), ('', 'query', '4')], r'no path; .* rows 5, 6 \(2\)'),
        ([('5.jpg', ' ', '3')], r'no split; .* rows 5 \(1\)'),
        ([('5.jpg', 'test', '3')], r'none of train, query, gallery: rows 5 \(1\)'),
        ([('5.jpg', 'train', '-2')], r'identity below -1, which is for none: rows 5 \(1\)'),
        ([('5#1.jpg', 'train', '3')], r'a path with #; rename the file: rows 5 \(1\)'),
        ([('1.jpg', 'train', '7')], r'1\.jpg \(1\) listed twice'),
        ([('./1.jpg', 'train', '7')], r'1\.jpg \(1\) listed twice'),
        ([('5.jpg', 'gallery', '7')], r'identities 7 \(1\) are in the training images'),
        ([('5.jpg', 'train', '7', '1')], 'cannot be read .*Expected 3 columns, got 4'),
    ],
)
def test_faulty_rows(tmp_path, rows, message):
    with pytest.raises(DataError, match=rf'own\.csv: .*{message}'):
        read(tmp_path, *rows)


@pytest.mark.parametrize(
    ('column', 'value', 'message'),
    [
        ('frame', 'noon', r'a frame that is no whole number: rows 4 \(1\)'),
        ('camera', '-3', r'camera below -1, .* rows 4 \(1\)'),
    ],
)
def test_faulty_numbers(tmp_path, column, value, message):
    rows = [(*row, '') for row in SMALL[:3]] + [(*SMALL[3], value)]
    with pytest.raises(DataError, match=rf'own\.csv: {message}'):
        manifest.read(root=plant(tmp_path, rows, (*HEADS[:3], column)))


@pytest.mark.parametrize(
    ('heads', 'message'),
    [
        ((*HEADS[:3], 'camara'), "column 'camara': if it is 'camera', call it that"),
        ((*HEADS[:3], 'FRAME'), "column 'FRAME': if it is 'frame'"),
        (('path', 'split', 'identities', 'x'), "column 'identities': if it is 'identity'"),
        (('path', 'split', 'pid', 'x'), 'no column identity; its columns are path, split, pid, x'),
        (('path', 'split', 'identity', 'path'), 'more than one column path'),
    ],
)
def test_faulty_headings(tmp_path, heads, message):
    with pytest.raises(DataError, match=rf'own\.csv: {message}'):
        manifest.read(root=plant(tmp_path, [(*row, '1') for row in SMALL], heads))


@pytest.mark.parametrize('split', manifest.SPLITS)
def test_split_without_images(tmp_path, split):
    rows = [row if row[1] != split else (*row[:2], '-1') for row in SMALL]
    with pytest.raises(DataError, match=rf'own\.csv: no images of split {split}'):
        manifest.read(root=plant(tmp_path, rows, HEADS[:3]))


def test_missing_images(tmp_path):
    with pytest.raises(DataError, match=r'a/2\.jpg, b/3\.jpg \(2\) missing, which .*own\.csv'):
        manifest.read(root=plant(tmp_path, absent=('a/2.jpg', 'b/3.jpg')))


@pytest.mark.parametrize('name', ['own.csv', 'own.parquet'])
@pytest.mark.parametrize('content', [b'', b'\xff\xfe\x00\x01', b'p\xff,split,identity\nx,b,c\n'])
def test_files_that_are_no_tables(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf'{name}: cannot be read .* expected a table with path'):
        manifest.read(root=str(tmp_path / name))


def test_no_rows_and_no_file(tmp_path):
    (tmp_path / 'own.csv').write_text('path,split,identity\n')
    with pytest.raises(DataError, match=r'own\.csv: no rows; expected one for each image'):
        manifest.read(root=str(tmp_path / 'own.csv'))
    for root in tmp_path, tmp_path / 'other.csv', tmp_path / 'own.txt':
        with pytest.raises(DataError, match=r'no such file, or none in \.csv or \.parquet'):
            manifest.read(root=str(root))
    with pytest.raises(DataError, match=r'--config\.data\.root=FILE'):
        manifest.read(root='')
