"""A look at a data set before training: python -m kd_jax.data.check --dataset=NAME --root=DIR.

Prints what its splits hold beside what is published, images that cannot be read, queries without
a match and why, and identities with few images; draws a sheet of training sets as PNG. The exit
code is 1 if something makes training meaningless.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np
from absl import flags, logging
from etils import epath
from jaxtyping import UInt8
from PIL import Image

from kd_jax import data
from kd_jax.data import findings, images, options, sheet
from kd_jax.data.findings import Queries
from kd_jax.data.images import ImageError
from kd_jax.data.records import DataError, Source, from_rows
from kd_jax.data.report import (
    listed,
    of_identities,
    of_images,
    of_queries,
    of_shares,
    of_splits,
    spoiled,
    unpublished,
)
from kd_jax.retrieval import items, protocols, tasks
from kd_jax.retrieval.protocols import PROTOCOLS
from kd_jax.retrieval.tasks import Task

SIDE = 32  # pixels: a JPEG file decodes faster when little is wanted of it
FRAMES = 8  # a tracklet is embedded from; what it may match is the same with any number
NONE = 'none'  # in place of a choice, leaves that part out


def main() -> None:
    """The command line: --dataset=NAME [--root=DIR] [--OPTION=VALUE], and more with --help."""
    from kd_jax import command

    flags.FLAGS(sys.argv[:1])  # none is absl's, but its log lines begin when they are parsed
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    command.told(run, sys.argv[1:])


@options.own_flags()
def run(arguments: Sequence[str]) -> None:
    """Reads, prints and draws; exits with 1 if there are problems."""
    args = parsed(arguments)
    source = read_source(args)
    names = protocols.names(args.protocol or source.protocol)
    rules = {name: args.same_camera or _rule(name) for name in names}
    queries = results(source, rules)
    print(f'{args.dataset}: {args.root or "made from a seed"}', end='\n\n')
    few = of_identities(source.train, args.shots, args.views)
    print(of_splits(source), of_shares(source), few, of_queries(queries), sep='\n\n')
    if args.sheet != NONE and len(source.train.pids):
        file = Path(args.sheet or f'{args.dataset}_check.png')
        sheet.draw(source, file, name=args.dataset, shots=args.shots, views=args.views)
        print(f'\nsheet of training sets: {file}', flush=True)
    bad = None if args.images == NONE else unreadable(source)
    print('', of_images(source, bad), sep='\n')
    stops = spoiled(bad or {}) + findings.problems(source.train, source.tests())
    stops += findings.unanswered(queries)
    doubts = unpublished(source) + findings.warnings(source.train, args.shots)
    doubts += findings.partly_answered(queries)
    print('', listed('problems', stops), '', listed('warnings', doubts), sep='\n')
    sys.exit(bool(stops))


def read_source(args: argparse.Namespace) -> Source:
    """What the reader reads."""
    if args.root and not epath.Path(args.root).expanduser().exists():
        raise DataError(f'{args.root}: no such folder; set --root to the data set')
    root = {'root': args.root} if args.root else {}
    chosen = options.reader_options(args, args.dataset)
    return data.read(args.dataset, cache_dir=args.cache_dir, **root, **chosen)


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of a command line, those of the data set's reader among them."""
    name = options.named(arguments)
    parser = argparse.ArgumentParser(
        prog='python -m kd_jax.data.check',
        description=__doc__.partition('\n\n')[2],
        allow_abbrev=False,
    )
    flag = parser.add_argument
    known = f'one of {", ".join(data.readers())}; its own options are shown once it is given'
    flag('--dataset', metavar='NAME', required=True, help=known)
    flag('--root', metavar='DIR', default='', help='the folder of the data set')
    flag('--shots', metavar='K', type=_positive, default=4, help='images of a set (4)')
    flag('--views', metavar='N', type=_positive, default=8, help='images of a set of views (8)')
    known = f'one or more of {", ".join(PROTOCOLS)}, with commas between (that of the data set)'
    flag('--protocol', metavar='NAME', default='', help=known)
    rule = 'matches by a query’s own camera (drop, or keep where the protocol has no cameras)'
    flag('--same_camera', choices=('drop', 'keep'), help=rule)
    flag('--sheet', metavar='FILE', default='', help='(NAME_check.png), or none')
    flag('--cache_dir', metavar='DIR', default='', help='where a remote data set is copied to')
    flag('--images', choices=('all', NONE), default='all', help='whether to decode them (all)')
    if name:
        options.add_reader_options(parser, name)
    args = parser.parse_args(arguments)
    if options.needs_root(args.dataset) != bool(args.root):
        remedy = 'leave out --root' if args.root else 'add --root=DIR'
        parser.error(f'{args.dataset} is read from {"no" if args.root else "a"} folder: {remedy}')
    return args


def results(source: Source, rules: Mapping[str, str]) -> dict[str, Queries]:
    """What is asked under each protocol on every test set, by the name of the result.

    `rules` are those on matches by a query's own camera, 'drop' or 'keep', by protocol. Empty test
    sets are left out: `findings.problems` tells of them. Raises ValueError where a protocol does
    not fit the data.
    """
    found = {}
    full = {k: pair for k, pair in source.tests().items() if all(len(part.pids) for part in pair)}
    for protocol, (name, pair) in product(rules, full.items()):
        test, rule = items.together(*pair, source.tracklets), rules[protocol]
        for result, task in protocols.tasks_of(protocol, test, FRAMES, rule).items():
            found[' '.join(filter(None, (protocol, name, result)))] = asked(protocol, task, rule)
    return found


def asked(protocol: str, task: Task, same_camera: str) -> Queries:
    """How many queries of a task have no match, and whether a single camera is why."""
    count = len(task.query.pids)
    if PROTOCOLS[protocol].rank is tasks.drawn_gallery:
        # One image of each identity is drawn, and asks nothing.
        return Queries(count - len(np.unique(task.query.pids)), 0, 0)
    found = Queries(count, *tasks.unmatched(task, same_camera))
    cameras = np.union1d(task.query.cameras, task.gallery.cameras)
    if found.valid or len(cameras) > 1 or sum(tasks.unmatched(task, 'keep')) == count:
        return found
    return found._replace(camera=int(cameras[0]))


def unreadable(source: Source) -> dict[str, str]:
    """What is wrong with each image that cannot be decoded, by its path."""
    paths = dict.fromkeys(p for split in source.splits().values() for p in split.paths.tolist())
    one = images.reader(lambda path: drafted(source, path), (SIDE, SIDE, 3), 'bilinear')

    def decoded(path: str) -> UInt8[np.ndarray, 'h w 3']:
        try:
            return one(path)
        except ImageError:
            raise
        except DataError as error:  # missing or forbidden: here it is listed like a damaged one
            raise ImageError(path, str(error.__cause__ or error)) from error

    everything = from_rows([(path, 0, 0, 0, 0) for path in paths])
    return images.sweep(everything, decoded, 'all splits', skip=True, store=lambda block: None)


def drafted(source: Source, path: str) -> Image.Image:
    """An image that decodes at a small size, if its format can."""
    image = source.open(path)
    image.draft('RGB', (SIDE, SIDE))
    return image


def _rule(protocol: str) -> str:
    """The rule on matches by a query's own camera that a protocol has where none is given."""
    return 'drop' if PROTOCOLS[protocol].cameras else 'keep'


def _positive(text: str) -> int:
    """A whole number from 1; argparse tells of anything else."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text!r}: give a whole number from 1')
    return int(text)


if __name__ == '__main__':
    main()
