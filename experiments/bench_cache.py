"""How fast the `cached` feed decodes a data set for the first time, and opens it again.

python -m experiments.bench_cache [--images=20000]

Plants JPEGs of 256×128 pixels (carousel, enlarged, quality 90) in Market-1501's layout. Wall time
on a shared machine is noisy: beside it stands the CPU time per image, of all threads.
"""

import argparse
import io
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from absl import logging
from PIL import Image

from kd_jax import data
from kd_jax.data import carousel

SIZE = {'height': 256, 'width': 128}
FOLDERS = {'bounding_box_train': 0.8, 'query': 0.05, 'bounding_box_test': 0.15}


def jpegs(count: int) -> list[bytes]:
    """Some images of carousel as JPEG files."""
    source = carousel.read(train_identities=8, test_identities=2)
    files = []
    for path in source.train.paths[:count]:
        noisy = np.asarray(source.open(path).resize((SIZE['width'], SIZE['height'])), np.int16)
        noisy += np.random.default_rng(len(files)).integers(-8, 9, noisy.shape, np.int16)
        out = io.BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(out, 'JPEG', quality=90)
        files.append(out.getvalue())
    return files


def plant(root: Path, count: int) -> int:
    """A data set of so many images; the mean size of a file in bytes."""
    files, first = jpegs(200), 1
    for folder, share in FOLDERS.items():
        (root / folder).mkdir()
        for number in range(round(count * share)):
            pid = (first + number % 500) if folder != 'bounding_box_test' else 501 + number % 500
            name = f'{pid:04d}_c{1 + number % 6}s1_{number:06d}_00.jpg'
            (root / folder / name).write_bytes(files[number % len(files)])
        first = 501
    return sum(map(len, files)) // len(files)


def timed(root: Path) -> tuple[float, float]:
    """Wall and CPU seconds of loading the data set."""
    wall, cpu = time.perf_counter(), time.process_time()
    data.load(name='folder', root=str(root), **SIZE)
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--images', type=int, default=20_000)
    count = parser.parse_args().images
    logging.set_verbosity(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        size = plant(Path(folder), count)
        first, again = timed(Path(folder)), timed(Path(folder))
    print(f'{count:,} JPEGs of {size:,} bytes, {os.cpu_count()} cores, Python {sys.version[:6]}')
    print('| | images/s | CPU ms/image |\n|---|---|---|')
    for name, (wall, cpu) in (('decoding', first), ('opening again', again)):
        print(f'| {name} | {count / wall:,.0f} | {1e3 * cpu / count:.3f} |')


if __name__ == '__main__':
    main()
