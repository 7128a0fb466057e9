"""kd_jax.embed: a file that is the same however often it was begun."""

import os
import signal

import jax.numpy as jnp
import numpy as np
import photos
import pytest
import smoke

from kd_jax import embed, embeddings, own_images
from kd_jax.data import listing
from kd_jax.data.records import DataError
from kd_jax.runs import RunError

NAMES = 'a.parquet', 'a.npz'


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(own_images, 'PART', 4)


def run(images, out, network=None, **options):
    options = {'dtype': 'float32', 'batch': 8} | options
    return embed.run(network or photos.network(), images, out, **options)


def planted(tmp_path):
    photos.plant(tmp_path / 'images')
    return listing.listed(tmp_path / 'images', 'market')


def test_parquet_npz_and_float16_hold_the_same(tmp_path):
    images = planted(tmp_path)
    for name in NAMES:
        facts = run(images, tmp_path / name)
        assert embeddings.read(tmp_path / name).facts == facts
    run(images, tmp_path / 'half.parquet', dtype='float16')
    one, other, half = (embeddings.read(tmp_path / n) for n in (*NAMES, 'half.parquet'))
    assert one.images == other.images == half.images
    np.testing.assert_array_equal(one.vectors(), other.vectors())
    np.testing.assert_array_equal(one.vectors().astype(np.float16), half.vectors())
    assert one.images.column('path').to_pylist() == images.paths.tolist()
    assert one.images.column('identity').to_pylist() == images.identities.tolist()
    assert one.images.column('camera').to_pylist() == images.cameras.tolist()
    assert (facts['count'], facts['width'], facts['skipped']) == (12, one.vectors().shape[1], {})
    assert not list(tmp_path.glob('*.parts'))


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('kept', [0, 1, 3])
def test_what_was_stopped_goes_on(tmp_path, monkeypatch, name, kept):
    images = planted(tmp_path)
    run(images, tmp_path / 'whole' / name)
    out, keep = tmp_path / 'stopped' / name, embed._keep

    def stop(file, part):
        if int(file.stem) == 4 * kept:
            raise KeyboardInterrupt
        keep(file, part)

    def stop_joining(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(embed, '_keep', stop)
        patched.setattr(embed, '_join', stop_joining)
        with pytest.raises(KeyboardInterrupt):
            run(images, out)
    assert not out.exists()
    seen = []
    network = photos.network()
    counted = network._replace(embedded=lambda x: seen.append(1) or network.embedded(x))
    run(images, out, counted)
    assert len(seen) == 3 - kept
    assert out.read_bytes() == (tmp_path / 'whole' / name).read_bytes()
    assert [path.name for path in out.parent.iterdir()] == [name]


KILLED = """
import itertools, os, re, signal, sys
from kd_jax import embed, own_images
own_images.PART = 4
matches = itertools.count(1)

def kill(happened, arguments):
    if happened == 'os.rename' and '00000' in str(arguments) and next(matches) == 2:
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(kill)
embed.main()
"""


def test_what_was_killed_goes_on(tmp_path):
    images, out = planted(tmp_path), tmp_path / 'killed.parquet'
    flags = f'--run={photos.run()}', f'--images={tmp_path}/images', '--names=market', '--batch=8'
    (ended,) = smoke.ended(smoke.python('-c', KILLED, *flags, f'--out={out}'))
    assert ended[0] == -signal.SIGKILL
    parts = sorted(path.name for path in (tmp_path / 'killed.parquet.parts').glob('0*'))
    assert parts == ['000000000.npz']
    run(images, out)
    run(images, tmp_path / 'whole.parquet')
    assert out.read_bytes() == (tmp_path / 'whole.parquet').read_bytes()


def test_a_finished_file_is_left(tmp_path):
    images, out = planted(tmp_path), tmp_path / 'a.parquet'
    facts, written = run(images, out), out.stat().st_mtime_ns
    blind = photos.network()._replace(embedded=None)
    assert run(images, out, blind, batch=4) == facts
    assert out.stat().st_mtime_ns == written


@pytest.mark.parametrize('finished', [True, False])
def test_what_was_made_otherwise_is_left_and_refused(tmp_path, monkeypatch, finished):
    images, out = planted(tmp_path), tmp_path / 'a.parquet'
    with monkeypatch.context() as patched:
        if not finished:
            patched.setattr(embed, '_join', lambda *_: {})
            patched.setattr(embed.shutil, 'rmtree', lambda *_: None)
        run(images, out)
    before = smoke.files(tmp_path)
    with pytest.raises(RunError, match=r'by step 8 of (?s:.*)weights: .*another run or checkpoint'):
        run(images, out, photos.network('best'))
    with pytest.raises(RunError, match="dtype: 'float32' there, 'float16' now"):
        run(images, out, dtype='float16')
    with pytest.raises(RunError, match=r'images: .*other images, labels'):
        run(listing.listed(tmp_path / 'images'), out)
    padded = photos.network().facts | {'image': '9 x 9 x 3, pad'}
    with pytest.raises(RunError, match=r'image: .*9 x 9 x 3, pad'):
        run(images, out, photos.network()._replace(facts=padded))
    assert smoke.files(tmp_path) == before


def test_folders_and_files_of_others_are_left(tmp_path):
    images, out = planted(tmp_path), tmp_path / 'a.parquet'
    folder = tmp_path / 'a.parquet.parts'
    folder.mkdir()
    (folder / 'mine.txt').write_text('x')
    with pytest.raises(RunError, match='is in the way'):
        run(images, out)
    out.write_bytes(b'mine')
    with pytest.raises(DataError, match='no file of embeddings'):
        run(images, out)
    assert out.read_bytes() == b'mine'
    out.unlink()
    (folder / 'mine.txt').unlink()
    (folder / '.facts.json.1').write_text('{')  # half-written by one that was killed
    run(images, out)
    folder.mkdir()
    (folder / 'mine.txt').write_text('x')
    run(images, out)
    assert (folder / 'mine.txt').exists()


def test_other_kinds_of_files_are_not_written(tmp_path):
    with pytest.raises(DataError, match=r'kept in files called \.parquet or \.npz'):
        run(planted(tmp_path), tmp_path / 'a.csv')
    assert [path.name for path in tmp_path.iterdir()] == ['images']


def test_skipped_images_are_told(tmp_path, caplog):
    names = photos.plant(tmp_path / 'images')
    for name in names[:7]:
        (tmp_path / 'images' / name).write_bytes(b'no image')
    with caplog.at_level('INFO'):
        facts = run(listing.listed(tmp_path / 'images'), tmp_path / 'a.npz')
    assert caplog.messages[-1] == 'embedded 5 of 12 images, 7 left out'
    assert facts['count'] == 5
    assert list(facts['skipped']) == names[:7]
    found = embeddings.read(tmp_path / 'a.npz')
    assert found.images.column('path').to_pylist() == names[7:]
    lines = embed.summary(tmp_path / 'a.npz', facts).splitlines()
    assert lines[1] == 'images that were left out: 7'
    assert len(lines) == 2 + embed.NAMED + 1
    assert names[0] in lines[2]


@pytest.mark.parametrize('name', NAMES)
def test_names_that_are_not_utf8_are_skipped(tmp_path, name):
    names = photos.plant(tmp_path / 'images')
    os.rename(tmp_path / 'images' / names[5], os.fsencode(tmp_path / 'images') + b'/\xff\xfe.png')
    facts = run(listing.listed(tmp_path / 'images'), tmp_path / name)
    assert facts['skipped'] == {r'\xff\xfe.png': 'its name is not UTF-8'}
    found = embeddings.read(tmp_path / name)
    assert found.images.column('path').to_pylist() == names[:5] + names[6:]
    assert r'  \xff\xfe.png: its name' in embed.summary(tmp_path / name, found.facts)


def giving(*values):
    """A network whose embeddings are full of one of these numbers in each call, then of ones."""
    calls = iter(values)
    return photos.network()._replace(
        embedded=lambda images: jnp.full((len(images), 4), next(calls, 1), jnp.float32)
    )


@pytest.mark.parametrize('name', NAMES)
def test_what_cannot_be_compared_is_skipped(tmp_path, name):
    images = planted(tmp_path)
    facts = run(images, tmp_path / name, giving(1, np.nan), batch=4)
    assert facts['skipped'] == dict.fromkeys(images.paths[4:8], 'the network gives NaN or Inf')
    found = embeddings.read(tmp_path / name)
    assert found.vectors().tolist() == [[1] * 4] * 8
    assert found.images.column('path').to_pylist() == [*images.paths[:4], *images.paths[8:]]


@pytest.mark.parametrize(
    ('value', 'message'),
    [(np.nan, 'the network gives NaN or Inf'), (1e6, 'too large or too .*--dtype=float32')],
)
def test_a_network_all_of_whose_embeddings_are_wrong_is_told(tmp_path, value, message):
    images = planted(tmp_path)
    message = rf'none of 12 images .* {images.paths[1]}, .*, \.\.\. \(12\): {message}'
    with pytest.raises(DataError, match=message):
        run(images, tmp_path / 'a.npz', giving(*[value] * 3), batch=4, dtype='float16')
    assert [path.name for path in tmp_path.iterdir()] == ['images']


def test_nothing_is_written_without_an_image(tmp_path):
    names = photos.plant(tmp_path / 'images')
    for name in names:
        (tmp_path / 'images' / name).write_bytes(b'no image')
    message = rf'none of 12 images can be embedded, e\.g\. {names[0]} \(1\): cannot identify'
    with pytest.raises(DataError, match=message):
        run(listing.listed(tmp_path / 'images'), tmp_path / 'a.npz')
    assert [path.name for path in tmp_path.iterdir()] == ['images']


def test_the_command_line(tmp_path):
    names = photos.plant(tmp_path / 'images')
    rows = [(f'images/{name}', 'anna', 'door') for name in names] + [('gone.jpg', 'anna', '')]
    table = photos.table(tmp_path / 'own.csv', rows)
    out = tmp_path / 'a.parquet'
    command = '-m', 'kd_jax.embed', f'--run={photos.run()}'
    done, told = smoke.ended(
        smoke.python(*command, f'--images={table}', f'--out={out}', '--dtype=float16'),
        smoke.python('-m', 'kd_jax.embed', '--help'),
    )
    width = embeddings.read(out).facts['width']
    assert done[:2] == (
        0,
        f'{out}: 12 images, width {width}, float16, by step 8 of {photos.run()}\n'
        'images that were left out: 1\n'
        '  gone.jpg: No such file or directory\n',
    )
    assert 'leaving out gone.jpg: No such file' in done[2]
    assert '--images: A folder, of which all images are embedded' in told[1]
