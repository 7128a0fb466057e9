"""Rows of a table, trained for several seeds, resumable row by row, as mean ± std.

A row is a config; a trained row is a run directory, so started again only what is missing is
trained. Results are written after every run.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from kd_jax import command, data, runs, train
from kd_jax.methods import supervised

SEEDS = flags.DEFINE_list('seeds', ['0', '1', '2'], 'Seeds, separated by commas.')
ONLY = flags.DEFINE_list('rows', [], 'Only these rows of the table; all without it.')
WORKDIR = flags.DEFINE_string('workdir', None, 'Where the runs go.', required=True)
CONFIG = config_flags.DEFINE_config_file('config', None, 'The config that the rows change.')

Row = Callable[[ConfigDict], ConfigDict]
Table = dict[str, dict[int, dict]]  # row -> seed -> summary of its student
Paper = dict[str, dict[str, tuple[str, ...]]]  # ranking -> row -> what the paper says


def supervised_of(config: ConfigDict) -> ConfigDict:
    """The same student, data and schedule without distillation, on single images."""
    plain = config.copy_and_resolve_references()
    kept = set(config.method) & {'feature', *supervised.Objective._fields}
    objective = {key: config.method[key] for key in kept}
    plain.method = ConfigDict({'name': 'supervised', 'reads': 'singles', **objective})
    plain.teachers = {}
    if 'stacked' in plain:
        plain.stacked = False
    return plain


def taught_by(row: str, config: ConfigDict, workdir: Path) -> ConfigDict:
    """The config with the network of another row, of the same seed, as its teacher."""
    config.teachers = {'teacher': str(run_of(row, config.seed, workdir))}
    return config


def run_of(row: str, seed: int, workdir: Path) -> Path:
    """Where a row is trained."""
    return workdir / f'seed{seed}' / slug(row)


def run(rows: dict[str, Row], workdir: Path, dataset: data.Dataset | None = None) -> Table:
    """Train every row for every seed; the table of what was found.

    UsageError, before anything is trained, for --rows and --seeds that can not be.
    """
    rows, seeds = chosen(rows), numbers(SEEDS, 0)
    found: Table = {name: {} for name in rows}
    dataset = dataset or data.load(**CONFIG.value.data)
    for seed in seeds:
        for name, row in rows.items():
            config = CONFIG.value.copy_and_resolve_references()
            config.seed = seed
            for teacher in config.teachers.values():
                teacher.seed = seed
            found[name][seed] = trained(row(config), run_of(name, seed, workdir), dataset)
            write(found, workdir)
    return found


def chosen(rows: dict[str, Row]) -> dict[str, Row]:
    """The rows that --rows names, all without it; UsageError naming the rows there are."""
    unknown = set(ONLY.value) - set(rows)
    if unknown:
        raise app.UsageError(f'--rows: no {sorted(unknown)}; the rows are {", ".join(rows)}')
    return {name: rows[name] for name in rows if not ONLY.value or name in ONLY.value}


def numbers(flag: flags.FlagHolder, least: int) -> list[int]:
    """The whole numbers of a flag, each once; UsageError for none, or one below `least`."""
    try:
        found = list(dict.fromkeys(map(int, flag.value)))
    except ValueError:
        found = []
    if not found or min(found) < least:
        given = ','.join(flag.value)
        raise app.UsageError(f'--{flag.name}={given}: whole numbers from {least}, with commas')
    return found


def trained(config: ConfigDict, path: Path, dataset: data.Dataset) -> dict:
    """The summary of a row's student; trains it if it is not finished."""
    logging.info('row %s', path)
    started = time.perf_counter()
    was = runs.result_of(path)
    found = train.run(config, path, dataset)['student']
    if was is None:
        found['seconds'] = round(time.perf_counter() - started, 1)
        jax.clear_caches()
    return found


def slug(name: str) -> str:
    """A row's name as the name of its directory."""
    return ''.join(c if c.isalnum() else '_' for c in name.lower()).strip('_')


def write(found: Table, workdir: Path) -> None:
    """Keep what was found until now, beside rows and seeds that were found before.

    `seconds` stay: only the start that trained a row can tell them.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir / 'table.json'
    kept = json.loads(path.read_text()) if path.exists() else {}
    for name, seeds in found.items():
        row = kept.setdefault(name, {})
        for seed, summary in seeds.items():
            before = row.get(str(seed), {})
            row[str(seed)] = {key: before[key] for key in {'seconds'} & set(before)} | summary
    runs.write_json(path, kept)


def text(found: Table, baselines: tuple[str, ...], heading: str, paper: Paper) -> str:
    """A Markdown table for each ranking: mean ± std over seeds, and paired gains in mAP.

    `paper` has what the paper gives for each row by ranking, or by 'any'; `heading` says of what.
    """
    tables = [of_ranking(ranked, baselines, heading, paper) for ranked in rankings(found)]
    return '\n\n'.join(tables)


def rankings(found: Table) -> list[Table]:
    """A table for each ranking that the protocols made, in their order."""
    several = {
        name: {seed: [summary, *summary['also']] for seed, summary in seeds.items()}
        for name, seeds in found.items()
    }
    count = min(len(ranked) for seeds in several.values() for ranked in seeds.values())
    return [
        {
            name: {seed: ranked[k] for seed, ranked in seeds.items()}
            for name, seeds in several.items()
        }
        for k in range(count)
    ]


def of_ranking(found: Table, baselines: tuple[str, ...], heading: str, paper: Paper) -> str:
    """The Markdown table of one ranking, which is named in its head."""
    protocol = next(summary['protocol'] for seeds in found.values() for summary in seeds.values())
    told = next((paper[word] for word in (*protocol.split(), 'any') if word in paper), {})
    gains = [f'mAP − {name}, paired' for name in baselines]
    head = [protocol, 'seeds', 'mAP', 'rank-1', *gains, *[f'paper: {heading}'] * bool(told)]
    lines = ['| ' + ' | '.join(head) + ' |', '|' + '---|' * len(head)]
    for name, seeds in found.items():
        columns = [quoted(s) for s in seeds.values()], [s['rank-1'] for s in seeds.values()]
        cells = [name, str(len(seeds)), *map(spread, columns)]
        cells += [gain(seeds, found.get(base, {})) if base != name else '' for base in baselines]
        cells += [' / '.join(told.get(name, ('–',)))] * bool(told)
        lines.append('| ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def quoted(summary: dict) -> float:
    """The average precision that the protocol's tables quote."""
    return summary[summary['quoted']]


def spread(values: list[float], signed: bool = False) -> str:
    """Percent, mean ± sample std."""
    values = 100 * np.array(values)
    std = f' ± {values.std(ddof=1):.1f}' if len(values) > 1 else ''
    return f'{values.mean():{"+" if signed else ""}.1f}{std}'


def gain(seeds: dict[int, dict], baseline: dict[int, dict]) -> str:
    """The gain over the baseline of the same seed."""
    both = [seed for seed in seeds if seed in baseline]
    pairs = [quoted(seeds[seed]) - quoted(baseline[seed]) for seed in both]
    return spread(pairs, signed=True) if pairs else '–'


def start(application: Callable[[list], None]) -> None:
    """Run an experiment as the command line does."""
    flags.mark_flag_as_required('config')
    command.start(application)
