"""The shipped recipe of VKD, number by number, as its authors' commands and code run it."""

from importlib import import_module

import numpy as np
import pytest

from kd_jax import recipes
from kd_jax.data import Dataset, Split
from kd_jax.data.images import Pixels
from kd_jax.data.records import Records

# Identities; then P x images, steps and milestones (in epochs) of the teacher, and the student's.
PUBLISHED = {
    'vkd_mars': (625, (8, 8, 23_400, (100, 200)), (12, 8, 26_000, (300, 450))),
    'vkd_duke_video': (702, (8, 8, 26_100, (100, 200)), (12, 8, 29_000, (300, 450))),
    'vkd_veri776': (576, (18, 1, 9_600, (200, 250)), (12, 8, 24_000, (300, 450))),
}
NAMES = [*PUBLISHED, 'vkd_atrw', 'vkd_folder']


def both(name):
    config = import_module(f'configs.{name}').get_config()
    return config.teachers.teacher, config


def of(identities):
    """A data set of so many identities, of three images each."""
    numbers = np.arange(3 * identities)
    records = Records(numbers.astype(str), numbers // 3 + 1, numbers % 3, numbers // 2, numbers)
    split = Split(records, Pixels(lambda rows: None, None))
    return Dataset('fake', split, split, split, '', tracklets=True)


@pytest.mark.parametrize('name', PUBLISHED)
def test_batches_and_schedule(name):
    identities, *published = PUBLISHED[name]
    found = []
    for one in both(name):
        sampling, boundaries = one.sampling, one.optimizer.boundaries
        assert (sampling.sets, one.optimizer.schedule) == (4, 'step')
        steps = recipes.course(one, of(identities)).steps
        found.append((sampling.identities, sampling.shots, steps, tuple(boundaries)))
    assert found == published


@pytest.mark.parametrize('name', NAMES)
def test_an_epoch_shows_every_identity_once(name):
    """Whatever the batch: the schedule counts epochs."""
    for one in both(name):
        one.sampling.identities = 6
        assert recipes.course(one, of(100)).steps_per_epoch == 16
        one.train.steps_per_epoch = 5
        assert recipes.course(one, of(100)).steps_per_epoch == 5


@pytest.mark.parametrize('name', NAMES)
def test_optimizer(name):
    for one in both(name):
        options = one.optimizer
        assert (options.name, options.learning_rate, options.factor) == ('adam', 1e-4, 0.1)
        assert (options.weight_decay, options.warmup_epochs) == (1e-5, 0)


@pytest.mark.parametrize('name', NAMES)
def test_losses(name):
    teacher, student = both(name)
    for one in (teacher, student):
        method = one.method
        assert (method.label_smoothing, method.margin, method.feature) == (0, None, 'embedding')
        assert (method.identity_weight, method.triplet_weight) == (1, 1)
        assert (one.network.neck, one.network.last_block_relu) == ('bnneck', 'code')
        assert one.network.last_stride == 1
    assert (teacher.method.name, teacher.method.reads) == ('supervised', 'mean')
    method = student.method
    assert (method.logits, method.temperature, method.logits_weight) == ('kl', 10, 0.1)
    assert (method.distance_weight, method.student_views) == (1e-4, 2)
    assert (method.set_logits, method.teacher_batch_norm, method.start) == (
        'mean',
        'batch',
        'teacher',
    )


@pytest.mark.parametrize('name', NAMES)
def test_augmentation(name):
    for one in both(name):
        augment, tall = one.augment, one.data.height > one.data.width
        assert (augment.crop, augment.pad, augment.crop_probability) == ('pad', 10, 1)
        assert (augment.erase, augment.erase_fill) == (0.5, (0,))
        assert augment.erase_aspect == ((0.3, 3.3) if tall else (0.7, 1.4))
        assert augment.erase_teacher
        assert augment.flip == (0 if name == 'vkd_atrw' else 0.5)
        size = (256, 128) if tall else (224, 224)
        assert (one.data.height, one.data.width) == size
    assert tall == (name in ('vkd_mars', 'vkd_duke_video', 'vkd_folder'))


@pytest.mark.parametrize('name', NAMES)
def test_views(name):
    """Tigers are of no tracklets: of theirs any images are views."""
    views = tuple(one.sampling.views for one in both(name))
    assert views == (('any', 'any') if name == 'vkd_atrw' else ('chunk', 'multiview'))


@pytest.mark.parametrize(
    ('name', 'protocol'),
    [
        ('vkd_mars', 'mars'),
        ('vkd_duke_video', 'i2v,v2v'),
        ('vkd_veri776', 'i2v,v2v,i2i,v2i'),
        ('vkd_atrw', 'atrw'),
    ],
)
def test_ranking(name, protocol):
    for one in both(name):
        evaluate = one.evaluate
        assert (evaluate.protocol, evaluate.metric, evaluate.frames) == (protocol, 'cosine', 8)
