"""Embed own images by a run: python -m kd_jax.embed --run=DIR --images=FOLDER|CSV --out=FILE.

Killed at any time it goes on when it is started again, and ends with the same file, but for the
rounding of another --batch or number of devices. Until then what is done lies beside it, in
FILE.parts.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags, logging

from kd_jax import checkpoints, command, embeddings, own_images, runs
from kd_jax.data import listing
from kd_jax.data.layout import ignored, some
from kd_jax.data.listing import Listing
from kd_jax.data.records import DataError
from kd_jax.own_images import Network, Part
from kd_jax.runs import RunError

# What a file is told apart by, and what a difference may come from.
APART = {
    'weights': 'another run or checkpoint',
    'image': 'read in another way',
    'shots': 'another network',
    'dtype': '--dtype',
    'images': 'other images, labels, or files that were changed',
}
FACTS = 'facts.json'  # in the folder of parts, what they are of
NAMED = 5  # images that are told of by name


def run(network: Network, images: Listing, out: Path, *, dtype: str, batch: int) -> dict[str, Any]:
    """Embed images into a file, which is left as it is where it is finished; its facts.

    Images that cannot be read or embedded are left out, by `skipped` in the facts. Raises RunError
    for a file of another run, of other images or settings, DataError where no image is left.
    """
    embeddings.check_name(out)
    wanted = network.facts | {
        'dtype': dtype,
        'images': images.stamp(),
        'home': str(images.home.resolve()),
    }
    folder = out.with_name(f'{out.name}.parts')
    if out.exists():
        facts = embeddings.read(out).facts
        _check_same(out, facts, wanted)
        logging.info('%s is finished, and left as it is', out)
    else:
        _begin(folder, wanted)
        left = [start for start in _starts(images) if not _file(folder, start).exists()]
        if len(left) < len(_starts(images)):
            logging.info('going on: %d of %d parts are left', len(left), len(_starts(images)))
        found = own_images.parts(network, images, left, dtype=dtype, batch=batch)
        for start, part in zip(left, found):
            _keep(_file(folder, start), part)
        facts = _join(out, folder, wanted, images)
    if (folder / FACTS).exists():
        shutil.rmtree(folder)
    return facts


def summary(out: Path, facts: dict[str, Any]) -> str:
    """What a file holds, in a line, and which images it is without."""
    skipped = facts['skipped']
    lines = [
        f'{out}: {facts["count"]:,} images, width {facts["width"]}, {facts["dtype"]}, '
        f'{embeddings.by(facts)}'
    ]
    if skipped:
        lines.append(f'images that were left out: {len(skipped):,}')
        lines += [f'  {path}: {cause}' for path, cause in list(skipped.items())[:NAMED]]
        lines += ['  ...'] * (len(skipped) > NAMED)
    return '\n'.join(lines)


def _begin(folder: Path, wanted: dict[str, Any]) -> None:
    """Make the folder of parts, or go on in one that was begun with the same facts."""
    facts = folder / FACTS
    if facts.exists():
        _check_same(folder, json.loads(facts.read_text()), wanted)
        return
    if folder.exists() and any(not ignored(path.name) for path in folder.iterdir()):
        raise RunError(f'{folder} is in the way: it holds no parts of embeddings')
    folder.mkdir(parents=True, exist_ok=True)
    runs.write_json(facts, wanted)


def _check_same(place: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """RunError naming what differs."""
    lines = [
        f'  {key}: {found.get(key)!r} there, {wanted[key]!r} now ({why})'
        for key, why in APART.items()
        if found.get(key) != wanted[key]
    ]
    if lines:
        raise RunError(
            f'{place} was made {embeddings.by(found)} otherwise than asked for now. Nothing was '
            'changed; remove it, or give another --out:\n' + '\n'.join(lines)
        )


def _starts(images: Listing) -> range:
    return range(0, len(images.paths), own_images.PART)


def _file(folder: Path, start: int) -> Path:
    return folder / f'{start:09d}.npz'


def _keep(file: Path, part: Part) -> None:
    """Write a whole part or nothing."""
    temporary = file.with_name(f'.{os.getpid()}.npz')
    bad = np.array(json.dumps(part.bad))
    np.savez(temporary, rows=part.rows, vectors=part.vectors, bad=bad)
    os.replace(temporary, file)


def _kept(file: Path) -> Part:
    with np.load(file) as arrays:
        return Part(arrays['rows'], arrays['vectors'], json.loads(str(arrays['bad'])))


def _join(out: Path, folder: Path, wanted: dict[str, Any], images: Listing) -> dict[str, Any]:
    """Write the file of all parts; its facts."""
    files = [_file(folder, start) for start in _starts(images)]
    rows, bad, width = [], {}, 0
    for part in map(_kept, files):
        rows.append(part.rows)
        bad |= part.bad
        width = max(width, part.vectors.shape[1])
    rows = np.concatenate(rows)
    if not len(rows):
        shutil.rmtree(folder)
        raise DataError(f'none of {len(bad):,} images can be embedded, e.g. {_most(bad)}')
    text = 'embedded %d of %d images, %d left out'
    logging.info(text, len(rows), len(images.paths), len(bad))
    facts = wanted | {'count': len(rows), 'width': width, 'skipped': bad}
    columns = (column[rows] for column in images[1:])
    embeddings.write(out, facts, embeddings.labels(*columns), _vectors(files))
    return facts


def _most(bad: dict[str, str]) -> str:
    """What is wrong with most of the images, and with which."""
    cause, _ = Counter(bad.values()).most_common(1)[0]
    return f'{some([path for path in bad if bad[path] == cause])}: {cause}'


def _vectors(files: list[Path]) -> Iterator[np.ndarray]:
    return (part.vectors for part in map(_kept, files) if len(part.rows))


def main() -> None:
    """The command line: --run=DIR --images=FOLDER|CSV --out=FILE, and more with --help."""
    flag = flags.DEFINE_string
    flag('run', None, 'The run whose network embeds.', required=True)
    flag(
        'images',
        None,
        'A folder, of which all images are embedded, also those in folders below it; or a CSV or '
        'Parquet file with a column path, relative to the folder it is in, and if known identity '
        'and camera. Identity 0 are distractors, all of them different, and -1 junk.',
        required=True,
    )
    flag('out', None, 'The file to write: .parquet, or .npz.', required=True)
    flags.DEFINE_enum('checkpoint', 'last', checkpoints.WHICH, 'Which of the run’s checkpoints.')
    flags.DEFINE_enum('dtype', 'float32', embeddings.DTYPES, 'The numbers that are kept.')
    flags.DEFINE_integer('batch', None, 'Images embedded at once; else as the run evaluates.', 1)
    flags.DEFINE_enum('names', 'none', listing.NAMES, own_images.NAMES_HELP)

    def embed(_):
        given = flags.FLAGS
        out = Path(given.out)
        embeddings.check_name(out)
        images = listing.listed(Path(given.images), given.names)
        network = own_images.opened(Path(given.run), given.checkpoint)
        batch = given.batch or network.batch
        print(summary(out, run(network, images, out, dtype=given.dtype, batch=batch)))

    command.start(embed)


if __name__ == '__main__':
    main()
