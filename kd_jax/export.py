"""The student of a run in one file: python -m kd_jax.export --run=DIR --out=FILE.

FILE is a zip of `function`, made by jax.export, and of `facts.json`, what it was made of. JAX
alone runs it, without kd_jax:

    import zipfile, jax.export
    function = jax.export.deserialize(bytearray(zipfile.ZipFile(FILE).read('function')))
    embeddings = jax.jit(function.call)(images)  # uint8[b, h, w, c] -> float32[b, d]

FILE.safetensors holds the variables instead, in PyTorch's names; that also of a run in training.
"""

import json
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.export
import numpy as np
from absl import flags
from jaxtyping import Array, Float

FUNCTION, FACTS = 'function', 'facts.json'  # the members of a file
# What zipfile and json raise on files that are damaged or not theirs, and JSON of something else.
DAMAGE = zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, ValueError
DAMAGE += LookupError, TypeError


class Student(NamedTuple):
    """A loaded file: student(uint8 images[b, h, w, c]) -> float32[b, d], compiled for each b.

    `size` is (h, w, c). `facts` are those of kd_jax.embed's files, by which it is known which
    embeddings can be compared, and `size`, `resize`, `width` (d), `network`, `parameters`,
    `platforms` and `versions`.
    """

    file: Path
    facts: dict[str, Any]
    size: tuple[int, ...]
    embed: Callable

    def __call__(self, images: Any) -> Float[Array, 'b d']:
        """The embeddings of images as they are; ValueError for another size or dtype."""
        images = images if isinstance(images, jax.Array) else np.asarray(images)
        fits = images.ndim == 4 and len(images) and images.shape[1:] == self.size
        if not fits or images.dtype != np.uint8:
            raise ValueError(
                f'{self.file} reads {images_of(self.size)}, b at least 1, but was given '
                f'{images.dtype}{list(images.shape)}'
            )
        return self.embed(images)


def load(file: str | Path) -> Student:
    """An exported student, which needs nothing else of kd_jax.

    Raises ValueError for a file that is missing, damaged or of something else.
    """
    file = Path(file)
    if not file.is_file():
        raise ValueError(f'{file}: no such file of an exported student')
    try:
        with zipfile.ZipFile(file) as archive:
            facts, written = json.loads(archive.read(FACTS)), archive.read(FUNCTION)
        by = facts['versions']['jax']
    except DAMAGE as error:
        raise ValueError(f'{file} is damaged, or no student by kd_jax.export ({error})') from error
    try:
        function = jax.export.deserialize(bytearray(written))
    except Exception as error:  # whatever jax says of bytes of another version
        text = f'{file}, written by jax {by}, cannot be read by jax {jax.__version__}'
        raise ValueError(f'{text}: export the run again ({error})') from error
    return Student(file, facts, function.in_avals[0].shape[1:], jax.jit(function.call))


def write(file: Path, function: jax.export.Exported, facts: dict[str, Any]) -> None:
    """Write what `load` reads; weights are stored as they are, compressed they stay as large."""
    with zipfile.ZipFile(file, 'w') as archive:
        archive.writestr(FUNCTION, bytes(function.serialize()))
        archive.writestr(FACTS, json.dumps(facts, indent=2))


def images_of(size: tuple[int, ...]) -> str:
    """What is read, e.g. 'uint8[b, 256, 128, 3]'."""
    return f'uint8[b, {", ".join(map(str, size))}]'


def main() -> None:
    """The command line: --run=DIR --out=FILE [--checkpoint=last|best]."""
    from kd_jax import checkpoints, command, exporting

    flags.DEFINE_string('run', None, 'The run whose student is exported.', required=True)
    flags.DEFINE_string(
        'out',
        None,
        'The file to write: its variables in PyTorch’s names if it ends in .safetensors, else the '
        'function from images to embeddings, for kd_jax.export.load or jax alone.',
        required=True,
    )
    flags.DEFINE_enum('checkpoint', 'last', checkpoints.WHICH, 'Which of its checkpoints.')

    def export(_):
        given = flags.FLAGS
        print(exporting.run(Path(given.run), given.checkpoint, Path(given.out)))

    command.start(export)


if __name__ == '__main__':
    main()
