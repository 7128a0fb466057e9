"""What VKD's experiments refuse in a line, before anything is trained."""

import pytest
import smoke
from absl import app
from command_line import experiment

from experiments import rows, vkd_ablation, vkd_camera_bias, vkd_cross, vkd_gallery, vkd_table1
from kd_jax import data

REFUSED = [
    (vkd_table1, '--seeds=a', r'--seeds=a: whole numbers from 0'),
    (vkd_table1, '--seeds=', r'--seeds=: whole numbers'),
    (vkd_table1, '--seeds=-1', r'--seeds=-1: whole numbers'),
    (vkd_table1, '--rows=VKD', r"--rows: no \['VKD'\]; the rows are resnet10/4 teacher"),
    (vkd_table1, '--networks=resnet10/x', r"--networks: 'resnet10/x' is no NAME or NAME/WIDTH"),
    (vkd_table1, '--networks=resnet10/0', r"--networks: 'resnet10/0'"),
    (vkd_gallery, '--networks=resnet10,resnet11', r"--networks: 'resnet11' .* one of resnet10,"),
    (vkd_gallery, '--frames=a', r'--frames=a: whole numbers from 1'),
    (vkd_gallery, '--frames=', r'--frames=: whole numbers'),
    (vkd_gallery, '--frames=1,0', r'--frames=1,0: whole numbers'),
    (
        vkd_gallery,
        '--config.evaluate.protocol=market,i2i',
        r'=market,i2i ranks no tracklets: .*mars',
    ),
    (vkd_cross, '--pairs=', r'--pairs=: pairs TEACHER:STUDENT'),
    (vkd_cross, '--pairs=resnet10/4', r'--pairs=resnet10/4: pairs'),
    (vkd_cross, '--pairs=resnet10:resnet10:resnet10', r': pairs TEACHER:STUDENT'),
    (vkd_cross, '--pairs=:', r"--pairs: '' is no NAME"),
    (vkd_cross, '--pairs=resnet10/a:resnet10/4', r"--pairs: 'resnet10/a' is no NAME"),
    (vkd_ablation, "--config.teachers={'teacher': 'runs/x'}", r'--config\.teachers: .* a row'),
    (vkd_camera_bias, "--config.teachers={'start': 'runs/x'}", r'--config\.teachers: .* a row'),
]


@pytest.mark.parametrize(('module', 'flag', 'message'), REFUSED)
def test_a_flag(module, flag, message, tmp_path, monkeypatch):
    monkeypatch.setattr(rows, 'trained', None)
    with pytest.raises(app.UsageError, match=message):
        experiment(module, tmp_path, flag, config='vkd_carousel')


@pytest.mark.parametrize(
    'module', [vkd_table1, vkd_gallery, vkd_camera_bias, vkd_ablation, vkd_cross]
)
def test_a_config_of_another_method(module, tmp_path):
    pairs = ['--pairs=resnet10:resnet10'] * (module is vkd_cross)
    with pytest.raises(app.UsageError, match='its method is umts, not vkd'):
        experiment(module, tmp_path, *pairs, config='umts_carousel')


@pytest.mark.parametrize('column', ['cameras', 'pids'])
def test_a_gallery_of_one_camera_or_identity(column, tmp_path, monkeypatch):
    monkeypatch.setattr(rows, 'trained', None)
    dataset = data.load(**smoke.config('vkd_carousel').data)
    records = dataset.gallery.records
    records = records._replace(**{column: 0 * records.pids + 1})
    alike = dataset._replace(gallery=dataset.gallery._replace(records=records))
    monkeypatch.setattr(data, 'load', lambda **options: alike)
    with pytest.raises(app.UsageError, match='two of each are needed'):
        experiment(vkd_camera_bias, tmp_path, config='vkd_carousel')


@pytest.mark.parametrize(
    ('protocol', 'kept'), [('market, mars', 'mars'), ('v2i,i2i,v2v,veri_track', 'v2i,v2v')]
)
def test_of_several_protocols_those_of_tracklets_are_taken(protocol, kept):
    assert vkd_gallery.of_tracklets(protocol) == kept


def test_the_command_line(tmp_path):
    """Tells a line below its usage; pairs are no networks."""
    common = f'--workdir={tmp_path}', '--config=configs/vkd_carousel.py:smoke'
    seeds = smoke.python('-m', 'experiments.vkd_table1', *common, '--seeds=a')
    other = smoke.python('-m', 'experiments.vkd_cross', *common, '--networks=resnet10')
    (code, *printed), (code_2, *printed_2) = smoke.ended(seeds, other)
    assert (code, code_2) == (1, 1)
    assert (
        ''.join(printed).strip().splitlines()[-1] == '--seeds=a: whole numbers from 0, with commas'
    )
    assert "Unknown command line flag 'networks'" in ''.join(printed_2)
