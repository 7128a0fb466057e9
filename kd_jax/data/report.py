"""What is found out about a data set, as text: tables of its splits, queries and images."""

import re
import textwrap
from collections.abc import Mapping, Sequence

from kd_jax.data import findings
from kd_jax.data.findings import Queries
from kd_jax.data.records import DISTRACTOR, Counts, Records, Source, counts

LISTED = 20  # unreadable images that are named
WIDTH = 100  # letters of a line of a message
FIRST, GAP = 24, 3  # letters of the first column, and between columns
MARK = '!'


def of_splits(source: Source) -> str:
    """A table of images, identities, cameras and tracklets, with those that are published."""
    rows = []
    for name, split in source.splits().items():
        found, wanted = counts(split), source.expected.get(name, Counts())
        marks = [MARK if number and here != number else ' ' for here, number in zip(found, wanted)]
        distractors = int((split.pids == DISTRACTOR).sum())
        cells = [f'{here:,}{mark}' for here, mark in zip(found, marks)]
        rows.append([name, *cells, f'{distractors:,} '])
        if any(wanted):
            rows.append(['  published', *(f'{number:,} ' if number else '- ' for number in wanted)])
    return table(['splits', *(f'{head} ' for head in (*Counts._fields, 'distractors'))], rows)


def of_shares(source: Source) -> str:
    """A table of the images that an identity has in each split, and a tracklet if several."""
    head = ['min', 'median', 'max']
    parts = {'identity': ('pids', DISTRACTOR), 'tracklet': ('tracklets', -1)}
    tables = []
    for what, (column, none) in parts.items():
        spreads = {
            name: findings.images_per(getattr(split, column), none)
            for name, split in source.splits().items()
        }
        rows = [[name, *(f'{x:,g}' for x in spread)] for name, spread in spreads.items() if spread]
        if what == 'identity' or any(spread and spread.most > 1 for spread in spreads.values()):
            tables.append(table([f'images per {what}', *head], rows))
    return '\n\n'.join(tables)


def of_identities(train: Records, *few: int) -> str:
    """A table of training identities with little to show."""
    found = findings.identities(train, *few)
    rows = [[f'fewer than {count} images', number] for count, number in found.fewer.items()]
    rows += [['one image only', found.one_image], ['one camera only', found.one_camera]]
    cells = [[what, f'{n:,}', f'{n / max(found.all, 1):.1%}'] for what, n in rows]
    return table(['training identities', f'{found.all:,}', ''], cells)


def of_queries(results: Mapping[str, Queries]) -> str:
    """A table of queries without a match and why, a row a result."""
    rows = [
        [name, *(f'{number:,}' for number in (found.all, found.valid, found.absent, found.junk))]
        for name, found in results.items()
    ]
    head = ['queries', 'all', 'with a match', 'not in the gallery', 'only junk']
    note = 'junk, by the protocol: of the query’s own camera, near frames of it, or itself'
    return f'{table(head, rows)}\n({note})'


def of_images(source: Source, bad: Mapping[str, str] | None) -> str:
    """How many images were decoded, and the first that could not be, with their causes.

    None for `bad` is not tried.
    """
    if bad is None:
        return 'images not decoded'
    count = len({path for split in source.splits().values() for path in split.paths.tolist()})
    cells = ['all splits', f'{count - len(bad):,}', f'{len(bad):,}']
    lines = [table(['images', 'decoded', 'unreadable'], [cells])]
    # Pillow may name the file once more.
    causes = {p: re.sub(rf":? '[^']*{re.escape(p)}'", '', cause) for p, cause in bad.items()}
    lines += [f'  {path}: {cause}' for path, cause in list(causes.items())[:LISTED]]
    rest = len(bad) - LISTED
    return '\n'.join(lines + [f'  and {rest:,} more'] * (rest > 0))


def listed(what: str, messages: Sequence[str]) -> str:
    """Different messages under a heading, or that there are none."""
    if not messages:
        return f'no {what}'
    messages = list(dict.fromkeys(messages))
    wrap = textwrap.TextWrapper(WIDTH, initial_indent='  - ', subsequent_indent='    ')
    wrap.break_long_words = wrap.break_on_hyphens = False
    return '\n'.join([f'{what} ({len(messages)})', *map(wrap.fill, messages)])


def spoiled(bad: Mapping[str, str]) -> list[str]:
    """The problem of images that cannot be read, if there are."""
    remedy = 'replace them, or leave them out: --config.data.on_bad_image=skip'
    words = f'{len(bad):,} images cannot be read, and training would stop at the first; {remedy}'
    return [words] if bad else []


def unpublished(source: Source) -> list[str]:
    """A warning if a split has other counts than are published."""
    pairs = [(counts(split), source.expected.get(name)) for name, split in source.splits().items()]
    other = any(n and n != here for found, wanted in pairs for here, n in zip(found, wanted or ()))
    words = (
        f'counts marked {MARK} are not those published: is the data set whole, and this release?'
    )
    return [words] if other else []


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of cells, the first to the left and the others to the right."""
    cells = [row + [''] * (len(head) - len(row)) for row in map(list, [head, *rows])]
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = [
        row[0].ljust(max(widths[0], FIRST))
        + ''.join(c.rjust(w + GAP) for c, w in zip(row[1:], widths[1:]))
        for row in cells
    ]
    return '\n'.join(line.rstrip() for line in lines)
