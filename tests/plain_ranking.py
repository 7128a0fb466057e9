"""Ranking by loops, one query and one hit at a time, and labels and features to rank."""

import numpy as np

from kd_jax.retrieval import ranking

FIELDS = ranking.Ranking._fields


def plain_scores(order, relevant):
    """Scores of one query from its sorted relevances, by the definitions, one hit at a time."""
    hits, precisions, trapezoids, ranks = 0, [], [], []
    for place, hit in enumerate(relevant[order], start=1):
        if hit:
            before = hits / (place - 1) if place > 1 else 1.0
            hits += 1
            precisions.append(hits / place)
            trapezoids.append((before + hits / place) / 2)
            ranks.append(place)
    return ranks, precisions, trapezoids


def plain_ranking(distances, query_ids, gallery_ids, query_cameras, gallery_cameras, drop=True):
    """The evaluation of one query after the other, with a stable sort and loops."""
    rows = []
    for query in range(len(distances)):
        stay, relevant = [], np.zeros(len(gallery_ids), bool)
        for item in np.argsort(distances[query], kind='stable'):
            same_camera = query_cameras[query] == gallery_cameras[item] != -1
            same_id = query_ids[query] == gallery_ids[item]
            if gallery_ids[item] == -1 or (drop and same_id and same_camera):
                continue
            stay.append(item)
            relevant[item] = same_id
        ranks, precisions, trapezoids = plain_scores(np.array(stay, int), relevant)
        if ranks:
            means = np.mean(precisions), np.mean(trapezoids), len(ranks) / ranks[-1]
            rows.append((ranks[0], *means, True))
        else:
            rows.append((0, np.nan, np.nan, np.nan, False))
    return ranking.Ranking(*map(np.array, zip(*rows)), gallery_size=len(gallery_ids))


def assert_same(actual, expected, atol=1e-12):
    for field in FIELDS:
        np.testing.assert_allclose(
            getattr(actual, field), getattr(expected, field), rtol=0, atol=atol, err_msg=field
        )


def random_labels(rng, queries, gallery, ids=9, cameras=3):
    """Labels with junk and distractors in the gallery and unknown cameras on both sides."""
    return (
        rng.integers(1, ids, queries),
        rng.integers(-1, ids, gallery),
        rng.integers(-1, cameras, queries),
        rng.integers(-1, cameras, gallery),
    )


def cosine_distances(query, gallery):
    query, gallery = (np.asarray(x, np.float64) for x in (query, gallery))
    out = np.zeros((len(query), len(gallery)))
    for i, x in enumerate(query):
        for j, y in enumerate(gallery):
            lengths = np.sqrt((x * x).sum()) * np.sqrt((y * y).sum())
            out[i, j] = 1 - (x * y).sum() / lengths if lengths else 1
    return out


def euclidean_distances(query, gallery):
    query, gallery = (np.asarray(x, np.float64) for x in (query, gallery))
    return np.array([[np.sqrt(((x - y) ** 2).sum()) for y in gallery] for x in query])


DISTANCES = {'cosine': cosine_distances, 'euclidean': euclidean_distances}


def clustered(rng, ids, features, spread=1.0):
    centres = np.random.default_rng(99).normal(size=(ids.max() + 2, features))
    return (centres[ids] + spread * rng.normal(size=(len(ids), features))).astype(np.float32)
