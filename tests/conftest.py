"""Before JAX is imported: four CPU devices, and shapes checked in every call of kd_jax."""

import os

import jaxtyping

os.environ['XLA_FLAGS'] = ' '.join(
    [os.environ.get('XLA_FLAGS', ''), '--xla_force_host_platform_device_count=4']
).strip()
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
jaxtyping.install_import_hook('kd_jax', 'beartype.beartype')
