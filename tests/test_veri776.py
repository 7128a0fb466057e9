"""VeRi-776, on trees in its layout with every trap of its names, lists and tracks."""

import logging

import pytest
from PIL import Image

from kd_jax.data import veri776
from kd_jax.data.records import DataError

TRAIN = (
    '0001_c001_00016450_0.jpg',
    '0001_c001_00016460_0.jpg',
    '0001_c012_00020000_1.jpg',
    '0003_c010_00000005_12.jpg',
)
QUERY = '0002_c002_00030600_0.jpg', '0002_c020_00040000_0.jpg', '0005_c011_00000007_0.jpg'
TEST = (  # every query image is in image_test as well
    '0002_c002_00030600_0.jpg',
    '0002_c002_00030605_1.jpg',
    '0002_c002_00090000_0.jpg',
    '0002_c020_00040000_0.jpg',
    '0005_c011_00000007_0.jpg',
    '0005_c012_00000003_0.JPG',
)
LISTS = {'train': TRAIN, 'query': QUERY, 'test': TEST}
TRACKS = (  # not in the order of the names, with and without a blank at the end
    f'0005_c012_00000003 {TEST[5]} \n'
    f'0002_c002_00090000 {TEST[2]}\n'
    f'0002_c002_00030600 {TEST[0]} {TEST[1]} \n'
)
# As published, in an encoding that Python's XML parser refuses; its vehicles are not the names'.
XML = (
    '<?xml version="1.0" encoding="gb2312"?><TrainingImages Version="1.0"><Items number="1">'
    f'<Item imageName="{TRAIN[0]}" vehicleID="0099" cameraID="c007" typeName="轿车" typeID="0"/>'
    '</Items></TrainingImages>'
)


def plant(root, tracks=TRACKS, track_file='test_track.txt', lists=LISTS, **changes):
    """A tree with the given names in its folders; `lists` may name others, or be None."""
    files = {**LISTS, **changes}
    for split, names in files.items():
        folder = root / f'image_{split}'
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).touch()
    for split, names in (lists or {}).items():
        # Windows line ends, and an order that is not that of the names.
        (root / f'name_{split}.txt').write_bytes('\r\n'.join(names[::-1]).encode())
    for split in 'train', 'test':
        (root / f'{split}_label.xml').write_bytes(XML.encode('gb2312'))
    (root / 'gt_index.txt').write_text('2 3 \n')
    if tracks is not None:
        (root / track_file).write_text(tracks)
    return str(root)


def columns(records, folder):
    """Names, which must be in that folder, and the other columns."""
    paths = [path.split('/') for path in records.paths.tolist()]
    assert {start for start, _ in paths} == {folder}
    return [[name for _, name in paths], *(column.tolist() for column in records[1:])]


def test_every_column(tmp_path):
    source = veri776.read(root=plant(tmp_path))
    names, pids, cameras, tracklets, frames = columns(source.train, 'image_train')
    assert names == list(TRAIN)
    assert pids == [1, 1, 1, 3]
    assert cameras == [0, 0, 11, 9]  # three digits: the first alone would read 0 in all
    assert tracklets == [0, 0, 1, 2]
    assert frames == [16450, 16460, 20000, 5]
    assert columns(source.query, 'image_query') == [
        list(QUERY[::-1]),
        [5, 2, 2],
        [10, 19, 1],
        [-1, -1, 1],  # no track of that camera; and the first of two, not the one with the image
        [7, 40000, 30600],
    ]
    assert columns(source.gallery, 'image_test') == [
        [TEST[5], TEST[2], TEST[0], TEST[1], TEST[4], TEST[3]],
        [5, 2, 2, 2, 5, 2],
        [11, 1, 1, 1, 10, 19],
        [0, 1, 2, 2, -1, -1],
        [3, 90000, 30600, 30605, 7, 40000],
    ]
    assert source.home == tmp_path
    assert not source.more


def test_published_counts():
    train, query, gallery = (veri776.EXPECTED[split] for split in ('train', 'query', 'gallery'))
    assert (train.images, query.images, gallery.images) == (37_778, 1_678, 11_579)
    assert (train.identities, query.identities, gallery.identities) == (576, 200, 200)
    assert train.images + query.images + gallery.images == 51_035
    # Of the 20 cameras, those that see the test vehicles are not published.
    assert (train.cameras, query.cameras, gallery.cameras) == (20, 0, 0)


def test_without_merging_training_tracklets_are_unknown(tmp_path):
    source = veri776.read(root=plant(tmp_path), merge=False)
    assert source.train.tracklets.tolist() == [-1] * 4
    assert source.gallery.tracklets.tolist() == [0, 1, 2, 2, -1, -1]


def test_merged_tracklets_are_consecutive_and_in_the_order_of_time(tmp_path):
    shuffled = {**LISTS, 'train': (TRAIN[1], TRAIN[3], TRAIN[0], TRAIN[2])}
    train = veri776.read(root=plant(tmp_path, lists=shuffled)).train
    assert train.tracklets.tolist() == [0, 0, 1, 2]
    assert train.frames.tolist() == [16450, 16460, 20000, 5]


def test_without_tracks_all_tracklets_of_the_test_are_unknown(tmp_path):
    source = veri776.read(root=plant(tmp_path, tracks=None))
    assert set(source.query.tracklets) == set(source.gallery.tracklets) == {-1}
    assert columns(source.gallery, 'image_test')[0] == list(TEST[::-1])


def test_tracks_with_times_in_their_keys(tmp_path):
    tracks = f'0002_c002_00030600_t00030605 {TEST[0]} {TEST[1]}'
    source = veri776.read(root=plant(tmp_path, tracks, 'test_track_VeRi.txt'))
    assert source.gallery.tracklets.tolist() == [0, 0, -1, -1, -1, -1]
    assert source.query.tracklets.tolist() == [-1, -1, 0]


def test_an_image_in_two_tracks_is_of_the_first(tmp_path, caplog):
    tracks = f'0002_c002_1 {TEST[1]}\n0002_c002_2 {TEST[0]} {TEST[1]} \n0002_c002_3 {TEST[0]}'
    with caplog.at_level(logging.WARNING, 'absl'):
        gallery = veri776.read(root=plant(tmp_path, tracks)).gallery
    assert columns(gallery, 'image_test')[0][:2] == [TEST[1], TEST[0]]
    assert gallery.tracklets.tolist() == [0, 1, -1, -1, -1, -1]
    assert 'test_track.txt: 2 images named again' in caplog.text


def test_folders_are_listed_where_lists_are_missing(tmp_path):
    junk = 'Thumbs.db', '.DS_Store', f'._{TRAIN[0]}'
    source = veri776.read(root=plant(tmp_path, lists=None, train=(*TRAIN, *junk)))
    assert columns(source.train, 'image_train')[0] == list(TRAIN)
    assert columns(source.query, 'image_query')[0] == list(QUERY)
    assert source.gallery.tracklets.tolist() == [0, 1, 2, 2, -1, -1]


def test_images_in_no_list_are_left_out(tmp_path):
    train = veri776.read(root=plant(tmp_path, train=(*TRAIN, '0007_c001_00000001_0.jpg'))).train
    assert 7 not in train.pids


def test_there_is_no_list_image_query(tmp_path):
    root = plant(tmp_path)
    (tmp_path / 'image_query.txt').write_text('other')
    assert len(veri776.read(root=root).query.paths) == 3


def test_the_folder_of_the_release_is_optional(tmp_path):
    root = plant(tmp_path / 'data_0009_c3' / 'VeRi')
    outer, inner = (veri776.read(root=place) for place in (str(tmp_path / 'data_0009_c3'), root))
    assert outer.home == inner.home
    assert outer.train.pids.tolist() == inner.train.pids.tolist() == [1, 1, 1, 3]


def test_opens_the_pixels_of_a_path(tmp_path):
    source = veri776.read(root=plant(tmp_path))
    path = source.gallery.paths[0]
    Image.new('RGB', (3, 5)).save(tmp_path / path)
    with source.open(path) as image:
        assert image.size == (3, 5)


@pytest.mark.parametrize(
    ('tracks', 'message'),
    [
        (f'0002_c002_1 {TEST[0]} 0002_c002_9_0.jpg', r'track 0002_c002_1 has .* \(1\), not among'),
        (f'0003_c002_1 {TEST[0]}', 'track 0003_c002_1 has .* of another vehicle or camera'),
        (f'0002_c003_1 {TEST[0]}', 'track 0002_c003_1 has .* of another vehicle or camera'),
        (f'0002_c002_1 {TEST[0]} {TEST[3]}', r'.*has 0002_c020_00040000_0.jpg \(1\) of another'),
        (f'{TEST[0][2:]} {TEST[1]}', r'.* \(1\) not named like 0002_c002_00030600 '),
        (f'0002_c0021 {TEST[1]}', r'.* \(1\) not named like 0002_c002_00030600 '),
        (' \n', 'empty; expected a key and images a line'),
    ],
)
def test_faulty_tracks(tmp_path, tracks, message):
    with pytest.raises(DataError, match=f'test_track.txt: {message}'):
        veri776.read(root=plant(tmp_path, tracks))


def test_binary_list(tmp_path):
    root = plant(tmp_path)
    (tmp_path / 'name_test.txt').write_bytes(b'\xff\xfe\x00')
    with pytest.raises(DataError, match=r'name_test\.txt: cannot be read'):
        veri776.read(root=root)


def test_listed_image_missing(tmp_path):
    with pytest.raises(DataError, match=rf'image_query/{QUERY[2]} \(1\) missing, .*name_query'):
        veri776.read(root=plant(tmp_path, query=QUERY[:2]))


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('0001_c1_00016450_0.jpg', 'not named like 0002_c002_00030600_0.jpg'),
        ('0001_c001_00016450_0.jpg.bak', 'not named like'),
        ('0001_c000_00016450_0.jpg', 'of camera c000; cameras are numbered from c001'),
        ('0000_c001_00016450_0.jpg', 'of the training images have identity 0000'),
        (TRAIN[0], 'listed twice'),
        ('0002_c001_00016450_0.jpg', r'identities 2 \(1\) are in the training images'),
    ],
)
def test_faulty_names(tmp_path, name, message):
    names = (*TRAIN, name)
    with pytest.raises(DataError, match=message):
        veri776.read(root=plant(tmp_path, train=names, lists={**LISTS, 'train': names}))


def test_nothing_there(tmp_path):
    with pytest.raises(DataError, match=r'image_train: no such folder; expected image_train, im'):
        veri776.read(root=str(tmp_path))
    with pytest.raises(DataError, match=r'--config\.data\.root=DIR'):
        veri776.read(root='')
