import jax
import numpy as np
import pytest
import smoke

from kd_jax import checkpoints, data, embed, evaluate, parallel, recipes, results, trees
from kd_jax.data import Split
from kd_jax.data.images import Pixels
from kd_jax.data.records import DISTRACTOR, Records
from kd_jax.runs import RunError

OPTIONS = {'protocol': 'market', 'same_camera': 'drop', 'metric': 'cosine'}
OPTIONS |= {'shots': 1, 'frames': 8, 'batch': 256}


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
    embedders = {count: embed.embedder(method, mesh) for count, mesh in meshes.items()}

    def score(devices=4, dataset=dataset, **options):
        mesh = meshes[devices]
        placed = parallel.replicate(variables, mesh)
        return evaluate.score(embedders[devices], placed, dataset, mesh, **OPTIONS | options)

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

    found = evaluate.score(embedded, {}, dataset, parallel.mesh(), **OPTIONS | {'shots': 3})
    assert_found(found, {'mAP': 1, 'mINP': 1, 'rank-1': 1, 'shots': 3})


def test_a_camera_may_answer_for_itself_if_told(score):
    assert score(same_camera='keep')['mAP'] != score()['mAP']


ROW = {'mAP': 0.5, 'mINP': 0.25, 'rank-1': 0.125, 'rank-5': 1.0, 'rank-10': 0.0625}
ROW |= {'mAP_trapezoid': 0.75, 'valid_queries': 23, 'queries': 24, 'shots': 1}
ROW |= {'protocol': 'market', 'quoted': 'mAP', 'also': []}


def test_a_table_has_a_row_for_every_network():
    head, first, second = results.table({'a': ROW, 'b': ROW | {'mAP': 1.0}}).splitlines()
    columns = ['protocol', 'mAP', 'mINP', 'rank-1', 'rank-5', 'rank-10', 'valid', 'queries']
    assert head.split() == columns
    assert first.split() == ['a', 'market', '50.0', '25.0', '12.5', '100.0', '6.2', '23/24']
    assert second.split() == ['b', 'market', '100.0', '25.0', '12.5', '100.0', '6.2', '23/24']
    assert 'upper bound' not in results.table({'a': ROW})


def test_a_table_marks_several_shots_as_an_upper_bound():
    lines = results.table({'teacher': ROW | {'shots': 4}, 'student': ROW}).splitlines()
    assert lines[1].startswith('teacher (4 shots*) ')
    assert lines[2].startswith('student ')
    assert '*' not in lines[2]
    assert lines[3].startswith('*')
    assert 'true identity' in lines[3]
    assert lines[3].endswith('an upper bound')


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
    again, changed, none = smoke.ended(
        smoke.python(*command, f'--run={smoke.finished()}'),
        smoke.python(*command, '--run', planted, *other),
        smoke.python(*command, f'--run={tmp_path}/nowhere'),
    )
    name, result = smoke.finished().name, smoke.result(smoke.finished())
    assert again[:2] == (0, results.table({name: result['student']}) + '\n')

    config = smoke.config('supervised_carousel')
    by_cosine = evaluate.run(planted, config, 'best')
    config.evaluate.metric = 'euclidean'
    by_distance = evaluate.run(planted, config, 'best')
    assert by_cosine != by_distance
    assert changed[:2] == (0, results.table({'planted': by_distance}) + '\n')

    message = f'kd_jax: {tmp_path}/nowhere is no run: it has no config.json\n'
    assert none == (1, '', message)
