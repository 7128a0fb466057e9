import logging
import os
from pathlib import Path

import pytest
from etils import epath

from kd_jax.data import parts
from kd_jax.data.records import DataError

EXAMPLES = [b'one', b'two']


@pytest.fixture
def file(tmp_path):
    return parts.folder(epath.Path(tmp_path), '0123') / 'x-train.array_record-00000-of-00001'


def test_a_part_is_found_once_it_is_whole(file):
    assert parts.found(file, 'now') is None
    written = parts.write(file, EXAMPLES, {'a.jpg': 'truncated'}, 'now')
    assert parts.found(file, 'now') == written
    assert written[:2] == (2, os.stat(file).st_size)
    assert written.bad == {'a.jpg': 'truncated'}
    assert written.digest != parts.write(file, EXAMPLES[::-1], {}, 'now').digest
    assert sorted(os.listdir(file.parent)) == [file.name, f'{file.name}.json']
    file.unlink()
    assert parts.found(file, 'now') is None


def test_a_part_of_other_images_is_none(file):
    parts.write(file, EXAMPLES, {}, 'then')
    assert parts.found(file, 'now') is None
    made = parts.write(file, EXAMPLES[:1], {}, 'now')
    assert parts.found(file, 'now') == made
    assert parts.found(file, 'then') is None


def test_a_part_that_is_made_again_is_none_until_it_is_whole(file, monkeypatch):
    parts.write(file, EXAMPLES, {}, 'then')
    monkeypatch.setattr(epath.Path, 'write_text', lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        parts.write(file, EXAMPLES, {}, 'now')
    assert parts.found(file, 'then') is None


def test_a_part_that_fails_leaves_nothing(file):
    def examples():
        yield b'one'
        raise DataError('bad image')

    with pytest.raises(DataError, match='bad image'):
        parts.write(file, examples(), {}, 'now')
    assert parts.found(file, 'now') is None
    assert os.listdir(file.parent) == []


def test_a_full_disk(file, monkeypatch):
    # What is written to this device finds no space left.
    monkeypatch.setattr(parts, 'Path', lambda *_: Full(os.sep))
    with pytest.raises(DataError, match=r'cannot hold .*No space left.*what is finished is kept'):
        parts.write(file, EXAMPLES, {}, 'now')
    assert parts.found(file, 'now') is None


class Full(type(Path())):
    """A folder, all of whose files are /dev/full."""

    def __truediv__(self, name):
        return Path('/dev/full')


def test_what_is_stale_is_deleted(tmp_path):
    home = epath.Path(tmp_path)
    one = parts.folder(home, 'one')
    (one / 'file').write_text('x')
    (one / f'{parts.HALF}1234').mkdir()
    (home / '1.0.0').mkdir()
    assert parts.folder(home, 'one') == one
    assert os.listdir(one) == ['file']
    two = parts.folder(home, 'two')
    assert sorted(home.iterdir()) == [two, home / '1.0.0']


@pytest.mark.parametrize('links', [True, False])
def test_link(file, tmp_path, monkeypatch, links):
    def refused(*_):
        raise OSError('no links here')

    if not links:
        monkeypatch.setattr(os, 'link', refused)
    file.write_text('shard')
    parts.link(file, file.parent / 'second')
    assert (file.parent / 'second').read_text() == 'shard'
    assert (os.stat(file).st_nlink == 2) == links


def test_progress_counts_what_was_there_and_tells_the_end(caplog):
    caplog.set_level(logging.INFO)
    tell = parts.progress(1000)
    tell(600, earlier=True)
    assert not caplog.text
    for _ in range(4):
        tell(100)
    assert '1000 of 1000 images' in caplog.text
    assert '800 of 1000' not in caplog.text  # not within the same seconds
