"""How long readers take to read the names of a large data set, and how much memory.

    python -m experiments.bench_readers --names=300000 --readers=veri_wild,manifest

Empty files and lists are planted as each data set has them, in a temporary folder, and read by a
process of its own: the seconds are those of `read` alone, the memory is all of the process at its
peak, Python and NumPy included. Just planted, the folders are in the system's cache.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from experiments.planted import LAYOUTS, plant


def measure(reader: str, root: str) -> tuple[int, float, float]:
    """How many images a reader finds, how many seconds it takes and this process's peak in MB."""
    read = import_module(f'kd_jax.data.{reader}').read
    start = time.perf_counter()
    source = read(root=root)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found = {path for records in source.splits().values() for path in records.paths.tolist()}
    return len(found), seconds, peak


def alone(function: Callable, *arguments):
    """What a function returns in a new process, which has no one else's memory."""
    with multiprocessing.get_context('spawn').Pool(1) as pool:
        return pool.apply(function, arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--names', type=int, default=300_000, help='files in each data set')
    parser.add_argument('--readers', default=','.join(LAYOUTS), help='some of the default')
    args = parser.parse_args()
    unknown = set(args.readers.split(',')) - set(LAYOUTS)
    if unknown:
        parser.error(f'no reader {", ".join(sorted(unknown))}; choose of {", ".join(LAYOUTS)}')
    print('| reader | names | seconds | peak memory, MB |\n|---|---|---|---|')
    for reader in args.readers.split(','):
        with tempfile.TemporaryDirectory() as root:
            place = alone(plant, Path(root), reader, args.names)
            found, seconds, peak = alone(measure, reader, place)
        print(f'| {reader} | {found:,} | {seconds:.1f} | {peak:.0f} |', flush=True)


if __name__ == '__main__':
    main()
