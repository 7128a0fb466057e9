"""Market-1501: 1,501 people seen by six cameras in front of a supermarket.

Zheng et al., "Scalable Person Re-identification: A Benchmark", ICCV 2015. Below ROOT, or below
ROOT/Market-1501-v15.09.15:

    bounding_box_train/0002_c1s1_000451_03.jpg    751 identities
    query/                                        750 others, one image in each camera
    bounding_box_test/                            the gallery
    images/                                       500,000 distractors (distractors_500k.zip)

A name is identity, camera, sequence, frame and box. In bounding_box_test, identity -1 is junk,
boxes that are neither right nor wrong, and 0000 is a distractor, which is wrong for every query.
A tracklet is one identity in one sequence of one camera. gt_bbox and gt_query are not read.
"""

import re
from pathlib import Path

from kd_jax.data.folder import FOLDERS, RELEASE, Grammar, source
from kd_jax.data.layout import existing, inner
from kd_jax.data.records import Counts, DataError, Source

NAMES = Grammar(
    re.compile(r'(-1|\d{4})_c([1-6])s(\d)_(\d{6})_\d{2}\.jpg', re.IGNORECASE),
    '0002_c1s1_000451_03.jpg (identity, camera 1-6, sequence, frame, box)',
)
# How long the numbers of the 500,000 are is written nowhere; whom they show is: nobody.
DISTRACTORS = Grammar(
    re.compile(r'(-1|0+)_c([1-6])(?:s(\d+))?_(\d+)(?:_\d+)?\.jpg', re.IGNORECASE),
    '0000_c1s1_000451_03.jpg, of identity 0000 or -1',
)
ARCHIVE = 'distractors_500k'
EXPECTED = {
    'train': Counts(12_936, 751, 6),
    'query': Counts(3_368, 750, 6),
    'gallery': Counts(15_913, 750, 6),
}


def read(*, root: str, distractors_500k: bool = False) -> Source:
    """The images of Market-1501, with 500,000 more distractors in the gallery if they are wanted.

    Junk is left out and 0000 stays in the gallery, as identity 0. The distractors are the folder
    images/ beside the others or one level above them, or in distractors_500k/ at either place.
    Raises DataError for a missing folder, a name that does not parse, an identity on both sides.
    """
    home = inner(existing(root), RELEASE, FOLDERS)
    if not distractors_500k:
        return source(home, NAMES)._replace(expected=EXPECTED)
    home = home.absolute()  # the folder `.` has a parent only then
    images = _distractors(home)
    below = home if home in images.parents else home.parent
    level = home.relative_to(below).as_posix()
    more = {images.relative_to(below).as_posix(): DISTRACTORS}
    expected = {**EXPECTED, 'gallery': Counts(515_913, 750, 6)}
    return source(below, NAMES, level=level, more=more)._replace(expected=expected)


def _distractors(home: Path) -> Path:
    """The folder of the 500,000 distractors; raises DataError naming where it could be."""
    places = [
        folder / level / 'images' for folder in (home, home.parent) for level in ('', ARCHIVE)
    ]
    found = next(filter(Path.is_dir, places), None)
    if found is None:
        raise DataError(
            f'{home}: no folder with the 500,000 distractors; expected {ARCHIVE}.zip unpacked to '
            f'one of {", ".join(map(str, places))}'
        )
    return found
