"""What the configs share. Every one is made by `get_config(variant)`.

The variant stands behind a colon on the command line: `:smoke` shrinks any config to seconds on
the built-in data set, `:tiny` (folder) is a network for 32-pixel images and two CPU cores.
"""

from ml_collections import ConfigDict, config_dict

from configs.datasets import SETTINGS


def supervised(dataset: str) -> ConfigDict:
    """The re-ID recipe next to which UMTS was made, on one of `datasets.SETTINGS`.

    ResNet-50, last stride 1, FC 512 + BN + ReLU; 16 identities × 4 images of 256×128; Adam with
    L2 5e-4, 8e-4 after 20 epochs of exponential warm-up, halved at epochs 40, 80, …, 280 of 300
    (the warm-up counted in). From random weights, or those of `network.pretrained`.
    """
    config, setting = ConfigDict(), SETTINGS[dataset]
    config.seed = 0
    config.teachers = {}
    config.data = {'name': setting.name, **setting.options, 'channels': 3}
    config.data.height, config.data.width = setting.size
    config.data.update(resize=setting.resize, feed=setting.feed, on_bad_image='error', cache_dir='')
    config.sampling = {'identities': 16, 'sets': 1, 'shots': 4, 'views': 'any'}
    config.augment = {'crop': 'translate', 'pad': 10, 'crop_probability': 0.5, 'flip': setting.flip}
    config.augment.update(erase=0.5, erase_fill=(0.485, 0.456, 0.406), erase_teacher=True)
    config.network = {'name': 'resnet50', 'width': 64, 'stem': 'imagenet', 'last_stride': 1}
    config.network.update(neck='fc_bn_relu', neck_width=512, inflate=1, dtype='float32')
    config.network.update(last_block_relu='all', conv='auto', pretrained='')
    config.network.batch_norm = 'global'
    config.method = {'name': 'supervised', 'reads': 'singles', 'feature': 'embedding'}
    config.method.update(label_smoothing=0.1, margin=number(0.3), triplet_weight=1.0)
    config.optimizer = {'name': 'adam', 'learning_rate': 8e-4, 'weight_decay': 5e-4}
    config.optimizer.update(warmup='exponential', warmup_epochs=20.0, warmup_start=8e-6)
    config.optimizer.update(schedule='step', boundaries=tuple(range(40, 281, 40)))
    config.optimizer.update(factor=0.5, final=0.01)
    config.train = {'epochs': 300.0, 'steps_per_epoch': 0, 'epoch_of': 'images', 'log_every': 50}
    config.train.update(evaluate_every=40.0, checkpoint_every=5.0)
    config.evaluate = {'protocol': setting.protocol, 'same_camera': setting.same_camera}
    config.evaluate.update(metric=setting.metric, shots=1, shots_of=setting.shots_of)
    config.evaluate.update(frames=8, batch=256)
    config.evaluate.reranked = {'variant': 'none', 'k1': 20, 'k2': 6, 'weight': 0.3}
    config.evaluate.expanded = {'count': 0, 'alpha': 3.0, 'rounds': 1}
    return config


def bag_of_tricks(config: ConfigDict) -> ConfigDict:
    """The recipe of Luo et al.'s strong baseline (CVPR workshops 2019), from random weights or not.

    Adam 3.5e-4 after 10 epochs of linear warm-up, a tenth at epochs 40 and 70 of 120; BNNeck,
    ranked by cosine behind it; pad and crop, erasing with the mean colour.
    """
    config.augment.update(crop='pad', pad=10, crop_probability=1.0, erase_fill=(0.0,))
    config.network.neck = 'bnneck'
    config.method.feature = 'neck'
    config.optimizer.update(learning_rate=3.5e-4, warmup='linear', warmup_epochs=10.0)
    config.optimizer.update(warmup_start=3.5e-6, boundaries=(40, 70), factor=0.1)
    config.train.epochs = 120.0
    config.evaluate.metric = 'cosine'
    return config


def supervised_on(dataset: str, variant: str) -> ConfigDict:
    """The baseline on a data set, in its variant."""
    check(variant)
    config = supervised(dataset)
    return smoke(config) if variant == 'smoke' else config


def umts_on(dataset: str, variant: str) -> ConfigDict:
    """UMTS on a data set, in its variant."""
    check(variant)
    config = umts(supervised(dataset))
    return smoke_umts(config) if variant == 'smoke' else config


def umts(student: ConfigDict) -> ConfigDict:
    """UMTS as the paper has it: all five stages, and a T-net of the student's recipe."""
    student.teachers.teacher = t_net(student)
    student.method = {'name': 'umts', **objective(student), 'stages': (1, 2, 3, 4, 5)}
    student.method.update(weights=(0.1, 0.1, 0.1, 0.1, 0.5), reductions=(16, 16, 16, 16, 4))
    student.method.update(uncertainty=True, joint=False, teacher_reads='stacked')
    student.method.update(teacher_head='trained', head_bn_affine=False)
    return student


def t_net(student: ConfigDict) -> ConfigDict:
    """Scheme C on the student's data and recipe (assumption A-UMTS-T).

    16 identities × 4 stacks of K shots, so that a stack has positives; scored with K shots drawn
    by true identity. The seed and the data are the student's, whatever the command line sets; so
    is the network, but for `inflate`, unless it sets the teacher's apart.
    """
    config = student.copy_and_resolve_references()
    config.seed = student.get_ref('seed')
    config.data = student.data
    same_network(config, student)
    config.sampling.sets, config.sampling.shots = 4, student.sampling.get_ref('shots')
    config.method.update(reads='stacked', margin=number(student.method.margin))
    same_evaluation(config, student)
    config.evaluate.shots = student.sampling.get_ref('shots')
    config.train.epochs = 1 * student.train.get_ref('epochs')
    return config


def small(config: ConfigDict) -> ConfigDict:
    """What works at 32 pixels and a few minutes of two CPU cores: a narrow one-block ResNet.

    BNNeck on the pooled feature, soft margin, a high learning rate, hardly any decay and no
    erasing; cosine similarity of the pooled feature.
    """
    config.augment.update(crop='pad', pad=2, crop_probability=1.0, flip=0.0, erase=0.0)
    config.augment.erase_fill = (0.0,)
    config.network.update(name='resnet10', width=16, stem='small', neck='bnneck')
    config.method.margin = None
    config.optimizer.update(learning_rate=3e-3, weight_decay=1e-5, schedule='cosine')
    config.optimizer.update(warmup='linear', warmup_epochs=0.75, warmup_start=1e-5)
    config.train.update(epochs=15.0, steps_per_epoch=100, log_every=100)
    config.train.update(evaluate_every=5.0, checkpoint_every=5.0)
    config.evaluate.metric = 'cosine'
    return config


def smoke(config: ConfigDict) -> ConfigDict:
    """The same config in seconds: a handful of steps of a very narrow network on carousel."""
    small(config)
    config.data = {'name': 'carousel', 'height': 32, 'width': 16, 'channels': 3, 'seed': 0}
    config.data.update(train_identities=8, test_identities=6, feed='device')
    config.data.update(resize='bilinear', on_bad_image='error', cache_dir='')
    config.sampling.update(identities=4, shots=2)
    config.network.update(width=4, conv='xla')  # which compiles in two thirds of the time
    config.train.update(epochs=2.0, steps_per_epoch=4, log_every=2)
    config.train.update(evaluate_every=1.0, checkpoint_every=0.5)
    config.evaluate.batch = 32
    if config.evaluate.protocol in ('vehicleid', 'cuhk03_classic', 'atrw', 'mars'):
        # Carousel is no pool, and does not consist of tracklets.
        config.evaluate.update(protocol='market', same_camera='drop', shots_of='identity')
    return config


def small_umts(student: ConfigDict) -> ConfigDict:
    """UMTS at the size of `small`: wider heads, frozen on the teacher's side, an inflated T-net.

    Trained teacher heads fall to one or two dimensions here (experiments/results/umts.md).
    """
    config = umts(student)
    config.method.update(reductions=(4, 4, 4, 4, 4), teacher_head='frozen')
    config.teachers.teacher.network.inflate = config.sampling.get_ref('shots')
    return config


def smoke_umts(config: ConfigDict) -> ConfigDict:
    """`smoke` for the student and for its T-net."""
    smoke_pair(config)
    config.method.reductions = (1, 1, 1, 1, 1)
    return config


def smoke_pair(config: ConfigDict) -> None:
    """`smoke` for a student and for its teacher, which is trained on 2 sets of an identity."""
    smoke(config)
    teacher = smoke(config.teachers.teacher)
    teacher.data, teacher.sampling.sets = config.data, 2
    same_network(teacher, config)


def check(variant: str, *known: str) -> None:
    """Raise ValueError for a variant that a config does not have."""
    if variant not in ('', 'smoke', *known):
        raise ValueError(f'variant {variant!r}: choose one of {", ".join(("smoke", *known))}')


def objective(config: ConfigDict) -> dict:
    """The part of a baseline's method that other methods have too; margins stay references."""
    options = dict(config.method.items(preserve_field_references=True))
    return {key: value for key, value in options.items() if key not in ('name', 'reads')}


def same_evaluation(teacher: ConfigDict, student: ConfigDict) -> None:
    """The teacher is ranked as the student is, where nothing else is set for it."""
    for key in ('protocol', 'metric', 'same_camera', 'shots_of'):
        teacher.evaluate[key] = student.evaluate.get_ref(key) + ''
    teacher.evaluate.frames = 1 * student.evaluate.get_ref('frames')
    for part in ('reranked', 'expanded'):
        for key, value in student.evaluate[part].items():
            same = '' if isinstance(value, str) else 0
            teacher.evaluate[part][key] = student.evaluate[part].get_ref(key) + same


def same_network(
    teacher: ConfigDict, student: ConfigDict, apart: tuple[str, ...] = ('inflate',)
) -> None:
    """The teacher's network follows the student's where nothing else is set, but for some keys."""
    for key in set(student.network) - set(apart):
        value = student.network.get_ref(key)
        teacher.network[key] = value + ('' if isinstance(value.get(), str) else 0)


def number(value: float):
    """A number, in whose place a config may put None and the command line a number again."""
    field = config_dict.placeholder(float)
    field.set(value)
    return field
