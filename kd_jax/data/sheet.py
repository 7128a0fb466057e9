"""A sheet of training images as PNG: sets of shots as training draws them, and sets of views."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from kd_jax.data import sampling
from kd_jax.data.images import DAMAGE, decode
from kd_jax.data.records import DataError, Records, Source, labels

SHOTS_OF, VIEWS_OF = 8, 6  # identities
ACROSS = 16  # images beside one another, and the most that are shown of a set
NARROWEST = 4  # images for which a set's heading has room
AREA = 8192  # pixels of an image's place
ASPECTS = 0.5, 2.0  # the narrowest and the widest place, width by height
GAP, SET_GAP, MARGIN = 6, 24, 20  # pixels between images, between sets and around all
WIDEST = 72  # pixels between sets that are moved apart to fill the sheet's width
TITLE, HEADING, CAPTION, BELOW = 40, 20, 15, 14  # pixels of lines, and below a set
PAPER, RIM, HOLE = 255, 200, 230  # gray of the sheet, of images' rims, of unreadable images
DOTS = 100  # pixels of an inch
LETTER = 6.3  # pixels of a caption's digit
LEGEND = 'below an image: its camera and frame'
INK, FAINT, ALARM = '#111111', '#666666', '#b03a00'


class Panel(NamedTuple):
    """Sets that are drawn in one way, as rows of the training records, and what they are."""

    title: str
    rows: Int[np.ndarray, 's n']


class Text(NamedTuple):
    """Words at a point of the sheet, in pixels from its left top; `size` is in points."""

    x: float
    y: float
    words: str
    size: float = 7
    colour: str = FAINT
    weight: str = 'normal'
    align: str = 'left'


class Place(NamedTuple):
    """The pixels that an image may take."""

    height: int
    width: int

    def room(self, images: int) -> int:
        """The width of so many images of a set, and at least that of a heading."""
        return min(max(images, NARROWEST), ACROSS) * (self.width + GAP) - GAP

    def columns(self, images: int) -> int:
        """How many sets of so many images stand beside one another."""
        return ACROSS // min(max(images, NARROWEST), ACROSS)

    def extent(self, images: int) -> int:
        """The width of all columns of sets of so many images."""
        return self.columns(images) * (self.room(images) + SET_GAP) - SET_GAP


class Sheet(NamedTuple):
    """Images by their left and top, and words; `height` grows with every panel."""

    images: list[tuple[int, int, UInt8[np.ndarray, 'h w 3']]]
    texts: list[Text]
    height: int
    width: int


def draw(source: Source, file: Path, *, name: str, shots: int, views: int, seed: int = 0) -> None:
    """Writes the sheet of a data set: sets of `shots` images, and below them sets of `views`.

    Both are what a first step of training with that seed begins with. Images keep their shape;
    those that cannot be read are gray.
    """
    train = source.train
    sets = drawn(train, SHOTS_OF, shots, 'any', seed)
    panels = [Panel(f'{shots} shots of an identity, as training draws them', sets)]
    sets = drawn(train, VIEWS_OF, views, 'tracklet', seed)
    panels.append(Panel(f'{views} views of an identity, from as many tracklets as it has', sets))
    identities = len(np.unique(train.pids))
    title = f'{name}: {len(train.pids):,} training images of {identities:,} identities'
    write(compose(source, title, panels), file)


def drawn(train: Records, identities: int, images: int, views: str, seed: int) -> np.ndarray:
    """Rows of one set of each of so many identities (or all), int[s, n], of the first step."""
    numbers = labels(train)
    index = sampling.index(numbers, train.cameras, train.tracklets)
    options = {'identities': min(identities, int(numbers.max()) + 1), 'views': views}
    return sampling.plan(index, seed, 0, sets=1, shots=images, **options).rows


def compose(source: Source, title: str, panels: list[Panel]) -> Sheet:
    """All images and words of a sheet."""
    rows = sorted({row for panel in panels for row in panel.rows[:, :ACROSS].ravel().tolist()})
    paths = {row: str(source.train.paths[row]) for row in rows}
    sizes = {row: size_of(source.open, path) for row, path in paths.items()}
    place = place_for(list(filter(None, sizes.values())))
    pictures = {row: picture(source.open, paths[row], sizes[row], place) for row in rows}
    extent = max(place.extent(panel.rows.shape[1]) for panel in panels)
    texts = [Text(MARGIN, MARGIN + 14, title, 11, INK, 'bold')]
    texts.append(Text(MARGIN + extent, MARGIN + 14, LEGEND, align='right'))
    sheet = Sheet([], texts, MARGIN + 14, extent + 2 * MARGIN)
    for panel in panels:
        sheet = with_panel(sheet, panel, source.train, pictures, place)
    return sheet


def with_panel(sheet: Sheet, panel: Panel, train: Records, pictures: dict, place: Place) -> Sheet:
    """The sheet with a panel more at its foot, spread over its width."""
    count = panel.rows.shape[1]
    columns, room = place.columns(count), place.room(count)
    across = (sheet.width - 2 * MARGIN - room) // max(columns - 1, 1)
    across = min(across, room + WIDEST)
    down, top = HEADING + place.height + CAPTION + BELOW, sheet.height + TITLE
    texts = [*sheet.texts, Text(MARGIN, top - 10, panel.title, 9, INK)]
    images = list(sheet.images)
    for number, rows in enumerate(panel.rows.tolist()):
        line, column = divmod(number, columns)
        x, y = MARGIN + column * across, top + line * down
        texts += heading(train, rows, x, x + room, y + HEADING - 7)
        for k, row in enumerate(rows[:ACROSS]):
            left = x + k * (place.width + GAP)
            images.append(centred(pictures[row], left, y + HEADING, place))
            middle, below = left + place.width / 2, y + down - BELOW - 4
            texts.append(caption(train, row, pictures[row], middle, below, place))
    return sheet._replace(
        images=images, texts=texts, height=top + -(-len(panel.rows) // columns) * down
    )


def heading(train: Records, rows: list[int], left: int, right: int, y: int) -> list[Text]:
    """Whose set it is, and how much there is to draw from; conspicuous if too little."""
    own = train.pids == train.pids[rows[0]]
    images = int(own.sum())
    cameras = len(np.unique(train.cameras[own & (train.cameras >= 0)]))
    words = f'{images:,} image{"s" * (images > 1)}'
    words += f', {cameras} camera{"s" * (cameras > 1)}' if cameras else ''
    colour = ALARM if images < len(rows) else FAINT
    name = Text(left, y, f'identity {train.pids[rows[0]]}', 8, INK, 'bold')
    return [name, Text(right, y, words, colour=colour, align='right')]


def caption(train: Records, row: int, pixels: np.ndarray | None, x: float, y: int, place) -> Text:
    """Camera and frame of an image as far as they are known, shortened to the width there is."""
    if pixels is None:
        return Text(x, y, 'unreadable', colour=ALARM, align='center')
    camera, frame = int(train.cameras[row]), str(train.frames[row])
    words = [f'c{camera + 1}'] if camera >= 0 else []
    room = int((place.width + GAP) / LETTER) - len(' '.join([*words, '']))
    if train.frames[row] >= 0:
        words.append(frame if len(frame) <= room else f'…{frame[1 - room :]}')
    return Text(x, y, ' '.join(words), align='center')


def size_of(open: Callable, path: str) -> tuple[int, int] | None:
    """Height and width of an image, None if it cannot be opened."""
    try:
        with open(path) as image:
            return image.height, image.width
    except (*DAMAGE, DataError):
        return None


def place_for(sizes: list[tuple[int, int]]) -> Place:
    """A place of the images' usual shape, and always of about the same area."""
    aspects = [width / height for height, width in sizes] or [1.0]
    aspect = float(np.clip(np.median(aspects), *ASPECTS))
    width = round((AREA * aspect) ** 0.5)
    return Place(round(width / aspect), width)


def picture(
    open: Callable, path: str, size: tuple[int, int] | None, place: Place
) -> UInt8[np.ndarray, 'h w 3'] | None:
    """An image as large as its place and its own shape allow, None if it cannot be read."""
    if size is None:
        return None
    scale = min(place.height / size[0], place.width / size[1])
    height, width = (max(1, round(scale * side)) for side in size)
    try:
        with open(path) as image:
            return decode(image, height=height, width=width, channels=3, resize='bilinear')
    except (*DAMAGE, DataError):
        return None


def centred(pixels: np.ndarray | None, left: int, top: int, place: Place) -> tuple:
    """An image, or gray, and the left and top by which it is in the middle of its place."""
    if pixels is None:
        pixels = np.full((*place, 3), HOLE, np.uint8)
    height, width = pixels.shape[:2]
    return left + (place.width - width) // 2, top + (place.height - height) // 2, pixels


def canvas(sheet: Sheet) -> UInt8[np.ndarray, 'h w 3']:
    """The pixels of a sheet without its words."""
    page = np.full((sheet.height + MARGIN - BELOW, sheet.width, 3), PAPER, np.uint8)
    for left, top, pixels in sheet.images:
        bottom, right = top + pixels.shape[0], left + pixels.shape[1]
        page[top - 1 : bottom + 1, left - 1 : right + 1] = RIM
        page[top:bottom, left:right] = pixels
    return page


def write(sheet: Sheet, file: Path) -> None:
    """Writes a sheet as PNG."""
    figure(sheet).savefig(file, format='png', dpi=DOTS)


def figure(sheet: Sheet):
    """A sheet as a figure of matplotlib, a pixel of it a pixel of the file."""
    from matplotlib.figure import Figure  # takes a second, which other commands would wait for

    pixels = canvas(sheet)
    height, width = pixels.shape[:2]
    page = Figure(figsize=(width / DOTS, height / DOTS), dpi=DOTS)
    page.figimage(pixels, origin='upper')
    for text in sheet.texts:
        style = {'size': text.size, 'color': text.colour, 'weight': text.weight, 'ha': text.align}
        style |= {'va': 'baseline', 'parse_math': False}  # as `$` in a name begins no formula
        page.text(text.x / width, 1 - text.y / height, text.words, **style)
    return page
