"""Images to embed: of a folder, of a table, of one file."""

import os

import numpy as np
import photos
import pytest

from kd_jax.data import listing
from kd_jax.data.records import DataError


def test_a_folder_is_read_with_all_below_it(tmp_path):
    for folder in ('b', 'a/deep'):
        photos.plant(tmp_path / folder, identities=1, cameras=1)
    (tmp_path / 'a' / 'Z.JPG').write_bytes(b'x')
    for other in ('notes.txt', '.hidden.png', 'Thumbs.db'):
        (tmp_path / other).write_bytes(b'x')
    photos.plant(tmp_path / '.kd_jax', identities=1)
    found = listing.listed(tmp_path)
    names = ['0001_c1s1_000001_00.png', '0001_c1s1_000002_00.png']
    wanted = ['a/Z.JPG', *(f'a/deep/{name}' for name in names), *(f'b/{name}' for name in names)]
    assert found.paths.tolist() == wanted
    assert set(found.identities) == set(found.cameras) == {''}
    with found.open(wanted[1]) as image:
        assert image.size == (20, 40)


def test_folders_behind_links_are_read_once(tmp_path):
    photos.plant(tmp_path / 'there', identities=1, cameras=1)
    home = tmp_path / 'home'
    home.mkdir()
    os.symlink(tmp_path / 'there', home / 'link')
    os.symlink(home, home / 'again')
    assert [path.split('/')[0] for path in listing.listed(home).paths] == ['link', 'link']


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    """Root reads all, so that the system has to be made to refuse."""
    photos.plant(tmp_path / 'a' / 'deep')
    scandir, closed = os.scandir, str(tmp_path / 'a')

    def scan(path):
        if path == closed:
            raise PermissionError(13, 'Permission denied', path)
        return scandir(path)

    monkeypatch.setattr(os, 'scandir', scan)
    with pytest.raises(DataError, match=rf'{closed}: .* cannot be read \(Permission denied\)'):
        listing.listed(tmp_path)


def test_one_file(tmp_path):
    name = photos.plant(tmp_path)[0]
    found = listing.listed(tmp_path / name, 'market')
    assert [column.tolist() for column in found[1:]] == [[name], ['1'], ['1']]


def test_identity_and_camera_by_name(tmp_path):
    photos.plant(tmp_path / 'x', identities=2, cameras=1)
    (tmp_path / '-1_c3s1_000001_00.png').write_bytes(b'x')
    (tmp_path / '0000_c3s1_000001_00.png').write_bytes(b'x')
    found = listing.listed(tmp_path, 'market')
    assert found.identities.tolist() == ['-1', '0', '1', '1', '2', '2']
    assert found.cameras.tolist() == ['3', '3', '1', '1', '1', '1']
    (tmp_path / 'someone.png').write_bytes(b'x')
    with pytest.raises(DataError, match=r'someone\.png \(1\) not named like'):
        listing.listed(tmp_path, 'market')


def test_a_table_keeps_its_order(tmp_path):
    rows = [('b/2.png', 'anna', 'front door'), ('./1.png', '', 7), ('/c/3.png', '01', '')]
    found = listing.listed(photos.table(tmp_path / 'own.csv', rows))
    assert found.home == tmp_path
    assert found.paths.tolist() == ['b/2.png', '1.png', '/c/3.png']
    assert found.identities.tolist() == ['anna', '', '1']
    assert found.cameras.tolist() == ['front door', '7', '']
    unknown = [('1.png', '-1', '-1'), ('2.png', 1, -1)]
    known = listing.listed(photos.table(tmp_path / 'own.csv', unknown))
    assert (known.identities.tolist(), known.cameras.tolist()) == (['-1', '1'], ['', ''])
    alone = listing.listed(photos.table(tmp_path / 'own.csv', [('1.png',)], heads='path'))
    assert alone.identities.tolist() == ['']


@pytest.mark.parametrize(
    ('rows', 'heads', 'message'),
    [
        ([('1.png', 1, 1), ('./1.png', 1, 2)], 'path,identity,camera', r'1\.png \(1\) listed twi'),
        ([('1.png', 1, 1), ('', 1, 2)], 'path,identity,camera', r'no path; .* rows 2 \(1\)'),
        ([('1.png', 1, 1), ('2.png', '01', 2)], 'path,identity,camera', 'spelt in two ways'),
        ([], 'path,identity,camera', 'no rows'),
        ([('1.png',)], 'file', 'no column path'),
        ([('1.png', 1)], 'path,identiy', "if it is 'identity', call it that"),
    ],
)
def test_faulty_tables(tmp_path, rows, heads, message):
    file = photos.table(tmp_path / 'own.csv', rows, heads)
    with pytest.raises(DataError, match=message):
        listing.listed(file)


def test_what_is_not_there(tmp_path):
    with pytest.raises(DataError, match='no such file or folder'):
        listing.listed(tmp_path / 'nowhere')
    with pytest.raises(DataError, match=r'no images; expected files in \.jpg'):
        listing.listed(tmp_path)
    file = photos.table(tmp_path / 'own.csv', [('0001_c1_1.png', 1, 1)])
    with pytest.raises(DataError, match='leave out --names'):
        listing.listed(file, 'market')


def test_the_stamp_knows_names_labels_and_files(tmp_path):
    names = photos.plant(tmp_path)
    found = listing.listed(tmp_path)
    stamps = {found.stamp(), listing.listed(tmp_path, 'market').stamp()}
    stamps.add(found._replace(paths=found.paths[:-1]).stamp())
    stamps.add(found._replace(paths=np.append(found.paths[:-1], 'absent.png')).stamp())
    assert found.stamp() in stamps
    (tmp_path / names[0]).write_bytes(b'another')
    stamps.add(found.stamp())
    assert len(stamps) == 5
