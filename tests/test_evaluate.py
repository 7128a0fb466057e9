import jax
import numpy as np
import pytest
import smoke

from kd_jax import (
    checkpoints,
    data,
    embedding,
    evaluate,
    parallel,
    recipes,
    results,
    runs,
    scoring,
    trees,
)
from kd_jax.data import Split
from kd_jax.data.images import Pixels
from kd_jax.data.records import DISTRACTOR, Records, select
from kd_jax.retrieval import items
from kd_jax.runs import RunError

OPTIONS = {'protocol': 'market', 'same_camera': 'drop', 'metric': 'cosine'}
NUMBERS = 'mAP', 'mAP_trapezoid', 'mINP', 'rank-1', 'rank-5', 'rank-10', 'queries'
OPTIONS |= {
    'reranked': None,
    'expanded': None,
    'shots': 1,
    'shots_of': 'identity',
    'frames': 8,
    'batch': 256,
}


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


def test_several_shots_are_of_the_true_identity(dataset):
    """A network that sees who someone is, of any one of several shots, makes no mistake."""
    numbers = {}
    for split in (dataset.query, dataset.gallery):
        for image, pid in zip(split.pixels.array, split.records.pids):
            numbers[image.tobytes()] = int(pid)

    def embedded(variables, images):
        seen = np.array([[numbers[image.tobytes()] for image in shots] for shots in images])
        assert seen.shape[1] == 3
        assert (seen == seen[:, :1]).all()
        return np.eye(600, dtype=np.float32)[seen[:, 1]]

    found = scoring.score(embedded, {}, dataset, parallel.mesh(), **OPTIONS | {'shots': 3})
    assert_found(found, {'mAP': 1, 'mINP': 1, 'rank-1': 1, 'shots': 3})


CHANCE = {'veri_image': 'apart', 'market': 'apart', 'vehicleid': 'pool', 'cuhk03_classic': 'pool'}


@pytest.mark.parametrize('protocol', CHANCE)
def test_shots_show_no_image_on_both_sides(dataset, protocol):
    """Features that know the image and nothing else stay at chance, however many shots."""
    rng, known = np.random.default_rng(0), {}

    def embedded(variables, images):
        names = [
            [known.setdefault(shot.tobytes(), len(known)) for shot in shots] for shots in images
        ]
        return table[np.array(names)].mean(axis=1)

    table = rng.normal(size=(1000, 64)).astype(np.float32)
    pool = CHANCE[protocol] == 'pool'
    shown = dataset._replace(query=dataset.gallery) if pool else dataset
    options = {'protocol': protocol, 'shots': 3, 'same_camera': 'keep' if pool else 'drop'}
    options['shots_of'] = 'image' if pool else 'identity'
    images = {'apart': 24, 'pool': 168}[CHANCE[protocol]]
    found = scoring.score(
        lambda variables, images: embedded(variables, np.asarray(images)),
        {},
        shown,
        parallel.mesh(),
        **OPTIONS | options,
    )
    assert found['queries'] <= images
    assert found['mAP'] < 0.5


def test_shots_on_both_sides_are_refused(dataset):
    """Of a pool, and where the gallery has the queries' files."""
    test = items.together(dataset.query.records, dataset.gallery.records)
    embedding.check_shots(test, 3, 'identity')
    pool = items.together(dataset.gallery.records, dataset.gallery.records)
    gallery = dataset.gallery.records
    twin = select(gallery, np.arange(5))
    twin = twin._replace(paths=np.char.replace(twin.paths, 'gallery/', 'query/'))
    for shared in (pool, items.together(twin, gallery)):
        with pytest.raises(ValueError, match=r'on both sides, .*set evaluate\.shots_of=image'):
            embedding.check_shots(shared, 3, 'identity')
        embedding.check_shots(shared, 3, 'image')
        embedding.check_shots(shared, 1, 'identity')
    with pytest.raises(ValueError, match=r"shots_of='id': choose one of identity, image"):
        embedding.check_shots(test, 1, 'id')


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


def test_a_run_is_scored_at_its_last_or_best_checkpoint(tmp_path):
    smoke.planted(tmp_path)
    config = smoke.config('supervised_carousel')
    found = {which: evaluate.run(tmp_path, config, which) for which in ('last', 'best')}
    assert found['best'] != found['last']
    assert evaluate.run(tmp_path, config) == found['last']


def test_a_run_that_is_none_is_named(tmp_path):
    with pytest.raises(RunError, match=f'{tmp_path} is no run'):
        evaluate.run(tmp_path, smoke.config())


def test_the_command_line(tmp_path):
    """A run as it was scored; its best by another metric; and what is no run."""
    planted = tmp_path / 'planted'
    smoke.planted(planted)
    command = '-m', 'kd_jax.evaluate'
    other = ('--config.evaluate.metric=euclidean', '--checkpoint=best')
    again, changed, none, itself, misspelt = smoke.ended(
        smoke.python(*command, f'--run={smoke.finished()}'),
        smoke.python(*command, '--run', planted, *other),
        smoke.python(*command, f'--run={tmp_path}/nowhere'),
        smoke.python(*command, f'--run={planted}', f'--against={planted}/'),
        smoke.python(*command, f'--run={planted}', '--config.evaluate.rerank.variant=zhong'),
    )
    name, result = smoke.finished().name, smoke.result(smoke.finished())
    table, intervals = again[1].split('\n\n')
    assert (again[0], table) == (0, results.table({name: result['student']}))
    assert intervals.startswith('95 % intervals')

    config = smoke.config('supervised_carousel')
    by_cosine = evaluate.run(planted, config, 'best')
    config.evaluate.metric = 'euclidean'
    by_distance = evaluate.scored_run(planted, config, 'best')
    assert by_cosine['mAP'] != by_distance[0].summary['mAP']
    assert changed[:2] == (0, evaluate.text({'planted': by_distance}) + '\n')

    message = f'kd_jax: {tmp_path}/nowhere is no run: it has no config.json\n'
    assert none == (1, '', message)
    assert misspelt[:2] == (1, '')
    assert misspelt[2].startswith('kd_jax: the config has no such key: ')
    assert itself == (1, '', f'kd_jax: --against={planted} is the run itself: give another\n')


def test_a_run_against_another_of_other_images(tmp_path):
    """By its own images, and all else as the first; both names, intervals, and their difference."""
    smoke.planted(tmp_path / 'planted')
    first, second = smoke.finished(), tmp_path / 'planted'
    config = runs.config_of(first)
    config.evaluate.metric = 'euclidean'
    other = evaluate.against(config, second)
    assert other.evaluate == config.evaluate
    assert other.data == runs.config_of(second).data
    assert other.method.name == 'supervised'
    found = {
        path.name: evaluate.scored_run(path, one)
        for path, one in ((first, config), (second, other))
    }
    assert [one[0].summary['metric'] for one in found.values()] == ['euclidean'] * 2
    table, intervals, difference = evaluate.text(found).split('\n\n')
    for name in found:
        assert name in table
        assert name in intervals
    head, _, mean, interval, p = difference.splitlines()
    assert head == f'{first.name} − planted'
    apart = 100 * (found[first.name][0].summary['mAP'] - found['planted'][0].summary['mAP'])
    assert mean.split()[:2] == ['market', f'{apart:+.1f}']
    assert interval.startswith('  95 % interval')
    assert 0 < float(p.split()[2]) <= 1


def test_both_runs_are_named_apart(tmp_path):
    paths = [tmp_path / 'a' / 'run', tmp_path / 'b' / 'run', tmp_path / 'other']
    assert [evaluate._name(path, paths) for path in paths] == [*map(str, paths[:2]), 'other']
