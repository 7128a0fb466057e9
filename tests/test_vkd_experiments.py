"""VKD's experiments do as their docstrings say, on one working directory, and share its runs."""

import functools
import json
from types import SimpleNamespace
from unittest import mock

import command_line
import numpy as np
import pytest
import smoke
from command_line import cells, flat
from PIL import Image

from experiments import (
    rows,
    vkd_ablation,
    vkd_camera_bias,
    vkd_cross,
    vkd_gallery,
    vkd_networks,
    vkd_rows,
    vkd_table1,
)
from kd_jax import data, embedding

experiment = functools.partial(command_line.experiment, config='vkd_carousel')
ROWS = 'resnet10/4 teacher', 'resnet10/4 not distilled', 'resnet10/4 VKD'
OTHER_WIDTH = '--networks=resnet10/4', '--config.network.width=8'  # for the same rows


def table(workdir):
    return json.loads((workdir / 'table.json').read_text())


# On three trained rows.


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
    """Where the gallery's experiment has trained the rows of the table."""
    home = tmp_path_factory.mktemp('vkd')
    (home / 'printed').write_text(experiment(vkd_gallery, home, '--frames=1,4', *OTHER_WIDTH))
    return home


def test_tracklets_are_ranked_by_their_frames(workdir):
    found = json.loads((workdir / 'gallery.json').read_text())
    assert list(found) == ['i2v', 'v2v']
    for ranking, by_row in found.items():
        assert tuple(by_row) == ROWS
        for row, by_frames in by_row.items():
            also = table(workdir)[row]['0']['also']
            told = next(one for one in also if one['protocol'] == ranking)
            assert by_frames['4'] == [told['mAP_trapezoid']]  # as many as the config has
            assert by_frames['1'] != by_frames['4']
    value = 100 * found['i2v'][ROWS[0]]['1'][0]
    printed = (workdir / 'printed').read_text()
    assert '| i2v, frames | 1 | 4 |' in printed
    assert f'| {ROWS[0]} | {value:.1f} | ' in printed
    with Image.open(workdir / 'gallery.png') as image:
        assert len(np.unique(np.asarray(image.convert('L')))) > 10


def test_table1_finds_what_is_trained(workdir):
    """And how long that took."""
    before, kept = smoke.written(workdir / 'seed0'), table(workdir)
    printed = experiment(vkd_table1, workdir)
    assert smoke.written(workdir / 'seed0') == before
    assert table(workdir) == kept
    assert all(kept[row]['0']['seconds'] > 0 for row in ROWS)
    found = cells(printed, 'market')
    assert tuple(found) == ROWS
    teacher, alone, student = (100 * kept[row]['0']['mAP'] for row in ROWS)
    assert found[ROWS[2]][1] == f'{student:.1f}'
    assert found[ROWS[2]][3:] == [f'{student - teacher:+.1f}', f'{student - alone:+.1f}']


def test_the_camera_of_a_run(workdir):
    with mock.patch.object(data, 'load', wraps=data.load) as load:
        printed = experiment(vkd_camera_bias, workdir, *OTHER_WIDTH)
    assert load.call_count == 1
    found = json.loads((workdir / 'camera_bias.json').read_text())
    assert tuple(found) == ROWS
    assert all(0 < seeds['0']['accuracy'] <= 1 for seeds in found.values())
    assert f'| {ROWS[2]} | 1 | {100 * found[ROWS[2]]["0"]["accuracy"]:.1f} | 25.0 |' in printed


# Rows that are not trained.


OFF = {'method.logits_weight': 0.0, 'method.distance_weight': 0.0}
CHANGED = {
    'vkd': {},
    'not_distilled': OFF,
    'without_l_kd': {'method.logits_weight': 0.0},
    'without_l_dp': {'method.distance_weight': 0.0},
    'without_l_ce': {'method.identity_weight': 0.0},
    'without_l_tr': {'method.triplet_weight': 0.0},
    'logits_by_squares': {'method.logits': 'mse'},
    'teacher_by_batch_statistics': {'method.teacher_batch_norm': 'batch'},
    'logits_of_the_mean': {'method.set_logits': 'of_mean'},
    'from_scratch': {'method.start': 'scratch'},
    'from_scratch_not_distilled': {'method.start': 'scratch', **OFF},
    'student_of_all_views': {'method.student_views': 4},
    'views_of_time': {'sampling.views': 'temporal'},
    'without_cameras': {'sampling.views': 'any'},
    'second_generation': {'generations': 2},
    'second_generation_at_full_rate': {'teachers.teacher': 'seed0/vkd'},
}


def test_a_row_of_an_ablation_changes_what_it_says(tmp_path, made):
    printed = experiment(
        vkd_ablation, tmp_path, '--config.network.pretrained={0}/{name}.safetensors'
    )
    assert {config.network.pretrained for config in made.values()} == {'{0}/resnet10.safetensors'}
    assert [rows.slug(name) for name in cells(printed, 'market')] == list(made)
    assert made.pop('teacher').method.name == 'supervised'
    plain = flat(made['vkd'])
    assert plain['teachers.teacher'] == str(tmp_path / 'seed0/teacher')
    found = {
        row: {key: value for key, value in flat(config).items() if value != plain[key]}
        for row, config in made.items()
    }
    last = found['second_generation_at_full_rate']
    last['teachers.teacher'] = last['teachers.teacher'].removeprefix(f'{tmp_path}/')
    assert found == CHANGED


def test_a_student_of_another_network(tmp_path, made):
    printed = experiment(vkd_cross, tmp_path, '--pairs=resnet10/8:resnet10')
    names = 'resnet10/8 teacher', *ROWS, 'resnet10/4 from resnet10/8'
    assert tuple(cells(printed, 'market')) == names
    config = made['resnet10_4_from_resnet10_8']
    assert config.teachers.to_dict() == {
        'teacher': str(tmp_path / 'seed0/resnet10_8_teacher'),
        'start': str(tmp_path / 'seed0/resnet10_4_teacher'),
    }
    assert config.network.width == 4
    assert made['resnet10_8_teacher'].network.width == 8


def test_a_row_of_one_pair_of_several(tmp_path, made):
    row = 'resnet10/8 from resnet10/4'
    pairs = '--pairs=resnet10/8:resnet10/4,resnet10/4:resnet10/8'
    assert tuple(cells(experiment(vkd_cross, tmp_path, pairs, f'--rows={row}'), 'market')) == (row,)


def test_a_network_as_wide_as_published_is_called_by_its_name(tmp_path, made):
    wide = '--config.network.width=64'
    default = experiment(vkd_table1, tmp_path, wide)
    assert default == experiment(vkd_table1, tmp_path, wide, '--networks=resnet10')
    assert default == experiment(vkd_table1, tmp_path, '--networks=resnet10/64,resnet10/64')
    assert set(made) == {'resnet10_teacher', 'resnet10_not_distilled', 'resnet10_vkd'}
    assert {config.network.width for config in made.values()} == {64}


def test_the_last_stride_of_densenet_is_as_published(tmp_path, made):
    experiment(vkd_table1, tmp_path, '--networks=densenet121,resnet34')
    strides = {row: config.network.last_stride for row, config in made.items()}
    assert {row for row, stride in strides.items() if stride == 2} == {
        row for row in strides if row.startswith('densenet121')
    }
    assert made['densenet121_4_teacher'].network.name == 'densenet121'


def test_the_paper_stands_beside_its_networks():
    teacher, student = 'resnet34 teacher', 'resnet34 VKD'
    assert vkd_table1.paper(vkd_rows.Network('resnet34', 64))['i2v'] == {
        teacher: ('80.81 / 70.74',),
        student: ('82.17 / 73.68',),
    }
    assert vkd_table1.paper(vkd_rows.Network('resnet34', 16)) == {}
    assert vkd_table1.paper(vkd_rows.Network('resnet10', 64)) == {}


# What a linear classifier reads.


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


def test_of_a_large_gallery_some_images_are_drawn(monkeypatch):
    drawn, gallery = [], data.load(**smoke.config('vkd_carousel').data).gallery

    def embedded(network, read, images, batch, mesh):
        drawn.append(images[:, 0].tolist())
        return np.zeros((len(images), 2))

    monkeypatch.setattr(embedding, 'embed_rows', embedded)
    monkeypatch.setattr(vkd_camera_bias, 'MOST', 30)
    images = vkd_camera_bias.usable(gallery.records)[5:]
    for seed in (0, 0, 1):
        one = vkd_networks.Opened('', seed, (print, {}), SimpleNamespace(batch=8))
        vkd_camera_bias.of_row(one, images, gallery)
    assert len(set(drawn[0])) == 30 < len(images)
    assert set(drawn[0]) <= set(images.tolist())
    assert drawn[0] == drawn[1] != drawn[2]
