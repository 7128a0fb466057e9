"""The check before training, run on small trees of real files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from kd_jax import command, data
from kd_jax.data import check
from kd_jax.data.records import DataError

ROOT = Path(__file__).parents[1]
NAMES = {
    'bounding_box_train': [f'{pid:04d}_c{c}s1_{c:06d}_00.jpg' for pid in (5, 6) for c in (1, 2)],
    'query': ['0001_c1s1_000001_00.jpg', '0002_c2s1_000001_00.jpg'],
    'bounding_box_test': ['0001_c2s1_000001_00.jpg', '0002_c1s1_000001_00.jpg'],
}


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A whole data set; files are written to the folder above it."""
    monkeypatch.chdir(tmp_path)
    return plant(tmp_path / 'data')


def plant(root, **changes):
    for folder, names in {**NAMES, **changes}.items():
        (root / folder).mkdir(parents=True)
        for name in names:
            Image.effect_noise((20, 40), 90).save(root / folder / name)
    return root


def report(capsys, root, *arguments, name='folder'):
    """What is printed, and the exit code."""
    where = [f'--root={root}'] if root else []
    with pytest.raises(SystemExit) as exit:
        check.run([f'--dataset={name}', *where, *arguments])
    return capsys.readouterr().out, int(exit.value.code)


def test_a_good_data_set(root, capsys):
    text, code = report(capsys, root, '--shots=2')
    assert code == 0
    begins = 'splits', 'images per identity', 'training identities', 'queries', 'sheet', 'images  '
    lines = text.splitlines()
    found = [next(i for i, line in enumerate(lines) if line.startswith(b)) for b in begins]
    assert found == sorted(found)
    assert lines[0] == f'folder: {root}'
    words = [line.split() for line in lines]
    assert ['fewer', 'than', '2', 'images', '0', '0.0%'] in words
    assert ['fewer', 'than', '8', 'images', '2', '100.0%'] in words
    assert lines[-3:] == ['no problems', '', 'no warnings']
    with Image.open('folder_check.png') as image:
        assert min(image.size) > 300


def test_unreadable_images_are_found_and_listed(root, capsys):
    whole = (root / 'query' / NAMES['query'][0]).read_bytes()
    (root / 'query' / NAMES['query'][0]).write_bytes(whole[: len(whole) // 2])
    (root / 'bounding_box_train' / NAMES['bounding_box_train'][1]).write_text('no image')
    (root / 'bounding_box_test' / NAMES['bounding_box_test'][1]).write_bytes(b'')
    text, code = report(capsys, root)
    assert code == 1
    assert ['all', 'splits', '5', '3'] in [line.split() for line in text.splitlines()]
    assert f'  query/{NAMES["query"][0]}: image file is truncated' in text
    assert f'  bounding_box_train/{NAMES["bounding_box_train"][1]}: cannot identify' in text
    assert f'  bounding_box_test/{NAMES["bounding_box_test"][1]}: cannot identify' in text
    assert '3 images cannot be read' in text
    assert '--config.data.on_bad_image=skip' in ' '.join(text.split())


def test_a_file_that_goes_missing_is_listed_too(root, capsys):
    source = data.read('folder', root=str(root))
    os.remove(root / source.query.paths[1])
    assert list(check.unreadable(source)) == [source.query.paths[1]]
    assert 'No such file' in check.unreadable(source)[source.query.paths[1]]


def test_every_image_is_decoded_once_and_small(root):
    source, opened = data.read('folder', root=str(root)), []

    def open_image(path):
        opened.append((path, source.open(path)))
        return opened[-1][1]

    twice = source._replace(open=open_image, more={'again': (source.query, source.gallery)})
    assert check.unreadable(twice) == {}
    assert sorted(path for path, _ in opened) == sorted(
        path for split in source.splits().values() for path in split.paths
    )
    assert {image.size for _, image in opened} == {(20, 40)}
    Image.effect_noise((640, 1280), 90).save(root / source.query.paths[0])
    with check.drafted(source, source.query.paths[0]) as image:
        assert image.size == (80, 160)


def test_images_and_sheet_can_be_left_out(root, capsys):
    (root / 'query' / NAMES['query'][0]).write_text('no image')
    text, code = report(capsys, root, '--images=none', '--sheet=none')
    assert code == 0
    assert 'images not decoded' in text
    assert 'sheet of' not in text
    assert os.listdir() == ['data']


def test_the_sheet_goes_where_it_is_wanted(root, capsys):
    text, _ = report(capsys, root, '--sheet=some.png')
    assert 'sheet of training sets: some.png' in text
    assert sorted(os.listdir()) == ['data', 'some.png']


def one_camera(root):
    names = {folder: [n.replace('_c2', '_c1') for n in names] for folder, names in NAMES.items()}
    names['bounding_box_train'] = NAMES['bounding_box_train']
    names['query'].append('0003_c1s1_000001_00.jpg')
    # Later frames, for one of the same name is the same sight.
    names['bounding_box_test'] = [n.replace('s1_0', 's1_9') for n in names['bounding_box_test']]
    return plant(root, **names)


def queries(text):
    """The rows of the table of queries."""
    lines = text.splitlines()
    (head,) = [i for i, line in enumerate(lines) if line.startswith('queries ')]
    return [line.split() for line in lines[head + 1 : lines.index('', head) - 1]]


def test_one_camera_is_told_with_its_remedy(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    root = one_camera(tmp_path / 'data')
    quick = '--images=none', '--sheet=none'
    text, code = report(capsys, root, *quick)
    assert code == 1
    assert queries(text) == [['market', '3', '0', '1', '2']]
    assert 'market: all queries and gallery images are of camera c1' in text
    assert '--config.evaluate.same_camera=keep' in text
    text, code = report(capsys, root, *quick, '--same_camera=keep')
    assert code == 0
    assert queries(text) == [['market', '3', '2', '1', '0']]
    assert 'market: 1 of 3 queries have no match: 1 are not' in ' '.join(text.split())


def test_a_row_a_result(root, capsys):
    """The second query's identity is in the gallery by its own camera only."""
    (root / 'query' / NAMES['query'][1]).rename(root / 'query' / '0002_c1s1_000009_00.jpg')
    text, code = report(capsys, root, '--images=none', '--protocol=market, veri_track,i2v,market')
    assert code == 0
    names = 'market', 'veri_track', 'i2v'
    assert queries(text) == [[name, '2', '1', '0', '1'] for name in names]
    for name in names:
        assert f'- {name}: 1 of 2 queries have no match: 0 are not' in text


def test_what_does_not_fit_is_told_in_a_line(root, capsys):
    flags = ['--dataset=folder', f'--root={root}']
    for protocol, words in (
        ('vehicleid', 'kd_jax: protocol vehicleid takes queries and gallery from one pool, which'),
        ('market,atrw', 'kd_jax: protocol atrw takes queries and gallery from one pool, which'),
    ):
        with pytest.raises(SystemExit) as exit:
            command.told(check.run, [*flags, f'--protocol={protocol}'])
        assert exit.value.code.startswith(words)
        assert '\n' not in exit.value.code
    assert capsys.readouterr().out == ''


def test_carousel_needs_no_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    people = '--train_identities=3', '--test_identities=2'
    text, code = report(capsys, '', *people, name='carousel')
    assert code == 0
    assert 'carousel: made from a seed' in text
    assert ['train', '96', '3', '4', '24', '0'] in [line.split() for line in text.splitlines()]
    assert os.listdir() == ['carousel_check.png']


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['--dataset=folder'], 'folder is read from a folder: add --root=DIR'),
        (['--dataset=carousel', '--root=x'], 'carousel is read from no folder: leave out --root'),
        (['--dataset=carousel', '--shots=0'], "argument --shots: '0': give a whole number from 1"),
        ([], 'arguments are required: --dataset'),
    ],
)
def test_wrong_command_lines(capsys, arguments, words):
    with pytest.raises(SystemExit) as exit:
        check.parsed(arguments)
    assert exit.value.code == 2
    assert words in capsys.readouterr().err


def test_unknown_names(root):
    with pytest.raises(ValueError, match=r"protocol='no'.*market"):
        check.run(['--dataset=folder', f'--root={root}', '--protocol=no'])
    with pytest.raises(ValueError, match="name='no': no such data set; choose one of"):
        check.run(['--dataset=no'])
    with pytest.raises(DataError, match='bounding_box_train: no such folder'):
        check.run(['--dataset=folder', f'--root={root.parent}'])


def test_the_command(root):
    """Its exit code, and its error in a line."""
    command = [sys.executable, '-m', 'kd_jax.data.check', '--dataset=folder']
    settings = {'cwd': ROOT, 'capture_output': True, 'text': True}
    sheet = f'--sheet={root.parent / "a.png"}'
    (root / 'query' / NAMES['query'][0]).write_text('no image')
    done = subprocess.run([*command, f'--root={root}', sheet], **settings)
    assert done.returncode == 1
    assert 'problems (1)' in done.stdout
    assert 'decoded 8 of 8 images' in done.stderr
    assert 'WARNING' not in done.stderr
    done = subprocess.run([*command, '--root=/nowhere'], **settings)
    assert done.returncode == 1
    assert done.stderr.startswith('kd_jax: /nowhere: no such folder')
    assert done.stderr.count('\n') == 1
