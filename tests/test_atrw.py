"""ATRW, on fakes with the structure of the real files, and on the real ground truth if there."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kd_jax import data
from kd_jax.data import atrw
from kd_jax.data.images import streamed
from kd_jax.data.records import Counts, DataError, counts

REAL = Path(__file__).parents[2] / 'shared' / 'splits' / 'atrw_eval' / 'gt_test_plain.json'
LISTED = '0,000007.jpg\n12,000003.jpg\n0,000001.jpg\n'
TRAIN = '000001.jpg', '000003.jpg', '000007.jpg', '000099.jpg'  # 99 is not listed


def sight(imgid, query, entityid, *frame):
    return {'query': query, 'entityid': entityid, 'frame': frame, 'imgid': imgid}


TRUTH = [  # in no order; two tigers in one clip of one camera, one clip before two cameras
    sight(30, 'multi', 0, 7, 4, 657),
    sight(2, 'multi', 0, 7, 9, 12),
    sight(1234567, 'sing', 4, 7, 4, 660),
    sight(11, 'sing', 4, 5, 4, 0),
]
TEST = '000002.jpg', '000011.jpg', '000030.jpg', '1234567.jpg'


def picture(side, name):
    """Pixels of an image, no column of which is like another."""
    rng = np.random.default_rng(int(name[:-4]) + (side == 'train'))
    return rng.integers(0, 256, (5, 4, 3), np.uint8)


def plant(root, listed=LISTED, truth=TRUTH, place='ATRWEvalScript/annotations', test_list=None):
    """A tree of images, whose pixels JPEG would change, hence PNG under the name of JPEG."""
    for side, names in (('train', TRAIN), ('test', TEST)):
        (root / f'atrw_reid_{side}' / side).mkdir(parents=True)
        (root / f'atrw_anno_reid_{side}').mkdir()
        for name in names:
            file = root / f'atrw_reid_{side}' / side / name
            Image.fromarray(picture(side, name)).save(file, 'PNG')
    (root / 'atrw_anno_reid_train/reid_list_train.csv').write_text(listed)
    if test_list is not None:
        (root / 'atrw_anno_reid_test/reid_list_test.csv').write_text(test_list)
    (root / place).mkdir(parents=True, exist_ok=True)
    (root / place / 'gt_test_plain.json').write_text(json.dumps(truth))
    return str(root)


def fails(root, message):
    with pytest.raises(DataError, match=message):
        atrw.read(root=root)


@pytest.mark.parametrize('listed', [LISTED, LISTED.replace('\n', '\r\n'), LISTED + '\n'])
def test_columns_of_train(tmp_path, listed):
    source = atrw.read(root=plant(tmp_path, listed))
    folder = 'atrw_reid_train/train'
    assert source.train.paths.tolist() == [f'{folder}/00000{n}.jpg' for n in (7, 3, 1)]
    assert source.train.pids.tolist() == [1, 13, 1]
    for column in source.train[2:]:
        assert column.tolist() == [-1] * 3
    assert source.home == tmp_path


@pytest.mark.parametrize('flips', [False, True])
@pytest.mark.parametrize('place', ['ATRWEvalScript/annotations', 'annotations', '.'])
def test_columns_of_the_pool(tmp_path, place, flips):
    source = atrw.read(root=plant(tmp_path, place=place), flips=flips)
    last = 26 if flips else 13
    assert source.query is source.gallery
    assert list(source.splits()) == ['train', 'test']
    test = source.query
    assert test.paths.tolist() == [f'atrw_reid_test/test/{name}' for name in TEST]
    assert test.pids.tolist() == [last + 1, last + 5, last + 1, last + 5]
    assert test.cameras.tolist() == [1, 0, 0, 0]
    assert test.tracklets.tolist() == [3, 0, 1, 2]  # of two tigers in a clip there are two
    assert test.frames.tolist() == [12, 0, 657, 660]
    for records in source.splits().values():
        assert all(column.dtype == np.int64 for column in records[1:])


def test_flips_are_new_identities(tmp_path):
    source = atrw.read(root=plant(tmp_path), flips=True)
    paths = [f'atrw_reid_train/train/00000{n}.jpg' for n in (7, 3, 1)]
    assert source.train.paths.tolist() == paths + [f'{path}#flipped' for path in paths]
    assert source.train.pids.tolist() == [1, 13, 1, 14, 26, 14]
    for column in source.train[2:]:
        assert column.tolist() == [-1] * 6
    size = {'height': 5, 'width': 4, 'channels': 3, 'resize': 'bilinear'}
    _, pixels = streamed(source.train, source.open, split='train', **size)
    plain, flipped = np.split(pixels.read(np.arange(6)), 2)
    np.testing.assert_array_equal(plain, [picture('train', path[-10:]) for path in paths])
    np.testing.assert_array_equal(flipped, plain[:, :, ::-1])


def test_junk_is_left_out(tmp_path):
    truth = [*TRUTH[:3], {**TRUTH[3], 'entityid': -1, 'query': 'multi'}]
    source = atrw.read(root=plant(tmp_path, truth=truth))
    assert source.query.paths.tolist() == [f'atrw_reid_test/test/{TEST[n]}' for n in (0, 2, 3)]


@pytest.mark.parametrize('first', ['', '-1,', '17, '])
def test_list_of_the_test_agrees(tmp_path, first):
    lines = [f'{first}{name}\n' for name in reversed(TEST)]
    assert len(atrw.read(root=plant(tmp_path, test_list=''.join(lines))).query.paths) == 4


@pytest.mark.parametrize(
    ('names', 'message'),
    [
        (TEST[1:], r'000002.jpg \(1\) only there or only in .*gt_test_plain.json'),
        ((*TEST, '000005.jpg'), r'000005.jpg \(1\) only there or only in'),
        (('imgid', *TEST), r'imgid \(1\) not named like 000345.jpg'),
        ((), 'empty; expected the file name of a test image in each line'),
    ],
)
def test_list_of_the_test_differs(tmp_path, names, message):
    fails(plant(tmp_path, test_list='\n'.join(names)), f'reid_list_test.csv: {message}')


@pytest.mark.parametrize(
    ('listed', 'message'),
    [
        (f'id,filename\n{LISTED}', r'id,filename \(1\) not named like 12,000345.jpg'),
        (f'{LISTED}-1,000099.jpg\n', r'-1,000099.jpg \(1\) not named like'),
        (f'{LISTED}1,train/000099.jpg\n', r'1,train/000099.jpg \(1\) not named like'),
        (f'{LISTED}1,000099.jpg,2\n', r'1,000099.jpg,2 \(1\) not named like'),
        (f'{LISTED}3,000007.jpg\n', r'000007.jpg \(1\) listed twice'),
        ('', 'empty; expected lines of identity,file name'),
    ],
)
def test_faulty_list_of_training(tmp_path, listed, message):
    fails(plant(tmp_path, listed), f'reid_list_train.csv: {message}')


def test_list_of_training_missing_or_none(tmp_path):
    root, file = plant(tmp_path), tmp_path / 'atrw_anno_reid_train/reid_list_train.csv'
    file.write_bytes(b'\xff\xfe\x00')
    fails(root, 'reid_list_train.csv: cannot be read')
    file.unlink()
    fails(root, 'reid_list_train.csv: no such file; expected lines of identity,file name')


@pytest.mark.parametrize(
    ('path', 'listed'),
    [('atrw_reid_train/train/000003.jpg', 'train.csv'), ('atrw_reid_test/test/000011.jpg', 'json')],
)
def test_listed_image_missing(tmp_path, path, listed):
    root = plant(tmp_path)
    (tmp_path / path).unlink()
    fails(root, rf'{path} \(1\) missing, which .*{listed} lists')


def test_no_ground_truth(tmp_path):
    root = plant(tmp_path)
    (tmp_path / 'ATRWEvalScript/annotations/gt_test_plain.json').unlink()
    fails(
        root, 'no gt_test_plain.json; it is public in the ATRW evaluation scripts, as annotations'
    )


@pytest.mark.parametrize(
    'truth',
    [
        *({}, {'a': 1}, [], 3, [3], [[]], [{}], [sight(0, 'both', 1, 0, 0, 0)]),
        *(
            [sight(0, 'sing', 1, 0, 0)],
            [sight(0, 'sing', 1, 0, '0', 0)],
            [sight(0, [], 1, 0, 0, 0)],
        ),
        *([sight('0', 'sing', 1, 0, 0, 0)], [sight(0, 'sing', 1.5, 0, 0, 0)]),
        *([sight(-1, 'sing', 1, 0, 0, 0)], [sight(0, 'sing', -2, 0, 0, 0)]),
    ],
)
def test_faulty_ground_truth(tmp_path, truth):
    fails(
        plant(tmp_path, truth=truth), r'gt_test_plain.json: expected a list of objects with query'
    )


@pytest.mark.parametrize('content', [b'[', b'\xff\xfe\x00'])
def test_ground_truth_that_is_none(tmp_path, content):
    root = plant(tmp_path, place='.')
    (tmp_path / 'gt_test_plain.json').write_bytes(content)
    fails(root, r'gt_test_plain.json: expected a list of objects')


def test_image_twice_in_the_ground_truth(tmp_path):
    truth = [*TRUTH, sight(11, 'sing', 9, 1, 1, 1)]
    fails(plant(tmp_path, truth=truth), r'gt_test_plain.json: 000011.jpg \(1\) listed twice')


@pytest.mark.parametrize(
    'wrong',
    [
        {'entityid': 4, 'query': 'multi'},  # in two clips, but of one camera
        {'entityid': 0, 'query': 'sing'},
    ],
)
def test_cameras_contradict_the_kind_of_query(tmp_path, wrong):
    entity = wrong['entityid']
    truth = [{**entry, **wrong} if entry['entityid'] == entity else entry for entry in TRUTH]
    message = rf'json: entityid {entity} \(1\) contradict their query; sing are seen by one camera'
    fails(plant(tmp_path, truth=truth), message)


def test_root_not_given():
    fails('', r'--config\.data\.root=DIR')


@pytest.mark.parametrize(('flips', 'identities'), [(False, 107), (True, 214)])
def test_unpublished_counts_are_logged(tmp_path, caplog, flips, identities):
    data.read('atrw', root=plant(tmp_path), flips=flips)
    assert f'identities, published are {identities}' in caplog.text
    assert f'published are {"3,774" if flips else "1,887"}' in caplog.text
    assert 'test has 2 identities, published are 75' in caplog.text


@pytest.mark.skipif(not REAL.is_file(), reason='the ground truth is not here')
def test_real_ground_truth():
    test = atrw.test_records(atrw.ground_truth(REAL), 107)
    assert counts(test)[:2] == Counts(1_764, 75)[:2]
    pairs = np.unique(np.stack([test.pids, test.cameras]), axis=1)
    identities, cameras = np.unique(pairs[0], return_counts=True)
    several = cameras[np.searchsorted(identities, test.pids)] > 1
    assert ((~several).sum(), several.sum()) == (701, 1_063)
    assert ((cameras == 1).sum(), (cameras > 1).sum()) == (47, 28)
    seen = np.unique(np.stack([test.tracklets, test.pids, test.cameras]), axis=1)
    assert seen.shape[1] == counts(test).tracklets  # one identity and camera each
