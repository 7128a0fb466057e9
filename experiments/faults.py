"""Kills a run at random moments, starts it again, and compares its end with an unharmed run's.

    python -m experiments.faults --kills=100 [--config=…] [--workdir=…] [--jobs=2] [--seed=0]
        [--config.train.epochs=8]

Every kill is of a run of its own, by SIGKILL, after a share of the unharmed run's time that is
drawn evenly, and drawn again where the run had ended. As starting and compiling take most of a
smoke run, more epochs have more of the kills come while it trains. The ends are compared bit by
bit: metrics.jsonl, result.json, and every array of all checkpoints, of the student and of its
teachers. Started again, it goes on with the kills that are missing; what differed is left in the
work directory.
"""

import argparse
import concurrent.futures
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from kd_jax import runs

WHOLE = 'unharmed'
FOUND = 'faults.jsonl'


def command(config: list[str], run: Path) -> list[str]:
    """What a user types."""
    return [sys.executable, '-m', 'kd_jax.main', *config, f'--workdir={run}']


def train(config: list[str], run: Path, seconds: float | None = None) -> int:
    """Run the command, killed after some seconds if any; its exit code."""
    with open(run.with_suffix('.log'), 'a') as log:
        process = subprocess.Popen(command(config, run), stdout=log, stderr=log)
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def stage(run: Path) -> str:
    """How far a killed run had come."""
    networks = [*sorted(run.glob('teachers/*')), run]
    for network in networks:
        if runs.result_of(network) is None and network.exists():
            rows = runs.metrics_of(network)
            name = 'student' if network == run else network.name
            return f'{name} after step {rows[-1]["step"]}' if rows else f'{name} before its steps'
    return 'at its end' if run.exists() else 'before it began'


def contents(run: Path) -> dict[str, Any]:
    """All that a run and its teachers end with, by name."""
    found = {}
    for path in sorted(run.rglob('*')):
        name = str(path.relative_to(run))
        if path.name in ('metrics.jsonl', 'result.json', 'config.json'):
            found[name] = path.read_bytes()
    with ocp.StandardCheckpointer() as reader:
        for path in sorted(run.rglob('checkpoints/*/*')):
            if path.name in ('student', 'training'):
                leaves = jax.tree_util.tree_leaves_with_path(reader.restore(path))
                arrays = {jax.tree_util.keystr(key): np.asarray(leaf) for key, leaf in leaves}
                found[str(path.relative_to(run))] = arrays
    return found


def differences(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """The names of what is not the same, bit by bit."""
    return [
        name
        for name in sorted(found | wanted)
        if name not in found or name not in wanted or not same(found[name], wanted[name])
    ]


def same(one: Any, other: Any) -> bool:
    """Whether two files, or the arrays of two items, are the same."""
    if isinstance(one, bytes):
        return one == other
    return one.keys() == other.keys() and all(
        one[key].dtype == other[key].dtype and one[key].tobytes() == other[key].tobytes()
        for key in one
    )


def kill(number: int, config: list[str], home: Path, seconds: float, seed: int) -> dict[str, Any]:
    """Kill one run within some seconds, and go on with it to its end."""
    run, rng, code = home / f'kill{number}', random.Random(f'{seed} {number}'), 0
    while code == 0:  # it had ended
        shutil.rmtree(run, ignore_errors=True)
        moment = rng.uniform(0, seconds)
        code = train(config, run, moment)
    where = stage(run)
    ended = train(config, run) if code == -signal.SIGKILL else code
    return {'kill': number, 'seconds': round(moment, 2), 'where': where, 'code': ended}


def compared(row: dict[str, Any], home: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """The row of a kill with what differs in its end; a run that is the same is deleted."""
    run = home / f'kill{row["kill"]}'
    wrong = differences(contents(run), wanted) if row['code'] == 0 else [f'exit {row["code"]}']
    if not wrong:
        shutil.rmtree(run)
        run.with_suffix('.log').unlink()
    return {**row, 'differs': wrong}


def report(rows: list[dict[str, Any]]) -> str:
    """How many ended alike, and where they were killed."""
    alike = sum(not row['differs'] for row in rows)
    lines = [f'{alike} of {len(rows)} killed runs ended bit by bit as the unharmed one']
    lines += [f'{row["where"]}: {row["differs"]}' for row in rows if row['differs']]
    lines += ['', '| killed | runs |', '|---|---|']
    places = Counter(row['where'] for row in rows)
    return '\n'.join(lines + [f'| {place} | {count} |' for place, count in sorted(places.items())])


def main() -> None:
    """Print how the killed runs ended; exit code 1 if one ended otherwise."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--kills', type=int, default=100)
    parser.add_argument('--config', default='configs/umts_carousel.py:smoke')
    parser.add_argument('--workdir', type=Path, default=Path('runs/faults'))
    parser.add_argument('--jobs', type=int, default=2, help='runs at a time')
    parser.add_argument('--seed', type=int, default=0)
    given, more = parser.parse_known_args()
    if unknown := [one for one in more if not one.startswith('--config.')]:
        parser.error(f'{" ".join(unknown)}: only --config.KEY=VALUE may follow')
    home, config = given.workdir, [f'--config={given.config}', *more]
    home.mkdir(parents=True, exist_ok=True)
    seconds = unharmed(config, home, given.jobs)
    wanted = contents(home / WHOLE)
    rows = runs.rows_of(home / FOUND)
    (home / FOUND).write_text(''.join(json.dumps(row) + '\n' for row in rows))  # none cut off
    missing = sorted(set(range(given.kills)) - {row['kill'] for row in rows})
    with concurrent.futures.ThreadPoolExecutor(given.jobs) as pool:
        tried = [pool.submit(kill, n, config, home, seconds, given.seed) for n in missing]
        for done in concurrent.futures.as_completed(tried):
            rows.append(compared(done.result(), home, wanted))
            with open(home / FOUND, 'a') as file:
                file.write(json.dumps(rows[-1]) + '\n')
            print(f'{len(rows)} of {given.kills}: {rows[-1]}', flush=True)
    print(report(rows))
    sys.exit(any(row['differs'] for row in rows))


def unharmed(config: list[str], home: Path, jobs: int) -> float:
    """Train the run that is not killed, if it is not there; the seconds that it takes.

    The first compiles; those that are timed run as many at a time as will be killed.
    """
    took = home / 'unharmed.json'
    if not took.exists():
        names = [WHOLE, *(f'beside{number}' for number in range(1, jobs))]
        for together in (['compiled'], names):
            for name in together:
                shutil.rmtree(home / name, ignore_errors=True)
            began = time.perf_counter()
            with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
                codes = pool.map(lambda name: train(config, home / name), together)
            for name, code in zip(together, codes):
                if code:
                    sys.exit(f'the unharmed run failed: see {(home / name).with_suffix(".log")}')
        runs.write_json(took, {'config': config, 'seconds': time.perf_counter() - began})
    found = json.loads(took.read_text())
    if found['config'] != config:
        sys.exit(f'{home} has runs of {" ".join(found["config"])}: give another --workdir')
    return found['seconds']


if __name__ == '__main__':
    main()
