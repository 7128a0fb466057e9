import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kd_jax.data import cache, images
from kd_jax.data.records import DataError, from_rows, stamp_of

ROOT = Path(__file__).parents[1]
SIZE = {'height': 12, 'width': 6, 'channels': 3, 'resize': 'bilinear'}


@pytest.fixture
def home(tmp_path):
    """A folder of five images."""
    folder = tmp_path / 'data'
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(5):
        pixels = rng.integers(0, 256, (20 + i, 10, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f'{i}.jpg')
    return folder


def records_of(home):
    names = sorted(file.name for file in home.iterdir() if file.is_file())
    return from_rows([(name, i, 0, 0, 0) for i, name in enumerate(names)])


def cached(home, opened=None, **options):
    def open_image(path):
        if opened is not None:
            opened.append(path)
        return Image.open(home / path)

    options = {'split': 'train', 'home': home, **SIZE, **options}
    return cache.cached(records_of(home), open_image, **options)


def streamed(home, **options):
    options = {'split': 'train', **SIZE, **options}
    return images.streamed(records_of(home), lambda path: Image.open(home / path), **options)


def truncate(file):
    file.write_bytes(file.read_bytes()[:300])


@pytest.mark.parametrize('channels', [1, 3])
def test_streamed_equals_cached(home, channels):
    _, stream = streamed(home, channels=channels)
    _, cache = cached(home, channels=channels)
    rows = np.array([3, 0, 3, 4])
    assert stream.array is None
    assert stream.read(rows).shape == (4, 12, 6, channels)
    np.testing.assert_array_equal(stream.read(rows), cache.read(rows))
    np.testing.assert_array_equal(cache.array[rows], cache.read(rows))
    assert stream.read(rows[:0]).shape == (0, 12, 6, channels)


def test_decode_stretches_with_antialiasing():
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    size = {**SIZE, 'height': 4, 'width': 8, 'channels': 1}
    pixels = images.decode(Image.fromarray(stripes), **size)
    assert pixels.shape == (4, 8, 1)
    assert np.abs(pixels.astype(int) - 128).max() < 16


@pytest.mark.parametrize('mode', ['1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'CMYK', 'I;16', 'I'])
@pytest.mark.parametrize('channels', [1, 3])
def test_decode_any_mode(mode, channels):
    gray = Image.new('L', (6, 12), 255)
    gray.paste(0, (0, 0, 6, 6))
    image = gray.convert('RGB').convert(mode) if mode in ('CMYK', 'P') else gray
    if mode.startswith('I'):
        deep = np.asarray(gray).astype(np.uint16 if mode == 'I;16' else np.int32) * 257
        image = Image.fromarray(deep)
    elif mode not in ('CMYK', 'P'):
        image = gray.convert(mode)
    assert image.mode == mode
    pixels = images.decode(image, **{**SIZE, 'channels': channels})
    assert pixels.dtype == np.uint8
    assert (pixels[:6] == 0).all()
    assert (pixels[6:] == 255).all()


def test_decode_keeps_depth_of_16_bits():
    ramp = np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16)
    size = {**SIZE, 'height': 16, 'width': 16, 'channels': 1}
    pixels = images.decode(Image.fromarray(ramp), **size)
    np.testing.assert_array_equal(pixels.ravel(), np.arange(256))


def test_decode_transparent_palette(tmp_path):
    Image.new('P', (6, 12), 1).save(tmp_path / 'a.png', transparency=b'\x00\x80')
    with Image.open(tmp_path / 'a.png') as image:
        assert images.decode(image, **SIZE).shape == (12, 6, 3)


@pytest.mark.parametrize('make', [cached, streamed])
@pytest.mark.parametrize('damage', [truncate, lambda file: file.write_text('no image')])
def test_bad_image_is_an_error_that_names_it(home, make, damage):
    damage(home / '2.jpg')
    with pytest.raises(images.ImageError, match=r'2\.jpg: .*on_bad_image=skip'):
        make(home)[1].read(np.arange(5))


@pytest.mark.parametrize('make', [cached, streamed])
def test_bad_images_are_left_out_and_logged(home, make, caplog):
    clean = make(home)[1].read(np.arange(5))
    truncate(home / '1.jpg')
    (home / '3.jpg').write_text('no image')
    records, pixels = make(home, on_bad_image='skip')
    assert records.pids.tolist() == [0, 2, 4]
    np.testing.assert_array_equal(pixels.read(np.arange(3)), clean[[0, 2, 4]])
    for text in 'leaving out 1.jpg: ', 'leaving out 3.jpg: cannot identify', 'left out 2 of 5':
        assert text in caplog.text


def test_bad_images_are_remembered(home, caplog):
    truncate(home / '1.jpg')
    cached(home, on_bad_image='skip')
    caplog.clear()
    opened = []
    records, pixels = cached(home, opened, on_bad_image='skip')
    assert opened == []
    assert len(records.pids) == len(pixels.array) == 4
    assert 'leaving out 1.jpg: ' in caplog.text
    with pytest.raises(images.ImageError, match=r'1\.jpg: .*runcated'):
        cached(home, opened)
    assert opened == []


@pytest.mark.parametrize('make', [cached, streamed])
def test_all_images_bad(home, make):
    for file in home.iterdir():
        truncate(file)
    for _ in range(2):
        records, _ = make(home, on_bad_image='skip')
        assert len(records.pids) == 0


@pytest.mark.parametrize('make', [cached, streamed])
def test_missing_file_is_not_skipped(home, make):
    records = from_rows([('0.jpg', 0, 0, 0, 0), ('9.jpg', 0, 0, 0, 0)])
    options = {'split': 'train', **SIZE, 'on_bad_image': 'skip'}
    if make is cached:
        options['home'] = None
    function = {'cached': cache.cached, 'streamed': images.streamed}[make.__name__]
    with pytest.raises(DataError, match=r'9\.jpg: .*No such file'):
        function(records, lambda path: Image.open(home / path), **options)


@pytest.mark.parametrize('make', [cached, streamed])
@pytest.mark.parametrize(('key', 'value'), [('on_bad_image', 'ignore'), ('channels', 4)])
def test_unknown_choice(home, make, key, value):
    with pytest.raises(ValueError, match=f'{key}={value!r}: choose'):
        make(home, **{key: value})


def test_cache_is_reused(home):
    first, second = [], []
    _, before = cached(home, first)
    _, after = cached(home, second)
    assert len(first) == 5
    assert second == []
    np.testing.assert_array_equal(before.array, after.array)
    names = sorted(file.suffix for file in (home / '.kd_jax').iterdir())
    assert names == ['.json', '.npy']


def test_cache_is_one_file_per_size_and_split(home):
    cached(home)
    cached(home, height=6)
    cached(home, channels=1)
    cached(home, split='query')
    files = sorted(file.name.split('-')[0] for file in (home / '.kd_jax').glob('*.npy'))
    assert files == ['query', 'train', 'train', 'train']


@pytest.mark.parametrize('change', ['pixels', 'time', 'name'])
def test_cache_notices_a_changed_file(home, change):
    cached(home)
    if change == 'pixels':
        Image.new('RGB', (9, 9)).save(home / '0.jpg')
    elif change == 'time':
        os.utime(home / '0.jpg', ns=(1, 1))
    else:
        (home / '0.jpg').rename(home / '7.jpg')
    opened = []
    _, pixels = cached(home, opened)
    assert len(opened) == 5
    if change == 'pixels':
        assert not pixels.array[0].any()


def test_cache_of_packed_images_notices_a_changed_pack(home):
    pack = home / 'pack.mat'
    pack.touch()
    records, opened = from_rows([('1.png', 1, 0, 0, 0)]), []

    def open_cell(path):
        opened.append(path)
        return Image.new('RGB', (3, 3))

    def stamp(records):
        return stamp_of([pack])

    for size in 0, 0, 1:
        pack.write_bytes(bytes(size))
        os.utime(pack, ns=(1, 1))
        cache.cached(records, open_cell, split='train', home=home, stamp=stamp, **SIZE)
    assert len(opened) == 2


def test_cache_dir(home, tmp_path):
    cached(home, cache_dir=str(tmp_path / 'deep' / 'cache'))
    assert not (home / '.kd_jax').exists()
    assert len(list((tmp_path / 'deep' / 'cache').glob('train-*.npy'))) == 1


def test_without_a_home_pixels_stay_in_memory(home, tmp_path):
    options = {'split': 'train', 'home': None, 'cache_dir': str(tmp_path / 'cache'), **SIZE}
    _, pixels = cache.cached(records_of(home), lambda path: Image.open(home / path), **options)
    np.testing.assert_array_equal(pixels.array, cached(home)[1].array)
    assert not (tmp_path / 'cache').exists()


def test_cache_that_cannot_be_written(home):
    (home / '.kd_jax').touch()  # also stops root, whom a read-only folder would not
    with pytest.raises(DataError, match=r'\.kd_jax: cannot hold .*--config\.data\.cache_dir=DIR'):
        cached(home)


def test_broken_cache_is_made_again(home):
    before = cached(home)[1].array.copy()
    for file in (home / '.kd_jax').iterdir():
        file.write_bytes(file.read_bytes()[:-1])
        np.testing.assert_array_equal(cached(home)[1].array, before)


KILLED = """
import os, pathlib, sys
from PIL import Image
from kd_jax.data import cache, images, records
images.BLOCK = 2
home = pathlib.Path(sys.argv[1])
def open_image(path):
    if path == '4.jpg':
        os.kill(os.getpid(), 9)
    return Image.open(home / path)
rows = records.from_rows([(f'{i}.jpg', i, 0, 0, 0) for i in range(5)])
size = {'height': 12, 'width': 6, 'channels': 3, 'resize': 'bilinear'}
cache.cached(rows, open_image, split='train', home=home, **size)
"""


def test_killed_run_leaves_nothing_that_is_used(home):
    run = [sys.executable, '-c', KILLED, str(home)]
    assert subprocess.run(run, cwd=ROOT, check=False).returncode == -9
    (part,) = (home / '.kd_jax').iterdir()
    assert part.suffix == '.kd_jax'
    opened = []
    cached(home, opened)
    assert len(opened) == 5
    assert not part.exists()


def test_temporary_files_of_the_living_and_of_other_machines_stay(home):
    folder = home / '.kd_jax'
    folder.mkdir()
    mine, theirs, old = (
        folder / f'train-0.npy.{host}.kd_jax'
        for host in (f'{cache.HOST}-{os.getppid()}', 'else-where-1', 'else-where-2')
    )
    for part in mine, theirs, old:
        part.touch()
    os.utime(old, (1, 1))
    foreign = folder / 'download.part'
    foreign.touch()
    os.utime(foreign, (1, 1))
    cached(home)
    assert foreign.exists()
    assert mine.exists()
    assert theirs.exists()
    assert not old.exists()


def test_failed_run_leaves_no_temporary_file(home):
    truncate(home / '4.jpg')
    with pytest.raises(images.ImageError):
        cached(home)
    assert list((home / '.kd_jax').iterdir()) == []


def test_progress_is_logged(home, caplog):
    caplog.set_level('INFO', logger='absl')
    cached(home)
    assert re.search(r'train: decoded 5 of 5 images, \d+ images/s, 0 s left', caplog.text)


def test_notes_beside_the_cache(home):
    truncate(home / '4.jpg')
    cached(home, on_bad_image='skip')
    (notes,) = (home / '.kd_jax').glob('train-*.json')
    assert list(json.loads(notes.read_text())) == ['4.jpg']


def test_a_cache_that_has_no_room_is_refused_at_once(home, monkeypatch):
    usage = shutil.disk_usage(home)
    monkeypatch.setattr(cache.shutil, 'disk_usage', lambda folder: usage._replace(free=5))
    opened = []
    with pytest.raises(DataError, match=r'decoded images \(0\.0 GB are needed, 0\.0 GB free'):
        cached(home, opened)
    assert opened == []
    assert [*(home / '.kd_jax').iterdir()] == []
