"""The records of all splits of a prepared data set in one file, records.npz."""

import io
from collections.abc import Mapping

import numpy as np
from etils import epath

from kd_jax.data.records import DataError, Records


def save(
    file: epath.Path, splits: Mapping[str, Records], numbers: Mapping[str, np.ndarray]
) -> None:
    """Writes all columns of all splits, and for each row the number of the example it is in."""
    arrays = {f'{split}/example': column for split, column in numbers.items()}
    for split, records in splits.items():
        arrays |= {f'{split}/{name}': column for name, column in records._asdict().items()}
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    file.write_bytes(out.getvalue())


def load(
    file: epath.Path, examples: Mapping[str, int]
) -> tuple[dict[str, Records], dict[str, np.ndarray]]:
    """The records of each split, and for each row the number of the example it is in.

    `examples` says how many there must be in each split. Raises DataError if there are others,
    and for a file that cannot be read.
    """
    remedy = 'remove the folder and prepare it again'
    try:
        with np.load(io.BytesIO(file.read_bytes())) as arrays:
            columns = dict(arrays)
        names = [key.rpartition('/')[0] for key in columns if key.endswith('/paths')]
        splits = {
            name: Records(*(columns[f'{name}/{field}'] for field in Records._fields))
            for name in names
        }
        numbers = {name: columns[f'{name}/example'] for name in names}
    except Exception as error:  # NumPy raises nearly anything on a file that is not its own
        raise DataError(f'{file}: cannot be read ({error!r}); {remedy}') from error
    if examples != {name: int(column.max()) + 1 for name, column in numbers.items()}:
        raise DataError(f'{file}: does not agree with the files beside it; {remedy}')
    return splits, numbers
