"""Train or score a config: python -m kd_jax.main --config=configs/umts_cuhk03.py."""

import os
from collections.abc import Callable
from pathlib import Path

import jax
from absl import app, flags, logging
from ml_collections import config_flags


def main() -> None:
    """The command line."""
    config = config_flags.DEFINE_config_file(
        'config', None, 'The config, e.g. configs/umts_carousel.py, or with :smoke behind it.'
    )
    workdir = flags.DEFINE_string(
        'workdir', None, 'The run directory; without it runs/NAME, after the name of the config.'
    )
    mode = flags.DEFINE_enum(
        'mode', 'train', ['train', 'evaluate'], 'Train and score, or score a trained run again.'
    )
    flags.mark_flag_as_required('config')

    def run(_):
        from kd_jax import evaluate, train

        name = Path(flags.FLAGS['config'].config_filename).stem
        path = Path(workdir.value or f'runs/{name}')
        if mode.value == 'evaluate':
            results = {path.name: evaluate.run(path, config.value)}
        else:
            results = train.run(config.value, path)
        print(evaluate.table(results))
        print(f'run directory: {path}')

    start(run)


def start(application: Callable[[list], None]) -> None:
    """Run an application with flags, log lines of kd_jax, and compiled programs kept on disk."""
    logging.set_verbosity(logging.INFO)
    logging.get_absl_handler().addFilter(lambda record: 'kd_jax' in record.pathname)
    cache = os.environ.get('JAX_COMPILATION_CACHE_DIR', str(Path.home() / '.cache/kd_jax'))
    jax.config.update('jax_compilation_cache_dir', cache)
    app.run(application)


if __name__ == '__main__':
    main()
