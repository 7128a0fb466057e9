"""Experiments run as their docstrings say, row by row, and go on where they stopped."""

import functools
import json
from pathlib import Path

import command_line
import numpy as np
import smoke
from PIL import Image

from experiments import cuhk03_classic, rows, umts_figure3, umts_table1

experiment = functools.partial(command_line.experiment, config='umts_carousel')


def test_table1_is_resumed_row_by_row(tmp_path):
    """The control without a teacher, and beside it a baseline that was trained elsewhere."""
    names = 'Baseline', 'control: class prototypes'
    experiment(umts_table1, tmp_path, f'--rows={names[1]}')
    smoke.copy(smoke.finished('supervised_carousel'), tmp_path / 'seed0/baseline')
    before = smoke.written(tmp_path / 'seed0')
    printed = experiment(umts_table1, tmp_path, f'--rows={",".join(names)}')
    assert smoke.written(tmp_path / 'seed0') == before
    lines = [line.strip('| ').split(' | ') for line in printed.splitlines()]
    assert [line[0] for line in lines[2:]] == list(names)
    assert lines[2][-1] == '73.5 / 69.3 / 91.8 / 66.7'
    found = json.loads((tmp_path / 'table.json').read_text())
    assert found[names[1]]['0']['seconds'] > 0
    assert found[names[0]]['0'] == smoke.result(tmp_path / 'seed0/baseline')['student']
    plain, mAP = (100 * found[name]['0']['mAP'] for name in names)
    assert lines[3][1:3] == ['1', f'{mAP:.1f}']
    assert lines[3][4:] == [f'{mAP - plain:+.1f}', '–']


def made(name, workdir):
    """The config of a row of table 1."""
    return umts_table1.table(workdir)[name](smoke.config().copy_and_resolve_references())


def test_a_row_of_table1_is_taught_by_another(tmp_path):
    """A student by the T-net; the single-shot one by a network of single images of its own."""
    config = made('UMTS(b3+b5)', tmp_path)
    assert config.method.stages == (3, 5)
    assert config.method.uncertainty
    assert config.teachers.to_dict() == {'teacher': str(tmp_path / 'seed0/t_net')}
    assert not made('MTS(all)', tmp_path).method.uncertainty
    assert made('T-net', tmp_path).method.reads == 'stacked'
    config, teacher = made('control: single shot', tmp_path), made('single-shot net', tmp_path)
    assert config.method.teacher_reads == 'singles'
    assert config.teachers.to_dict() == {'teacher': str(tmp_path / 'seed0/single_shot_net')}
    assert (teacher.seed, teacher.method.reads, len(teacher.teachers)) == (1000, 'singles', 0)
    config = made('UMTS(all) end to end', tmp_path)
    assert config.method.joint
    assert not config.teachers


def test_figure3_has_every_scheme(tmp_path):
    smoke.copy(smoke.finished('supervised_carousel'), tmp_path / 'seed0/a__single_images')
    printed = experiment(umts_figure3, tmp_path)
    for scheme in ('A: single images', 'B: mean of K shots', 'C: K shots stacked', 'UMTS'):
        assert f'| {scheme} | 1 |' in printed


def plant_classic(root: Path) -> None:
    """Four people of eight images; two classic splits that test one or two of them."""
    rng, names = np.random.default_rng(0), {}
    (root / 'images_labeled').mkdir()
    for person in (1, 2, 3, 4):
        names[person] = [
            f'1_{person:03d}_{v}_{5 * v - 5 + k:02d}.png' for v in (1, 2) for k in (1, 2)
        ]
        for name in names[person]:
            pixels = rng.integers(0, 256, (8, 4, 3), np.uint8)
            Image.fromarray(pixels).save(root / 'images_labeled' / name)

    def split(*tested):
        parts = {'train': sorted({1, 2, 3, 4} - {*tested}), 'query': tested, 'gallery': tested}
        return {
            key: [[name, person, 0] for person in people for name in names[person]]
            for key, people in parts.items()
        }

    splits = [split(1), split(1, 3), *[split(4)] * 18]
    (root / 'splits_classic_labeled.json').write_text(json.dumps(splits))


def test_the_classic_protocol_is_a_mean_over_splits(tmp_path):
    from configs import supervised_cuhk03_classic

    plant_classic(tmp_path)
    config = supervised_cuhk03_classic.get_config('smoke')
    config.data = supervised_cuhk03_classic.get_config().data
    config.data.update(root=str(tmp_path), height=32, width=16, feed='device')
    config.evaluate.protocol = 'cuhk03_classic'
    config.sampling.update(identities=2, sets=2)
    found = cuhk03_classic.run(config, [0, 1], tmp_path / 'runs')
    assert json.loads((tmp_path / 'runs' / 'table.json').read_text()) == found
    assert [one['queries'] for one in found.values()] == [4, 8]
    assert found['0']['rank-1'] == 1  # of one identity
    lines = cuhk03_classic.text(found).splitlines()
    mean = 50 * (found['0']['rank-1'] + found['1']['rank-1'])
    assert lines[-1].startswith(f'| mean of 2 | {mean:.1f} ± ')
    trained = (tmp_path / 'runs' / 'split0' / 'result.json').stat().st_mtime_ns
    assert cuhk03_classic.run(config, [0], tmp_path / 'runs')['0']['mAP'] == found['0']['mAP']
    assert (tmp_path / 'runs' / 'split0' / 'result.json').stat().st_mtime_ns == trained


VALUES = (0.5, 0.6, 0.7), (0.4, 0.4)


def test_every_ranking_has_a_table():
    """By the average precision that its protocol quotes."""
    other = {'protocol': 'i2v', 'quoted': 'mAP_trapezoid', 'mAP': 0.9, 'mAP_trapezoid': 0.25}
    one = {'protocol': 'market', 'quoted': 'mAP', 'mAP': 0.5, 'mAP_trapezoid': 0.4, 'rank-1': 0.75}
    summary = one | {'also': [other | {'rank-1': 0.125}]}
    text = rows.text({'Baseline': {0: summary, 1: summary}}, ('Baseline',), 'none', {})
    first, second = text.split('\n\n')
    assert first.startswith('| market | seeds | mAP | rank-1 |')
    assert '| Baseline | 2 | 50.0 ± 0.0 | 75.0 ± 0.0 |' in first
    assert second.startswith('| i2v | seeds |')
    assert '| Baseline | 2 | 25.0 ± 0.0 | 12.5 ± 0.0 |' in second


def test_spread_and_paired_gain():
    of, base = ({k: {'quoted': 'mAP', 'mAP': v} for k, v in enumerate(vs)} for vs in VALUES)
    assert rows.spread([0.5, 0.6, 0.7]) == '60.0 ± 10.0'
    assert rows.gain(of, base) == '+15.0 ± 7.1'
    assert rows.gain(of, {}) == '–'
