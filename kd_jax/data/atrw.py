"""ATRW, the plain re-identification of Amur tigers.

Li et al., "ATRW: A Benchmark for Amur Tiger Re-identification in the Wild", ACM MM 2020.

    ROOT/atrw_reid_train/train/000001.jpg            more images than are listed
    ROOT/atrw_anno_reid_train/reid_list_train.csv    identity,file name; no header
    ROOT/atrw_reid_test/test/000000.jpg
    ROOT/atrw_anno_reid_test/reid_list_test.csv      file names; may be missing
    ROOT/ATRWEvalScript/annotations/gt_test_plain.json, or in ROOT/annotations or ROOT: a list of
        {"query": "sing" or "multi", "entityid": 199, "frame": [clip, camera, frame], "imgid": 0}

An identity is one side of a tiger, whose stripes differ from those of the other. Training images
have no cameras, tracklets or frames. The test is one pool, in which every image asks for all
others: `sing` are identities seen by one camera, `multi` by several. A tracklet there is one
identity in one clip of one camera; a clip may show several. In order that no two identities share a
number, a training identity is the listed one plus 1, and test identities follow the last training
identity.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from kd_jax.data.layout import (
    check_once,
    check_present,
    existing,
    lines_of,
    matched,
    opener,
    some,
    tracklets,
)
from kd_jax.data.records import JUNK, Counts, DataError, Records, Source, from_rows

TRAIN, TEST = 'atrw_reid_train/train', 'atrw_reid_test/test'
TRAIN_LIST = 'atrw_anno_reid_train/reid_list_train.csv'
TEST_LIST = 'atrw_anno_reid_test/reid_list_test.csv'
TRUTH = 'gt_test_plain.json'
TRUTH_PLACES = 'ATRWEvalScript/annotations', 'annotations', '.'
TRAIN_LINE = re.compile(r'(\d+)\s*,\s*(\w+\.(?i:jpg))', re.ASCII)
TEST_LINE = re.compile(r'(?:-?\d+\s*,\s*)?(\w+\.(?i:jpg))', re.ASCII)
FLIPPED = '#flipped'  # behind the path of an image: its mirror image


class Sight(NamedTuple):
    """One test image: whether its tiger is seen by several cameras, which tiger, where and when."""

    image: int
    several: bool
    entity: int
    clip: int
    camera: int
    frame: int


def read(*, root: str, flips: bool = False) -> Source:
    """The tigers below `root`, query and gallery being one pool.

    With `flips`, every training image is there mirrored as well, as of another identity: the other
    side of a tiger; these identities follow the others (VKD). Raises DataError for missing
    images, and for lists that are missing, broken or contradict one another.
    """
    home = existing(root)
    train = _train(home)
    check_present(home, train.paths.tolist(), home / TRAIN_LIST)
    if flips:
        train = with_flips(train)
    truth = _find_truth(home)
    sights = ground_truth(truth)
    _check_list(home / TEST_LIST, truth, sights)
    test = test_records(sights, int(train.pids.max()))
    check_present(home, test.paths.tolist(), truth)
    sides = 2 if flips else 1
    expected = {'train': Counts(1_887 * sides, 107 * sides), 'test': Counts(1_764, 75)}
    return Source(train, test, test, _opener(home), home, expected=expected, protocol='atrw')


def with_flips(train: Records) -> Records:
    """All images, then all of them mirrored; a mirrored identity is the last plus the original."""
    flipped = train._replace(
        paths=np.array([path + FLIPPED for path in train.paths.tolist()], str),
        pids=train.pids + train.pids.max(),
    )
    return Records(*(np.concatenate(columns) for columns in zip(train, flipped)))


def ground_truth(file: Path) -> list[Sight]:
    """The test images sorted by number; raises DataError for what is not as documented."""
    try:
        sights = sorted(map(_sight, json.loads(file.read_text())))
        if not sights:
            raise ValueError('it is empty')
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(
            f'{file}: expected a list of objects with query (sing or multi), entityid, frame '
            f'(clip, camera and frame) and imgid, all whole numbers from 0 ({error!r})'
        ) from error
    check_once(file, [_name(sight) for sight in sights])
    _check_cameras(file, sights)
    return sights


def test_records(sights: list[Sight], last: int) -> Records:
    """The test images in their order, without junk, their identities behind the `last` of training.

    Cameras and tracklets are numbered from 0.
    """
    sights = [sight for sight in sights if sight.entity != JUNK]
    (cameras,) = tracklets([sight.camera for sight in sights])
    (shown,) = tracklets([(sight.clip, sight.camera, sight.entity) for sight in sights])
    return from_rows(
        [
            (f'{TEST}/{_name(sight)}', last + 1 + sight.entity, camera, tracklet, sight.frame)
            for sight, camera, tracklet in zip(sights, cameras, shown)
        ]
    )


def _train(home: Path) -> Records:
    """The listed training images, in the order of the list."""
    file = home / TRAIN_LIST
    lines = lines_of(file, 'lines of identity,file name')
    listed = matched(file, lines, TRAIN_LINE, '12,000345.jpg (identity, file name)')
    check_once(file, [name for _, name in listed])
    return from_rows([(f'{TRAIN}/{name}', int(pid) + 1, -1, -1, -1) for pid, name in listed])


def _find_truth(home: Path) -> Path:
    """The ground truth of the test; raises DataError that says where to get it."""
    file = next(filter(Path.is_file, (home / place / TRUTH for place in TRUTH_PLACES)), None)
    if file is None:
        raise DataError(
            f'{home}: no {TRUTH}; it is public in the ATRW evaluation scripts, as '
            f'annotations/{TRUTH} of github.com/cvwc2019/ATRWEvalScript: clone them to '
            f'{home / "ATRWEvalScript"}'
        )
    return file


def _sight(entry: dict) -> Sight:
    """One object of the ground truth; raises what `ground_truth` catches if it is none."""
    clip, camera, frame = entry['frame']
    several = {'sing': False, 'multi': True}[entry['query']]
    sight = Sight(entry['imgid'], several, entry['entityid'], clip, camera, frame)
    whole = all(isinstance(number, int) for number in sight)
    if not whole or min(sight._replace(entity=0)) < 0 or sight.entity < JUNK:
        raise ValueError(entry)
    return sight


def _check_cameras(file: Path, sights: list[Sight]) -> None:
    """Raises DataError unless identities are seen by as many cameras as the truth says."""
    seen: dict[int, set[int]] = {}
    for sight in sights:
        seen.setdefault(sight.entity, set()).add(sight.camera)
    wrong = sorted(
        {
            sight.entity
            for sight in sights
            if sight.entity != JUNK and sight.several != (len(seen[sight.entity]) > 1)
        }
    )
    if wrong:
        raise DataError(
            f'{file}: entityid {some(wrong)} contradict their query; sing are seen by one camera '
            '(the second number of frame), multi by several'
        )


def _check_list(file: Path, truth: Path, sights: list[Sight]) -> None:
    """Raises DataError if there is a list of the test images that is not of the same images."""
    if not file.exists():
        return
    lines = lines_of(file, 'the file name of a test image in each line')
    listed = {name for (name,) in matched(file, lines, TEST_LINE, '000345.jpg')}
    differ = sorted(listed ^ {_name(sight) for sight in sights})
    if differ:
        raise DataError(f'{file}: {some(differ)} only there or only in {truth}; expected the same')


def _name(sight: Sight) -> str:
    """The file of a test image."""
    return f'{sight.image:06d}.jpg'


def _opener(home: Path) -> Callable[[str], Image.Image]:
    """How to open an image, or its mirror image."""
    plain = opener(home)

    def open(path: str) -> Image.Image:
        file, _, mirrored = path.partition('#')
        if not mirrored:
            return plain(file)
        with plain(file) as image:
            return ImageOps.mirror(image)

    return open
