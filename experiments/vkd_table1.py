"""Table 1 of VKD (Porrello et al., ECCV 2020): teachers and students, for any vkd config and seeds.

    python -m experiments.vkd_table1 --config=configs/vkd_carousel.py --workdir=runs/vkd_table1
    python -m experiments.vkd_table1 --config=configs/vkd_mars.py --config.data.root=DIR \
      --networks=resnet34,resnet50 --config.network.pretrained=DIR/{name}.safetensors --workdir=…

Beside the paper's rows stands a control: the same student, from the same start, on the same views
for as many steps, without distillation. Gains are paired within seeds. Rows are resumable;
--rows, --seeds and --networks choose, a network being NAME/WIDTH, or NAME in the config's width.
"""

from pathlib import Path

from experiments import rows, vkd_networks, vkd_rows
from experiments.vkd_rows import ALONE, STUDENT, TEACHER, Network

PAPER = {  # rank-1 and mAP on MARS, of teacher and student
    'i2v': {
        'resnet34': ('80.81 / 70.74', '82.17 / 73.68'),
        'resnet50': ('82.22 / 73.38', '83.89 / 77.27'),
        'resnet101': ('82.78 / 74.94', '85.91 / 77.64'),
        'resnet50bam': ('82.58 / 74.11', '84.34 / 78.13'),
        'densenet121': ('82.68 / 74.34', '84.04 / 77.09'),
        'mobilenet_v2': ('78.64 / 67.94', '83.33 / 73.95'),
    },
    'v2v': {
        'resnet34': ('86.67 / 78.03', '87.83 / 79.50'),
        'resnet50': ('87.88 / 81.13', '88.74 / 82.22'),
        'resnet101': ('88.59 / 81.66', '89.60 / 82.65'),
        'resnet50bam': ('88.54 / 81.19', '89.39 / 83.07'),
        'densenet121': ('89.75 / 81.93', '89.80 / 82.84'),
        'mobilenet_v2': ('85.96 / 77.10', '88.13 / 79.62'),
    },
}


def paper(network: Network) -> rows.Paper:
    """What the paper says of the rows of a network, if it is one of the paper's."""
    name = str(network)
    pairs = {ranking: values[name] for ranking, values in PAPER.items() if name in values}
    return {
        ranking: {f'{network} {TEACHER}': (teacher,), f'{network} {STUDENT}': (student,)}
        for ranking, (teacher, student) in pairs.items()
    }


def text(found: rows.Table, networks: list[Network]) -> str:
    """The tables of each network."""
    parts = []
    for network in networks:
        own = {name: seeds for name, seeds in found.items() if name.startswith(f'{network} ')}
        against = f'{network} {TEACHER}', f'{network} {ALONE}'
        parts += [rows.text(own, against, 'rank-1 / mAP on MARS', paper(network))] * bool(own)
    return '\n\n'.join(parts)


def main(_):
    workdir, networks = Path(rows.WORKDIR.value), vkd_networks.chosen()
    print(text(rows.run(vkd_rows.of_networks(networks, workdir), workdir), networks))


if __name__ == '__main__':
    rows.start(main)
