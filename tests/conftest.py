"""Before JAX is imported: four CPU devices, and shapes checked in every call of kd_jax."""

import os
import tempfile

import jaxtyping

# Compiled programs and smoke runs of this session, for all its workers and what they start.
SHARED = 'KD_JAX_TESTS'
CACHE = None
if 'PYTEST_XDIST_WORKER' not in os.environ:
    CACHE = tempfile.TemporaryDirectory(prefix='kd_jax_tests_')
    os.environ[SHARED] = CACHE.name
FLAGS = (
    '--xla_force_host_platform_device_count=4',
    '--xla_backend_optimization_level=0',  # compiles twice as fast; no test computes for long
)

os.environ['XLA_FLAGS'] = ' '.join((os.environ.get('XLA_FLAGS', ''), *FLAGS)).strip()
os.environ['JAX_COMPILATION_CACHE_DIR'] = os.path.join(os.environ[SHARED], 'compiled')
os.environ['JAX_COMPILATION_CACHE_MAX_SIZE'] = str(2**34)  # with one, its files are locked
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.2'
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
jaxtyping.install_import_hook('kd_jax', 'beartype.beartype')

import pytest  # noqa: E402


def pytest_unconfigure(config):
    if CACHE:
        CACHE.cleanup()


@pytest.fixture
def made(monkeypatch):
    """The configs of the rows of an experiment, by the names of their directories; untrained."""
    from experiments import rows

    found = {}
    summary = {'protocol': 'market', 'quoted': 'mAP', 'mAP': 0.5, 'rank-1': 0.5, 'also': []}

    def trained(config, path, dataset):
        found[path.name] = config
        return dict(summary)

    monkeypatch.setattr(rows, 'trained', trained)
    return found
