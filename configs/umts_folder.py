"""UMTS on your own images in Market-1501 naming.

    python -m kd_jax.main --config=configs/umts_folder.py --config.data.root=DIR

The paper's sizes and schedule; an epoch is about one look at every image, and the T-net, which
looks at 256 images a step where the student looks at 64, gets four times the epochs, so that both
take as many steps. `:tiny` is for grey 32-pixel images and two CPU cores.
"""

from configs import base


def get_config(variant: str = ''):
    base.check(variant, 'tiny')
    student = base.supervised('folder', root='')
    if variant == 'tiny':
        base.small(student)
        student.data.update(height=32, width=32, channels=1, feed='device')
        return base.small_umts(student)
    config = base.umts(student)
    config.teachers.teacher.train.epochs = 4 * config.train.epochs
    config.teachers.teacher.optimizer.warmup_epochs = 4 * config.optimizer.warmup_epochs
    config.teachers.teacher.optimizer.boundaries = tuple(
        4 * epoch for epoch in config.optimizer.boundaries
    )
    return base.smoke_umts(config) if variant == 'smoke' else config
