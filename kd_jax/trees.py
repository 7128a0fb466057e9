"""Variable trees: {'params': {'student': …, 'heads': …}, 'batch_stats': {…}}."""

from typing import Any

import jax
from flax import traverse_util

Tree = dict[str, Any]


def part(variables: Tree, name: str) -> Tree:
    """The variables of one part, e.g. 'student', as its own network expects them."""
    return {kind: tree[name] for kind, tree in variables.items() if name in tree}


def join(**parts: Tree) -> Tree:
    """The opposite of `part`: one tree of several parts' variables."""
    kinds = sorted({kind for tree in parts.values() for kind in tree})
    return {kind: {name: t[kind] for name, t in parts.items() if kind in t} for kind in kinds}


def size(tree: Tree) -> int:
    """The number of values in all leaves."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def named(tree: Tree) -> dict[str, Any]:
    """The leaves by their path, e.g. 'student/layer1_0/conv1/kernel'."""
    return traverse_util.flatten_dict(tree, sep='/')


def under(tree: Tree, prefixes: tuple[str, ...]) -> Tree:
    """True for every leaf whose path starts with one of the prefixes, else False."""
    flat = {name: any(name.startswith(p) for p in prefixes) for name in named(tree)}
    return unnamed(flat)


def unnamed(leaves: dict[str, Any]) -> Tree:
    """The opposite of `named`."""
    return traverse_util.unflatten_dict(leaves, sep='/')


def replaced(tree: Tree, source: Tree, prefixes: tuple[str, ...]) -> Tree:
    """The tree with every leaf whose path starts with one of the prefixes taken from `source`."""
    fresh = named(source)
    leaves = named(tree).items()
    return unnamed({k: fresh[k] if k.startswith(prefixes) else value for k, value in leaves})
