"""Tables that users write, CSV or Parquet: their columns as text, with errors that name rows."""

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.csv
import pyarrow.parquet

from kd_jax.data.layout import some
from kd_jax.data.records import DataError

WHOLE = re.compile(r'-?\d{1,18}', re.ASCII)  # as many digits as 64 bits hold
ROUND = re.compile(r'(-?\d+)\.0+', re.ASCII)  # a whole number in a column that once lacked some
LIKENESS = 0.75  # from which on a name is taken for a misspelt column


def existing(name: str, needed: Sequence[str]) -> Path:
    """The table a user named; raises DataError if there is none."""
    file = Path(name).expanduser()
    if file.suffix.lower() not in ('.csv', '.parquet') or not file.is_file():
        raise DataError(
            f'{file}: no such file, or none in .csv or .parquet; expected a table with the columns '
            f'{", ".join(needed)}'
        )
    return file


def load(file: Path, columns: Sequence[str], needed: Sequence[str]) -> dict[str, list[str]]:
    """The columns of a table as text without blanks at its ends; '' where there is nothing.

    Other columns are not read. Raises DataError for a table that cannot be read or has no rows,
    and for a column that is missing, there twice or perhaps misspelt.
    """
    names, read_columns = _open(file, needed)
    known = {name.strip(): name for name in names if name.strip() in columns}
    _check_names(file, [name.strip() for name in names], columns, needed)
    found = _guarded(file, needed, lambda: read_columns(list(known.values())))
    if not found.num_rows:
        raise DataError(f'{file}: no rows; expected one for each image')
    table = {column: [''] * found.num_rows for column in columns}
    for column, name in known.items():
        table[column] = [_text(value) for value in found.column(name).to_pylist()]
    return table


def refuse(file: Path, wrong: Iterable[bool], what: str) -> None:
    """Raises DataError naming the rows that are wrong."""
    rows = [row for row, is_wrong in enumerate(wrong, 1) if is_wrong]
    if rows:
        raise DataError(f'{file}: {what}: rows {some(rows)}, from 1 below the heading')


def _open(
    file: Path, needed: Sequence[str]
) -> tuple[list[str], Callable[[list[str]], pyarrow.Table]]:
    """The names of a table's columns, and a function that reads those it is given."""
    if file.suffix.lower() == '.parquet':
        # As one file: read_table would take columns from folders called like `camera=1` as well.
        parquet = _guarded(file, needed, lambda: pyarrow.parquet.ParquetFile(file))
        return parquet.schema_arrow.names, parquet.read
    names = _guarded(file, needed, lambda: _heading(file))

    def read_columns(wanted: list[str]) -> pyarrow.Table:
        # Else the path 007 would lose its zeros, and an identity 1e5 be a number.
        text = dict.fromkeys(wanted, pyarrow.string())
        options = pyarrow.csv.ConvertOptions(column_types=text, include_columns=wanted)
        return pyarrow.csv.read_csv(file, convert_options=options)

    return names, read_columns


def _heading(file: Path) -> list[str]:
    with pyarrow.csv.open_csv(file) as reader:
        return reader.schema.names


def _guarded(file: Path, needed: Sequence[str], action: Callable[[], Any]) -> Any:
    """What an action on a file returns; raises DataError for whatever pyarrow says of the file."""
    try:
        return action()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f'{file}: cannot be read ({error}); expected a table with {", ".join(needed)}'
        ) from error


def _text(value: Any) -> str:
    """A value of any type as text; nothing, and a float that is no number, is ''."""
    if value is None or value != value:
        return ''
    text = str(value).strip()
    whole = ROUND.fullmatch(text)
    return whole[1] if whole else text


def _check_names(
    file: Path, names: list[str], columns: Sequence[str], needed: Sequence[str]
) -> None:
    """Raises DataError for a column that is missing, there twice or perhaps misspelt."""
    twice = [column for column in columns if names.count(column) > 1]
    if twice:
        raise DataError(f'{file}: more than one column {", ".join(twice)}; keep one of each')
    absent = [column for column in columns if column not in names]
    for name in names:
        likely = difflib.get_close_matches(name.lower(), absent, 1, LIKENESS)
        if name not in columns and likely:
            raise DataError(f'{file}: column {name!r}: if it is {likely[0]!r}, call it that')
    if not set(needed) <= set(names):
        lacking = ', '.join(column for column in needed if column not in names)
        raise DataError(f'{file}: no column {lacking}; its columns are {", ".join(names)}')
