"""A data set as few large files: python -m kd_jax.data.prepare --dataset=NAME --manual_dir=DIR.

Reads the raw data set in --manual_dir and writes all its images, as they are, into a tfds
directory below --data_dir, which may be remote (gs://). Training reads that in the place of the
raw folder, and finds the same records and the same pixels. Started again after it was killed, it
goes on where it stopped, and takes nothing that was made of files that changed since. Every image
is decoded once, so that damaged ones are found here.
"""

import argparse
import contextlib
import io
import os
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags, logging
from etils import epath

from kd_jax import data
from kd_jax.data import builders, choices, metadata, options, prepared, remote, report
from kd_jax.data.images import ON_BAD_IMAGE
from kd_jax.data.records import DataError, Source


def main() -> None:
    """The command line: --dataset=NAME --manual_dir=DIR --data_dir=DIR [--OPTION=VALUE]."""
    from kd_jax import command

    flags.FLAGS(sys.argv[:1])  # none is absl's, but its log lines begin when they are parsed
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    logging.get_absl_handler().addFilter(lambda record: 'site-packages' not in record.pathname)
    command.told(run, sys.argv[1:])


@options.own_flags()
def run(arguments: Sequence[str]) -> None:
    """Prepares a data set, and prints what it holds and how to train from it."""
    args = parsed(arguments)
    if not Path(args.manual_dir).expanduser().exists():
        raise DataError(f'{args.manual_dir}: no such folder; set --manual_dir to the data set')
    _check_apart(args.manual_dir, args.data_dir)
    chosen = options.reader_options(args, args.dataset)
    source = data.reader(args.dataset).read(root=args.manual_dir, **chosen)
    folder = prepare(args.dataset, source, args.data_dir, on_bad_image=args.on_bad_image, **chosen)
    print(f'{report.of_splits(source)}\n')
    left_out = metadata.about(folder)['left_out']
    for split, bad in left_out.items():
        if bad:
            print(f'without {len(bad):,} bad images of {split}')
    print(f'prepared: {folder}\ntrain on it: {training(args.dataset, args.data_dir, chosen)}')


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of a command line, those of the data set's reader among them."""
    name = options.named(arguments)
    parser = argparse.ArgumentParser(
        prog='python -m kd_jax.data.prepare',
        description=__doc__.partition('\n\n')[2],
        allow_abbrev=False,
    )
    flag = parser.add_argument
    known = [name for name in data.readers() if options.needs_root(name)]
    about = f'one of {", ".join(known)}; its own options are shown once it is given'
    flag('--dataset', metavar='NAME', required=True, help=about)
    flag('--manual_dir', metavar='DIR', required=True, help='the folder of the raw data set')
    flag('--data_dir', metavar='DIR', required=True, help='where to write: DIR/NAME/OPTIONS/1.0.0')
    about = 'stop at a bad image, or leave it out (error)'
    flag('--on_bad_image', choices=ON_BAD_IMAGE, default='error', help=about)
    if name:
        options.add_reader_options(parser, name)
    args = parser.parse_args(arguments)
    if not options.needs_root(args.dataset):
        parser.error(f'{args.dataset} lies in no folder: there is nothing to prepare')
    return args


def prepare(
    name: str, source: Source, data_dir: str, *, on_bad_image: str = 'error', **chosen: Any
) -> epath.Path:
    """Writes what a reader read with the options `chosen`, and returns the folder it is in.

    Nothing is done if it is there, by its records and its files' sizes and times. Raises DataError
    for images that cannot be read, where there is no room, and if something else is in the folder.
    """
    config = choices.config_name(data.reader(name).read, chosen)
    home = epath.Path(data_dir).expanduser()
    folder = home / name / config / prepared.VERSION
    if folder.exists():
        _check_same(folder, source)
        logging.info('%s: prepared already', folder)
        return folder
    builder = builders.create(
        name, data_dir=os.fspath(home), on_bad_image=on_bad_image, source=source, **chosen
    )
    try:
        # tfds makes a folder for downloads, and speaks of them.
        with tempfile.TemporaryDirectory() as empty, contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(download_dir=empty)
    except OSError as error:
        raise DataError(
            f'{folder}: cannot be written ({error}); start again once it can: what is finished is '
            'kept'
        ) from error
    return folder


def training(name: str, data_dir: str, chosen: Mapping[str, Any]) -> str:
    """The command that trains a baseline on a prepared data set."""
    classic = name == 'cuhk03' and chosen['classic_split'] >= 0
    config = f'configs/supervised_{name}{"_classic" if classic else ""}.py'
    # All of them, for a config's may be others than the reader's.
    flags = [f'--config.data.{key}={value}' for key, value in {'root': data_dir, **chosen}.items()]
    return shlex.join(['python', '-m', 'kd_jax.main', f'--config={config}', *flags])


def _check_apart(manual_dir: str, data_dir: str) -> None:
    """Raises DataError where what is prepared would lie in the raw data set's own folder."""
    if remote.is_remote(data_dir):
        return
    raw, home = (Path(place).expanduser().resolve() for place in (manual_dir, data_dir))
    if home.is_relative_to(raw):
        raise DataError(
            f'{data_dir}: lies in the raw data set ({manual_dir}), which it would hide; set '
            '--data_dir to a folder outside'
        )


def _check_same(folder: epath.Path, source: Source) -> None:
    """Raises DataError unless the folder holds what was prepared from that source as it is now."""
    if not (folder / prepared.INFO).exists():
        raise DataError(f'{folder}: without {prepared.INFO}, so not finished; remove it')
    metadata.check_same(folder, source, builders.cuts(source))


if __name__ == '__main__':
    main()
