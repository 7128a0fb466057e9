"""What finds a person of carousel without any training: the floor under every result on it.

    python -m experiments.carousel_floors --seed=0

Of pixels and of colour histograms, cosine similarity finds the camera, not the person: hence the
scores below chance. The last two rows take away what the images of each camera have in common.
"""

import argparse

import numpy as np

from kd_jax.data import carousel
from kd_jax.data.records import Records
from kd_jax.retrieval.ranking import rank

BINS = 4  # of each colour in a histogram
SPLITS = 'train', 'query', 'gallery'


def colour_histogram(images: np.ndarray) -> np.ndarray:
    """How many pixels of each image have each of 64 colours."""
    weights = BINS ** np.arange(3)
    colours = images.reshape(len(images), -1, 3).astype(np.int64) * BINS // 256 @ weights
    return np.stack([np.bincount(row, minlength=BINS**3) for row in colours]).astype(np.float32)


def raw_pixels(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float32)


def centred(features: dict, columns: dict[str, Records], by_camera: bool) -> dict:
    """Features minus the mean of the training images, of all or of those by the same camera."""
    train, cameras = features['train'], columns['train'].cameras
    groups = [cameras == camera if by_camera else slice(None) for camera in np.unique(cameras)]
    means = np.stack([train[group].mean(0) for group in groups])
    return {name: features[name] - means[columns[name].cameras] for name in SPLITS[1:]}


def rows(columns: dict[str, Records], images: dict, seed: int):
    """The name of each floor, and its features of query and gallery."""
    rng = np.random.default_rng(seed)
    yield 'chance', {k: rng.standard_normal((len(images[k]), 64), np.float32) for k in SPLITS[1:]}
    for by_camera, of in (False, 'mean'), (True, 'mean of the camera'):
        for name, feature in ('raw pixels', raw_pixels), ('colour histogram', colour_histogram):
            features = {split: feature(images[split]) for split in SPLITS}
            yield f'{name} − {of}', centred(features, columns, by_camera)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seed', type=int, default=0, help='seed of the data set')
    seed = parser.parse_args().seed
    source = carousel.read(seed=seed)
    columns = {split: getattr(source, split) for split in SPLITS}
    images = {
        split: np.stack([np.asarray(source.open(path)) for path in column.paths])
        for split, column in columns.items()
    }
    query, gallery = columns['query'], columns['gallery']
    ids = query.pids, gallery.pids, query.cameras, gallery.cameras
    print(f'| carousel, seed {seed} | mAP | rank-1 |\n|---|---|---|')
    for name, features in rows(columns, images, seed):
        found = rank(features['query'], features['gallery'], *ids, metric='cosine')
        print(f'| {name} | {100 * found.mAP:.1f} | {100 * found.rank(1):.1f} |')


if __name__ == '__main__':
    main()
