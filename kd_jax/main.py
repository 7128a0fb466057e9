"""Train or score a config: python -m kd_jax.main --config=configs/umts_cuhk03.py."""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from kd_jax import command, preemption
from kd_jax.runs import RunError

HOSTS = 'coordinator', 'num_processes', 'process_id'


def main() -> None:
    """The command line."""
    preemption.watch()
    config = config_flags.DEFINE_config_file(
        'config', None, 'The config, e.g. configs/umts_carousel.py, or with :smoke behind it.'
    )
    workdir = flags.DEFINE_string(
        'workdir', None, 'The run directory; without it runs/CONFIG, e.g. runs/umts_carousel_smoke.'
    )
    mode = flags.DEFINE_enum(
        'mode', 'train', ['train', 'evaluate'], 'Train and score, or score a trained run again.'
    )
    hosts_flags()
    flags.mark_flag_as_required('config')

    def run(_):
        from kd_jax import evaluate, hosts, results, train

        preemption.unwatch()
        hosts.join(*(flags.FLAGS[name].value for name in HOSTS))
        if not hosts.are_several():
            preemption.watch()
        path = folder(workdir.value or default_workdir())
        if mode.value == 'evaluate':
            found = {path.name: evaluate.run(path, config.value)}
        else:
            found = train.run(config.value, path)
        if hosts.is_first():
            print(results.table(found))
            print(f'run directory: {path}')

    command.start(run)


def hosts_flags() -> None:
    """The flags of a run of several processes, where no launcher tells."""
    flags.DEFINE_string(HOSTS[0], None, 'HOST:PORT of process 0, where no launcher tells it.')
    flags.DEFINE_integer(HOSTS[1], None, 'How many processes train together; 1 for this one alone.')
    flags.DEFINE_integer(HOSTS[2], None, 'Which of them this is, from 0 on.')


def folder(given: str) -> Path:
    """The run directory; RunError for a bucket, of which Path would make a folder here."""
    if '://' in given:
        raise RunError(
            f'--workdir={given}: give a folder: a bucket can not rename one, as checkpoints need'
        )
    return Path(given)


def default_workdir() -> str:
    """runs/CONFIG, or runs/CONFIG_VARIANT, after the --config that was given."""
    given = flags.FLAGS['config'].config_filename
    return 'runs/' + Path(given).name.replace('.py', '').replace(':', '_')


if __name__ == '__main__':
    main()
