"""From the config's optimizer subtree to an optax transformation."""

from collections.abc import Sequence
from typing import Any

import optax

from kd_jax import trees

NAMES = ('adam', 'sgd')
WARMUPS = ('linear', 'exponential')
SCHEDULES = ('constant', 'step', 'cosine')


def rate(
    *,
    learning_rate: float,
    epochs: float,
    steps_per_epoch: int,
    warmup: str,
    warmup_epochs: float,
    warmup_start: float,
    schedule: str,
    boundaries: Sequence[int],
    factor: float,
    final: float,
) -> optax.Schedule:
    """Learning rate by step: a warm-up from `warmup_start`, then constant, steps or a cosine.

    An `exponential` warm-up multiplies by the same number each step, a `linear` one adds it.
    'step' multiplies by `factor` at each of `boundaries` (epochs from the start of training);
    'cosine' falls to `final` · learning_rate at the end.
    """
    for key, value, choices in (('warmup', warmup, WARMUPS), ('schedule', schedule, SCHEDULES)):
        if value not in choices:
            raise ValueError(f'optimizer.{key}={value!r}: choose one of {", ".join(choices)}')
    warm = round(warmup_epochs * steps_per_epoch)
    total = round(epochs * steps_per_epoch)
    main = {
        'constant': lambda: optax.constant_schedule(learning_rate),
        'step': lambda: optax.piecewise_constant_schedule(
            learning_rate, {round(b * steps_per_epoch) - warm: factor for b in boundaries}
        ),
        'cosine': lambda: optax.cosine_decay_schedule(learning_rate, max(1, total - warm), final),
    }[schedule]()
    if not warm:
        return main
    rise = optax.linear_schedule(warmup_start, learning_rate, warm)
    if warmup == 'exponential':
        rise = optax.exponential_decay(warmup_start, warm, learning_rate / warmup_start)
    return optax.join_schedules([rise, main], [warm])


def create(
    *,
    name: str,
    weight_decay: float,
    frozen: tuple[str, ...] = (),
    b1: float = 0.9,
    b2: float = 0.999,
    **schedule: Any,
) -> optax.GradientTransformation:
    """Adam or SGD with weight decay as L2 in the gradient, as torch's Adam has it (not AdamW).

    `frozen` are prefixes of parameter paths whose update is set to zero, decay and all; the rest
    is `rate`'s. Raises ValueError for an unknown word, TypeError for an unknown key.
    """
    if name not in NAMES:
        raise ValueError(f'optimizer.name={name!r}: choose one of {", ".join(NAMES)}')
    by_step = rate(**schedule)
    scale = optax.scale_by_adam(b1, b2) if name == 'adam' else optax.identity()
    chain = [optax.add_decayed_weights(weight_decay), scale, optax.scale_by_learning_rate(by_step)]
    if frozen:
        chain.append(optax.masked(optax.set_to_zero(), lambda params: trees.under(params, frozen)))
    return optax.chain(*chain)
