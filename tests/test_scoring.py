"""kd_jax.scoring: a student of a smoke run is scored as by hand, however it is batched."""

import jax
import numpy as np
import pytest
import smoke

from kd_jax import checkpoints, data, embedding, evaluate, parallel, recipes, scoring, trees
from kd_jax.data import Split
from kd_jax.data.images import Pixels
from kd_jax.data.records import DISTRACTOR, Records, select

OPTIONS = {'protocol': 'market', 'same_camera': 'drop', 'metric': 'cosine', 'frames': 8}
OPTIONS |= {'reranked': None, 'expanded': None, 'shots': 1, 'shots_of': 'identity', 'batch': 256}


NUMBERS = 'mAP', 'mAP_trapezoid', 'mINP', 'rank-1', 'rank-5', 'rank-10', 'queries'


@pytest.fixture(scope='module')
def dataset():
    return data.load(**smoke.config().data)


@pytest.fixture(scope='module')
def restored():
    return checkpoints.restore_network(smoke.finished())


@pytest.fixture(scope='module')
def score(restored, dataset):
    """score(devices, dataset, **options) of the student of the smoke run."""
    method = recipes.method(restored.config, restored.network, evaluate.placeholders(restored))
    variables = trees.join(student=restored.variables)
    meshes = {count: parallel.mesh(jax.devices()[:count]) for count in (1, 4)}
    embedders = {count: embedding.embedder(method, mesh) for count, mesh in meshes.items()}

    def score(devices=4, dataset=dataset, **options):
        mesh = meshes[devices]
        placed = parallel.replicate(variables, mesh)
        return scoring.score(embedders[devices], placed, dataset, mesh, **OPTIONS | options)

    return score


def embeddings(restored, split):
    """The pooled features of a split, without sharding, batches or a method."""
    rows = np.arange(len(split.records.pids))
    images = split.pixels.read(rows).astype(np.float32) / 255
    images = (images - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    outputs = jax.jit(restored.network.apply)(restored.variables, images.astype(np.float32))
    return np.asarray(outputs.embedding, np.float64)


def ranked_by_hand(query, gallery, dataset, metric):
    """mAP, mINP and rank-k with one loop over queries and one over the ranked gallery."""
    columns = dataset.query.records, dataset.gallery.records
    precisions, penalties, firsts = [], [], []
    for vector, pid, camera in zip(query, columns[0].pids, columns[0].cameras):
        if metric == 'cosine':
            norms = np.linalg.norm(gallery, axis=1) * np.linalg.norm(vector)
            distances = 1 - gallery @ vector / norms
        else:
            distances = np.linalg.norm(gallery - vector, axis=1)
        rank, hits = 0, []
        for item in np.argsort(distances, kind='stable'):
            same = columns[1].pids[item] == pid
            if same and columns[1].cameras[item] == camera:
                continue
            rank += 1
            if same:
                hits.append(rank)
        precisions.append(np.mean([(k + 1) / rank for k, rank in enumerate(hits)]))
        penalties.append(len(hits) / hits[-1])
        firsts.append(hits[0])
    ranks = {f'rank-{k}': np.mean([first <= k for first in firsts]) for k in (1, 5, 10)}
    return {'mAP': np.mean(precisions), 'mINP': np.mean(penalties), **ranks}


def assert_found(found, expected):
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize('metric', ['cosine', 'euclidean'])
def test_scores_are_those_of_a_ranking_by_hand(score, restored, dataset, metric):
    splits = (dataset.query, dataset.gallery)
    vectors = [embeddings(restored, split) for split in splits]
    found = score(metric=metric)
    assert_found(found, ranked_by_hand(*vectors, dataset, metric))
    assert (found['queries'], found['valid_queries'], found['shots']) == (24, 24, 1)


def test_the_padding_of_the_last_batch_does_not_matter(score):
    """24 queries and 168 gallery images: 11 divides neither, 256 is more than both."""
    whole = score(devices=1, batch=256)
    assert score(devices=1, batch=11) == whole
    assert score(devices=1, batch=24) == whole
    assert score(devices=4, batch=11) == whole
    assert score(devices=4, batch=1) == whole


def test_four_devices_find_what_one_finds(score):
    assert score(devices=4) == score(devices=1)


def test_the_block_of_queries_does_not_matter(score):
    assert score(block=5) == score()


def with_distractors(dataset, copies_of):
    """The data set with the images of a split in the gallery, as of nobody."""
    split = dataset.gallery
    columns = [np.concatenate(pair) for pair in zip(split.records, copies_of.records)]
    records = Records(*columns)
    records.pids[len(split.records.pids) :] = DISTRACTOR
    array = np.concatenate([split.pixels.array, copies_of.pixels.array])
    return dataset._replace(gallery=Split(records, Pixels(lambda rows: array[rows], array)))


def test_distractors_are_wrong_answers(score, restored, dataset):
    """Each query itself, under nobody's name, is nearer than every true match."""
    harder = with_distractors(dataset, dataset.query)
    found = score(dataset=harder)
    assert found['rank-1'] == 0
    assert found['mAP'] < score()['mAP']
    assert (found['queries'], found['valid_queries']) == (24, 24)
    vectors = [embeddings(restored, split) for split in (harder.query, harder.gallery)]
    assert_found(found, ranked_by_hand(*vectors, harder, 'cosine'))


def test_a_camera_may_answer_for_itself_if_told(score):
    assert score(same_camera='keep')['mAP'] != score()['mAP']


def test_every_test_set_is_ranked_by_every_protocol(score, dataset):
    """The first of them stands alone, the others beside it."""
    small = Split(select(dataset.query.records, np.arange(6)), dataset.query.pixels)
    larger = dataset._replace(test='all', more={'few': (small, dataset.gallery)})
    found = score(dataset=larger, protocol='market,i2v,v2v')
    rows = [found, *found['also']]
    assert [row['protocol'] for row in rows] == [
        'market all',
        'i2v all',
        'v2v all',
        'market few',
        'i2v few',
        'v2v few',
    ]
    assert [row['queries'] for row in rows] == [24] * 3 + [6] * 3
    assert [row['quoted'] for row in rows] == ['mAP', 'mAP_trapezoid', 'mAP_trapezoid'] * 2
    alone = score()
    assert {name: found[name] for name in NUMBERS} == {name: alone[name] for name in NUMBERS}
    assert 'mAP_std' not in found


def test_a_pool_is_drawn_from(score, dataset):
    pool = dataset._replace(query=dataset.gallery)
    found = score(dataset=pool, protocol='vehicleid', same_camera='keep')
    identities = len(np.unique(dataset.gallery.records.pids))
    assert found['queries'] == len(dataset.gallery.records.pids) - identities
    assert found['rank-1_std'] > 0
    classic = score(dataset=pool, protocol='cuhk03_classic')
    assert classic['queries'] == len(dataset.gallery.records.pids)
    assert classic['mAP_std'] == pytest.approx(0, abs=1e-12)


def test_a_tracklet_is_the_mean_of_its_frames(restored, score, dataset):
    """Ranked by hand, from the embeddings of single images."""
    vectors = [embeddings(restored, split) for split in (dataset.query, dataset.gallery)]
    records = dataset.gallery.records
    tracklets = list(dict.fromkeys(records.tracklets.tolist()))
    members = [np.flatnonzero(records.tracklets == number) for number in tracklets]
    assert {len(rows) for rows in members} == {3, 4}
    # Three chunks: of three frames each one, of four 0-1, 2-3, and the last for want of more.
    chosen = [rows if len(rows) == 3 else rows[[0, 2, 3]] for rows in members]
    means = np.stack([vectors[1][rows].mean(axis=0) for rows in chosen])
    shown = select(records, np.array([rows[0] for rows in members]))
    by_hand = dataset._replace(gallery=Split(shown, dataset.gallery.pixels))
    expected = ranked_by_hand(vectors[0], means, by_hand, 'cosine')
    assert_found(score(protocol='i2v', frames=3), expected)


def test_cosine_is_told_beside_another_metric(score):
    assert score(metric='euclidean')['mAP_cosine'] == score()['mAP']
    reranked = {'variant': 'zhong', 'k1': 5, 'k2': 2, 'weight': 0.3}
    for options in ({}, {'metric': 'euclidean', 'reranked': reranked}):
        assert 'mAP_cosine' not in score(**options)
