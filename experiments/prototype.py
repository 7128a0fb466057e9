"""A control without knowledge: UMTS whose teacher is one fixed random vector per class and stage.

What a student gains from it, it gains from labels and regularisation, not from a teacher. It is
named in configs as method.name = 'experiments.prototype', with the options of `umts`.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from kd_jax.methods import Method, umts

SEED = 0


def make(student: nn.Module, teachers: dict[str, nn.Module], **options) -> Method:
    """UMTS with targets |N(0, 1)| drawn once for every class; takes no teachers."""
    if teachers:
        raise ValueError('the prototype control takes no teachers')
    method = umts.make(student, {'teacher': student}, **options)

    def teach(teachers, batch):
        widths = [vector.shape[1] for vector in umts.blank_vectors(student, batch.images[:, 0])]
        return tuple(_of_labels(stage, width, batch.labels) for stage, width in enumerate(widths))

    return method._replace(teach=teach)


def _of_labels(stage: int, width: int, labels: jax.Array) -> jax.Array:
    """The prototypes of the labels, each drawn from its own key."""
    key = jax.random.fold_in(jax.random.key(SEED), stage)
    draw = jax.vmap(lambda label: jax.random.normal(jax.random.fold_in(key, label), (width,)))
    return jnp.abs(draw(labels))
