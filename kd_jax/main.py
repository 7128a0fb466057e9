"""Train or score a config: python -m kd_jax.main --config=configs/umts_cuhk03.py."""

import os
from pathlib import Path

import jax
from absl import app, flags, logging
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file(
    'config', None, 'The config, e.g. configs/umts_carousel.py, or with :smoke behind it.'
)
WORKDIR = flags.DEFINE_string(
    'workdir', None, 'The run directory; without it runs/NAME, after the name of the config.'
)
MODE = flags.DEFINE_enum(
    'mode', 'train', ['train', 'evaluate'], 'Train and score, or only score a trained run again.'
)


def main(_):
    from kd_jax import evaluate, train

    workdir = Path(WORKDIR.value or _default_workdir())
    if MODE.value == 'evaluate':
        results = {workdir.name: evaluate.run(workdir, CONFIG.value)}
    else:
        results = train.run(CONFIG.value, workdir)
    print(evaluate.table(results))
    print(f'run directory: {workdir}')


def _default_workdir() -> str:
    return os.path.join('runs', flags.FLAGS['config'].config_filename.split('/')[-1].split('.')[0])


if __name__ == '__main__':
    flags.mark_flag_as_required('config')
    logging.set_verbosity(logging.INFO)
    logging.get_absl_handler().addFilter(lambda record: 'orbax' not in record.pathname)
    jax.config.update(
        'jax_compilation_cache_dir',
        os.environ.get('JAX_COMPILATION_CACHE_DIR', str(Path.home() / '.cache/kd_jax')),
    )
    app.run(main)
