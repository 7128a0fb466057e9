"""What a search found, in words and as a picture."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image, ImageColor

from kd_jax import ranklist
from kd_jax.data import sheet
from kd_jax.ranklist import FRAMES, Asked, Item


@pytest.mark.parametrize(
    ('query', 'item', 'verdict'),
    [
        (('1', '1'), ('1', '2'), 'true'),
        (('1', '1'), ('1', '1'), 'junk'),
        (('1', ''), ('1', ''), 'true'),
        (('1', '-1'), ('1', '-1'), 'true'),
        (('1', '1'), ('2', '1'), 'false'),
        (('1', '1'), ('0', '1'), 'false'),
        (('1', '1'), ('-1', '2'), 'junk'),
        (('', '1'), ('-1', '2'), 'junk'),
        (('0', '1'), ('-1', ''), 'junk'),
        (('-1', '1'), ('-1', '2'), 'junk'),
        (('-1', '1'), ('1', '2'), ''),
        (('1', '1'), ('', '2'), ''),
        (('', '1'), ('2', '1'), ''),
        (('0', '1'), ('0', '2'), ''),
        (('anna', 'door'), ('anna', 'hall'), 'true'),
    ],
)
def test_verdicts(query, item, verdict):
    assert ranklist.verdict(query, item) == verdict


@pytest.mark.parametrize('known', [('1', ''), ('1', '2'), ('', ''), ('0', '1')])
def test_nothing_matches_itself(known):
    assert ranklist.verdict(known, known, itself=True) == 'junk'


def asked_of(queries=2, found=4, name='query.png', verdicts=('true', 'false', 'junk', '')):
    items = [
        Item(f'{k}.png', 'someone', 'door', 0.1 * k, verdicts[k % len(verdicts)])
        for k in range(found)
    ]
    return [Asked(f'{number}_{name}', '7', '1', items) for number in range(queries)]


def test_the_table_has_a_line_for_every_item():
    lines = ranklist.table(asked_of(found=12)).splitlines()
    assert len(lines) == 1 + 2 * 12
    assert lines[0].split() == ['query', 'rank', 'path', 'distance', 'identity', 'camera']
    assert lines[1].split() == ['0_query.png', '1', '0.png', '0.0000', 'someone', 'door', 'true']
    assert lines[4].split() == ['0_query.png', '4', '3.png', '0.3000', 'someone', 'door']
    assert lines[1].index('0.png') == lines[12].index('11.png')


def open_image(path):
    if path == '1.png':
        raise OSError('gone')
    return Image.new('RGB', (20, 40), (1, 2, 3))


def compose(asked):
    return ranklist.compose(asked, open_image, open_image, 'title')


def boxes(found):
    """The pixels that words take, (left, top, right, bottom), drawn by matplotlib."""
    page = sheet.figure(found)
    renderer = FigureCanvasAgg(page).get_renderer()
    width, height = renderer.get_canvas_width_height()
    extents = [text.get_window_extent(renderer) for text in page.texts if text.get_text()]
    return width, height, [(b.x0, height - b.y1, b.x1, height - b.y0) for b in extents]


def test_frames_are_of_the_verdicts_colours():
    found = compose(asked_of(queries=1))
    query, *items = (pixels for *_, pixels in found.images)
    assert (query == (1, 2, 3)).all()
    for pixels, (colour, _) in zip(items, FRAMES.values()):
        assert (pixels[:4] == ImageColor.getrgb(colour)).all()
        assert (pixels[:, -4:] == ImageColor.getrgb(colour)).all()
    inner = [pixels[4:-4, 4:-4] for pixels in items]
    assert (inner[0] == (1, 2, 3)).all()
    assert (inner[1] == sheet.HOLE).all()
    words = [text.words for text in found.texts]
    assert [f'■ {says}' in words for _, says in FRAMES.values()] == [True] * 4
    assert f'■ {FRAMES[""][1]}' not in [text.words for text in compose(asked_of(found=3)).texts]


@pytest.mark.parametrize('found', [1, 4, 10])
@pytest.mark.parametrize('name', ['q.png', f'{"a_long_name" * 12}.png'])
def test_words_are_on_the_page_and_apart(found, name):
    width, height, known = boxes(compose(asked_of(found=found, name=name)))
    for left, top, right, bottom in known:
        assert left >= 0
        assert top >= 0
        assert right <= width
        assert bottom <= height
    for k, (left, top, right, bottom) in enumerate(known):
        for l2, t2, r2, b2 in known[k + 1 :]:
            assert right <= l2 or r2 <= left or bottom <= t2 or b2 <= top


def test_names_are_no_formulas(tmp_path):
    item = Item('x_$^.png', '$_^b$', '$$', 0.5, 'true')
    asked = [Asked('a$_^b$.png', r'\$_$', '$^$', [item])]
    title = 'of $g_^$.parquet'
    ranklist.draw(asked, open_image, open_image, title, tmp_path / 'ranks.png')
    found = ranklist.compose(asked, open_image, open_image, title)
    assert {'a$_^b$.png', title, '$_^b$ $$', r'\$_$ $^$'} < {text.words for text in found.texts}
    boxes(found)


def test_a_long_list_is_drawn_in_part(tmp_path, monkeypatch):
    monkeypatch.setattr(ranklist, 'ROWS', 3)
    file = tmp_path / 'ranks.png'
    ranklist.draw(asked_of(queries=30, found=50), open_image, open_image, 'title', file)
    with Image.open(file) as drawn:
        size = drawn.size
    assert len(compose(asked_of(1, 50)).images) == 1 + ranklist.ACROSS
    one, three = (compose(asked_of(count, 50)) for count in (1, ranklist.ROWS))
    assert size == tuple(reversed(sheet.canvas(three).shape[:2]))
    assert one.width == three.width
    assert np.diff([one.height, three.height]) > 2 * 100
