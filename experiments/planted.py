"""Data sets of empty files, in the layout of each reader, for measuring how names are read.

Left out are carousel, which has no files, and CUHK03, whose names hold no more than 14,670 images.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.io

MARKET = {'train': 'bounding_box_train', 'query': 'query', 'gallery': 'bounding_box_test'}
CAMERAS = 6


class Row(NamedTuple):
    """An image: its number in the data set, and the place it has among those of its identity."""

    number: int
    split: str
    identity: int
    camera: int
    place: int

    @property
    def side(self) -> str:
        """The folder of splits that have two."""
        return 'train' if self.split == 'train' else 'test'


class Layout(NamedTuple):
    """How a data set lies on disk: the path of an image, and the lines it has in lists.

    `shots` are the images of an identity, by default as many as keep identities in four digits;
    `finish(root, rows)` writes what is no list of lines.
    """

    path: Callable[[Row], str]
    lines: Callable[[Row], dict[str, str]] = lambda row: {}
    shots: int = 0
    finish: Callable[[Path, Iterator[Row]], None] = lambda root, rows: None


def rows_of(names: int, shots: int) -> Iterator[Row]:
    """As many images, half of the identities for training; camera 1 of the others asks."""
    shots = shots or max(2 * CAMERAS, names // 5000)
    last = 1 + (names - 1) // shots
    for number in range(names):
        identity, place = 1 + number // shots, number % shots
        camera = 1 + CAMERAS * place // shots
        test = 'query' if camera == 1 else 'gallery'
        yield Row(number, 'train' if 2 * identity <= last else test, identity, camera, place)


def market(name: Callable[[Row], str]) -> Layout:
    """Market-1501's folders with names of some form."""
    return Layout(lambda row: f'{MARKET[row.split]}/{name(row)}')


def msmt17_line(row: Row) -> str:
    identity = row.identity % 1041  # as many are for training
    name = f'{row.number // 1000:03d}_{row.camera:02d}_0303noon_{row.number % 1000:04d}_0.jpg'
    return f'{identity:04d}/{identity:04d}_{name} {identity}'


def msmt17_list(row: Row) -> str:
    return 'list_val.txt' if row.side == 'train' and row.camera == 6 else f'list_{row.split}.txt'


def mars_name(row: Row) -> str:
    return f'{row.identity:04d}C{row.camera}T0001F{row.place + 1:03d}.jpg'


def mars_tracks(root: Path, rows: Iterator[Row]) -> None:
    """The three .mat files: a track is one identity in one camera."""
    tracks, asking = {'train': [], 'test': []}, []
    for (side, identity, camera, split), images in groupby(
        rows, lambda row: (row.side, row.identity, row.camera, row.split)
    ):
        start = tracks[side][-1][1] + 1 if tracks[side] else 1
        tracks[side].append((start, start + sum(1 for _ in images) - 1, identity, camera))
        if split == 'query':
            asking.append(len(tracks[side]))
    for side, found in tracks.items():
        columns = {f'track_{side}_info': np.array(found, np.int32)}
        scipy.io.savemat(root / 'info' / f'tracks_{side}_info.mat', columns)
    scipy.io.savemat(root / 'info' / 'query_IDX.mat', {'query_IDX': np.array([asking], np.uint16)})


def duke_video_path(row: Row) -> str:
    name = f'{row.identity:04d}_C{row.camera}_F{row.place + 1:04d}_X{row.number}.jpg'
    return f'{row.split}/{row.identity:04d}/{row.camera:04d}/{name}'


def veri776_name(row: Row) -> str:
    return f'{row.identity:04d}_c{row.camera:03d}_{row.number:08d}_0.jpg'


def veri776_lines(row: Row) -> dict[str, str]:
    folder = 'test' if row.split == 'gallery' else row.split
    lines = {f'name_{folder}.txt': veri776_name(row)}
    if folder == 'test':  # short tracks, which are the most work
        lines['test_track.txt'] = f'{veri776_name(row)[:18]} {veri776_name(row)} '
    return lines


def nested(row: Row, lists: tuple[str, ...]) -> tuple[str, ...]:
    """The lists of test sets that an image is in: the last holds all, those before it fewer."""
    return ('train_list.txt',) if row.split == 'train' else lists[row.identity % 3 :]


def vehicleid_lines(row: Row) -> dict[str, str]:
    lists = nested(row, tuple(f'test_list_{size}.txt' for size in (800, 1600, 2400)))
    return {f'train_test_split/{name}': f'{row.number:07d} {row.identity}' for name in lists}


def veri_wild_lines(row: Row) -> dict[str, str]:
    image = f'{row.identity:05d}/{row.number:06d}'
    lists = nested(row, ('test_3000.txt', 'test_5000.txt', 'test_10000.txt'))
    if row.split == 'query':
        lists += tuple(name.replace('.txt', '_query.txt') for name in lists)
    lines = {f'train_test_split/{name}': f'{image}.jpg {row.identity} 0' for name in lists}
    info = f'{image};{row.camera};2018-03-11 09:17:22;Audi(A4);SUV;black'
    return {**lines, 'train_test_split/vehicle_info.txt': info}


def atrw_path(row: Row) -> str:
    return f'atrw_reid_{row.side}/{row.side}/{row.number:06d}.jpg'


def atrw_lines(row: Row) -> dict[str, str]:
    line = f'{row.identity},{row.number:06d}.jpg'
    return {'atrw_anno_reid_train/reid_list_train.csv': line} if row.side == 'train' else {}


def atrw_truth(root: Path, rows: Iterator[Row]) -> None:
    """The ground truth of the test images."""
    found = [
        {
            'query': 'multi',
            'entityid': r.identity,
            'frame': [0, r.camera, r.place],
            'imgid': r.number,
        }
        for r in rows
        if r.side == 'test'
    ]
    (root / 'gt_test_plain.json').write_text(json.dumps(found))


def manifest_lines(row: Row) -> dict[str, str]:
    cells = f'{row.split},{row.identity},{row.camera},{row.camera},{row.number}'
    heading = '' if row.number else 'path,split,identity,camera,tracklet,frame\n'
    return {'own.csv': f'{heading}images/{row.number}.jpg,{cells}'}


LAYOUTS = {
    'folder': market(lambda row: f'{row.identity:04d}_c{row.camera}_{row.number}.png'),
    'market1501': market(lambda row: f'{row.identity:04d}_c{row.camera}s1_{row.number:06d}_00.jpg'),
    'dukemtmc': market(lambda row: f'{row.identity:04d}_c{row.camera}_f{row.number:07d}.jpg'),
    'msmt17': Layout(
        lambda row: f'{row.side}/{msmt17_line(row).split()[0]}',
        lambda row: {msmt17_list(row): msmt17_line(row)},
    ),
    'veri776': Layout(
        lambda row: f'image_{row.split.replace("gallery", "test")}/{veri776_name(row)}',
        veri776_lines,
    ),
    'vehicleid': Layout(lambda row: f'image/{row.number:07d}.jpg', vehicleid_lines, 10),
    'veri_wild': Layout(
        lambda row: f'images/{row.identity:05d}/{row.number:06d}.jpg', veri_wild_lines, 10
    ),
    'mars': Layout(
        lambda row: f'bbox_{row.side}/{row.identity:04d}/{mars_name(row)}',
        lambda row: {f'info/{row.side}_name.txt': mars_name(row)},
        finish=mars_tracks,
    ),
    'duke_video': Layout(duke_video_path),
    'atrw': Layout(atrw_path, atrw_lines, finish=atrw_truth),
    'manifest': Layout(lambda row: f'images/{row.number}.jpg', manifest_lines),
}


def plant(root: Path, reader: str, names: int) -> str:
    """Plants a data set of empty files below `root`, and returns what its reader is given."""
    layout, folders, lists = LAYOUTS[reader], set(), {}
    with ExitStack() as stack:
        for row in rows_of(names, layout.shots):
            file = root / layout.path(row)
            if file.parent not in folders:
                file.parent.mkdir(parents=True)
                folders.add(file.parent)
            file.touch()
            for name, line in layout.lines(row).items():
                if name not in lists:
                    (root / name).parent.mkdir(exist_ok=True)
                    lists[name] = stack.enter_context((root / name).open('w'))
                lists[name].write(f'{line}\n')
    layout.finish(root, rows_of(names, layout.shots))
    return str(root / 'own.csv' if reader == 'manifest' else root)
