"""VehicleID, on trees in its layout: names with zeros before them, pools, no cameras."""

import pytest
from PIL import Image

from kd_jax import data
from kd_jax.data import vehicleid
from kd_jax.data.records import DataError

LISTS = {
    'train_list': ('0000017 3', '0000002 3', '0300001 26328'),
    'test_list_800': ('0000123 5', '0000045 5', '0000007 8'),  # vehicle 8 has a single image
    'test_list_1600': ('0000045 5', '0000123 5', '0000007 8', '0000009 11'),
    'test_list_2400': ('0000031 12', '0000030 12'),
    'test_list_6000': ('0000040 13', '0000041 13'),
}


def plant(root, images=None, **changes):
    """A tree with some lists changed; None is a list left out. Images are those that are listed."""
    lists = {name: lines for name, lines in {**LISTS, **changes}.items() if lines is not None}
    for folder in 'image', 'train_test_split', 'attribute':
        (root / folder).mkdir(parents=True)
    for name, lines in lists.items():
        (root / 'train_test_split' / f'{name}.txt').write_bytes('\r\n'.join(lines).encode())
    (root / 'attribute' / 'img2vid.txt').write_text('0000017 99\n')
    names = images or {line.split()[0] for lines in LISTS.values() for line in lines}
    for name in names:
        (root / 'image' / f'{name}.jpg').touch()
    return str(root)


def check_columns(records, names, pids):
    assert records.paths.tolist() == [f'image/{name}.jpg' for name in names]
    assert records.pids.tolist() == pids
    # No camera: with one and the same for all, every match would be left out.
    for column in records.cameras, records.tracklets, records.frames:
        assert column.tolist() == [-1] * len(pids)


def test_every_column(tmp_path):
    source = vehicleid.read(root=plant(tmp_path))
    check_columns(source.train, ['0000017', '0000002', '0300001'], [3, 3, 26328])
    check_columns(source.query, ['0000123', '0000045', '0000007'], [5, 5, 8])
    assert source.gallery is source.query
    assert list(source.more) == ['1600', '2400']
    middle, large = source.more['1600'], source.more['2400']
    check_columns(middle[0], ['0000045', '0000123', '0000007', '0000009'], [5, 5, 8, 11])
    check_columns(large[0], ['0000031', '0000030'], [12, 12])
    assert middle[0] is middle[1]
    assert large[0] is large[1]
    assert list(source.splits()) == ['train', 'test_800', 'test_1600', 'test_2400']
    assert source.home == tmp_path


@pytest.mark.parametrize('sizes', [(1600, 800), [1600, 800]])
def test_the_first_size_is_the_main_test_set(tmp_path, sizes):
    source = vehicleid.read(root=plant(tmp_path), sizes=sizes)
    assert len(source.query.pids) == 4
    assert list(source.more) == ['800']
    counts = {split: wanted[:2] for split, wanted in source.expected.items()}
    assert counts == {'train': (113346, 13164), 'test_1600': (13377, 1600), 'test_800': (6493, 800)}


def test_published_counts(tmp_path):
    expected = vehicleid.read(root=plant(tmp_path)).expected
    assert expected['test_800'][:2] == (6493, 800)
    assert expected['test_1600'][:2] == (13377, 1600)
    assert expected['test_2400'][:2] == (19777, 2400)
    # Of every image but one of each vehicle, which is the gallery: the probes.
    probes = [wanted.images - wanted.identities for split, wanted in expected.items()][1:]
    assert probes == [5693, 11777, 17377]


def test_lists_that_are_not_asked_for_may_be_missing(tmp_path):
    root = plant(tmp_path, test_list_800=None, test_list_1600=None, test_list_2400=None)
    source = vehicleid.read(root=root, sizes=(6000,))
    check_columns(source.query, ['0000040', '0000041'], [13, 13])
    assert not source.more


@pytest.mark.parametrize('name', ['train_list', 'test_list_800', 'test_list_2400'])
def test_list_missing(tmp_path, name):
    with pytest.raises(DataError, match=rf'{name}\.txt: no such file; expected an image and a'):
        vehicleid.read(root=plant(tmp_path, **{name: None}))


@pytest.mark.parametrize('sizes', [(), (801,), (800, 800), [800, 2401]])
def test_unknown_sizes(sizes):
    message = (
        rf'sizes=\({", ".join(map(str, sizes))},?\): choose one or more of 800, 1600, 2400, 3200'
    )
    with pytest.raises(ValueError, match=message):
        vehicleid.read(root='', sizes=sizes)


def test_names_with_their_extension(tmp_path):
    root = plant(tmp_path, train_list=('0000017.jpg  3', '0000002.JPG\t4'))
    check_columns(vehicleid.read(root=root).train, ['0000017', '0000002'], [3, 4])


@pytest.mark.parametrize('name', ['train_list', 'test_list_1600'])
def test_identities_from_zero_are_shifted_everywhere(tmp_path, name):
    zero = {'train_list': '0000031 0', 'test_list_1600': '0000040 0'}[name]
    source = vehicleid.read(root=plant(tmp_path, **{name: (*LISTS[name], zero)}))
    assert source.train.pids.tolist()[:3] == [4, 4, 26329]
    assert source.query.pids.tolist() == [6, 6, 9]
    assert source.more['2400'][0].pids.tolist() == [13, 13]
    assert 1 in (source.train if name == 'train_list' else source.more['1600'][0]).pids


@pytest.mark.parametrize('size', [800, 2400])
def test_identity_on_both_sides(tmp_path, size):
    name = f'test_list_{size}'
    with pytest.raises(DataError, match=r'identities 3 \(1\) are in the training images'):
        vehicleid.read(root=plant(tmp_path, **{name: (*LISTS[name], '0000040 3')}))


@pytest.mark.parametrize('size', [800, 2400])
def test_image_missing(tmp_path, size):
    name = f'test_list_{size}'
    message = rf'image/0000099.jpg \(1\) missing, which .*{name}\.txt lists'
    with pytest.raises(DataError, match=message):
        vehicleid.read(root=plant(tmp_path, **{name: (*LISTS[name], '0000099 5')}))


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        ('0000017', 'not named like 0000001 3'),
        ('0000017 3 1', 'not named like'),
        ('0000017 -1', 'not named like'),
        ('image/0000017 3', 'not named like'),
        ('0000017 4', r'image/0000017.jpg \(1\) listed twice'),
    ],
)
def test_faulty_lines(tmp_path, line, message):
    with pytest.raises(DataError, match=rf'train_list\.txt: .*{message}'):
        vehicleid.read(root=plant(tmp_path, train_list=(*LISTS['train_list'], line)))


def test_binary_list(tmp_path):
    root = plant(tmp_path)
    (tmp_path / 'train_test_split' / 'test_list_800.txt').write_bytes(b'\x80\x00')
    with pytest.raises(DataError, match=r'test_list_800\.txt: cannot be read'):
        vehicleid.read(root=root)


def test_the_folder_of_the_release_is_optional(tmp_path):
    plant(tmp_path / 'VehicleID_V1.0')
    assert vehicleid.read(root=str(tmp_path)).home == tmp_path / 'VehicleID_V1.0'


def test_nothing_there(tmp_path):
    with pytest.raises(DataError, match=r'train_list\.txt: no such file'):
        vehicleid.read(root=str(tmp_path))
    with pytest.raises(DataError, match=r'--config\.data\.root=DIR'):
        vehicleid.read(root='')


def test_loads_as_pools(tmp_path):
    root = plant(tmp_path)
    for file in (tmp_path / 'image').iterdir():
        Image.new('RGB', (4, 4)).save(file)
    dataset = data.load(name='vehicleid', root=root, height=4, width=4, feed='stream')
    assert list(dataset.splits()) == ['train', 'test_800', 'test_1600', 'test_2400']
    assert dataset.more['2400'][1].pixels.read([0]).shape == (1, 4, 4, 3)
    options = {'name': 'vehicleid', 'root': root, 'height': 4, 'width': 4, 'feed': 'stream'}
    tuples, lists = (data.load(sizes=kind((1600, 800)), **options) for kind in (tuple, list))
    assert tuples.fingerprint == lists.fingerprint != dataset.fingerprint
