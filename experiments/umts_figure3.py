"""Figure 3 of UMTS (Jin et al., AAAI 2020): schemes A, B, C and UMTS, for any umts config.

    python -m experiments.umts_figure3 --config=configs/umts_carousel.py --workdir=runs/figure3

A: a network of single images. B: the same network, trained and scored on the mean of K shots'
features. C: the T-net, K shots stacked in channels. B and C are scored with shots drawn by true
identity, an upper bound. The paper, mAP gain over A on CUHK03 (labeled) / VeRi-776: B +4.3 / +7.2,
C +9.0 / +12.7, UMTS +6.2 / +8.9.
"""

from functools import partial
from pathlib import Path

from experiments import rows, umts_table1

A, B, C = 'A: single images', 'B: mean of K shots', 'C: K shots stacked'
PAPER = {B: ('+4.3', '+7.2'), C: ('+9.0', '+12.7'), 'UMTS': ('+6.2', '+8.9')}


def mean_of_shots(config):
    """Scheme B: the T-net's recipe on the mean of its shots instead of their stack."""
    teacher = config.teachers.teacher
    teacher.method.reads = 'mean'
    teacher.network.inflate = 1
    return teacher


def main(_):
    workdir = Path(rows.WORKDIR.value)
    schemes = {A: rows.supervised_of, B: mean_of_shots, C: umts_table1.t_net}
    schemes['UMTS'] = partial(rows.taught_by, C, workdir=workdir)
    found = rows.run(schemes, workdir)
    heading = 'mAP gain over A on CUHK03 (labeled) / VeRi-776'
    print(rows.text(found, (A,), heading, {'any': PAPER}))


if __name__ == '__main__':
    rows.start(main)
