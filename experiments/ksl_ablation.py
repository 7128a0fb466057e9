"""What KSL is made of (Fan et al., ACM MM 2021; reconstructed), for any ksl config and seeds.

    python -m experiments.ksl_ablation --config=configs/ksl_carousel.py --workdir=runs/ksl_ablation

Rows: the baseline, which is one branch; two to four branches without and with constraints; each
constraint alone and in pairs; the other forms of each; other places to split. The branches without
constraints are the control: what a row gains over them its constraints give, the rest is given by
training several branches. --start=FILE adds the baseline and KSL from those weights, to see what
from scratch is worth. Then, for each row of several branches, how every branch and the mean of
their vectors rank: only branch 0 is KSL's student. Rows are resumable; --rows and --seeds choose.
"""

from functools import partial
from itertools import combinations
from pathlib import Path

from absl import app, flags
from ml_collections import ConfigDict

from experiments import ksl_branches, rows
from kd_jax import data

START = flags.DEFINE_string('start', '', 'Weights of the network, for rows that start from them.')

BASELINE, KSL, UNCONSTRAINED = 'Baseline', 'KSL', 'without constraints'
CONSTRAINTS = {'probabilities': 'probability', 'distances': 'distance', 'hard': 'hard'}
OTHER_FORMS = {
    'KL of probabilities': {'method.probabilities': 'kl'},
    'pointwise directions': {'method.distances': 'pointwise'},
    'own triplets again': {'method.mining': 'union'},
    'split at layer3': {'method.split_at': 'layer3'},
    'split at gap': {'method.split_at': 'gap'},
}


def only(*kept: str) -> dict[str, float]:
    """The changes of a config that leave these constraints alone."""
    dropped = [key for name, key in CONSTRAINTS.items() if name not in kept]
    return {f'method.{key}_weight': 0.0 for key in dropped}


def changes() -> dict[str, dict]:
    """What each row of several branches changes of the config."""
    found = {UNCONSTRAINED: only()}
    found |= {f'{name} alone': only(name) for name in CONSTRAINTS}
    found |= {f'{one} and {two}': only(one, two) for one, two in combinations(CONSTRAINTS, 2)}
    found |= {KSL: {}, **OTHER_FORMS}
    for count in (2, 3, 4):
        found[f'{count} branches {UNCONSTRAINED}'] = {'method.branches': count, **only()}
        found[f'{count} branches'] = {'method.branches': count}
    return found


def table(config: ConfigDict) -> dict[str, rows.Row]:
    """The rows by their names; those of as many branches as the config has are not named twice."""
    found = {BASELINE: rows.supervised_of}
    same = f'{config.method.branches} branches'
    for name, changed in changes().items():
        if name not in (same, f'{same} {UNCONSTRAINED}'):
            found[name] = partial(with_changes, changed=changed)
    if START.value:
        start = {'network.pretrained': START.value}
        found[f'{BASELINE} from --start'] = lambda one: with_changes(rows.supervised_of(one), start)
        for name in (UNCONSTRAINED, KSL):
            found[f'{name} from --start'] = partial(with_changes, changed=start | changes()[name])
    return found


def with_changes(config: ConfigDict, changed: dict) -> ConfigDict:
    """The config with some keys changed."""
    config.update_from_flattened_dict(changed)
    return config


def main(_):
    workdir, config = Path(rows.WORKDIR.value), rows.CONFIG.value
    if config.method.name != 'ksl':
        raise app.UsageError(f'--config: its method is {config.method.name}, not ksl')
    dataset = data.load(**config.data)
    found = rows.run(table(config), workdir, dataset)
    print(rows.text(found, (BASELINE, UNCONSTRAINED), '', {}))
    print('\n' + ksl_branches.text(ksl_branches.ranked(found, workdir, dataset)))


if __name__ == '__main__':
    rows.start(main)
