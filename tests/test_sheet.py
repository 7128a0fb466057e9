"""The sheet of training sets: what is drawn, where it stands, and that words are apart."""

from itertools import combinations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from kd_jax.data import sampling, sheet
from kd_jax.data.records import Source, from_rows, labels


def source_of(counts, size=(40, 20), frame=7, camera=0, broken=()):
    """A training split of so many images by identity, each one plain colour of its own."""
    rows = [
        (f'{pid}/{k}', pid, camera, 10 * pid + k % 2, frame)
        for pid, count in counts.items()
        for k in range(count)
    ]
    train = from_rows(rows)
    places = {path: place for place, path in enumerate(train.paths.tolist())}

    def open_image(path):
        if path in broken:
            raise OSError('truncated')
        return Image.new('RGB', size[::-1], colour(places[path]))

    return Source(train, train, train, open_image, None)


def colour(row):
    return (row % 250, 90, row // 250)


def sheet_of(source, shots=4, views=8):
    panels = [
        sheet.Panel('shots', sheet.drawn(source.train, 8, shots, 'any', 0)),
        sheet.Panel('views', sheet.drawn(source.train, 6, views, 'tracklet', 0)),
    ]
    return sheet.compose(source, 'title', panels), panels


def boxes(found):
    """The pixels that words take, (left, top, right, bottom), drawn by matplotlib."""
    page = sheet.figure(found)
    renderer = FigureCanvasAgg(page).get_renderer()
    height = renderer.get_canvas_width_height()[1]
    extents = [text.get_window_extent(renderer) for text in page.texts if text.get_text()]
    return [(box.x0, height - box.y1, box.x1, height - box.y0) for box in extents]


def overlap(a, b):
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def test_sets_are_those_of_the_first_step():
    source = source_of({3: 5, 4: 9, 8: 2, 11: 12})
    numbers = labels(source.train)
    index = sampling.index(numbers, source.train.cameras, source.train.tracklets)
    training = {'identities': 4, 'sets': 1, 'shots': 4, 'views': 'any'}
    plan = sampling.plan(index, 5, 0, **training)
    np.testing.assert_array_equal(sheet.drawn(source.train, 3, 4, 'any', 5), plan.rows[:3])
    np.testing.assert_array_equal(sheet.drawn(source.train, 9, 4, 'any', 5), plan.rows)


def test_views_are_of_several_tracklets():
    source = source_of({1: 40, 2: 40})
    tracklets = source.train.tracklets[sheet.drawn(source.train, 2, 8, 'tracklet', 0)]
    assert [np.bincount(row % 10).tolist() for row in tracklets] == [[4, 4]] * 2


def test_every_image_stands_at_its_place_in_its_shape():
    found, panels = sheet_of(source_of({pid: 9 for pid in range(1, 10)}))
    rows = [row for panel in panels for row in panel.rows.ravel().tolist()]
    assert len(rows) == len(found.images) == 8 * 4 + 6 * 8
    pixels = sheet.canvas(found)
    for row, (left, top, image) in zip(rows, found.images):
        assert image.shape == (128, 64, 3)
        assert (pixels[top : top + 128, left : left + 64] == colour(row)).all()
        assert (pixels[top - 1, left - 1 : left + 65] == sheet.RIM).all()
    places = [(left, top, left + 64, top + 128) for left, top, _ in found.images]
    assert not any(overlap(a, b) for a, b in combinations(places, 2))
    assert {left for left, *_ in places[:4]} < {left for left, *_ in places[32:]}
    assert max(right for _, _, right, _ in places[:32]) == max(p[2] for p in places[32:])


@pytest.mark.parametrize(
    ('size', 'expected'),
    [((40, 20), (128, 64)), ((50, 50), (91, 91)), ((20, 90), (28, 128)), ((90, 10), (128, 14))],
)
def test_images_keep_their_shape_in_places_of_bounded_shape(size, expected):
    found, _ = sheet_of(source_of({1: 4, 2: 4}, size))
    assert {image.shape[:2] for *_, image in found.images} == {expected}


@pytest.mark.parametrize('size', [(40, 20), (30, 30), (20, 40), (400, 90)])
@pytest.mark.parametrize(('shots', 'views'), [(4, 8), (2, 6), (1, 20)])
@pytest.mark.parametrize(('frame', 'camera'), [(7, 0), (123_456_789_012, 173)])
def test_words_are_on_the_page_and_apart(size, shots, views, frame, camera):
    source = source_of({10_000 + pid: pid % 3 + 1 for pid in range(9)}, size, frame, camera)
    found, _ = sheet_of(source, shots, views)
    words = boxes(found)
    images = [(x, y, x + p.shape[1], y + p.shape[0]) for x, y, p in found.images]
    assert not any(overlap(a, b) for a, b in combinations(words, 2))
    assert not any(overlap(word, image) for word in words for image in images)
    height, width = sheet.canvas(found).shape[:2]
    assert all(0 <= x < r <= width and 0 <= y < b <= height for x, y, r, b in words + images)


def captions(found):
    return {text.words for text in found.texts if text.align == 'center'}


def test_captions_say_what_is_known():
    for camera, frame, words in [(2, 5, 'c3 5'), (-1, 5, '5'), (2, -1, 'c3'), (-1, -1, '')]:
        found, _ = sheet_of(source_of({1: 4, 2: 4}, frame=frame, camera=camera))
        assert captions(found) == {words}
    found, _ = sheet_of(source_of({1: 4, 2: 4}, frame=123456789012, camera=11))
    assert captions(found) == {'c12 …789012'}


def test_a_name_is_no_formula(tmp_path):
    sheet.draw(source_of({1: 4}), tmp_path / 'a.png', name='a$_^b$', shots=2, views=2)
    with Image.open(tmp_path / 'a.png') as image:
        assert image.format == 'PNG'


def test_headings_tell_who_has_too_few_images():
    found, _ = sheet_of(source_of({5: 8, 6: 5}))
    told = {text.words: text.colour for text in found.texts if text.align == 'right'}
    assert told['8 images, 1 camera'] == sheet.FAINT
    assert told['5 images, 1 camera'] == sheet.ALARM
    names = [text.words for text in found.texts if text.words.startswith('identity')]
    assert sorted(names) == ['identity 5', 'identity 5', 'identity 6', 'identity 6']


@pytest.mark.parametrize(
    'broken', [('1/0', '2/3'), tuple(f'{p}/{k}' for p in '12' for k in '0123')]
)
def test_unreadable_images_are_gray(broken):
    source = source_of({1: 4, 2: 4}, broken=broken)
    found, panels = sheet_of(source)
    rows = [row for panel in panels for row in panel.rows.ravel().tolist()]
    for row, (*_, image) in zip(rows, found.images):
        assert (image == sheet.HOLE).all() == (source.train.paths[row] in broken)
    assert 'unreadable' in captions(found)


def test_damage_that_shows_only_when_decoding(tmp_path):
    Image.effect_noise((64, 128), 90).save(tmp_path / 'a.jpg')
    whole = (tmp_path / 'a.jpg').read_bytes()
    (tmp_path / 'a.jpg').write_bytes(whole[: len(whole) // 2])
    source = source_of({1: 4, 2: 4})._replace(open=lambda path: Image.open(tmp_path / 'a.jpg'))
    assert captions(sheet_of(source)[0]) == {'unreadable'}


def test_the_file_has_the_pixels_of_the_sheet(tmp_path):
    source = source_of({1: 4, 2: 4, 3: 4})
    sheet.draw(source, tmp_path / 'a.png', name='toy', shots=2, views=3)
    with Image.open(tmp_path / 'a.png') as image:
        assert image.format == 'PNG'
        pixels = np.asarray(image.convert('RGB'))
    found, _ = sheet_of(source, 2, 3)
    assert pixels.shape == sheet.canvas(found).shape
    for left, top, image in found.images:
        height, width = image.shape[:2]
        np.testing.assert_array_equal(pixels[top : top + height, left : left + width], image)
