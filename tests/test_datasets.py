"""Every data set as a config has it: read from its layout, checked, and ranked by its protocol."""

import inspect
import io
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from test_cuhk03 import plant_mat, plant_protocol
from test_cuhk03_classic import TESTSETS

from configs.datasets import SETTINGS
from experiments import planted
from kd_jax import data, parallel, scoring
from kd_jax.retrieval import items, protocols

NAMES = sorted(name for name, setting in SETTINGS.items() if 'root' in setting.options)
SHOWN = {
    'duke_video_vkd': ['i2v', 'v2v'],
    'atrw_vkd': ['atrw mean', 'atrw single camera', 'atrw cross camera'],
    'veri_wild': ['veri_wild 3000', 'veri_wild 5000', 'veri_wild 10000'],
    'vehicleid': ['vehicleid 800', 'vehicleid 1600', 'vehicleid 2400'],
    'mars': ['mars i2v', 'mars v2v'],
    'duke_video': ['i2v', 'v2v'],
    'veri776_tracks': ['i2v', 'v2v', 'i2i', 'v2i'],
    'atrw': ['atrw mean', 'atrw single camera', 'atrw cross camera'],
}


def jpeg(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (6, 4, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, 'JPEG')
    return out.getvalue()


def plant_tracks(root: Path) -> None:
    """A line for each vehicle and camera of the test images, which show the queries too."""
    with (root / 'name_test.txt').open('a') as listed:
        for file in sorted((root / 'image_query').iterdir()):
            shutil.copy(file, root / 'image_test')
            listed.write(f'{file.name}\n')
    tracks: dict[str, list[str]] = {}
    for file in sorted((root / 'image_test').iterdir()):
        tracks.setdefault(file.name[:9], []).append(file.name)
    lines = [f'{key} {" ".join(names)} ' for key, names in tracks.items()]
    (root / 'test_track.txt').write_text('\n'.join(lines))


def plant_single_camera(root: Path) -> None:
    """One of the tigers before one camera only, ten frames apart."""
    file = root / 'gt_test_plain.json'
    truth = json.loads(file.read_text())
    for one in truth:
        if one['entityid'] == truth[0]['entityid']:
            one.update(query='sing', frame=[0, 1, 10 * one['frame'][2]])
    file.write_text(json.dumps(truth))


FINISH = {'veri776': plant_tracks, 'atrw': plant_single_camera}


@pytest.fixture
def planted_root(tmp_path):
    """plant(setting) -> a root with images in the layout of a setting."""

    def plant(setting) -> str:
        if setting.name == 'cuhk03':
            version = 'detected' if setting.options['detected'] else 'labeled'
            plant_protocol(tmp_path, version)
            plant_mat(tmp_path / 'cuhk-03.mat', versions=(version,), testsets=TESTSETS)
            return str(tmp_path)
        root = planted.plant(tmp_path, setting.name, 240)
        files = sorted(file for file in tmp_path.rglob('*') if file.suffix in ('.jpg', '.png'))
        for number, file in enumerate(files):
            file.write_bytes(jpeg(number))
        FINISH.get(setting.name, lambda root: None)(tmp_path)
        return root

    return plant


def colours(images: jax.Array) -> jax.Array:
    """A feature that needs no network: the mean of a set's images, shrunk to nothing."""
    return images.astype(np.float32).mean(axis=1).reshape(len(images), -1)


@pytest.mark.parametrize('name', NAMES)
def test_every_data_set_is_ranked_by_its_protocol(planted_root, name):
    setting = SETTINGS[name]
    options = {**setting.options, 'root': planted_root(setting)}
    dataset = data.load(name=setting.name, height=6, width=4, feed='stream', **options)
    rule = {'protocol': setting.protocol, 'same_camera': setting.same_camera, 'frames': 2}
    for protocol in protocols.names(setting.protocol):
        for query, gallery in dataset.tests().values():
            test = items.together(query.records, gallery.records, dataset.tracklets)
            options = {key: rule[key] for key in ('same_camera', 'frames')}
            protocols.check(protocol, test, metric='cosine', **options)
    found = scoring.score(
        lambda variables, images: colours(images),
        {},
        dataset,
        parallel.mesh(),
        metric='cosine',
        shots=1,
        shots_of='image',
        batch=64,
        reranked=None,
        expanded=None,
        **rule,
    )
    rows = [found, *found['also']]
    assert [row['protocol'] for row in rows] == SHOWN.get(name, [setting.protocol])
    assert all(0 < row[row['quoted']] <= 1 for row in rows)


@pytest.mark.parametrize('name', NAMES)
def test_a_reader_names_the_protocol_of_its_config(planted_root, name):
    """What the check of a data set looks at by default is what its config ranks by."""
    setting = SETTINGS[name]
    options = {**setting.options, 'root': planted_root(setting)}
    source = data.read(setting.name, **options)
    if name != 'veri776_tracks':
        assert source.protocol == setting.protocol
    assert source.tracklets == (setting.name in ('mars', 'duke_video', 'manifest'))
    keeps = [not protocols.PROTOCOLS[one].cameras for one in protocols.names(source.protocol)]
    assert keeps == [setting.same_camera == 'keep'] * len(keeps)


def test_every_reader_has_a_setting():
    assert {setting.name for setting in SETTINGS.values()} == {*data.readers()}


@pytest.mark.parametrize('name', NAMES)
def test_options_are_the_readers(name):
    """All of them, so that the command line can set each."""
    known = inspect.signature(data.reader(SETTINGS[name].name).read).parameters
    assert [*SETTINGS[name].options] == [*known]
