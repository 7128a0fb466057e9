"""Images on disk that are no data set, and the run of an untrained network to embed them by."""

import functools
from pathlib import Path

import numpy as np
import smoke
from PIL import Image

from kd_jax import embeddings
from kd_jax.own_images import Network, opened

FACTS = {'run': 'runs/a', 'checkpoint': 'last', 'step': 8, 'metric': 'cosine', 'images': 'f00'}
FACTS |= {'weights': 'abc', 'image': '32 x 16 x 3, bilinear', 'shots': 1, 'home': '/nowhere'}


@functools.cache
def run() -> Path:
    """A run with checkpoints of two untrained networks, to be left as it is."""
    return smoke.once('photos_run', smoke.planted)


@functools.cache
def network(which: str = 'last') -> Network:
    """One of its networks."""
    return opened(run(), which)


def plant(folder: Path, identities: int = 3, cameras: int = 2, seed: int = 0) -> list[str]:
    """Images of noise under Market-1501's names, two of each identity by each camera."""
    rng, names = np.random.default_rng(seed), []
    folder.mkdir(parents=True, exist_ok=True)
    for pid in range(1, identities + 1):
        for camera in range(1, cameras + 1):
            for frame in (1, 2):
                names.append(f'{pid:04d}_c{camera}s1_{frame:06d}_00.png')
                pixels = rng.integers(0, 256, (40, 20, 3), np.uint8)
                Image.fromarray(pixels).save(folder / names[-1])
    return sorted(names)


def table(file: Path, rows: list[tuple], heads: str = 'path,identity,camera') -> Path:
    """A CSV of some rows."""
    file.write_text('\n'.join([heads, *(','.join(map(str, row)) for row in rows)]) + '\n')
    return file


def vectors_file(
    file: Path, vectors: np.ndarray, identities=None, cameras=None, paths=None, **facts
) -> Path:
    """A file of given embeddings."""
    count = len(vectors)
    unknown = [''] * count
    images = embeddings.labels(
        [f'{k}.png' for k in range(count)] if paths is None else paths,
        unknown if identities is None else identities,
        unknown if cameras is None else cameras,
    )
    known = {'count': count, 'width': vectors.shape[1], 'dtype': str(vectors.dtype), 'skipped': {}}
    embeddings.write(file, FACTS | known | facts, images, [vectors[:5], vectors[5:]])
    return file
