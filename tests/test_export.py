"""kd_jax.export: a file is loaded, with and without kd_jax, or refused; and the command."""

import os
import subprocess
import sys
import zipfile

import jax
import numpy as np
import pytest
import smoke
from exports import assert_same, noise, of_run, student_file

from kd_jax import export

COMMAND = '-m', 'kd_jax.export'
BLOCKED = """
import sys
from importlib.machinery import PathFinder

find = PathFinder.find_spec
blocked = sys.argv.pop().split()

def find_spec(name, path=None, target=None):
    return None if name in blocked else find(name, path, target)

PathFinder.find_spec = staticmethod(find_spec)
import numpy as np
FILE, images, out = sys.argv[1], np.load(sys.argv[2]), sys.argv[3]
"""
KEPT = """
try:
    import kd_jax
except ImportError:
    np.save(out, embeddings)
"""


def elsewhere(tmp_path, code, blocked, *, path=''):
    """What Python makes of a file and some images in another directory, without some modules."""
    return subprocess.run(
        [sys.executable, '-W', 'error', '-c', BLOCKED + code, *map(str, tmp_path), blocked],
        cwd=tmp_path[2].parent,
        env=os.environ | {'PYTHONPATH': path},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ('code', 'blocked', 'path'),
    [
        (None, 'kd_jax flax orbax jaxtyping', ''),
        (
            'from kd_jax import export\n'
            'np.save(out, export.load(FILE)(images))\n'
            'assert not [name for name in sys.modules if name.startswith("kd_jax.")'
            ' and name != "kd_jax.export"]',
            'flax orbax optax ml_collections',
            str(smoke.ROOT),
        ),
    ],
    ids=['documented lines', 'load'],
)
def test_a_file_is_loaded_without_the_code_of_its_model(tmp_path, code, blocked, path):
    """The lines are those of the module's docstring."""
    lines = [line for line in export.__doc__.splitlines() if line.startswith('    ')]
    assert len(lines) == 3
    code = code or '\n'.join(line.strip() for line in lines) + KEPT
    images, out = tmp_path / 'images.npy', tmp_path / 'embeddings.npy'
    np.save(images, noise(7))
    done = elsewhere((student_file(), images, out), code, blocked, path=path)
    assert done.returncode == 0, done.stderr
    assert_same(np.load(out), of_run(noise(7)))


@pytest.mark.parametrize(
    ('images', 'given'),
    [
        (noise(2, (16, 32, 3)), r'uint8\[2, 16, 32, 3\]'),
        (noise(2, (32, 16, 1)), r'uint8\[2, 32, 16, 1\]'),
        (noise(1)[0], r'uint8\[32, 16, 3\]'),
        (noise(0), r'uint8\[0, 32, 16, 3\]'),
        (noise(2).astype(np.float32), r'float32\[2, 32, 16, 3\]'),
        (noise(2).astype(np.int64), r'int64\[2, 32, 16, 3\]'),
    ],
)
def test_images_of_other_sizes_and_dtypes(images, given):
    message = rf'student\.zip reads uint8\[b, 32, 16, 3\], b at least 1, but was given {given}$'
    with pytest.raises(ValueError, match=message):
        export.load(student_file())(images)


def rezipped(**members):
    def change(file):
        with zipfile.ZipFile(file) as archive:
            kept = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(file, 'w') as archive:
            for name, content in {**kept, **members}.items():
                if content is not None:
                    archive.writestr(name, content)

    return change


def flipped(place):
    """A bit of the function, or so many bytes before the end."""

    def change(file):
        content = bytearray(file.read_bytes())
        content[place] ^= 4
        file.write_bytes(content)

    return change


DAMAGES = {
    'empty': lambda file: file.write_bytes(b''),
    'half': lambda file: file.write_bytes(file.read_bytes()[:50_000]),
    'bit of the function': flipped(60_000),
    'bit of the directory': flipped(-30),
    'of something else': lambda file: file.write_bytes(b'mine'),
    'another zip': rezipped(function=None, **{'facts.json': None, 'mine.txt': b''}),
    'no function': rezipped(function=None),
    'facts of something else': rezipped(**{'facts.json': '[1]'}),
    'facts that are none': rezipped(**{'facts.json': '{'}),
}


@pytest.mark.parametrize('damage', DAMAGES)
def test_damaged_files_and_those_of_others(tmp_path, damage):
    file = tmp_path / 'student.zip'
    file.write_bytes(student_file().read_bytes())
    export.load(file)
    DAMAGES[damage](file)
    with pytest.raises(ValueError, match=f'{file} is damaged, or no student by kd_jax.export'):
        export.load(file)


def test_files_that_jax_cannot_read_or_that_are_not_there(tmp_path):
    file = tmp_path / 'student.zip'
    file.write_bytes(student_file().read_bytes())
    rezipped(function=b'of another jax')(file)
    message = f'{file}, written by jax {jax.__version__}, cannot be read by jax .*export the run'
    with pytest.raises(ValueError, match=message):
        export.load(file)
    for missing in (tmp_path, tmp_path / 'none.zip'):
        with pytest.raises(ValueError, match=f'{missing}: no such file'):
            export.load(missing)


def test_the_command_line(tmp_path):
    run, out = smoke.finished(), tmp_path / 'new' / 'student.zip'
    done, none, word = smoke.ended(
        smoke.python(*COMMAND, f'--run={run}', f'--out={out}'),
        smoke.python(*COMMAND, f'--run={tmp_path}/nowhere', f'--out={tmp_path}/a.zip'),
        smoke.python(*COMMAND, f'--run={run}', f'--out={tmp_path}/a.zip', '--checkpoint=first'),
    )
    assert (done[0], len(done[1].splitlines())) == (0, 8)
    assert done[1].startswith(f'{out}: step 8 of {run}, ')
    assert_same(export.load(out)(noise(3)), of_run(noise(3)))
    message = f'kd_jax: {tmp_path}/nowhere is no run: it has no config.json\n'
    assert none == (1, '', message)
    assert word[0] == 1
    assert 'last|best' in word[2]
    assert [path.name for path in tmp_path.iterdir()] == ['new']
