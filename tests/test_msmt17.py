"""MSMT17, on small trees with its traps."""

import re

import pytest

from kd_jax import data
from kd_jax.data import msmt17
from kd_jax.data.records import DataError

LISTS = {  # not sorted, as in the release; identities from 0 in both halves
    'train': (
        '0001/0001_003_15_0302noon_0822_10.jpg 1',
        '0000/0000_001_01_0303morning_0015_1.jpg 0',
        '0000/0000_000_01_0303morning_0008_0.jpg 0',
        '0000/0000_010_01_0303noon_0008_0_ex.jpg 0',
    ),
    'val': (
        '1040/1040_002_14_0113afternoon_0099_0.jpg 1040',
        '0000/0000_004_02_0303noon_0001_2.jpg 0',
    ),
    'query': (
        '0000/0000_013_07_0302noon_0018_1.jpg 0',
        '3059/3059_000_01_0114morning_0007_2.jpg 3059',
    ),
    'gallery': (
        '3059/3059_001_01_0114morning_0003_0.jpg 3059',
        '0000/0000_012_07_0302noon_0017_1_ex.jpg 0',
        '0000/0000_011_08_0302noon_0017_1.jpg 0',
    ),
}
FOLDERS = {'v1': ('train', 'test'), 'v2': ('mask_train_v2', 'mask_test_v2')}


def plant(home, version='v1', **changes):
    """The lists and the images they name, with what systems leave beside images."""
    train, test = FOLDERS[version]
    for name, lines in {**LISTS, **changes}.items():
        home.mkdir(parents=True, exist_ok=True)
        (home / f'list_{name}.txt').write_text(''.join(f'{line}\n' for line in lines))
        for line in lines:
            image = home / (train if name in ('train', 'val') else test) / line.split()[0]
            image.parent.mkdir(parents=True, exist_ok=True)
            image.touch()
            (image.parent / f'._{image.name}').touch()
            (image.parent / '.DS_Store').touch()
    return str(home)


def columns(records):
    """Base names, then the other columns, as lists."""
    names = [path.rpartition('/')[2] for path in records.paths.tolist()]
    return names, *(column.tolist() for column in records[1:])


@pytest.mark.parametrize('version', ['v1', 'v2'])
@pytest.mark.parametrize('above', ['', 'MSMT17_{}', 'MSMT17_{0}/MSMT17_{0}'])
@pytest.mark.parametrize('end', ['\n', '\r\n'])
def test_columns(tmp_path, version, above, end):
    root = tmp_path / 'MSMT17_V1_07_c1'  # a camera is not to be read off a folder
    home = root / above.format(version.upper())
    plant(home, version)
    (root / '__MACOSX' / 'MSMT17_V2').mkdir(parents=True)
    (root / '__MACOSX' / 'MSMT17_V2' / '._list_train.txt').touch()
    for name in LISTS:
        list_ = home / f'list_{name}.txt'
        list_.write_bytes(list_.read_bytes().replace(b'\n', end.encode()))
    source = msmt17.read(root=str(root), version=version)
    assert columns(source.train) == (
        [
            '0000_000_01_0303morning_0008_0.jpg',
            '0000_001_01_0303morning_0015_1.jpg',
            '0000_004_02_0303noon_0001_2.jpg',
            '0000_010_01_0303noon_0008_0_ex.jpg',
            '0001_003_15_0302noon_0822_10.jpg',
            '1040_002_14_0113afternoon_0099_0.jpg',
        ],
        [1, 1, 1, 1, 2, 1041],
        [0, 0, 1, 0, 14, 13],
        [0, 0, 2, 1, 3, 4],
        [8, 15, 1, 8, 822, 99],
    )
    # Test identities are other people: they follow those of training.
    assert columns(source.query) == (
        ['0000_013_07_0302noon_0018_1.jpg', '3059_000_01_0114morning_0007_2.jpg'],
        [1042, 1042 + 3059],
        [6, 0],
        [0, 2],
        [18, 7],
    )
    assert columns(source.gallery) == (
        [
            '0000_011_08_0302noon_0017_1.jpg',
            '0000_012_07_0302noon_0017_1_ex.jpg',
            '3059_001_01_0114morning_0003_0.jpg',
        ],
        [1042, 1042, 1042 + 3059],
        [7, 6, 0],
        [1, 0, 2],
        [17, 17, 3],
    )
    train, test = FOLDERS[version]
    assert source.train.paths[0] == f'{train}/0000/0000_000_01_0303morning_0008_0.jpg'
    assert source.query.paths[0] == f'{test}/0000/0000_013_07_0302noon_0018_1.jpg'
    assert source.gallery.paths[0] == f'{test}/0000/0000_011_08_0302noon_0017_1.jpg'
    assert source.home == home


def test_validation_images_are_left_out(tmp_path):
    home = plant(tmp_path)
    (tmp_path / 'list_val.txt').unlink()
    source = msmt17.read(root=home, validation=False)
    assert source.train.paths.tolist() == sorted(
        f'train/{line.split()[0]}' for line in LISTS['train']
    )
    assert source.query.pids.tolist() == [1042, 1042 + 3059]  # the same as with them


def test_version_is_not_mixed_up(tmp_path):
    plant(tmp_path / 'MSMT17_V1', 'v1')
    plant(tmp_path / 'MSMT17_V2', 'v2')
    for version, (train, _) in FOLDERS.items():
        source = msmt17.read(root=str(tmp_path), version=version)
        assert source.train.paths[0].split('/')[0] == train
    match = re.escape(f'{tmp_path}/MSMT17_V1/mask_train_v2: no such folder; expected mask_train_v2')
    with pytest.raises(DataError, match=f'{match} and .*MSMT17_V2.*version'):
        msmt17.read(root=str(tmp_path / 'MSMT17_V1'), version='v2')
    with pytest.raises(ValueError, match="version='V1': choose one of v1, v2"):
        msmt17.read(root=str(tmp_path), version='V1')


@pytest.mark.parametrize('name', LISTS)
def test_list_missing_empty_or_broken(tmp_path, name):
    root = plant(tmp_path)
    file = tmp_path / f'list_{name}.txt'
    file.write_text('\n\n')
    with pytest.raises(DataError, match=f'list_{name}.txt: empty; expected lines like 0000/0000_'):
        msmt17.read(root=root)
    file.write_bytes(b'PK\x03\x04\xff\xfe')
    with pytest.raises(DataError, match=f'list_{name}.txt: cannot be read'):
        msmt17.read(root=root)
    file.unlink()
    with pytest.raises(DataError, match=f'list_{name}.txt: no such file; expected lines like 0000'):
        msmt17.read(root=root)


@pytest.mark.parametrize('name', LISTS)
@pytest.mark.parametrize(
    ('line', 'message'),
    [
        ('0001/0001_001_01_0303morning_0008_0.jpg 2', 'of different identities'),
        ('0002/0001_001_01_0303morning_0008_0.jpg 1', 'of different identities'),
        ('0001/0002_001_01_0303morning_0008_0.jpg 1', 'of different identities'),
        ('0001/0001_001_16_0303morning_0008_0.jpg 1', 'not named like'),
        ('0001/0001_001_00_0303morning_0008_0.jpg 1', 'not named like'),
        ('0001/0001_001_01_0303evening_0008_0.jpg 1', 'not named like'),
        ('0001/0001_001_01_0303morning_0008_0.jpg', 'not named like'),
        ('0001_001_01_0303morning_0008_0.jpg 1', 'not named like'),
    ],
)
def test_faulty_lines(tmp_path, name, line, message):
    root = plant(tmp_path, **{name: (*LISTS[name], line)})
    with pytest.raises(DataError, match=f'list_{name}.txt: {line[:39]}.*{message}'):
        msmt17.read(root=root)


@pytest.mark.parametrize('name', LISTS)
def test_listed_image_missing(tmp_path, name):
    root = plant(tmp_path)
    path = LISTS[name][0].split()[0]
    (image,) = [file for file in tmp_path.rglob(path.split('/')[1])]
    image.unlink()
    with pytest.raises(DataError, match=rf'{path} \(1\) missing, which .*list_{name}.txt lists'):
        msmt17.read(root=root)


@pytest.mark.parametrize(
    ('name', 'other'), [('train', 'val'), ('query', 'gallery'), ('query', 'query')]
)
def test_image_listed_twice(tmp_path, name, other):
    root = plant(tmp_path, **{other: (*LISTS[other], LISTS[name][0])})
    path = LISTS[name][0].split()[0]
    with pytest.raises(DataError, match=rf'{path} \(1\) twice in .*list_{name}.txt'):
        msmt17.read(root=root)


@pytest.mark.parametrize(('joined', 'images'), [(True, '32,621'), (False, '30,248')])
def test_published_counts(tmp_path, caplog, joined, images):
    data.read('msmt17', root=plant(tmp_path), validation=joined)
    for counted in (
        f'train has {6 if joined else 4} images, published are {images}',
        f'train has {3 if joined else 2} identities, published are 1,041',
        f'train has {4 if joined else 2} cameras, published are 15',
        'query has 2 images, published are 11,659',
        'query has 2 identities, published are 3,060',
        'gallery has 3 images, published are 82,161',
    ):
        assert f'msmt17: {counted}' in caplog.text
