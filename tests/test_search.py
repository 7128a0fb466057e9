"""kd_jax.search: what is nearest, how it is told, and what is refused."""

from pathlib import Path

import numpy as np
import photos
import pytest
import smoke
from PIL import Image

from kd_jax import embed, embeddings, own_images, ranklist, search
from kd_jax.data import listing
from kd_jax.data.records import DataError


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    """Images, and a gallery of them embedded."""
    home = tmp_path_factory.mktemp('search')
    photos.plant(home / 'images')
    images = listing.listed(home / 'images', 'market')
    embed.run(photos.network(), images, home / 'g.parquet', dtype='float32', batch=32)
    return home


def run(monkeypatch, **options):
    """Search as the command line does, by networks that are loaded once."""
    monkeypatch.setattr(own_images, 'opened', lambda run, which: photos.network(which))
    given = {'top': 3, 'out': 'none'} | options
    paths = {key: str(value) for key, value in given.items() if isinstance(value, Path)}
    search.run(search.Request(**given | paths))


def test_an_image_finds_itself(home, monkeypatch, capsys, tmp_path):
    name = photos.plant(tmp_path, seed=5, identities=1)[0]
    sought = home / 'images' / '0002_c1s1_000001_00.png'
    (tmp_path / name).write_bytes(sought.read_bytes())
    options = {'gallery': home / 'g.parquet', 'run': photos.run(), 'query': tmp_path / name}
    run(monkeypatch, **options)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:4] == [name, '1', sought.name, '0.0000']
    assert lines[1].split()[4:] == ['2', '1']
    assert len(lines) == 4


def test_verdicts_are_by_identity_and_camera(home, monkeypatch, capsys):
    """Every image of an embedded gallery asks: it is its own camera's, and junk."""
    file = home / 'g.parquet'
    run(monkeypatch, gallery=file, query=file, top=12)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert len(rows) == 144
    for query, _, path, _, identity, camera, verdict in rows:
        assert (f'{int(identity):04d}', f'c{camera}') == (path[:4], path[5:7])
        same = query[:4] == path[:4]
        assert verdict == ('junk' if query[:7] == path[:7] else 'true' if same else 'false')


def test_an_image_is_no_match_of_itself(monkeypatch, capsys, tmp_path):
    """Where no camera is known: by the paths of a file, and by those that links lead to."""
    names = photos.plant(tmp_path / 'images', identities=2, cameras=1)
    rows = [(name, name[:4]) for name in names]
    images = photos.table(tmp_path / 'images/labels.csv', rows, 'path,identity')
    gallery = tmp_path / 'g.parquet'
    embed.run(photos.network(), listing.listed(images), gallery, dtype='float32', batch=32)
    (tmp_path / 'link').symlink_to(tmp_path / 'images')
    for query in (gallery, images, tmp_path / 'link/labels.csv', images.parent):
        run(monkeypatch, gallery=gallery, run=photos.run(), query=query, top=4)
        rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
        assert len(rows) == 16
        for asked, _, path, _, _, *verdict in rows:
            match = 'true' if asked[:4] == path[:4] else 'false'
            unknown = [] if query == images.parent else [match]
            assert verdict == (['junk'] if asked == path else unknown)


def test_a_copy_of_an_image_may_match(home, monkeypatch, capsys, tmp_path):
    for name in photos.plant(tmp_path, identities=3):
        assert (tmp_path / name).read_bytes() == (home / 'images' / name).read_bytes()
    photos.table(tmp_path / 'labels.csv', [('0002_c1s1_000001_00.png', 2)], 'path,identity')
    options = {'gallery': home / 'g.parquet', 'run': photos.run(), 'top': 1}
    run(monkeypatch, query=tmp_path / 'labels.csv', **options)
    assert capsys.readouterr().out.splitlines()[1].split()[3:] == ['0.0000', '2', '1', 'true']


def test_what_is_found_is_the_same_by_file_and_by_run(home, monkeypatch, capsys):
    shared = {'gallery': home / 'g.parquet', 'run': photos.run()}
    run(monkeypatch, query=home / 'g.parquet', **shared)
    by_file = capsys.readouterr().out
    run(monkeypatch, query=home / 'images', names='market', **shared)
    assert capsys.readouterr().out == by_file
    run(monkeypatch, query=home / 'g.parquet', metric='euclidean', gallery=home / 'g.parquet')
    assert capsys.readouterr().out != by_file


def test_the_checkpoint_is_that_of_the_gallery(home, monkeypatch, capsys):
    file, images = home / 'best.npz', listing.listed(home / 'images')
    embed.run(photos.network('best'), images, file, dtype='float16', batch=32)
    run(monkeypatch, gallery=file, run=photos.run(), query=home / 'images')
    assert capsys.readouterr().out.splitlines()[1].split()[3] == '0.0000'
    with pytest.raises(DataError, match=r'step 8 of .*best\.npz has .*by step 4 of'):
        run(monkeypatch, gallery=file, run=photos.run(), query=home / 'images', checkpoint='last')


def test_the_picture(home, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    images = home / 'images'
    run(monkeypatch, gallery=home / 'g.parquet', query=home / 'g.parquet', out=None)
    assert capsys.readouterr().out.endswith('rank list: g_ranks.png\n')
    with Image.open('g_ranks.png') as drawn:
        colours = {colour for _, colour in drawn.convert('RGB').getcolors(10**6)}
    for verdict in ('true', 'false', 'junk'):
        shown = tuple(int(ranklist.FRAMES[verdict][0][k : k + 2], 16) for k in (1, 3, 5))
        assert shown in colours
    monkeypatch.setattr(ranklist, 'ROWS', 5)
    options = {'gallery': home / 'g.parquet', 'run': photos.run(), 'query': images}
    run(monkeypatch, out='few.png', **options)
    assert capsys.readouterr().out.endswith('few.png, the first 5 of 12 queries\n')


def test_the_picture_lies_in_a_folder_that_is_made(home, monkeypatch, capsys, tmp_path):
    out = tmp_path / 'deep' / 'er' / 'ranks.PNG'
    run(monkeypatch, gallery=home / 'g.parquet', query=home / 'g.parquet', out=out)
    assert capsys.readouterr().out.endswith(f'rank list: {out}\n')
    with Image.open(out) as drawn:
        assert drawn.format == 'PNG'


def test_a_picture_that_cannot_be_is_told_before_the_search(home, monkeypatch, tmp_path):
    monkeypatch.setattr(search, 'exact', lambda *_: pytest.fail('searched'))
    options = {'gallery': home / 'g.parquet', 'query': home / 'g.parquet'}
    for name in ('ranks.jpg', 'ranks', 'ranks.png.gz'):
        with pytest.raises(ValueError, match=f'--out=.*/{name}: the picture is a PNG'):
            run(monkeypatch, out=tmp_path / 'deep' / name, **options)
    assert not (tmp_path / 'deep').exists()
    (tmp_path / 'file').write_text('')
    with pytest.raises(FileExistsError, match='file'):
        run(monkeypatch, out=tmp_path / 'file' / 'ranks.png', **options)


def test_the_recall_of_an_index_is_told(home, monkeypatch, capsys, tmp_path):
    options = {'gallery': home / 'g.parquet', 'index': tmp_path / 'g.usearch'}
    run(monkeypatch, **options)
    assert capsys.readouterr().out == ''
    assert (tmp_path / 'g.usearch').exists()
    options['query'] = home / 'g.parquet'
    run(monkeypatch, **options)
    text = '\nrecall of the index: 100.0% of the 3 nearest by exact search, of 12 queries\n'
    assert capsys.readouterr().out.endswith(text)
    run(monkeypatch, recall_queries=5, **options)
    assert 'of 5 queries' in capsys.readouterr().out
    run(monkeypatch, recall_queries=0, **options)
    assert 'recall of the index: unknown' in capsys.readouterr().out
    run(monkeypatch, **options | {'top': 300})
    assert '100.0% of the 12 nearest by exact search' in capsys.readouterr().out


def test_thresholds_of_the_gallery(home, monkeypatch, capsys):
    run(monkeypatch, gallery=home / 'g.parquet', calibrate=['0.1', '0.5'])
    lines = capsys.readouterr().out.splitlines()
    assert '4 of 48' in lines[2]
    assert '24 of 48' in lines[3]
    assert len(lines) == 4


def test_bad_queries(home, monkeypatch, tmp_path, caplog, capsys):
    names = photos.plant(tmp_path / 'images', identities=1)
    (tmp_path / 'images' / names[0]).write_bytes(b'no image')
    options = {'gallery': home / 'g.parquet', 'run': photos.run()}
    with caplog.at_level('WARNING'):
        run(monkeypatch, query=tmp_path / 'images', **options)
    assert f'leaving out {names[0]}' in caplog.text
    assert len(capsys.readouterr().out.splitlines()) == 1 + 3 * 3
    with pytest.raises(DataError, match=r'cannot identify .*there is no image to search for'):
        run(monkeypatch, query=tmp_path / 'images' / names[0], **options)
    with pytest.raises(DataError, match='no such file or folder'):
        run(monkeypatch, query=tmp_path / 'nowhere', **options)


def test_refusals(home, monkeypatch, tmp_path):
    gallery = home / 'g.parquet'
    with pytest.raises(ValueError, match='nothing to do: give --query, --calibrate or --index'):
        run(monkeypatch, gallery=gallery)
    with pytest.raises(DataError, match='is not embedded yet: give --run=DIR'):
        run(monkeypatch, gallery=gallery, query=home / 'images')
    wide = photos.vectors_file(tmp_path / 'wide.npz', np.ones((3, 7), np.float32))
    with pytest.raises(DataError, match=r'wide\.npz has width 7, .*g\.parquet has width'):
        run(monkeypatch, gallery=gallery, query=wide)
    facts = embeddings.read(gallery).facts
    vectors = np.ones((3, facts['width']), np.float32)
    other = photos.vectors_file(tmp_path / 'other.npz', vectors, weights='another')
    with pytest.raises(DataError, match=r'other\.npz has weights another, by step 8 of runs/a, b'):
        run(monkeypatch, gallery=gallery, query=other)
    vectors[1, 0] = np.nan
    same = {key: facts[key] for key in embeddings.SAME}
    broken = photos.vectors_file(tmp_path / 'broken.npz', vectors, **same)
    with pytest.raises(DataError, match=r'NaN or Inf in the embeddings of 1\.png'):
        run(monkeypatch, gallery=gallery, query=broken)
    with pytest.raises(DataError, match='NaN or Inf'):
        run(monkeypatch, gallery=broken, query=gallery)


def test_the_command_line(home, tmp_path):
    query = home / 'images' / '0003_c2s1_000002_00.png'
    command = '-m', 'kd_jax.search', f'--gallery={home}/g.parquet'
    out = tmp_path / 'ranks.png'
    given = f'--run={photos.run()}', f'--query={query}', '--names=market', f'--out={out}'
    index = f'--index={tmp_path}/i'
    (found,) = smoke.ended(smoke.python(*command, *given, '--calibrate=0.1', index, '--top=4'))
    assert found[0] == 0, found[2]
    lines = found[1].splitlines()
    assert lines[0] == 'two images match where their cosine distance is below the threshold'
    assert [line.split()[1] for line in lines[5:9]] == list('1234')
    assert lines[5].split()[-1] == 'junk'
    assert lines[-1] == f'rank list: {out}'
    assert lines[-3].startswith('recall of the index: 100.0% of the 4 nearest by exact search')
    assert out.exists()
