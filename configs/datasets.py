"""How the papers read and score each data set: what a config takes of it.

Sizes are the papers': UMTS 256×128 for people and 256×256 for vehicles, VKD 224×224 for vehicles
and tigers.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

PEOPLE, VEHICLES, VKD = (256, 128), (256, 256), (224, 224)  # height and width


class Setting(NamedTuple):
    """A reader with its options, the size of its images, and how they are fed and ranked.

    `flip` is how often an image is mirrored: never where that shows somebody else. `resize` is
    'bilinear', but what VKD's code does on the data sets that are VKD's alone.
    """

    name: str
    size: tuple[int, int] = PEOPLE
    protocol: str = 'market'
    metric: str = 'euclidean'
    same_camera: str = 'drop'
    shots_of: str = 'identity'
    feed: str = 'cached'
    flip: float = 0.5
    resize: str = 'bilinear'
    options: Mapping = MappingProxyType({})


SETTINGS = {
    'carousel': Setting(
        'carousel', options={'seed': 0, 'train_identities': 256, 'test_identities': 64}
    ),
    'folder': Setting('folder', options={'root': '', 'sequences': True}),
    'manifest': Setting('manifest', options={'root': ''}),
    'market1501': Setting('market1501', options={'root': '', 'distractors_500k': False}),
    'dukemtmc': Setting('dukemtmc', options={'root': ''}),
    'msmt17': Setting('msmt17', options={'root': '', 'version': 'v1', 'validation': True}),
    'cuhk03': Setting('cuhk03', options={'root': '', 'detected': False, 'classic_split': -1}),
    'cuhk03_detected': Setting(
        'cuhk03', options={'root': '', 'detected': True, 'classic_split': -1}
    ),
    'cuhk03_classic': Setting(
        'cuhk03',
        protocol='cuhk03_classic',
        shots_of='image',
        options={'root': '', 'detected': False, 'classic_split': 0},
    ),
    # Its queries are in the gallery too, and in VehicleID's pool: companions of an image would be
    # on both sides.
    'veri776': Setting(
        'veri776',
        VEHICLES,
        'veri_image',
        shots_of='image',
        options={'root': '', 'merge': True},
    ),
    'veri776_tracks': Setting(
        'veri776',
        VKD,
        'i2v,v2v,i2i,v2i',
        'cosine',
        resize='bicubic',
        options={'root': '', 'merge': True},
    ),
    'vehicleid': Setting(
        'vehicleid',
        VEHICLES,
        'vehicleid',
        same_camera='keep',
        shots_of='image',
        options={'root': '', 'sizes': (800, 1600, 2400)},
    ),
    # These are read when drawn: decoded they are 100 GB (VERI-Wild, MARS), and an epoch shows but
    # one frame for each tracklet of the video sets.
    'veri_wild': Setting(
        'veri_wild',
        VEHICLES,
        'veri_wild',
        feed='stream',
        options={'root': '', 'sizes': (3000, 5000, 10000)},
    ),
    'mars': Setting(
        'mars', PEOPLE, 'mars', 'cosine', feed='stream', resize='bicubic', options={'root': ''}
    ),
    'duke_video': Setting(
        'duke_video',
        PEOPLE,
        'i2v,v2v',
        'cosine',
        feed='stream',
        options={'root': '', 'merge': False},
    ),
    # An entity is one flank of a tiger, which mirrored is another.
    'atrw': Setting(
        'atrw',
        VKD,
        'atrw',
        'cosine',
        same_camera='keep',
        shots_of='image',
        flip=0.0,
        options={'root': '', 'flips': False},
    ),
}
# What VKD's code and paper make of two of them: frames of a person in a camera that follow one
# another are one tracklet, and a mirrored tiger is a tiger more to train on.
SETTINGS['duke_video_vkd'] = SETTINGS['duke_video']._replace(
    resize='bicubic', options={'root': '', 'merge': True}
)
SETTINGS['atrw_vkd'] = SETTINGS['atrw']._replace(resize='pad', options={'root': '', 'flips': True})
