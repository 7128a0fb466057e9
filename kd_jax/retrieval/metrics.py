"""Metrics: features such that one product orders the gallery as the distance does."""

import numpy as np
from jaxtyping import Float, Float32


def cosine(query: Float[np.ndarray, 'q d'], gallery: Float[np.ndarray, 'g d']):
    """Features and offsets such that `offsets - query . gallery` is in the order of distance."""
    return _unit(query), _unit(gallery), np.zeros(len(gallery), np.float32)


def _unit(features: Float[np.ndarray, 'n d']) -> Float32[np.ndarray, 'n d']:
    largest = np.abs(features).max(axis=1, keepdims=True)  # so that no square over- or underflows
    features = features / np.where(largest > 0, largest, 1)
    norm = np.linalg.norm(features, axis=1, keepdims=True)  # at least 1, or 0 for a zero vector
    return (features / np.maximum(norm, 1)).astype(np.float32)


def euclidean(query: Float[np.ndarray, 'q d'], gallery: Float[np.ndarray, 'g d']):
    """|q - g|^2 orders as |g|^2 / 2 - q . g, which loses least about the middle of the gallery."""
    _, exponent = np.frexp(max(np.abs(query).max(), np.abs(gallery).max()))
    query, gallery = np.ldexp(query, -exponent), np.ldexp(gallery, -exponent)  # squares stay finite
    centre = gallery.mean(axis=0, dtype=np.float64).astype(gallery.dtype)
    query, gallery = (query - centre).astype(np.float32), (gallery - centre).astype(np.float32)
    offsets = np.einsum('gd,gd->g', gallery, gallery, dtype=np.float64) / 2
    return query, gallery, offsets.astype(np.float32)


METRICS = {'cosine': cosine, 'euclidean': euclidean}
