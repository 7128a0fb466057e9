"""Train or score a config: python -m kd_jax.main --config=configs/umts_cuhk03.py."""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from kd_jax import command


def main() -> None:
    """The command line."""
    config = config_flags.DEFINE_config_file(
        'config', None, 'The config, e.g. configs/umts_carousel.py, or with :smoke behind it.'
    )
    workdir = flags.DEFINE_string(
        'workdir', None, 'The run directory; without it runs/CONFIG, e.g. runs/umts_carousel_smoke.'
    )
    mode = flags.DEFINE_enum(
        'mode', 'train', ['train', 'evaluate'], 'Train and score, or score a trained run again.'
    )
    flags.mark_flag_as_required('config')

    def run(_):
        from kd_jax import evaluate, results, train

        path = Path(workdir.value or default_workdir())
        if mode.value == 'evaluate':
            found = {path.name: evaluate.run(path, config.value)}
        else:
            found = train.run(config.value, path)
        print(results.table(found))
        print(f'run directory: {path}')

    command.start(run)


def default_workdir() -> str:
    """runs/CONFIG, or runs/CONFIG_VARIANT, after the --config that was given."""
    given = flags.FLAGS['config'].config_filename
    return 'runs/' + Path(given).name.replace('.py', '').replace(':', '_')


if __name__ == '__main__':
    main()
