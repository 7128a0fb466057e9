"""Thresholds of a labelled file of embeddings, for given false-match rates."""

import jax
import numpy as np

from kd_jax.data.listing import DISTRACTOR, JUNK, UNKNOWN
from kd_jax.data.records import DataError
from kd_jax.embeddings import Embeddings
from kd_jax.retrieval import pairs, thresholds
from kd_jax.retrieval.thresholds import Labelled, Threshold


def calibrated(gallery: Embeddings, rates: list[str], metric: str) -> list[Threshold]:
    """Thresholds of a labelled file; DataError where it has no identities.

    ValueError for a rate that is no number, or none of `thresholds.thresholds`.
    """
    shares = [_rate(text) for text in rates]
    identities, cameras = (
        np.array(gallery.images.column(name).to_pylist(), str) for name in ('identity', 'camera')
    )
    known = ~np.isin(identities, ('', JUNK))
    if not known.any():
        raise DataError(
            f'{gallery.file} has no identities: embed a table with a column identity, or give '
            'kd_jax.embed --names=market'
        )
    numbers = np.unique(identities[known], return_inverse=True)[1]
    places = np.unique(cameras[known], return_inverse=True)[1]
    places[np.isin(cameras[known], ('', UNKNOWN))] = pairs.UNKNOWN
    vectors, nobody = gallery.vectors()[known], identities[known] == DISTRACTOR
    images = Labelled(vectors, numbers, places, nobody)
    return thresholds.thresholds(images, shares, metric=metric, devices=jax.local_devices())


def _rate(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f'--calibrate={text}: give false-match rates, e.g. 0.001') from None


def table(found: list[Threshold], metric: str) -> str:
    """A table with a line for every rate."""
    lines = [
        f'two images match where their {metric} distance is below the threshold',
        f'{"false-match rate":>18}{"threshold":>14}{"false matches":>26}{"true matches":>26}',
    ]
    for one in found:
        false = f'{one.false_matches:,} of {one.different:,}'
        true = f'{one.true_matches:,} of {one.same:,}'
        share = f' ({one.true_matches / one.same:.1%})' if one.same else ''
        lines.append(f'{one.rate:>18g}{one.distance:>14.9g}{false:>26}{true + share:>26}')
    return '\n'.join(lines)
