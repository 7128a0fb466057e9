"""All methods on one student: what their rows share, and what is printed and drawn of them."""

import functools
import json

import command_line
import pytest
import smoke
from absl import app
from command_line import cells
from PIL import Image

from experiments import methods, methods_cost, methods_drawn, rows
from kd_jax import runs

experiment = functools.partial(command_line.experiment, config='supervised_carousel')
NAMES = ['supervised', 'umts', 'vkd', 'vkd', 'ksl', 'ksl', 'factorized']
SAME = 'data', 'network', 'optimizer', 'train', 'evaluate', 'seed'


@pytest.fixture
def silent(monkeypatch):
    """Nothing is timed, read of a run or drawn."""
    for module, name in ((methods, 'teachers'), (methods, 'costs'), (methods, 'same_inference')):
        monkeypatch.setattr(module, name, lambda *_: '')
    monkeypatch.setattr(methods_drawn, 'draw', lambda *_: None)


def test_rows_share_student_data_recipe_and_images(tmp_path, made, silent):
    experiment(methods, tmp_path, '--config.sampling.shots=4', '--config.network.width=6')
    assert [config.method.name for config in made.values()] == NAMES
    baseline = made['baseline']
    for config in made.values():
        assert methods.images(config) == 16
        assert config.augment.to_dict() | {'erase_teacher': 0} == {
            **baseline.augment,
            'erase_teacher': 0,
        }
        for part in SAME:
            assert config[part] == baseline[part], part
        for teacher in config.teachers.values():
            if not isinstance(teacher, str):
                assert (teacher.seed, teacher.train) == (baseline.seed, baseline.train)
                assert teacher.network.width == 6
    assert len(made['factorized'].teachers) == 6
    alone = made['vkd_not_distilled']
    assert alone.teachers.teacher == str(tmp_path / 'seed0/vkd/teachers/teacher')
    assert alone.method.logits_weight == alone.method.distance_weight == 0
    weights = [made['ksl_without_constraints'].method[f'{k}_weight'] for k in ('hard', 'distance')]
    assert weights == [0, 0] != [made['ksl'].method.hard_weight] * 2


def test_what_can_not_be_compared_is_refused(tmp_path, made, silent):
    with pytest.raises(app.UsageError, match='give the baseline, a supervised config'):
        command_line.experiment(methods, tmp_path, config='ksl_carousel')
    with pytest.raises(app.UsageError, match='multiple of 8'):
        experiment(methods, tmp_path, '--config.sampling.identities=3')
    with pytest.raises(app.UsageError, match=r"no \['KSM'\]; the rows are Baseline, UMTS"):
        experiment(methods, tmp_path, '--rows=KSM')
    assert not made


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """What two rows print, and where they were trained."""
    home = tmp_path_factory.mktemp('methods')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(methods_cost, 'ROUNDS', 2)
        patch.setattr(methods_cost, 'SECONDS', 0.01)
        printed = experiment(methods, home, '--rows=Baseline,KSL', '--config.sampling.shots=4')
    return home, printed


def test_two_rows_to_their_end(trained):
    home, printed = trained
    table = json.loads((home / 'table.json').read_text())
    row = cells(printed, 'market')['KSL']
    assert row[1] == f'{100 * table["KSL"]["0"]["mAP"]:.1f}'
    gain = 100 * (table['KSL']['0']['mAP'] - table['Baseline']['0']['mAP'])
    assert row[3] == f'{gain:+.1f}'
    assert 'no teachers' in printed


def test_the_baseline_costs_itself(trained):
    lines = [line for line in trained[1].splitlines() if line.startswith('| Baseline | 1.00')]
    assert lines == ['| Baseline | 1.00 (1.00–1.00) | 0 |  | 1.0 |']
    assert '| KSL | ' in trained[1]


def test_students_embed_at_the_same_cost(trained):
    home, printed = trained
    parameters, work = methods_cost.inference(home / 'seed0/ksl')
    assert methods_cost.inference(home / 'seed0/baseline') == (parameters, work)
    assert f'with {parameters:,} parameters and {work:,} multiply-adds' in printed


def test_a_student_that_costs_more_is_noticed(trained, monkeypatch):
    monkeypatch.setattr(methods_cost, 'inference', lambda path: (len(path.name), 1))
    with pytest.raises(AssertionError, match='students differ'):
        methods.same_inference({'KSL': {0: {}}, 'Baseline': {0: {}}}, trained[0])


def test_pictures_are_drawn(trained):
    for name in ('methods.png', 'terms.png'):
        with Image.open(trained[0] / name) as image:
            assert min(image.size) > 100


def test_curves_are_the_terms_by_step(trained):
    home = trained[0]
    found = methods_drawn.curves('KSL', [0], home)
    assert set(found) == {'identity', 'triplet', 'probabilities', 'distances', 'hard'}
    log = [row for row in smoke.rows(rows.run_of('KSL', 0, home)) if 'evaluation' not in row]
    steps, values = found['hard']
    assert steps == [row['step'] for row in log]
    assert list(values) == [row['hard'] for row in log]


def test_teachers_stand_beside_their_rows(tmp_path):
    """With a word on those that are shown several shots, and without those of other rows."""
    run = tmp_path / 'seed0/umts'
    (run / 'teachers/teacher').mkdir(parents=True)
    one = {'protocol': 'market', 'quoted': 'mAP', 'mAP': 0.25, 'rank-1': 0.5, 'also': []}
    taught = one | {'mAP': 0.75, 'shots': 4, 'shots_of': 'identity'}
    runs.write_json(run / 'result.json', {'teacher': taught, 'other': taught, 'student': one})
    text = methods.teachers({'UMTS': {0: one}}, tmp_path)
    assert '| UMTS: teacher (4 shots by identity, an upper bound) | 1 | 75.0 | 50.0 |' in text
    assert 'other' not in text


def test_a_row_with_teachers_costs_their_steps_too():
    one = methods_cost.Cost((2.0, 1.9, 2.1), 6, (1.5, 1.4, 1.6))
    assert one.whole == 11.0
    assert '| Factorized | 2.00 (1.90–2.10) | 6 | 1.50 (1.40–1.60) | 11.0 |' in methods_cost.text(
        {'Factorized': one}
    )
