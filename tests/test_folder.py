import numpy as np
import pytest
from PIL import Image

from kd_jax.data import folder
from kd_jax.data.records import DataError

TREE = {
    'bounding_box_train': ('0002_c1s1_000451_03.jpg', '0007_c3s2_000012_01.jpg'),
    'query': ('0001_c1s1_000001_00.jpg',),
    'bounding_box_test': ('0001_c2s1_000009_00.jpg', '0000_c4s6_000100_02.jpg'),
}


def plant(root, **changes):
    """A tree of empty files, with the names of some folders changed."""
    for name, files in {**TREE, **changes}.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for file in files:
            (root / name / file).touch()
    return str(root)


def read_train(root, *files):
    return folder.read(root=plant(root, bounding_box_train=files)).train


def test_columns_of_market(tmp_path):
    train = folder.read(root=plant(tmp_path)).train
    assert train.paths.tolist() == [f'bounding_box_train/{x}' for x in TREE['bounding_box_train']]
    assert train.pids.tolist() == [2, 7]
    assert train.cameras.tolist() == [0, 2]
    assert train.frames.tolist() == [451, 12]


def test_opens_the_pixels_of_a_path(tmp_path):
    source = folder.read(root=plant(tmp_path))
    path = source.query.paths[0]
    Image.new('RGB', (3, 5)).save(tmp_path / path)
    with source.open(path) as image:
        assert image.size == (3, 5)
    assert source.home == tmp_path


def test_junk_is_dropped_and_distractors_stay_in_the_gallery(tmp_path):
    test = (*TREE['bounding_box_test'], '-1_c1s1_000002_01.jpg')
    gallery = folder.read(root=plant(tmp_path, bounding_box_test=test)).gallery
    assert gallery.pids.tolist() == [0, 1]


def test_tracklets_are_identity_camera_and_sequence(tmp_path):
    names = [f'0002_c{c}s{s}_{f:06d}_01.jpg' for c, s, f in [(1, 1, 5), (1, 1, 9), (1, 2, 3)]]
    names.append('0003_c1s1_000001_01.jpg')
    assert read_train(tmp_path, *names).tracklets.tolist() == [0, 0, 1, 2]


def test_tracklets_without_sequences_are_identity_and_camera(tmp_path):
    names = '0002_c1_01.png', '0002_c1_02.png', '0002_c2_06.png', '0003_c1_01.png'
    assert read_train(tmp_path, *names).tracklets.tolist() == [0, 0, 1, 2]


def test_sequences_are_left_out_where_asked(tmp_path):
    """A tracklet is all of an identity in one camera, its rows by the frames alone."""
    names = '0002_c1s1_000030_01.jpg', '0002_c1s2_000004_01.jpg', '0002_c1s10_000200_01.jpg'
    names += '0002_c2s1_000001_01.jpg', '0003_c1s1_000001_01.jpg', '0003_c1s2_000001_01.jpg'
    root = plant(tmp_path, bounding_box_train=names)
    together = folder.read(root=root, sequences=False)
    assert together.train.tracklets.tolist() == [0, 0, 0, 1, 2, 2]
    assert together.train.frames.tolist() == [4, 30, 200, 1, 1, 1]
    order = [name.rpartition('/')[2] for name in together.train.paths]
    assert order == [names[k] for k in (1, 0, 2, 3, 4, 5)]
    apart = folder.read(root=root)
    assert apart.train.tracklets.tolist() == [0, 1, 2, 3, 4, 5]
    assert apart.train.frames.tolist() == [30, 4, 200, 1, 1, 1]


def test_sequences_are_left_out_of_query_and_gallery(tmp_path):
    names = [f'0001_c2s{s}_00000{frame}_00.jpg' for s, frame in ((1, 5), (2, 2))]
    root = plant(tmp_path, query=names, bounding_box_test=('0001_c3s1_000001_00.jpg', *names))
    for sequences, expected in ((False, ([0, 0], [0, 0, 1])), (True, ([0, 1], [0, 1, 2]))):
        found = folder.read(root=root, sequences=sequences)
        assert (found.query.tracklets.tolist(), found.gallery.tracklets.tolist()) == expected


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('0012_c2_07.png', (12, 1, 7)),
        ('0402_c012_00016460_0.jpg', (402, 11, 16460)),
        ('0005_c2_f0046985.jpg', (5, 1, 46985)),
        ('0002_c1s1_000451_03.JPG', (2, 0, 451)),
        ('12345_c7s1_000451_03.jpeg', (12345, 6, 451)),
    ],
)
def test_names_of_kin(tmp_path, name, expected):
    train = read_train(tmp_path, name)
    assert (train.pids[0], train.cameras[0], train.frames[0]) == expected


def test_folder_names_are_not_parsed(tmp_path):
    train = folder.read(root=plant(tmp_path / '2020_c1s1_000001_00.jpg')).train
    assert train.pids.tolist() == [2, 7]


def test_order_is_that_of_padded_names(tmp_path):
    names = [f'0002_c1s1_{frame:06d}_01.jpg' for frame in (30, 4, 200)]
    assert read_train(tmp_path, *names).frames.tolist() == [4, 30, 200]


def test_order_is_that_of_the_numbers(tmp_path):
    ordered = [
        *('3_c2s2_9_1.jpg', '3_c2s10_4_1.jpg', '3_c2s10_4_2.jpg', '3_c10_7.png', '3_c10_10.png'),
        '0021_c1_5.png',
    ]
    train = read_train(tmp_path, *ordered)
    assert [path.rpartition('/')[2] for path in train.paths.tolist()] == ordered
    assert train.pids.tolist() == [3, 3, 3, 3, 3, 21]
    assert train.cameras.tolist() == [1, 1, 1, 9, 9, 0]
    assert train.tracklets.tolist() == [0, 1, 1, 2, 2, 3]
    assert train.frames.tolist() == [9, 4, 4, 7, 10, 5]


def test_system_files_are_ignored(tmp_path):
    ignored = 'Thumbs.db', '.DS_Store', '._0002_c1s1_000451_03.jpg', '.hidden'
    assert len(read_train(tmp_path, *TREE['bounding_box_train'], *ignored).paths) == 2


def test_the_level_of_the_release_is_optional(tmp_path):
    plant(tmp_path / 'outer' / folder.RELEASE)
    plant(tmp_path / 'plain')
    outer, plain = (folder.read(root=str(tmp_path / name)) for name in ('outer', 'plain'))
    for a, b in zip(outer.gallery, plain.gallery):
        np.testing.assert_array_equal(a, b)


def test_root_not_given():
    with pytest.raises(DataError, match=r'--config\.data\.root=DIR'):
        folder.read(root='')


def test_root_missing(tmp_path):
    with pytest.raises(DataError, match='nowhere: no such folder'):
        folder.read(root=str(tmp_path / 'nowhere'))


@pytest.mark.parametrize('name', folder.FOLDERS)
def test_folder_missing_or_empty(tmp_path, name):
    root = plant(tmp_path, **{name: ()})
    with pytest.raises(DataError, match=f'{name}: no images'):
        folder.read(root=root)
    (tmp_path / name).rmdir()
    with pytest.raises(DataError, match=f'{name}: no such folder; expected bounding_box_train'):
        folder.read(root=root)


def test_strange_names_are_listed_and_counted(tmp_path):
    strange = 'a.jpg', 'b.txt', 'x0002_c1s1_000451_03.jpg', '0002_c1s1_000451_03.jpg.bak'
    with pytest.raises(DataError, match=r'train: 0002\S+bak, a.jpg, b.txt, \.\.\. \(4\) not named'):
        read_train(tmp_path, *TREE['bounding_box_train'], *strange)


def test_camera_zero(tmp_path):
    with pytest.raises(DataError, match=r'0002_c0s1_000451_03.jpg \(1\) of camera c0'):
        read_train(tmp_path, '0002_c0s1_000451_03.jpg')


def test_identity_on_both_sides(tmp_path):
    with pytest.raises(DataError, match=r'identities 1 \(1\) are in the training images'):
        read_train(tmp_path, '0001_c1s1_000451_03.jpg')


@pytest.mark.parametrize(('name', 'word'), [('bounding_box_train', 'training'), ('query', 'query')])
def test_distractors_elsewhere_than_in_the_gallery(tmp_path, name, word):
    root = plant(tmp_path, **{name: ('0000_c1s1_000451_03.jpg',)})
    with pytest.raises(DataError, match=f'{name}/0000_c1s1.* of the {word} images'):
        folder.read(root=root)
