"""What a search found: as a table, and as a picture of queries and what is nearest to them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import ImageColor

from kd_jax.data import sheet
from kd_jax.data.listing import DISTRACTOR, JUNK, UNKNOWN
from kd_jax.data.sheet import FAINT, GAP, INK, LETTER, MARGIN, SET_GAP, Place, Sheet, Text

NOBODY = '', DISTRACTOR, JUNK
# Frames by verdict, and what they say.
FRAMES = {
    'true': ('#2a9d3f', 'its identity'),
    'false': ('#d7301f', 'another identity'),
    'junk': ('#9a9a9a', 'junk'),
    '': ('#3b6fb6', 'identity unknown'),
}
FRAME = 4  # pixels of it
ROWS, ACROSS = 12, 20  # queries and found images that are drawn, at most
TITLE, HEADING, CAPTION, BELOW = 34, 22, 13, 16  # pixels of lines, and below a row
NARROWEST = 480  # pixels of the picture, for its words


class Item(NamedTuple):
    """An image of the gallery, how far it is and whether it is the query's identity."""

    path: str
    identity: str
    camera: str
    distance: float
    verdict: str


class Asked(NamedTuple):
    """A query and what was found, nearest first."""

    path: str
    identity: str
    camera: str
    found: list[Item]


def verdict(query: tuple[str, str], item: tuple[str, str], *, itself: bool = False) -> str:
    """'true', 'false', 'junk' or '', unknown, by identity and camera of a query and an item.

    Junk count for nothing: the query itself, its identity by its own camera, and identity -1.
    """
    if itself or item[0] == JUNK:
        return 'junk'
    if query[0] in NOBODY or not item[0]:
        return ''
    if query == item and query[1] not in ('', UNKNOWN):
        return 'junk'
    return 'true' if query[0] == item[0] else 'false'


def table(asked: Sequence[Asked]) -> str:
    """A line for every item found, with what is known of it."""
    rows = [['query', 'rank', 'path', 'distance', 'identity', 'camera', '']]
    for query in asked:
        for rank, item in enumerate(query.found, 1):
            known = [item.identity, item.camera, item.verdict]
            rows.append([query.path, str(rank), item.path, f'{item.distance:.4f}', *known])
    widths = [max(map(len, column)) for column in zip(*rows)]
    right = {1, 3}  # numbers
    return '\n'.join(
        '  '.join(
            text.rjust(width) if place in right else text.ljust(width)
            for place, (text, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    )


def draw(
    asked: Sequence[Asked], query_open: Callable, gallery_open: Callable, title: str, file: Path
) -> None:
    """Write the rank list of the first queries as PNG; images that cannot be read are gray."""
    sheet.write(compose(asked[:ROWS], query_open, gallery_open, title), file)


def compose(
    asked: Sequence[Asked], query_open: Callable, gallery_open: Callable, title: str
) -> Sheet:
    """All images and words: a row for every query, which is on the left."""
    shown = [(query_open, query.path) for query in asked]
    shown += [(gallery_open, item.path) for query in asked for item in query.found[:ACROSS]]
    sizes = {one: sheet.size_of(*one) for one in dict.fromkeys(shown)}
    place = sheet.place_for([size for size in sizes.values() if size])
    pictures = {one: sheet.picture(*one, size, place) for one, size in sizes.items()}
    most = min(max(len(query.found) for query in asked), ACROSS)
    step = place.width + 2 * FRAME + GAP
    width = max(2 * MARGIN + place.width + SET_GAP + most * step - GAP, NARROWEST)
    made = Sheet([], _head(asked, title, width), MARGIN + TITLE, width)
    for query in asked:
        pixels = [pictures[query_open, query.path]]
        pixels += [pictures[gallery_open, item.path] for item in query.found[:ACROSS]]
        made = _with_row(made, query, pixels, place, step)
    return made


def _head(asked: Sequence[Asked], title: str, width: int) -> list[Text]:
    """The title, and below it what the frames that are there say."""
    room = width - 2 * MARGIN
    texts = [Text(MARGIN, MARGIN + 10, _shortened(title, room / 1.4), 10, INK, 'bold')]
    verdicts = {item.verdict for query in asked for item in query.found}
    x = MARGIN
    for name, (colour, words) in FRAMES.items():
        if name in verdicts:
            texts.append(Text(x, MARGIN + 28, f'\u25a0 {words}', colour=colour))
            x += LETTER * (len(words) + 5)
    return texts


def _with_row(
    made: Sheet, query: Asked, pixels: list[np.ndarray | None], place: Place, step: int
) -> Sheet:
    """The picture with a query more at its foot."""
    top = made.height + HEADING + FRAME
    room = made.width - 2 * MARGIN
    name = Text(MARGIN, made.height + HEADING - 6, _shortened(query.path, room / 1.15), 8, INK)
    texts = [*made.texts, name]
    images = [*made.images, sheet.centred(pixels[0], MARGIN, top, place)]
    texts += _captions(['query', _known(query)], MARGIN, top, place)
    left = MARGIN + place.width + SET_GAP + FRAME
    for number, (item, image) in enumerate(zip(query.found, pixels[1:])):
        x = left + number * step
        images.append(_framed(sheet.centred(image, x, top, place), FRAMES[item.verdict][0]))
        texts += _captions([f'{item.distance:.3f}', _known(item)], x, top, place)
    height = top + place.height + FRAME + 2 * CAPTION + BELOW
    return made._replace(images=images, texts=texts, height=height)


def _captions(lines: list[str], left: int, top: int, place: Place) -> list[Text]:
    """Lines below an image."""
    below = top + place.height + FRAME + CAPTION - 1
    return [
        Text(
            left + place.width / 2,
            below + k * CAPTION,
            _shortened(line, place.width),
            7,
            colour,
            align='center',
        )
        for k, (line, colour) in enumerate(zip(lines, (INK, FAINT)))
    ]


def _known(item: Item | Asked) -> str:
    """Identity and camera of an image, as far as they are known."""
    camera = f'c{item.camera}' if item.camera.isdecimal() else item.camera
    return ' '.join(filter(None, (item.identity, camera)))


def _framed(placed: tuple[int, int, UInt8[np.ndarray, 'h w 3']], colour: str) -> tuple:
    """An image in a frame, and the left and top of that."""
    left, top, pixels = placed
    height, width = pixels.shape[:2]
    framed = np.empty((height + 2 * FRAME, width + 2 * FRAME, 3), np.uint8)
    framed[:] = ImageColor.getrgb(colour)
    framed[FRAME:-FRAME, FRAME:-FRAME] = pixels
    return left - FRAME, top - FRAME, framed


def _shortened(words: str, pixels: float | int) -> str:
    """The end of the words, as much of it as there is room for at the size of captions."""
    room = max(int(pixels / LETTER), 1)
    return words if len(words) <= room else f'…{words[1 - room :]}' if room > 1 else '…'
