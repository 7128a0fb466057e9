import numpy as np
import pytest
from PIL import Image

from kd_jax import data
from kd_jax.data import duke_video
from kd_jax.data.records import DataError

TREE = {
    'train': {
        '0001/0001': ['0001_C6_F0001_X30000.jpg', '0001_C6_F0002_X30012.jpg'],
        '0001/0002': ['0001_C6_F0002_X40012.jpg'],  # some tracklets begin at F0002
        '0001/0003': ['0001_C2_F0001_X00001.jpg'],
        '0001/0004': ['0001_C6_F0001_X50000.jpg'],
        '7140/0005': ['7140_C2_F0099_X00001.jpg'],
    },
    'query': {'0002/0001': ['0002_C1_F0001_X00100.jpg', '0002_C1_F0002_X00112.jpg']},
    'gallery': {
        '0002/0001': ['0002_C2_F0001_X00900.jpg'],  # not the tracklet of that name in query
        '0002/0002': ['0002_C2_F0001_X00950.jpg'],
        '0009/0003': ['0009_C8_F0001_D00007.jpg'],  # a distractor
    },
}


def older(tree):
    """The same frames under the names of older copies."""
    return {
        split: {folder: [name.replace('_', '') for name in names] for folder, names in part.items()}
        for split, part in tree.items()
    }


def plant(root, tree=TREE, **changes):
    """A tree of empty files; `changes` are further or other folders of a split."""
    for split, folders in tree.items():
        for folder, names in {**folders, **changes.get(split, {})}.items():
            (root / split / folder).mkdir(parents=True)
            for name in names:
                (root / split / folder / name).touch()
    return str(root)


def fails(root, message):
    with pytest.raises(DataError, match=message):
        duke_video.read(root=root)


@pytest.mark.parametrize('tree', [TREE, older(TREE)])
@pytest.mark.parametrize('merge', [False, True])
def test_columns(tmp_path, tree, merge):
    source = duke_video.read(root=plant(tmp_path, tree), merge=merge)
    columns = {
        'train': ([1, 1, 1, 1, 1, 7140], [5, 5, 5, 1, 5, 1], [1, 2, 2, 1, 1, 99]),
        'query': ([2, 2], [0, 0], [1, 2]),
        'gallery': ([2, 2, 9], [1, 1, 7], [1, 1, 1]),
    }
    tracklets = {
        False: {'train': [0, 0, 1, 2, 3, 4], 'query': [0, 0], 'gallery': [1, 2, 3]},
        # 0001/0004 is of the camera of 0001/0001, but a tracklet of another lies between.
        True: {'train': [0, 0, 0, 1, 2, 3], 'query': [0, 0], 'gallery': [1, 1, 2]},
    }
    for split, records in source.splits().items():
        paths = [f'{split}/{folder}/{name}' for folder, x in tree[split].items() for name in x]
        assert records.paths.tolist() == paths
        pids, cameras, frames = columns[split]
        assert records.pids.tolist() == pids
        assert records.cameras.tolist() == cameras
        assert records.frames.tolist() == frames
        assert records.tracklets.tolist() == tracklets[merge][split]
        assert all(column.dtype == np.int64 for column in records[1:])


def test_opens_the_pixels_of_a_path(tmp_path):
    source = duke_video.read(root=plant(tmp_path))
    Image.new('RGB', (3, 5)).save(tmp_path / source.query.paths[0])
    with source.open(source.query.paths[0]) as image:
        assert image.size == (3, 5)
    assert source.home == tmp_path


@pytest.mark.parametrize('merge', [False, True])
def test_a_tracklet_in_query_and_gallery_has_one_number(tmp_path, merge):
    both = {'0002/0001': TREE['query']['0002/0001']}
    source = duke_video.read(root=plant(tmp_path, gallery=both), merge=merge)
    assert source.query.tracklets.tolist() == [0, 0]
    assert source.gallery.tracklets.tolist() == [0, 0, 1, 2]


def test_order_is_that_of_tracklets_and_names(tmp_path):
    frames = {f'0001/{n}': [f'0001_C1_F{f:04d}_X{n}.jpg' for f in (30, 4)] for n in (2196, '0100')}
    train = duke_video.read(root=plant(tmp_path, train=frames)).train
    assert train.frames.tolist()[5:9] == [4, 30, 4, 30]
    assert train.tracklets.tolist() == sorted(train.tracklets)
    assert train.paths.tolist() == sorted(train.paths)


def test_merged_tracklets_end_with_the_identity(tmp_path):
    next_one = {'0003/0001': ['0003_C6_F0001_X00001.jpg']}  # camera of 0001's last tracklet
    train = duke_video.read(root=plant(tmp_path, train=next_one), merge=True).train
    assert train.pids.tolist()[4:6] == [1, 3]
    assert train.tracklets.tolist() == [0, 0, 0, 1, 2, 3, 4]


def test_system_files_and_upper_case(tmp_path):
    root = plant(tmp_path, train={'0001/0003': ['0001_C2_F0001_X00001.JPG']})
    for stray in ('.DS_Store', '0001/Thumbs.db', '0001/0001/._0001_C6_F0001_X30000.jpg'):
        (tmp_path / 'train' / stray).touch()
    assert duke_video.read(root=root).train.paths[3] == 'train/0001/0003/0001_C2_F0001_X00001.JPG'


@pytest.mark.parametrize(
    'name',
    [
        *('0001_C9_F0001_X30000.jpg', '0001_C0_F0001_X30000.jpg', '001_C6_F0001_X30000.jpg'),
        *('0001_C6_F0001_Y30000.jpg', '0001_C6_F0001_X30000.png', '0001_C6_F0001.jpg'),
        *('0001_C6_F0001_X30000.jpg.bak', 'x0001_C6_F0001_X30000.jpg', '-001_C6_F0001_X3.jpg'),
    ],
)
def test_strange_names(tmp_path, name):
    root = plant(tmp_path, train={'0001/0006': [name]})
    fails(root, rf'train/0001/0006: {name} \(1\) not named like 0001_C6_F0099_X30823.jpg')


@pytest.mark.parametrize(
    ('folder', 'where'),
    [('one/0001', 'train: one'), ('0001/6', 'train/0001: 6'), ('-001/0001', 'train: -001')],
)
def test_strange_folders(tmp_path, folder, where):
    root = plant(tmp_path, train={folder: ['0001_C6_F0001_X30000.jpg']})
    fails(root, rf'{where} \(1\) not named like 0001')


def test_image_in_the_folder_of_another_identity(tmp_path):
    root = plant(tmp_path, gallery={'0002/0002': ['0003_C2_F0001_X00950.jpg']})
    fails(root, r'gallery/0002/0002: 0003_C2_F0001_X00950.jpg \(1\) of another identity')


def test_tracklet_of_several_cameras(tmp_path):
    names = ['0002_C2_F0001_X00950.jpg', '0002_C3_F0002_X00962.jpg']
    root = plant(tmp_path, gallery={'0002/0002': names})
    fails(root, 'gallery/0002/0002: images of several cameras')


@pytest.mark.parametrize('split', duke_video.SPLITS)
def test_folder_missing_or_empty(tmp_path, split):
    root = plant(tmp_path, {**TREE, split: {}})
    fails(root, f'{split}: no such folder; expected train, query, gallery in')
    (tmp_path / split / '0001' / '0001').mkdir(parents=True)
    fails(root, f'{split}/0001/0001: no images')


def test_identity_on_both_sides(tmp_path):
    root = plant(tmp_path, gallery={'0001/0009': ['0001_C2_F0001_X00001.jpg']})
    fails(root, r'identities 1 \(1\) are in the training images')


def test_root_not_given():
    fails('', r'--config\.data\.root=DIR')


@pytest.mark.parametrize('merge', [False, True])
def test_unpublished_counts_are_logged(tmp_path, caplog, merge):
    data.read('duke_video', root=plant(tmp_path), merge=merge)
    assert 'train has 2 identities, published are 702' in caplog.text
    assert 'train has 2 cameras, published are 8' in caplog.text
    assert 'query has 1 identities, published are 702' in caplog.text
    assert ('tracklets, published are 2,196' in caplog.text) == (not merge)
    assert 'gallery' not in caplog.text
