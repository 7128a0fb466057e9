"""The people of Carousel: how they are drawn, and what is seen of them from one side.

An identity is an outfit, which many share, and a code of four factors. A side shows two factors,
and the next side the second of these again, in another glyph of another ink:

    front: a, b    left: b, c    back: c, d    right: d, a

The mark on the coat has the shape of the first factor and the ink of the second; the mark on
the trousers the shape of the second and the ink of the first. So one side tells two factors, two
neighbours three, opposite sides together all; and a network that has learned the rule knows from
one side half of what either neighbour will show.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

SIDES = 4  # front, left, back, right: as many as factors
VALUES = 6  # what one factor may be: as many as glyphs and inks
ROWS, COLUMNS = 64, 96  # the texture that is wrapped around a figure: from top to toe, all around
HEAD, WAIST = 0.18, 0.56  # where the coat and the trousers begin, in figure heights
FACE = np.pi / 3  # how far to both sides of the front the face reaches, in radians
FACE_TOP = 0.05  # where the hair ends above the face, in figure heights
WIDTHS = 0.19, 0.40, 0.32  # half-widths of head, coat and trousers, in image widths
MARK_ANGLE = np.deg2rad(36)  # half the width of a mark, around the figure
MARK_HEIGHT = 0.145  # half the height of a mark, in figure heights
COAT_MARK, TROUSER_MARK = 0.37, 0.76  # where the middle of a mark is, in figure heights
TILT = np.deg2rad(14)  # the most by which a person's own hand tilts all marks
SIZE = 0.85, 1.1  # the least and the most by which a person's own hand scales all marks
SAMPLES = 2  # points looked at in a pixel, down and across, whose mean it shows
FILL = 0.95  # height of a figure of scale 1, in image heights
SHADE = 0.8  # light at the rim of a figure, where 1 is light at its middle
SKIN = np.array((214, 168, 138)) / 255
INKS = np.array(  # far from one another, and from every outfit
    [(245, 245, 240), (250, 205, 30), (225, 45, 40), (35, 190, 225), (60, 195, 70), (220, 80, 200)]
)
OUTFITS = np.array(  # hair, coat, trousers
    [
        [(40, 30, 25), (60, 64, 72), (38, 42, 66)],
        [(90, 55, 30), (98, 74, 52), (52, 56, 50)],
        [(25, 25, 28), (46, 66, 96), (70, 70, 74)],
        [(150, 115, 60), (64, 80, 58), (74, 58, 46)],
        [(60, 60, 62), (92, 50, 62), (44, 48, 56)],
        [(110, 50, 30), (112, 108, 98), (58, 44, 66)],
        [(35, 25, 20), (78, 62, 96), (66, 72, 52)],
        [(130, 90, 50), (44, 84, 84), (84, 66, 60)],
    ]
)
COAT_GLYPHS = (
    '.###. ##### ##### ##### .###.',  # disc
    '##### #...# #...# #...# #####',  # frame
    '..#.. ..#.. ##### ..#.. ..#..',  # plus
    '##.## ##.## ..#.. ##.## ##.##',  # cross
    '##### ##### ..... ##### #####',  # two bars
    '##... ##... ##... ##### #####',  # corner
)
TROUSER_GLYPHS = (
    '..#.. ..#.. .###. .###. #####',  # triangle
    '##.## ##.## ##.## ##.## ##.##',  # two posts
    '##### ##### ..#.. ..#.. ..#..',  # T
    '###.. ###.. ..... ..### ..###',  # steps
    '..#.. .###. ##### .###. ..#..',  # diamond
    '##.## ##.## ##### ##### .###.',  # cup
)


class Identities(NamedTuple):
    """Who the people are: outfit, code of four factors, and the hand (tilt, size) of all marks."""

    outfits: Int[np.ndarray, 'i']
    codes: Int[np.ndarray, 'i 4']
    tilts: Float[np.ndarray, 'i']
    sizes: Float[np.ndarray, 'i']


def draw_identities(count: int, rng: np.random.Generator) -> Identities:
    """That many different people; no two of them share both outfit and code."""
    most = len(OUTFITS) * VALUES**SIDES
    if count > most:
        raise ValueError(f'carousel: {count} identities, but only {most} differ')
    numbers = rng.choice(most, count, replace=False)
    outfits, codes = np.divmod(numbers, VALUES**SIDES)
    codes = codes[:, None] // VALUES ** np.arange(SIDES) % VALUES
    return Identities(outfits, codes, rng.uniform(-TILT, TILT, count), rng.uniform(*SIZE, count))


def textures(people: Identities) -> Float[np.ndarray, 'i rows columns 3']:
    """What is wrapped around each person: the outfit, and on each side two marks."""
    skins = _clothes()[people.outfits]
    side = np.arange(COLUMNS) * SIDES // COLUMNS
    first, second = people.codes[:, side], people.codes[:, (side + 1) % SIDES]
    for middle, alphabet, shape, ink in (
        (COAT_MARK, COAT_GLYPHS, first, second),
        (TROUSER_MARK, TROUSER_GLYPHS, second, first),
    ):
        inked = _inked(people, _bitmaps(alphabet), shape, middle)
        colours = np.broadcast_to(INKS[ink][:, None] / 255, skins.shape)
        skins = np.where(inked[..., None], colours, skins)
    return skins.astype(np.float32)


def _heights() -> Float[np.ndarray, 'rows']:
    return (np.arange(ROWS) + 0.5) / ROWS


def _parts() -> Int[np.ndarray, 'rows']:
    return np.searchsorted((HEAD, WAIST), _heights())


def _angles() -> Float[np.ndarray, 'columns']:
    """The angle of a column from the middle of its side."""
    return ((np.arange(COLUMNS) + 0.5) * SIDES / COLUMNS % 1 - 0.5) * 2 * np.pi / SIDES


def _clothes() -> Float[np.ndarray, 'outfits rows columns 3']:
    """Outfits without marks; the face looks out of the hair at the front."""
    bare = np.repeat(OUTFITS[:, _parts(), None] / 255, COLUMNS, axis=2)
    front = np.abs((np.arange(COLUMNS) + 0.5) / COLUMNS * 2 * np.pi - np.pi / SIDES) < FACE
    face = (_heights() > FACE_TOP)[:, None] & (_heights() < HEAD)[:, None] & front
    bare[:, face] = SKIN
    return bare


def _bitmaps(alphabet: tuple[str, ...]) -> Bool[np.ndarray, 'values cells cells']:
    return np.array([[list(row) for row in glyph.split()] for glyph in alphabet]) == '#'


def _inked(
    people: Identities, glyphs: np.ndarray, shape: np.ndarray, middle: float
) -> Bool[np.ndarray, 'i rows columns']:
    """Where the marks of one height are: each side's glyph, tilted and scaled by the hand."""
    x = _angles() / MARK_ANGLE
    y = ((_heights() - middle) / MARK_HEIGHT)[:, None]
    cos, sin = (
        f(people.tilts)[:, None, None] / people.sizes[:, None, None] for f in (np.cos, np.sin)
    )
    across, down = cos * x + sin * y, cos * y - sin * x
    cells = glyphs.shape[-1]
    column, row = (np.floor((z + 1) * cells / 2).astype(int) for z in (across, down))
    inside = (np.minimum(column, row) >= 0) & (np.maximum(column, row) < cells)
    return inside & glyphs[shape[:, None], row.clip(0, cells - 1), column.clip(0, cells - 1)]


def portray(
    skins: Float[np.ndarray, 'i rows columns 3'],
    who: Int[np.ndarray, 'n'],
    yaw: Float[np.ndarray, 'n'],
    scale: Float[np.ndarray, 'n'],
    middle: Float[np.ndarray, '2 n'],
    size: tuple[int, int],
) -> tuple[Float[np.ndarray, 'n h w 3'], Float[np.ndarray, 'n h w 1']]:
    """What figures give to the colour of each pixel, and how much of the pixel they cover.

    `yaw` turns a figure (0 shows its front); `middle` is where its middle is, down and across in
    image sizes; `size` is the height and the width of the images.
    """
    y, x = (
        ((np.arange(side * SAMPLES) + 0.5) / (side * SAMPLES) - place[:, None]) / scale[:, None]
        for side, place in zip(size, middle)
    )
    y, x, yaw = (z.astype(np.float32) for z in (y / FILL + 0.5, x, yaw))
    samples = _look(skins, who, yaw, y, x)
    corners = np.ndindex(SAMPLES, SAMPLES)
    pixels = sum(samples[:, row::SAMPLES, column::SAMPLES] for row, column in corners)
    return pixels[..., :3] / SAMPLES**2, pixels[..., 3:] / SAMPLES**2


def _look(
    skins: Float[np.ndarray, 'i rows columns 3'],
    who: Int[np.ndarray, 'n'],
    yaw: Float[np.ndarray, 'n'],
    down: Float[np.ndarray, 'n y'],
    across: Float[np.ndarray, 'n x'],
) -> Float[np.ndarray, 'n y x 4']:
    """Colour and presence of a figure at points: upright cylinders, lit from the camera.

    `down` is 0 at a figure's top and 1 at its toes; `across` is 0 at its axis.
    """
    rows = np.floor(down * ROWS).astype(np.int32).clip(0, ROWS - 1)
    width = np.array(WIDTHS, np.float32)[_parts()][rows]
    place = across[:, None, :] / width[:, :, None]
    seen = (np.abs(place) < 1) & ((down > 0) & (down < 1))[:, :, None]
    place = place.clip(-1, 1)
    turn = (np.arcsin(place) + yaw[:, None, None]) / (2 * np.pi) + 0.5 / SIDES
    columns = np.floor(turn * COLUMNS).astype(np.int32) % COLUMNS
    texels = (who[:, None, None] * ROWS + rows[:, :, None]) * COLUMNS + columns
    light = seen * (SHADE + (1 - SHADE) * np.sqrt(1 - place**2))
    return np.concatenate((skins.reshape(-1, 3)[texels] * light[..., None], seen[..., None]), -1)
