"""Small data sets to prepare, what to compare when they are read back, and a bucket gs://."""

import os

import numpy as np
from etils.epath import backend, gpath
from PIL import Image
from test_cuhk03 import plant_mat, plant_protocol

from kd_jax import data
from kd_jax.data import prepare
from kd_jax.data.records import Source

NAMES = {
    'bounding_box_train': ('0001_c1', '0001_c2', '0002_c1', '0002_c2', '0007_c3'),
    'query': ('0003_c1',),
    'bounding_box_test': ('0003_c2', '0000_c3'),
}
REST = 's1_000001_00.png'
FRAMES = {
    'train': {'0001/0001': '0001_C6_F{}_X1.jpg', '0001/0002': '0001_C2_F{}_X2.jpg'}
    | {'0007/0003': '0007_C2_F{}_X3.jpg'},
    'query': {'0002/0001': '0002_C1_F{}_X4.jpg'},
    'gallery': {'0002/0002': '0002_C2_F{}_X5.jpg', '0009/0003': '0009_C8_F{}_D6.jpg'},
}
PLACE = 'open', 'home', 'stamp'  # of a source
LENGTHS = 3, 1, 2  # of tracklets, in turn
OPERATIONS = 'open exists isdir listdir glob makedirs mkdir rmtree remove rename replace copy stat'


def plant_folder(root):
    """Images under the names of Market-1501."""
    rng = np.random.default_rng(0)
    for folder, names in NAMES.items():
        (root / folder).mkdir(parents=True)
        for name in names:
            pixels = rng.integers(0, 256, (9, 5, 3), np.uint8)
            Image.fromarray(pixels).save(root / folder / (name + REST))
    return str(root)


def plant_tracklets(root):
    """DukeMTMC-VideoReID with frames of different sizes."""
    rng, planted = np.random.default_rng(0), 0
    for split, folders in FRAMES.items():
        for folder, name in folders.items():
            (root / split / folder).mkdir(parents=True)
            for frame in range(1, 1 + LENGTHS[planted % 3]):
                pixels = rng.integers(0, 256, (9 + frame, 5 + planted, 3), np.uint8)
                Image.fromarray(pixels).save(root / split / folder / name.format(f'{frame:04d}'))
            planted += 1
    return str(root)


def plant_matrix(root):
    """CUHK03 with its pixels in a .mat."""
    plant_protocol(root)
    plant_mat(root / 'cuhk-03.mat')
    return str(root)


PLANT = {'folder': plant_folder, 'cuhk03': plant_matrix, 'duke_video': plant_tracklets}


def arguments(tmp_path, name='folder', *more):
    """The command line of prepare.py, from tmp_path/raw to tmp_path/out."""
    places = f'--manual_dir={tmp_path / "raw"}', f'--data_dir={tmp_path / "out"}'
    return [f'--dataset={name}', *places, *more]


def prepared_from(name, root, out, **more):
    """Prepares what is below `root`; the folder it is in."""
    options = {key: value for key, value in more.items() if key != 'on_bad_image'}
    source = data.reader(name).read(root=root, **options)
    return prepare.prepare(name, source, str(out), **more)


def assert_same_records(found, expected):
    """Of two sources; and all else that does not depend on where they are."""
    for field in set(Source._fields) - {'train', 'query', 'gallery', 'more', *PLACE}:
        assert getattr(found, field) == getattr(expected, field), field
    assert list(found.tests()) == list(expected.tests())
    assert list(found.splits()) == list(expected.splits())
    for split, records in expected.splits().items():
        for here, there in zip(found.splits()[split], records):
            assert here.dtype == there.dtype
            np.testing.assert_array_equal(here, there)


def assert_same_pixels(found, expected):
    """Of two sources with the same records."""
    for records in expected.splits().values():
        for path in records.paths:
            with found.open(path) as here, expected.open(path) as there:
                assert here.mode == there.mode
                np.testing.assert_array_equal(np.asarray(here), np.asarray(there))


def use_bucket(monkeypatch, root):
    """Makes gs:// of epath the folder `root`; array_record and Path do not know of it."""
    local = backend.os_backend

    def here(path):
        path = os.fspath(path)
        return str(root / path.removeprefix('gs://')) if path.startswith('gs://') else path

    def operation(name):
        def call(*args, **options):
            args = [here(a) if isinstance(a, str | os.PathLike) else a for a in args]
            found = getattr(local, name)(*args, **options)
            return [p.replace(f'{root}/', 'gs://') for p in found] if name == 'glob' else found

        return call

    bucket = type('Bucket', (), {name: operation(name) for name in OPERATIONS.split()})
    monkeypatch.setattr(gpath, '_is_tf_installed', lambda: False)
    monkeypatch.setitem(gpath._PREFIX_TO_BACKEND, 'gs', bucket)
