"""Training methods: in what one differs from another, as a tuple of pure functions."""

import pkgutil
from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

import jax

from kd_jax.trees import Tree


class Losses(NamedTuple):
    """What one forward pass of a method gives.

    `terms` are weighted scalars whose sum is the loss; `diagnostics` are logged only;
    `batch_stats` are the running statistics after the pass.
    """

    terms: dict[str, jax.Array]
    diagnostics: dict[str, jax.Array]
    batch_stats: Tree


class Method(NamedTuple):
    """Four pure functions, where a fresh run starts, and the parameters that are never updated.

    `init(rng, batch) -> variables`: {'params': {'student': …, 'heads': …}, 'batch_stats': …}.
    `teach(teachers, batch) -> targets`: the frozen forward, outside the gradient; () without.
    `loss(variables, targets, batch, rng, progress) -> Losses`; progress in [0, 1] is for ramps.
    `embed(variables, images[s, n, h, w, c]) -> float[s, d]`: what is ranked and served; reads
    only the student's variables.
    `frozen` are prefixes of parameter paths whose update is masked (a stop_gradient alone would
    leave weight decay at work, which Adam scales up to full steps).
    `start(variables, teachers) -> variables`: what a fresh run starts from; as given without it.
    """

    init: Callable[..., Tree]
    teach: Callable[..., Any]
    loss: Callable[..., Losses]
    embed: Callable[..., jax.Array]
    frozen: tuple[str, ...] = ()
    start: Callable[..., Tree] | None = None


def load(name: str) -> Callable[..., Method]:
    """The `make` of kd_jax/methods/NAME.py, or of your own module where the name has a dot.

    Raises ValueError naming the known methods for an unknown one.
    """
    if '.' in name:
        return import_module(name).make
    known = [module.name for module in pkgutil.iter_modules(__path__)]
    if name not in known:
        raise ValueError(
            f'method.name={name!r}: known methods are {", ".join(known)}; your own is named by its '
            'module, as in my_package.my_method'
        )
    return import_module(f'{__name__}.{name}').make
