"""VKD's experiments run as their docstrings say, on one working directory, and share its runs."""

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import smoke
from absl import app
from PIL import Image

sys.path.insert(0, str(smoke.ROOT))

from experiments import vkd_ablation, vkd_camera_bias, vkd_cross, vkd_table1

ROWS = 'resnet10/4 teacher', 'resnet10/4 not distilled', 'resnet10/4 VKD'


def experiment(name, workdir, *arguments):
    """What it prints; its log, as absl writes it, is not looked at."""
    command = ['-m', f'experiments.{name}', f'--workdir={workdir}', '--seeds=0', *arguments]
    process = smoke.python(*command, '--config=configs/vkd_carousel.py:smoke')
    ((code, printed, errors),) = smoke.ended(process)
    assert code == 0, errors
    return printed


def cells(printed, ranking):
    """The cells of the table of a ranking by the name of their row."""
    table = next(part for part in printed.split('\n\n') if part.startswith(f'| {ranking} | seeds'))
    lines = [line.strip('| ').split(' | ') for line in table.splitlines()[2:]]
    return {name: rest for name, *rest in lines}


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
    """Where the gallery's experiment has trained the rows of the table."""
    home = tmp_path_factory.mktemp('vkd')
    (home / 'printed').write_text(experiment('vkd_gallery', home, '--frames=1,4'))
    return home


def summaries(workdir):
    return {
        row: found['0'] for row, found in json.loads((workdir / 'table.json').read_text()).items()
    }


def test_the_gallery_is_ranked_by_its_frames(workdir):
    found = json.loads((workdir / 'gallery.json').read_text())
    assert list(found) == ['i2v', 'v2v']
    for ranking, by_row in found.items():
        assert tuple(by_row) == ROWS
        for row, by_frames in by_row.items():
            told = next(
                one for one in summaries(workdir)[row]['also'] if one['protocol'] == ranking
            )
            assert by_frames['4'] == [told['mAP_trapezoid']]  # as many as the config has
            assert by_frames['1'] != by_frames['4']
    value = 100 * found['i2v'][ROWS[0]]['1'][0]
    printed = (workdir / 'printed').read_text()
    assert '| i2v, frames | 1 | 4 |' in printed
    assert f'| {ROWS[0]} | {value:.1f} | ' in printed
    with Image.open(workdir / 'gallery.png') as image:
        assert len(np.unique(np.asarray(image.convert('L')))) > 10


def test_table1_finds_what_is_trained(workdir):
    before = smoke.written(workdir / 'seed0')
    printed = experiment('vkd_table1', workdir)
    assert smoke.written(workdir / 'seed0') == before
    found = cells(printed, 'market')
    assert tuple(found) == ROWS
    teacher, alone, student = (100 * summaries(workdir)[row]['mAP'] for row in ROWS)
    assert found[ROWS[2]][1] == f'{student:.1f}'
    assert found[ROWS[2]][3:] == [f'{student - teacher:+.1f}', f'{student - alone:+.1f}']


def test_the_camera_of_a_run(workdir):
    printed = experiment('vkd_camera_bias', workdir)
    found = json.loads((workdir / 'camera_bias.json').read_text())
    assert tuple(found) == ROWS
    assert all(0 < seeds['0']['accuracy'] <= 1 for seeds in found.values())
    assert f'| {ROWS[2]} | 1 | {100 * found[ROWS[2]]["0"]["accuracy"]:.1f} | 25.0 |' in printed


def test_a_row_of_an_ablation(workdir):
    shutil.copytree(workdir / 'seed0/resnet10_4_teacher', workdir / 'seed0/teacher')
    printed = experiment('vkd_ablation', workdir, '--rows=teacher,views of time')
    assert tuple(cells(printed, 'market')) == ('teacher', 'views of time')
    path = workdir / 'seed0/views_of_time/config.json'
    assert json.loads(path.read_text())['config']['sampling']['views'] == 'temporal'


def test_every_row_of_an_ablation_changes_one_thing():
    rows = vkd_ablation.table(smoke.config('vkd_carousel'), Path('w'))
    made = {name: row(smoke.config('vkd_carousel')) for name, row in rows.items()}
    del made['teacher']
    plain = made['VKD']
    for name, config in made.items():
        parts = [part for part in config if config[part] != plain[part]]
        keys = {f'{p}.{k}' for p in parts if p != 'generations' for k in changed(config, plain, p)}
        assert len(keys | ({'generations'} & set(parts))) == {
            'VKD': 0, 'not distilled': 2, 'from scratch not distilled': 3
        }.get(name, 1), name  # fmt: skip
    assert made['not distilled'].method.logits_weight == 0
    assert made['second generation'].generations == 2
    assert made['without cameras'].sampling.views == 'any'
    assert made['student of all views'].method.student_views == plain.sampling.shots


def changed(config, plain, part):
    """The keys in which a part differs."""
    return [key for key, value in config[part].items() if value != plain[part][key]]


def test_a_student_of_another_network(workdir):
    printed = experiment('vkd_cross', workdir, '--pairs=resnet10/8:resnet10/4')
    rows = 'resnet10/8 teacher', *ROWS, 'resnet10/4 from resnet10/8'
    assert tuple(cells(printed, 'i2v')) == rows
    path = workdir / 'seed0/resnet10_4_from_resnet10_8/config.json'
    config = json.loads(path.read_text())['config']
    assert config['teachers'] == {
        'teacher': str(workdir / 'seed0/resnet10_8_teacher'),
        'start': str(workdir / 'seed0/resnet10_4_teacher'),
    }
    assert config['network']['width'] == 4


def test_the_paper_stands_beside_its_networks():
    teacher, student = 'resnet34 teacher', 'resnet34 VKD'
    assert vkd_table1.paper('resnet34')['i2v'] == {
        teacher: ('80.81 / 70.74',),
        student: ('82.17 / 73.68',),
    }
    assert vkd_table1.paper('resnet10/16') == {}


@pytest.mark.parametrize('pairs', [[], ['resnet50'], ['a:b:c']])
def test_what_is_no_pair(pairs, monkeypatch):
    monkeypatch.setattr(vkd_cross, 'PAIRS', SimpleNamespace(value=pairs))
    with pytest.raises(app.UsageError, match=r'--pairs=.*: pairs TEACHER:STUDENT'):
        vkd_cross.pairs()


def test_a_camera_that_shows_is_read_and_one_that_does_not_is_not():
    rng = np.random.default_rng(0)
    cameras = rng.integers(0, 3, 400)
    noise = rng.normal(size=(400, 8))
    held = np.arange(400) % 2 == 0
    shown = noise + 4 * np.eye(8)[cameras]
    assert vkd_camera_bias.accuracy(shown, cameras, held)[0] > 0.95
    assert vkd_camera_bias.accuracy(noise, cameras, held)[0] < 0.5
    prior = (cameras[held] == np.bincount(cameras[~held]).argmax()).mean()
    assert vkd_camera_bias.accuracy(noise, cameras, held)[1] == prior
