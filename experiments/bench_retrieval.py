"""Time, memory and agreement of rankings, on synthetic test sets of the sizes of real ones.

    python -m experiments.bench_retrieval --sets=market1501,msmt17,veri_wild,market500k

For each set, one after the other and each in a process of its own:

product   all products of queries and gallery in numpy, a block at a time: what every exact ranking
          has to compute
kd_jax    `retrieval.ranking.rank` by the cosine
argsort   a sort of the gallery for every query in numpy, as evaluators in Python do it (timed on a
          part of the queries)
torchreid its compiled evaluator, where that is importable, on the whole matrix of distances
rerank    with --rerank, `retrieval.rerank` and a ranking by it; and torchreid's function, likewise

What is compiled for these shapes is compiled anew, and counts. That numpy's threads wait for one
another a while after each product would count as CPU time as well: they are told not to.

The columns: CPU seconds of all cores, those apart from products and from placing the features,
seconds, and the peak of memory beyond the features and the device's copy of them. Agreement is the
largest difference of an average precision to a sort in float64, over 50 queries. Harder features
cost more counting: --noise sets them, mAP tells how hard they are.
"""

import argparse
import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from experiments.retrieval_sets import SIZES, TestSet, planted
from kd_jax.retrieval import ranking, rerank, tiles

CHECKED, PART = 50, 256
RULE = {'metric': 'cosine', 'same_camera': 'drop'}
RERANK = {'k1': 20, 'k2': 6, 'weight': 0.3}


class Found(NamedTuple):
    """What a contender used, in CPU seconds, seconds and GiB, and what it found."""

    cpu: float
    apart: float
    seconds: float
    memory: float
    precision: float = np.nan
    difference: float = np.nan


class Clock:
    """CPU seconds within some functions."""

    def __init__(self):
        self.cpu = 0.0

    def timed(self, function: Callable) -> Callable:
        """The function, whose time is added."""

        def within(*arguments, **options):
            begun = time.process_time()
            found = function(*arguments, **options)
            self.cpu += time.process_time() - begun
            return found

        return within


def product(data: TestSet, clock: Clock) -> None:
    """All products, forgotten at once."""
    rows = min(512, max(2**25 // len(data.gallery), 64))
    held = np.empty((rows, len(data.gallery)), np.float32)
    multiply = clock.timed(np.matmul)
    for start in range(0, len(data.query), rows):
        block = data.query[start : start + rows]
        multiply(block, data.gallery.T, out=held[: len(block)])


def ours(data: TestSet, clock: Clock):
    """The ranking."""
    return ranking.rank(data.query, data.gallery, *data.labels, **RULE)


def argsort(data: TestSet, clock: Clock) -> None:
    """A sort for every query of a part; all else counts as the clock's."""
    distances = clock.timed(lambda: -(data.query[:PART] @ data.gallery.T))()
    for row in distances:
        np.argsort(row, kind='stable')


def reranked(data: TestSet, clock: Clock, variant: str):
    """The re-ranking and the ranking by it."""
    sides = data.query, data.gallery
    of_rows = rerank.distances(*sides, metric='cosine', variant=variant, **RERANK)
    shape = len(data.query), len(data.gallery)
    return ranking.rank_rows(of_rows, shape, *data.labels, same_camera='drop')


def torchreid(data: TestSet, clock: Clock) -> float:
    """torchreid's compiled evaluator, and its mAP."""
    from torchreid.metrics import evaluate_rank

    distances = clock.timed(lambda: 1 - data.query @ data.gallery.T)()
    return float(evaluate_rank(distances, *data.labels, use_cython=True)[1])


def torchreid_reranked(data: TestSet, clock: Clock) -> float:
    """torchreid's re-ranking, and the mAP by it."""
    from torchreid.utils import re_ranking

    sides = (data.query, data.gallery), (data.query, data.query), (data.gallery, data.gallery)
    products = [clock.timed(lambda a=a, b=b: 1 - a @ b.T)() for a, b in sides]
    found = re_ranking(*products)
    return ranking.rank_distances(found, *data.labels, same_camera='drop').mAP


def measured(contender: Callable, size: str, width: int, noise: float, options: dict) -> Found:
    """What a contender needs for a set; in this process, which has done nothing else."""
    data, clock = planted(SIZES[size], width, noise), Clock()
    tiles.tiled = clock.timed(tiles.tiled)
    computed = tiles._distances
    tiles._distances = clock.timed(lambda *given: jax.block_until_ready(computed(*given)))
    contender(planted(SIZES['smoke'], 16, 1.0), Clock(), **options)  # imports
    np.ones(2 * data.gallery.nbytes, np.uint8)  # of a virtual machine's host, which takes long
    clock.cpu, before = 0.0, resident('VmRSS')
    Path('/proc/self/clear_refs').write_text('5')  # the peak starts anew
    begun, cpu = time.perf_counter(), time.process_time()
    found = contender(data, clock, **options)
    cpu, seconds = time.process_time() - cpu, time.perf_counter() - begun
    peak = resident('VmHWM') - before
    if contender in (ours, reranked):
        peak -= data.gallery.nbytes + (data.query.nbytes if contender is reranked else 0)
    scale = len(data.query) / PART if contender is argsort else 1.0
    times = (scale * value for value in (cpu, cpu - clock.cpu, seconds))
    agreement = (getattr(found, 'mAP', found),) if found is not None else ()
    agreement += (difference(found, data),) if contender is ours else ()
    return Found(*times, peak / 2**30, *agreement)


def resident(which: str) -> int:
    """The process' memory in bytes, now (VmRSS) or at its peak (VmHWM)."""
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(which))


def difference(found, data: TestSet) -> float:
    """The largest difference to average precisions by a sort in float64, of some queries."""
    rows = np.linspace(0, len(data.query) - 1, CHECKED).astype(int)
    ids, gallery_ids, cameras, gallery_cameras = data.labels
    lengths = np.linalg.norm(data.gallery, axis=1).astype(np.float64)
    apart = []
    for row in rows:
        cosines = data.gallery @ data.query[row].astype(np.float64) / lengths
        own = (gallery_ids == ids[row]) & (gallery_cameras == cameras[row])
        order = np.argsort(-cosines, kind='stable')
        hits = (gallery_ids == ids[row])[order][~own[order]]
        precisions = np.cumsum(hits)[hits] / (np.flatnonzero(hits) + 1)
        if len(precisions):
            apart.append(abs(precisions.mean() - found.average_precision[row]))
    return max(apart)


def alone(function: Callable, *arguments):
    """What a function returns in a new process, which has no one else's memory."""
    os.environ['OPENBLAS_THREAD_TIMEOUT'] = '4'
    spawned = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(1, mp_context=spawned) as pool:
        return pool.submit(function, *arguments).result()


def contenders(variant: str) -> list[tuple[str, Callable, dict]]:
    """Who takes part, with their options."""
    chosen = [(f.__name__, f, {}) for f in (product, ours, argsort, torchreid)]
    chosen[1] = 'kd_jax', ours, {}
    if variant:
        chosen = [(f'kd_jax, {variant}', reranked, {'variant': variant})]
        chosen.append(('torchreid, re-ranked', torchreid_reranked, {}))
    return chosen


def row(size: str, name: str, found: Found) -> str:
    """A row of the table."""
    cells = f'{found.cpu:.2f} | {found.apart:.2f} | {found.seconds:.1f} | {found.memory:.2f}'
    return f'| {size} | {name} | {cells} | {100 * found.precision:.1f} | {found.difference:.0e} |'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--sets', default='market1501', help=f'of {", ".join(SIZES)}')
    parser.add_argument('--width', type=int, default=2048, help='of the features')
    parser.add_argument('--noise', type=float, default=3.0, help='of an image, beside its identity')
    parser.add_argument('--rerank', default='', help=f'of {", ".join(rerank.VARIANTS)}')
    args = parser.parse_args()
    unknown = set(args.sets.split(',')) - set(SIZES)
    if unknown:
        parser.error(f'no set {", ".join(sorted(unknown))}; choose of {", ".join(SIZES)}')
    columns = ('set', '', 'CPU s', 'apart', 's', 'GiB', 'mAP', 'difference')
    print('| ' + ' | '.join(columns) + ' |\n' + '|---' * len(columns) + '|')
    for size in args.sets.split(','):
        for name, contender, options in contenders(args.rerank):
            try:
                found = alone(measured, contender, size, args.width, args.noise, options)
            except ModuleNotFoundError as missing:
                print(f'| {size} | {name} | not installed: {missing.name} |' + ' |' * 5)
                continue
            except BrokenProcessPool:
                print(f'| {size} | {name} | killed, of memory most likely |' + ' |' * 5)
                continue
            print(row(size, name, found), flush=True)


if __name__ == '__main__':
    main()
