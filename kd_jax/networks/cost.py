"""What a network costs: parameters of its backbone, and multiply-adds of a function."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr

from kd_jax import trees
from kd_jax.trees import Tree


def backbone_parameters(variables: Tree) -> int:
    """Parameters without neck and classifier."""
    return trees.size(variables['params']) - trees.size(variables['params']['neck'])


def multiply_adds(function: Callable, *arguments: Any) -> int:
    """Those of all convolutions and matrix products of a function of arrays or their shapes.

    Elementwise work is not counted. A network's are the same whatever computes its convolutions
    only with `conv='xla'`: Winograd's needs fewer.
    """
    return sum(map(_cost, _equations(jax.make_jaxpr(function)(*arguments).jaxpr)))


def _equations(jaxpr: Jaxpr) -> Iterator:
    """All equations, those within others too; the body of a loop is met once."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            if isinstance(value, ClosedJaxpr | Jaxpr):
                yield from _equations(getattr(value, 'jaxpr', value))


def _cost(equation) -> int:
    made = math.prod(equation.outvars[0].aval.shape)
    shapes = [variable.aval.shape for variable in equation.invars]
    if equation.primitive.name == 'dot_general':
        contracted = equation.params['dimension_numbers'][0][0]
        return made * math.prod(shapes[0][axis] for axis in contracted)
    if equation.primitive.name == 'conv_general_dilated':
        _, channels, *window = equation.params['dimension_numbers'].rhs_spec
        return made * math.prod(shapes[1][axis] for axis in (channels, *window))
    return 0
