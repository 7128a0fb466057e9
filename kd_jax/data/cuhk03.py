"""CUHK03: 1,467 people, each seen in two views by one of five pairs of cameras.

Li et al., "DeepReID", CVPR 2014. Boxes drawn by hand (labeled) and by a detector (detected) have
different test identities in the new protocol: never mix the two.

    ROOT/images_{labeled,detected}/1_003_2_07.png    the pixels, or else
    ROOT/cuhk03_release/cuhk-03.mat                  read in place, nothing is extracted
    ROOT/...                                         a file with the split (cuhk03_splits)

or, for the new protocol only, in the folders of Market-1501 (CUHK03-NP), below ROOT or
ROOT/cuhk03-np, or in ROOT itself:

    {labeled,detected}/{bounding_box_train,query,bounding_box_test}/0003_c1_07.png

A name is camera pair, person, view and image, all from 1. Identities run from 1 to 1467 over the
pairs. Cameras are 0 and 1 in every pair, as the field counts them: the view, not one of the ten
physical cameras. Evaluation does not mind, for an identity stays in its pair. A tracklet is one
identity in one view.
"""

import re
from itertools import chain
from pathlib import Path

from kd_jax.data import cuhk03_pixels as pixels
from kd_jax.data import cuhk03_splits as splits
from kd_jax.data.folder import FOLDERS, Grammar, source
from kd_jax.data.layout import check_identities, existing, tracklets
from kd_jax.data.records import Counts, DataError, Records, Source, from_rows

VERSIONS = 'labeled', 'detected'
NAMES = Grammar(
    re.compile(r'(\d+)_c(\d)()_(\d+)\.(?:png|jpg|jpeg)', re.IGNORECASE),  # no sequence
    '0003_c1_07.png (identity, view, image)',
)
EXPECTED = {
    version: {
        'train': Counts(train, 767, 2),
        'query': Counts(1_400, 700, 2),
        'gallery': Counts(gallery, 700, 2),
    }
    for version, train, gallery in (('labeled', 7_368, 5_328), ('detected', 7_365, 5_332))
}
CLASSIC = {'train': Counts(identities=1_367, cameras=2), 'test': Counts(identities=100, cameras=2)}


def read(*, root: str, detected: bool = False, classic_split: int = -1) -> Source:
    """The images of one version of CUHK03, their boxes drawn by hand or `detected`.

    By default split by the new protocol (Zhong et al., "Re-ranking Person Re-identification with
    k-reciprocal Encoding", CVPR 2017): 767 identities to train on, 700 to test on. A
    `classic_split` 0..19 is one of the twenty that came with the data: 1,367 and 100 identities,
    all test images in one pool. Raises DataError when a file is missing or not as expected,
    ValueError for a split that is none.
    """
    if not -1 <= classic_split < splits.CLASSIC:
        raise ValueError(
            f'classic_split={classic_split}: choose 0..{splits.CLASSIC - 1}, or -1 for the new '
            'protocol'
        )
    home, version = existing(root), VERSIONS[detected]
    if classic_split >= 0:
        return _classic(home, version, classic_split)
    tree = _market_tree(home, version)
    found = source(tree, NAMES) if tree else _new(home, version)
    return found._replace(expected=EXPECTED[version])


def records(file: Path, version: str, *parts: list[str]) -> list[Records]:
    """Records of the named images of each part, in the order of their names.

    Tracklets are numbered through the parts. `file` is where the names are from, for errors.
    """
    parts = [sorted(part) for part in parts]
    found = [[pixels.fields(file, name) for name in part] for part in parts]
    keys = [[(pixels.identity(*row[:2]), row[2] - 1) for row in part] for part in found]
    return [
        from_rows(
            [
                (f'images_{version}/{name}', pid, camera, tracklet, image)
                for name, (*_, image), (pid, camera), tracklet in zip(*columns)
            ]
        )
        for columns in zip(parts, found, keys, tracklets(*keys))
    ]


def _new(home: Path, version: str) -> Source:
    """The new protocol, as a file beside the images defines it."""
    file, names = splits.new_protocol(home, version)
    (train,) = records(file, version, names[0])
    query, gallery = records(file, version, *names[1:])
    check_identities(file, train, query, gallery)
    open, place, stamp = pixels.find(home, version, [*chain(*names)])
    return Source(train, query, gallery, open, place, stamp=stamp)


def _classic(home: Path, version: str, number: int) -> Source:
    """One of the classic splits; query and gallery are the same records."""
    file, names = splits.classic(home, version, number)
    (train,), (test,) = (records(file, version, part) for part in names)
    check_identities(file, train, test, test)
    open, place, stamp = pixels.find(home, version, [*chain(*names)])
    return Source(
        train, test, test, open, place, expected=CLASSIC, stamp=stamp, protocol='cuhk03_classic'
    )


def _market_tree(home: Path, version: str) -> Path | None:
    """The folder of CUHK03-NP that holds a version, if there is one.

    Raises DataError if `home` itself is the other version's.
    """
    places = home / version, home / 'cuhk03-np' / version, home
    tree = next((place for place in places if (place / FOLDERS[0]).is_dir()), None)
    named = home.absolute().name
    if tree == home and named in VERSIONS and named != version:
        raise DataError(
            f'{home}: holds {named} images where {version} are wanted; set --config.data.detected'
        )
    return tree
