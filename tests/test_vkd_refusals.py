"""What VKD refuses, naming the key or the numbers."""

import jax
import jax.numpy as jnp
import pytest
from test_vkd import NETWORK, OPTIONS, OWN, made, passed

from kd_jax.methods import vkd


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'logits': 'kd'}, r"method\.logits='kd': choose one of kl, mse"),
        ({'set_logits': 'sum'}, r"method\.set_logits='sum'"),
        ({'teacher_batch_norm': 'none'}, r"method\.teacher_batch_norm='none'"),
        ({'start': 'imagenet'}, r"method\.start='imagenet'"),
        ({'student_views': 0}, r'method\.student_views=0'),
        ({'temperature': 0.0}, r'method\.temperature=0\.0: .* above 0'),
        ({'logits_weight': -1.0}, r'method\.logits_weight=-1\.0: from 0 on'),
        ({'distance_weight': -0.5}, r'method\.distance_weight=-0\.5'),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        made(**options)


@pytest.mark.parametrize('names', [(), ('teachers',), ('teacher', 'other')])
def test_its_teachers(names):
    with pytest.raises(ValueError, match=r'method vkd needs config\.teachers\.teacher'):
        vkd.make(NETWORK, dict.fromkeys(names, NETWORK), **OPTIONS)


def test_a_teacher_of_other_classes():
    """Unless no logits are distilled."""
    teachers = {'teacher': NETWORK.clone(classes=5)}
    with pytest.raises(ValueError, match=r'tells 5 identities apart, .* has 8: .*logits_weight=0'):
        vkd.make(NETWORK, teachers, **OPTIONS)
    method = vkd.make(NETWORK, teachers, **OPTIONS | {'logits_weight': 0.0})
    taught = jax.eval_shape(teachers['teacher'].init, jax.random.key(0), jnp.zeros((1, 32, 16, 3)))
    targets, found = jax.eval_shape(passed(method), OWN, taught)
    assert targets.logits.shape == (4, 5)
    assert set(found.terms) == {'identity', 'triplet', 'distances'}
