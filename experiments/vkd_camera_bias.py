"""How well a linear classifier reads the camera from features (VKD, ECCV 2020, camera bias).

    python -m experiments.vkd_camera_bias --config=configs/vkd_carousel.py --workdir=runs/vkd_table1

Teacher, student and the student that is not distilled, trained as by vkd_table1 or found in its
--workdir. Logistic regression on the features of the gallery images of half of the test
identities, scored on the images of the other half: a feature that knows whom it sees from where
says less about the next. The prior is the share of the most frequent camera. The lower, the less
a feature is biased.
"""

from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from scipy import optimize, special

from experiments import rows, vkd_rows, vkd_table1
from kd_jax import checkpoints, data, embed, evaluate, parallel, runs

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


def of_run(run: Path, dataset: data.Dataset, seed: int) -> dict[str, float]:
    """The accuracy of a run's features, and the prior."""
    restored, mesh = checkpoints.restore_network(run), parallel.mesh()
    embedded, variables = evaluate.opened(restored, mesh)
    records = dataset.gallery.records
    chosen = np.flatnonzero((records.cameras >= 0) & (records.pids > 0))[:, None]
    network, batch = partial(embedded, variables), restored.config.evaluate.batch
    features = embed.embed_rows(network, dataset.gallery.pixels.read, chosen, batch, mesh)
    pids, cameras = records.pids[chosen[:, 0]], records.cameras[chosen[:, 0]]
    if len(np.unique(cameras)) < 2:
        raise ValueError('the gallery shows less than two cameras: nothing to tell apart')
    people = np.random.default_rng(seed).permutation(np.unique(pids))
    held = np.isin(pids, people[: len(people) // 2])
    read, prior = accuracy(features.astype(np.float64), cameras, held)
    return {'accuracy': read, 'prior': prior}


def text(found: dict[str, dict[int, dict]]) -> str:
    """A table of rows, mean ± std over seeds."""
    lines = ['| camera read from features | seeds | accuracy | prior |', '|---|---|---|---|']
    for row, seeds in found.items():
        columns = [[one[key] for one in seeds.values()] for key in ('accuracy', 'prior')]
        lines.append('| ' + ' | '.join([row, str(len(seeds)), *map(rows.spread, columns)]) + ' |')
    return '\n'.join(lines)


def main(_):
    workdir, config = Path(rows.WORKDIR.value), rows.CONFIG.value
    networks = [vkd_rows.network_of(config)]
    trained = rows.run(vkd_table1.table(networks, workdir), workdir)
    dataset = data.load(**config.data)
    found = {
        row: {seed: of_run(rows.run_of(row, seed, workdir), dataset, seed) for seed in seeds}
        for row, seeds in trained.items()
    }
    runs.write_json(workdir / 'camera_bias.json', found)
    print(text(found))


if __name__ == '__main__':
    rows.start(main)
