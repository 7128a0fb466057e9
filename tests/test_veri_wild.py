"""VERI-Wild, on trees in its layout: both families of lists, all forms of lines, with a heading."""

import logging

import pytest
from PIL import Image

from kd_jax.data import veri_wild
from kd_jax.data.records import DataError

HEADING = 'id/image;Camera ID;Time;Model;Type;Color'
CAMERAS = {  # by image; 174 comes last in the order of numbers, not of text
    '00003/000017': 92,
    '00003/000018': 92,
    '30000/000002': 174,
    '00005/000101': 7,
    '00005/000102': 174,
    '00005/000103': 92,
    '00008/000201': 92,
    '00008/000202': 7,
    '00009/000301': 174,
    '00009/000302': 92,
}
OLDER = {
    'train_list': ('00003/000018.jpg', '30000/000002.jpg', '00003/000017.jpg'),
    'test_3000_query': ('00008/000201.jpg', '00005/000103.jpg'),
    'test_3000': (
        *('00005/000101.jpg', '00005/000103.jpg', '00008/000202.jpg', '00008/000201.jpg'),
        '00005/000102.jpg',
    ),
    'test_5000_query': ('00009/000302.jpg',),
    'test_5000': ('00009/000301.jpg', '00005/000102.jpg'),
    'test_10000_query': ('00009/000301.jpg',),
    'test_10000': ('00009/000302.jpg', '00009/000301.jpg'),
}
# The columns that may follow: a label from 0 for training, the vehicle for testing; no camera of
# vehicle_info.txt in either.
COLUMNS = {'00003': ' 0 61', '30000': ' 1 61', '00005': ' 5 61', '00008': ' 8 61', '00009': ' 9 61'}


def newer(name):
    """What the other family calls a list."""
    if name == 'train_list':
        return 'train_list_start0'
    start, number, *rest = name.split('_')
    return '_'.join([start, number, 'id', *rest])


def plant(root, lists=OLDER, heading=True, absent=(), cameras=CAMERAS, **changes):
    """A tree with some lists changed; None is a list left out, `absent` are images left out."""
    for path in CAMERAS.keys() - set(absent):
        (root / 'images' / path).parent.mkdir(parents=True, exist_ok=True)
        (root / 'images' / f'{path}.jpg').touch()
    split = root / 'train_test_split'
    split.mkdir(parents=True)
    for name, lines in {**lists, **changes}.items():
        if lines is not None:
            (split / f'{name}.txt').write_bytes('\r\n'.join(lines).encode())
    info = [f'{path};{cam};2018-03-11 09:17:22;Audi(A4);SUV;black' for path, cam in cameras.items()]
    (split / 'vehicle_info.txt').write_text('\n'.join([HEADING] * heading + info))
    return str(root)


def check_columns(records, names, pids, cameras, tracklets):
    assert records.paths.tolist() == [f'images/{name}.jpg' for name in names]
    assert records.pids.tolist() == pids
    assert records.cameras.tolist() == cameras
    assert records.tracklets.tolist() == tracklets
    assert records.frames.tolist() == [-1] * len(pids)


def check_source(source):
    """Every column of every split of the tree."""
    train = ['00003/000018', '30000/000002', '00003/000017']
    check_columns(source.train, train, [3, 30000, 3], [1, 2, 1], [0, 1, 0])
    check_columns(source.query, ['00008/000201', '00005/000103'], [8, 5], [1, 1], [4, 1])
    gallery = ['00005/000101', '00008/000202', '00005/000102']  # without the queries
    check_columns(source.gallery, gallery, [5, 8, 5], [0, 0, 2], [0, 3, 2])
    assert list(source.more) == ['5000', '10000']
    query, gallery = source.more['5000']
    check_columns(query, ['00009/000302'], [9], [1], [1])
    check_columns(gallery, ['00009/000301', '00005/000102'], [9, 5], [2, 2], [2, 0])
    query, gallery = source.more['10000']
    check_columns(query, ['00009/000301'], [9], [2], [1])
    check_columns(gallery, ['00009/000302'], [9], [1], [0])


FORMS = {
    'older': OLDER,
    'newer': {newer(name): lines for name, lines in OLDER.items()},
    'no extension': {
        name: [x.removesuffix('.jpg') for x in lines] for name, lines in OLDER.items()
    },
    'columns': {
        newer(name): [line + COLUMNS[line[:5]] for line in lines] for name, lines in OLDER.items()
    },
}


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('heading', [True, False])
def test_every_column_in_every_form(tmp_path, form, heading):
    source = veri_wild.read(root=plant(tmp_path, FORMS[form], heading))
    check_source(source)
    assert source.home == tmp_path


def test_galleries_listed_without_their_queries(tmp_path):
    lists = {
        f'test_{size}': [x for x in OLDER[f'test_{size}'] if x not in OLDER[f'test_{size}_query']]
        for size in (3000, 5000, 10000)
    }
    check_source(veri_wild.read(root=plant(tmp_path, **lists)))


@pytest.mark.parametrize('sizes', [(5000, 3000), [5000, 3000]])
def test_the_first_size_is_the_main_test_set(tmp_path, sizes):
    root = plant(tmp_path, test_10000=None, test_10000_query=None)
    source = veri_wild.read(root=root, sizes=sizes)
    assert source.query.pids.tolist() == [9]
    assert list(source.more) == ['3000']
    assert {split: wanted[:2] for split, wanted in source.expected.items()} == {
        'train': (277_797, 30_671),
        'query_5000': (5_000, 5_000),
        'gallery_5000': (64_389, 5_000),
        'query_3000': (3_000, 3_000),
        'gallery_3000': (38_861, 3_000),
    }


def test_published_counts(tmp_path):
    expected = veri_wild.read(root=plant(tmp_path)).expected
    totals = [
        expected[f'query{end}'].images + expected[f'gallery{end}'].images
        for end in ('_3000', '_5000', '_10000')
    ]
    assert totals == [41_861, 69_389, 138_517]
    assert totals[-1] + expected['train'].images == 416_314


@pytest.mark.parametrize('count', [173, 174, 175])
def test_other_cameras_than_published_are_logged(tmp_path, caplog, count):
    more = {f'00001/9{number:05d}': 1000 + number for number in range(count - 3)}
    with caplog.at_level(logging.WARNING, 'absl'):
        source = veri_wild.read(root=plant(tmp_path, cameras={**CAMERAS, **more}))
    logged = f'vehicle_info.txt: has {count} cameras, published are 174'
    assert (logged in caplog.text) == (count != 174) == bool(caplog.text)
    # Which of the cameras a split has is not published.
    assert not any(wanted.cameras for wanted in source.expected.values())


@pytest.mark.parametrize('sizes', [(), (300,), (3000, 3000), [3000, 800]])
def test_unknown_sizes(sizes):
    with pytest.raises(ValueError, match='choose one or more of 3000, 5000, 10000'):
        veri_wild.read(root='', sizes=sizes)


def test_vehicle_zero_shifts_all(tmp_path):
    root = plant(tmp_path, train_list=('00000/000017.jpg', '30000/000002.jpg'))
    (tmp_path / 'images' / '00000').mkdir()
    (tmp_path / 'images' / '00000' / '000017.jpg').touch()
    source = veri_wild.read(root=root)
    assert source.train.pids.tolist() == [1, 30001]
    assert source.query.pids.tolist() == [9, 6]
    assert source.more['5000'][1].pids.tolist() == [10, 6]


def test_opens_the_pixels_of_a_path(tmp_path):
    source = veri_wild.read(root=plant(tmp_path / 'VERI-Wild') and str(tmp_path))
    assert source.home == tmp_path / 'VERI-Wild'
    Image.new('RGB', (3, 5)).save(source.home / source.query.paths[0])
    with source.open(source.query.paths[0]) as image:
        assert image.size == (3, 5)


@pytest.mark.parametrize(
    ('name', 'other'),
    [
        ('train_list', 'train_list_start0.txt'),
        ('test_3000', 'test_3000_id.txt'),
        ('test_10000_query', 'test_10000_id_query.txt'),
    ],
)
def test_list_missing(tmp_path, name, other):
    with pytest.raises(DataError, match=rf'{name}\.txt: no such file; expected it or {other}, '):
        veri_wild.read(root=plant(tmp_path, **{name: None}))


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        ('000017.jpg', 'not named like 00001/000001.jpg'),
        ('00003/000017.png', 'not named like'),
        ('00003/a.jpg', 'not named like'),
        ('00003/000017 0 61', r'images/00003/000017.jpg \(1\) listed twice'),
    ],
)
def test_faulty_lines(tmp_path, line, message):
    with pytest.raises(DataError, match=rf'train_list\.txt: .*{message}'):
        veri_wild.read(root=plant(tmp_path, train_list=(*OLDER['train_list'], line)))


def test_images_without_a_camera(tmp_path):
    known = {path: cam for path, cam in CAMERAS.items() if not path.startswith('00003')}
    message = r'vehicle_info\.txt: lacks 00003/000018, 00003/000017 \(2\) of train_list\.txt'
    with pytest.raises(DataError, match=message):
        veri_wild.read(root=plant(tmp_path, cameras=known))


@pytest.mark.parametrize(
    ('path', 'camera', 'message'),
    [
        ('00009/000017', 7, r'images 17 \(1\) have two cameras'),
        ('00009/000400', 'c7', '00009/000400;c7.* not named like 00001/000001;92'),
    ],
)
def test_faulty_info(tmp_path, path, camera, message):
    with pytest.raises(DataError, match=rf'vehicle_info\.txt: .*{message}'):
        veri_wild.read(root=plant(tmp_path, cameras={**CAMERAS, path: camera}))


def test_info_missing_or_binary(tmp_path):
    root = plant(tmp_path)
    info = tmp_path / 'train_test_split' / 'vehicle_info.txt'
    info.write_bytes(b'\xff\xfe\x00')
    with pytest.raises(DataError, match=r'vehicle_info\.txt: cannot be read'):
        veri_wild.read(root=root)
    info.unlink()
    with pytest.raises(DataError, match=r'vehicle_info\.txt: no such file; expected vehicle/image'):
        veri_wild.read(root=root)


def test_image_missing(tmp_path):
    message = r'images/00009/000301.jpg \(1\) missing, which .*test_5000\.txt lists'
    with pytest.raises(DataError, match=message):
        veri_wild.read(root=plant(tmp_path, absent=['00009/000301']), sizes=(5000,))


@pytest.mark.parametrize('name', ['test_3000', 'test_10000'])
def test_identity_on_both_sides(tmp_path, name):
    with pytest.raises(DataError, match=r'identities 3 \(1\) are in the training images'):
        veri_wild.read(root=plant(tmp_path, **{name: (*OLDER[name], '00003/000017.jpg')}))


def test_root_not_given():
    with pytest.raises(DataError, match=r'--config\.data\.root=DIR'):
        veri_wild.read(root='')
