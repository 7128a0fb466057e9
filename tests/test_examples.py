import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from kd_jax.data import examples
from kd_jax.data.images import ImageError
from kd_jax.data.records import DataError, from_rows

FEATURES = tfds.features.FeaturesDict(
    {'frames': tfds.features.Sequence(tfds.features.Text()), 'pid': np.int64, 'name': np.float32}
)


def rows_of(*keys):
    return from_rows([(str(row), *key, row) for row, key in enumerate(keys)])


def test_bounds_of_images_and_of_tracklets():
    keys = (1, 0, 5), (1, 0, 5), (1, 0, 6), (1, 1, 6), (2, 1, 6), (2, 1, 6), (1, 0, 5)
    assert examples.bounds(rows_of(*keys), False).tolist() == list(range(8))
    assert examples.bounds(rows_of(*keys), True).tolist() == [0, 2, 3, 4, 6, 7]
    assert examples.bounds(rows_of((1, 0, 5)), True).tolist() == [0, 1]


def test_numbers_leave_no_gap_where_all_of_an_example_is_bad():
    records = rows_of((1, 0, 5), (1, 0, 5), (1, 0, 6), (2, 0, 7), (2, 0, 7))
    assert examples.numbers(records, [], True).tolist() == [0, 0, 1, 2, 2]
    assert examples.numbers(records, ['0', '2'], True).tolist() == [0, 1, 1]
    assert examples.numbers(records, {'0': 'truncated'}, False).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ('edges', 'size', 'expected'),
    [
        (range(6), 2, [[0, 1, 2], [2, 3, 4], [4, 5]]),
        (range(5), 4, [[0, 1, 2, 3, 4]]),
        ([0, 3, 4, 9, 10, 11], 4, [[0, 3, 4], [4, 9], [9, 10, 11]]),  # a tracklet is not cut
        ([0, 9, 10], 4, [[0, 9], [9, 10]]),
    ],
)
def test_shards(edges, size, expected):
    found = examples.shards(np.array(edges), size)
    assert [part.tolist() for part in found] == expected


@pytest.mark.parametrize('lengths', [[0], [1], [127], [128], [300, 5], [70_000, 20_000, 0], []])
def test_values_are_those_of_the_protocol_buffer(lengths):
    frames = [bytes([n % 251]) * length for n, length in enumerate(lengths)]
    stored = FEATURES.serialize_example({'frames': frames, 'pid': -1, 'name': 0.5})
    if lengths:
        assert [bytes(frame) for frame in examples.values(stored, 'frames')] == frames
    with pytest.raises(ValueError, match='no image in a stored example'):
        examples.values(stored, 'image')


@pytest.fixture
def files(tmp_path):
    """A path that opens as its file, one that is mirrored, a truncated one."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'a.jpg')
    (tmp_path / 'bad.jpg').write_bytes((tmp_path / 'a.jpg').read_bytes()[:-200])

    def open(path):
        image = Image.open(tmp_path / path.partition('#')[0])
        if '#' not in path:
            return image
        with image:
            return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)

    return open


def test_encoded(tmp_path, files):
    told = []
    plain, mirrored, bad = examples.encoded(files, ['a.jpg', 'a.jpg#', 'bad.jpg'], told.append)
    assert plain == (tmp_path / 'a.jpg').read_bytes()
    assert mirrored.startswith(b'\x89PNG')
    assert isinstance(bad, ImageError)
    assert 'truncated' in bad.cause
    assert told == [3]
    with pytest.raises(DataError, match=r'none\.jpg: .*No such file'):
        list(examples.encoded(files, ['none.jpg'], told.append))


def test_all_blocks_are_told(files, monkeypatch):
    monkeypatch.setattr(examples, 'BLOCK', 2)
    told = []
    assert len(list(examples.encoded(files, ['a.jpg'] * 5, told.append))) == 5
    assert told == [2, 2, 1]


def test_made(files):
    rows = [('a.jpg', 1, 0, 7, 3), ('bad.jpg', 1, 0, 7, 4), ('a.jpg#', 1, 0, 7, 5)]
    records, bad, told = from_rows([*rows, ('bad.jpg', 2, 0, 8, 1)]), [], []
    options = {'refuse': lambda *found: bad.append(found), 'tell': told.append}
    edges = examples.bounds(records, True)
    (found,) = examples.made(files, records, edges, tracklets=True, **options)
    assert (found['pid'], found['camera'], found['tracklet']) == (1, 0, 7)
    assert found['names'] == ['a.jpg', 'a.jpg#']
    assert found['frame'] == [3, 5]
    assert [frame[:2] for frame in found['frames']] == [b'\xff\xd8', b'\x89P']
    assert [path for path, _ in bad] == ['bad.jpg', 'bad.jpg']
    first, _ = examples.made(files, records, np.arange(4), tracklets=False, **options)
    assert (first['path'], first['frame'], first['image'][:2]) == ('a.jpg', 3, b'\xff\xd8')
