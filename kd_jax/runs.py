"""A run is a directory: config.json, metrics.jsonl, events, checkpoints/, result.json.

Of several processes that train together, the first writes its files.
"""

import contextlib
import json
import os
import platform
import socket
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')
SEEN_SECONDS = 90  # that NFS may take to show what another host has written
WHERE = ('root', 'cache_dir', 'feed')  # of config.data: where images lie, not what they are


class RunError(Exception):
    """A run directory is not what is needed; the message names it and says what to do."""


def start(run: Path, config: ConfigDict, facts: dict[str, Any]) -> None:
    """Lock the run to its config and facts (classes, data fingerprint), or check that it is.

    Raises RunError naming every key that differs, before anything is written.
    """
    wanted = {'config': json.loads(config.to_json()), **facts}
    if not (run / 'config.json').exists():
        if (run / 'checkpoints').exists():
            raise RunError(f'{run} has checkpoints but no config.json: give another --workdir')
        run.mkdir(parents=True, exist_ok=True)
        versions = {name: version(name) for name in PACKAGES}
        versions['python'] = platform.python_version()
        write_json(run / 'config.json', wanted | {'versions': versions})
        return
    found = _locked(run)
    found.pop('versions', None)
    _refuse(run, _differences(flat(found), flat(wanted)))


def check_same(run: Path, config: ConfigDict, but: tuple[str, ...]) -> None:
    """RunError naming what differs from the run's config in other parts than `but`."""
    pair = _locked(run)['config'], json.loads(config.to_json())
    parts = ({key: part for key, part in tree.items() if key not in but} for tree in pair)
    _refuse(run, _differences(*map(flat, parts)))


def check_seen(run: Path, written: str) -> None:
    """RunError where config.json is not seen here as another process wrote it.

    Some network file systems take a while to show it.
    """
    file, until = run / 'config.json', time.monotonic() + SEEN_SECONDS
    while not (file.exists() and file.read_text() == written):
        if time.monotonic() > until:
            raise RunError(
                f'{file}, as process 0 wrote it, is not seen on {socket.gethostname()}: --workdir '
                'has to lie on a file system that all hosts share'
            )
        time.sleep(1)


def check_alike(own: dict[str, Any], first: dict[str, Any]) -> None:
    """RunError naming where this process has another config, or other data, than the first."""
    differences = _differences(flat(first), flat(own), ('in process 0', 'in this one'))
    if differences:
        raise RunError(
            'all processes of a run are started with the same config, on the same data:\n'
            + '\n'.join(differences)
        )


def _refuse(run: Path, differences: list[str]) -> None:
    if differences:
        raise RunError(
            f'{run} is a run of another config. Nothing was changed; give another --workdir, or '
            'the values of that run:\n' + '\n'.join(differences)
        )


def config_of(run: Path) -> ConfigDict:
    """The locked config of a run; RunError if there is none."""
    found = _locked(run)['config']
    if set(found) == {'stacked'}:
        names = ', '.join(found['stacked'])
        raise RunError(f'{run} is no run of one network: {names} were trained at once there')
    return ConfigDict(_tuples(found))


def _tuples(tree: Any) -> Any:
    """Tuples for the lists that JSON made of them: configs have no lists, and flags want tuples."""
    if isinstance(tree, dict):
        return {key: _tuples(value) for key, value in tree.items()}
    return tuple(map(_tuples, tree)) if isinstance(tree, list) else tree


@contextlib.contextmanager
def of_this_version(run: Path) -> Iterator[None]:
    """RunError where the config of a run lacks a key that is read within, or has one too many."""
    try:
        yield
    except (TypeError, AttributeError, KeyError) as error:
        message = f'{run}: its config.json is of another version of kd_jax: {error}'
        raise RunError(message) from error


def content(config: ConfigDict) -> dict[str, Any]:
    """The part of config.data that says what the images are, not where they lie."""
    return {key: value for key, value in config.data.items() if key not in WHERE}


def classes_of(run: Path) -> int:
    """The number of train identities the run's classifier has."""
    return _locked(run)['classes']


def fingerprint_of(run: Path) -> str:
    """The fingerprint of the data that a run was trained on."""
    return _locked(run)['data']


def result_of(run: Path) -> dict | None:
    """What a finished run found, None while it is not finished."""
    path = run / 'result.json'
    return _read(path) if path.exists() else None


def metrics_of(run: Path) -> list[dict]:
    """The rows of metrics.jsonl (`rows_of`)."""
    return rows_of(run / 'metrics.jsonl')


def rows_of(path: Path) -> list[dict]:
    """The rows of a file of JSON lines, none without it; one cut off by a kill is left out."""
    lines = path.read_text().split('\n')[:-1] if path.exists() else []
    try:
        return [json.loads(line) for line in lines]
    except json.JSONDecodeError as error:
        raise RunError(
            f'{path} has a line that is no JSON ({error.doc[:40]!r}): remove that line'
        ) from None


def rewind_metrics(run: Path, step: int, evaluated: bool = True) -> None:
    """Drop the rows after `step`, and its own evaluation if that is to be made again."""
    if jax.process_index():
        return
    rows = [row for row in metrics_of(run) if row['step'] <= step]
    if not evaluated:
        rows = [row for row in rows if row['step'] < step or 'evaluation' not in row]
    _replace(run / 'metrics.jsonl', ''.join(json.dumps(row) + '\n' for row in rows))


def append_metrics(run: Path, row: dict) -> None:
    """Add one row to metrics.jsonl."""
    if jax.process_index():
        return
    path = run / 'metrics.jsonl'
    with writing(path), open(path, 'a') as file:
        file.write(json.dumps(row) + '\n')


def write_json(path: Path, value: dict) -> None:
    """Write a whole file or nothing."""
    _replace(path, json.dumps(value, indent=2) + '\n')


def _replace(path: Path, text: str) -> None:
    if jax.process_index():
        return
    temporary = path.with_name(f'.{path.name}.{os.getpid()}')
    with writing(path):
        with open(temporary, 'w') as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())  # else a machine that goes away may leave the name without it
        os.replace(temporary, path)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """RunError naming the file where it can not be written, as on a full disk."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f'{path} can not be written ({error.strerror}); start again once it can: the run goes '
            'on from its last checkpoint'
        ) from error


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        remedy = 'give another --workdir'
        if path.name == 'result.json':
            remedy = 'remove it, and start the run again: it tells its end anew'
        raise RunError(f'{path} is no JSON ({error}): {remedy}') from None


def _locked(run: Path) -> dict:
    if not (run / 'config.json').exists():
        seen_from = '' if run.is_absolute() else f' in {Path.cwd()}'
        raise RunError(f'{run} is no run{seen_from}: it has no config.json')
    found = _read(run / 'config.json')
    if not isinstance(found, dict) or not {'config', 'classes', 'data'} <= set(found):
        raise RunError(f'{run} is no run of kd_jax: its config.json is of something else')
    return found


def flat(tree: Any, prefix: str = '') -> dict[str, Any]:
    """Leaves by dotted path, without where a data set's images lie."""
    if not isinstance(tree, dict):
        names_path = prefix.split('.')[-2:-1] == ['teachers']
        names_path |= prefix.endswith('.network.pretrained')
        is_path = names_path and isinstance(tree, str) and tree
        return {prefix: os.path.abspath(tree) if is_path else tree}
    keys = [k for k in tree if not (prefix.split('.')[-1] == 'data' and k in WHERE)]
    parts = (flat(tree[k], f'{prefix}.{k}' if prefix else k) for k in keys)
    return {key: value for part in parts for key, value in part.items()}


def _differences(
    found: dict, wanted: dict, whose: tuple[str, str] = ('in the run', 'now')
) -> list[str]:
    missing = '(absent)'
    pairs = ((k, found.get(k, missing), wanted.get(k, missing)) for k in sorted(found | wanted))
    return [
        f'  {key}: {old!r} {whose[0]}, {new!r} {whose[1]}' for key, old, new in pairs if old != new
    ]
