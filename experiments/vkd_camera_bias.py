"""How well a linear classifier reads the camera from features (VKD, ECCV 2020, camera bias).

    python -m experiments.vkd_camera_bias --config=configs/vkd_carousel.py --workdir=runs/vkd_table1

Teacher, student and the student that is not distilled, trained as by vkd_table1 or found in its
--workdir. Logistic regression on the features of the gallery images of half of the test
identities, scored on the images of the other half: a feature that knows whom it sees from where
says less about the next. The prior is the share of the camera that is most frequent among the
former. The lower, the less a feature is biased. Of more than 20,000 images, so many are drawn by
the seed. --rows, --seeds and --networks choose as in vkd_table1.
"""

from functools import partial
from pathlib import Path

import numpy as np
from absl import app
from jaxtyping import Float, Int
from scipy import optimize, special

from experiments import rows, vkd_networks, vkd_rows
from kd_jax import data, embedding, parallel, runs
from kd_jax.data.records import Records

MOST = 20_000  # images of 2,048 features, in float64: 0.3 GB
PENALTY = 1e-3  # times the squared weights, beside the mean cross-entropy


def accuracy(features: Float[np.ndarray, 'n d'], cameras: Int[np.ndarray, 'n'], held: np.ndarray):
    """The share of held-out images whose camera is read, and the prior's; fitted on the others."""
    mean, std = features[~held].mean(axis=0), features[~held].std(axis=0) + 1e-8
    inputs = np.column_stack([(features - mean) / std, np.ones(len(features))])
    names, labels = np.unique(cameras, return_inverse=True)
    weights = fitted(inputs[~held], labels[~held], len(names))
    frequent = np.bincount(labels[~held]).argmax()
    read = (inputs[held] @ weights).argmax(axis=1) == labels[held]
    return float(read.mean()), float((labels[held] == frequent).mean())


def fitted(
    inputs: Float[np.ndarray, 'n d'], labels: Int[np.ndarray, 'n'], classes: int
) -> Float[np.ndarray, 'd c']:
    """The weights of a multinomial logistic regression, by L-BFGS."""
    one_hot = np.eye(classes)[labels]

    def objective(flat):
        weights = flat.reshape(-1, classes)
        log_p = special.log_softmax(inputs @ weights, axis=1)
        loss = -(one_hot * log_p).sum(axis=1).mean() + PENALTY * np.square(weights).sum()
        slope = inputs.T @ (np.exp(log_p) - one_hot) / len(inputs) + 2 * PENALTY * weights
        return loss, slope.ravel()

    start = np.zeros(inputs.shape[1] * classes)
    found = optimize.minimize(objective, start, jac=True, method='L-BFGS-B')
    return found.x.reshape(-1, classes)


def usable(records: Records) -> Int[np.ndarray, 'n']:
    """The rows of known camera and identity; UsageError where nothing is to be told apart."""
    found = np.flatnonzero((records.cameras >= 0) & (records.pids > 0))
    cameras, people = (np.unique(c[found]).size for c in (records.cameras, records.pids))
    if cameras < 2 or people < 2:
        raise app.UsageError(
            f'the gallery shows {people} identities by {cameras} cameras: two of each are needed'
        )
    return found


def of_row(one: vkd_networks.Opened, images: Int[np.ndarray, 'n'], gallery: data.Split):
    """The accuracy of a row's features of these images of the gallery, and the prior."""
    rng, (embedded, variables) = np.random.default_rng(one.seed), one.network
    chosen = np.sort(rng.choice(images, MOST, replace=False)) if len(images) > MOST else images
    features = embedding.embed_rows(
        partial(embedded, variables),
        gallery.pixels.read,
        chosen[:, None],
        one.options.batch,
        parallel.mesh(),
    )
    pids, cameras = gallery.records.pids[chosen], gallery.records.cameras[chosen]
    people = rng.permutation(np.unique(pids))
    held = np.isin(pids, people[: len(people) // 2])
    read, prior = accuracy(features.astype(np.float64), cameras, held)
    return {'accuracy': read, 'prior': prior}


def text(found: dict[str, dict[int, dict]]) -> str:
    """A table of rows, mean ± std over seeds."""
    head = f'camera read from features of at most {MOST:,} images'
    lines = [f'| {head} | seeds | accuracy | prior |', '|---|---|---|---|']
    for row, seeds in found.items():
        columns = [[one[key] for one in seeds.values()] for key in ('accuracy', 'prior')]
        lines.append('| ' + ' | '.join([row, str(len(seeds)), *map(rows.spread, columns)]) + ' |')
    return '\n'.join(lines)


def main(_):
    vkd_networks.check()
    dataset = data.load(**vkd_rows.config().data)
    images = usable(dataset.gallery.records)
    found: dict[str, dict[int, dict]] = {}
    for one in vkd_networks.opened(dataset):
        found.setdefault(one.row, {})[one.seed] = of_row(one, images, dataset.gallery)
    runs.write_json(Path(rows.WORKDIR.value) / 'camera_bias.json', found)
    print(text(found))


if __name__ == '__main__':
    rows.start(main)
