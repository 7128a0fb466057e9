"""Table 1 of UMTS (Jin et al., AAAI 2020) for any umts config and seeds.

    python -m experiments.umts_table1 --config=configs/umts_carousel.py --workdir=runs/table1

One T-net is trained per seed; all rows of that seed regress it, from the same start, on the same
batches. Beside the paper's rows stand three controls: a target per image of one single-image
network (no shots), a fixed random vector per class (no knowledge), and training both networks
end to end. Rows are resumable; --rows and --seeds choose.
"""

from functools import partial
from pathlib import Path

from ml_collections import ConfigDict

from experiments import rows

BASELINE = 'Baseline'
ONE_SHOT = 'single-shot net'
PAPER = {  # rank-1 / mAP on CUHK03 (labeled); then on VeRi-776
    BASELINE: ('73.5', '69.3', '91.8', '66.7'),
    'MTS(b5)': ('74.3', '71.1', '92.9', '69.3'),
    'UMTS(b5)': ('76.6', '72.8', '93.7', '70.9'),
    'UMTS(b1+b5)': ('77.8', '73.4', '93.9', '71.8'),
    'UMTS(b2+b5)': ('78.6', '74.3', '94.4', '73.5'),
    'UMTS(b3+b5)': ('79.3', '74.8', '94.8', '74.1'),
    'UMTS(b4+b5)': ('78.8', '74.5', '94.4', '74.0'),
    'MTS(all)': ('77.7', '73.9', '94.0', '72.8'),
    'UMTS(all)': ('80.7', '75.5', '95.8', '75.9'),
    'T-net': ('–', '78.3', '–', '79.4'),
}


def t_net(config: ConfigDict) -> ConfigDict:
    """The teacher itself, scored with K shots by true identity."""
    return config.teachers.teacher


def student(config: ConfigDict, workdir: Path, **method) -> ConfigDict:
    """The student with some of method's options changed, taught by the seed's T-net."""
    config.method.update(method)
    return rows.taught_by('T-net', config, workdir)


def one_shot_net(config: ConfigDict) -> ConfigDict:
    """The baseline from another start, to teach the single-shot control."""
    config.seed += 1000
    return rows.supervised_of(config)


def single_shot(config: ConfigDict, workdir: Path) -> ConfigDict:
    """Each image regresses a single-image network's features of itself."""
    config.method.teacher_reads = 'singles'
    return rows.taught_by(ONE_SHOT, config, workdir)


def prototype(config: ConfigDict) -> ConfigDict:
    """Each image regresses a random vector of its class."""
    config.teachers = {}
    config.method.name = 'experiments.prototype'
    return config


def joint(config: ConfigDict) -> ConfigDict:
    """T-net and student trained together, from the start."""
    config.teachers = {}
    config.method.joint = True
    return config


def table(workdir: Path) -> dict[str, rows.Row]:
    """The rows by their names, teachers before their students."""
    taught = partial(partial, student, workdir=workdir)
    found = {BASELINE: rows.supervised_of, 'T-net': t_net}
    found['MTS(b5)'] = taught(stages=(5,), uncertainty=False)
    found['UMTS(b5)'] = taught(stages=(5,))
    for stage in (1, 2, 3, 4):
        found[f'UMTS(b{stage}+b5)'] = taught(stages=(stage, 5))
    found['MTS(all)'] = taught(stages=(1, 2, 3, 4, 5), uncertainty=False)
    found['UMTS(all)'] = taught(stages=(1, 2, 3, 4, 5))
    found[ONE_SHOT] = one_shot_net
    found['control: single shot'] = partial(single_shot, workdir=workdir)
    found['control: class prototypes'] = prototype
    found['UMTS(all) end to end'] = joint
    return found


def main(_):
    workdir = Path(rows.WORKDIR.value)
    found = rows.run(table(workdir), workdir)
    heading = 'CUHK03 (labeled) rank-1 / mAP / VeRi-776 rank-1 / mAP'
    print(rows.text(found, (BASELINE,), heading, {'any': PAPER}))


if __name__ == '__main__':
    rows.start(main)
