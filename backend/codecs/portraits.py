"""Portraits with known attributes, drawn without end: named attributes, which of them go together, and their pictures.

Every picture is one that the avatar style Pixel Art by DiceBear (CC0 1.0) can make, on its native 16x16 grid; which of
its variants count as "short hair" or "a smile", and the colours by name, are this project's choice. Pixels equal the
rasteriser's renders of the same options, with one correction told in `backend/train/portraits/atlas.mjs`.

Attributes travel as rows of small integers too: one a field, 0 for "any", 1 + its place in `VOCABULARY` for a value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Literal

import numpy as np

from backend.codecs.atlas import ORDER, Bools, Ints, Pixels, paint, pixel_art, rgb
from backend.errors import UserError

ANY, NONE = "any", "none"
SIDE = 64  # of the picture that people see, in pixels
LEAST_SEEN = 3  # pixels of hair that must show below a hat

SKINS = {"pale": "ffdbac", "light": "e0b687", "tan": "b68655", "brown": "8d5524", "dark": "432616"}
HAIR_COLOURS = {
    **{"black": "17110f", "brown": "7b3f14", "blonde": "e8c656", "orange": "d2691e", "red": "bd1700"},
    **{"grey": "a9a9b3", "blue": "009bbd", "green": "91cb15", "pink": "ea6fae"},
}
CLOTHES_COLOURS = {
    **{"red": "d11141", "orange": "f37735", "yellow": "ffc425", "green": "00b159"},
    **{"blue": "428bca", "purple": "7b4fa3", "black": "2b2b33", "grey": "8d929c"},
}
EYE_COLOURS = {"blue": "3c6fc4", "brown": "6b3e1f", "green": "2f8f4e"}
BACKGROUNDS = {
    **{"white": "ffffff", "grey": "ccd1d9", "mint": "b6e8d2", "blue": "a9d4f5"},
    **{"lavender": "cdbcf0", "pink": "fac3dc", "yellow": "fff0a0"},
}
HAIRS = {
    "bald": "",
    "short": "short01 short02 short03 short04 short08 short09 short10 short14 short16 short17 short22",
    "spiky": "short11 short13 long15",
    "mohawk": "short05 short21",
    "receding": "short18 short24",
    "bob": "long04 long16 long17 long20 long21",
    "long": "long01 long07 long08 long09 long12 long13",
    "pigtails": "long02 long03 long18",
    "ponytail": "long06 long19",
    "bun": "long05",
}
GLASSES = {
    NONE: "",
    "round": "light05 light06 light07",
    "narrow": "light01 light02 light03",
    "sunglasses": "dark05 dark06 dark07",
}
BEARDS = {NONE: "", "full": "variant01 variant06 variant07", "long": "variant03", "goatee": "variant02 variant04"}
HATS = {
    NONE: "",
    "hat": "variant06",
    "cap": "variant02 variant07",
    "beanie": "variant01 variant03 variant04 variant05 variant08 variant09 variant10",
}
MOUTHS = {
    "smile": "happy09",
    "laugh": "happy06 happy12",
    "smirk": "happy07 happy08 happy10 happy11",
    "neutral": "sad04 sad05 sad06 sad07",
    "frown": "sad01",
    "surprised": "happy01",
}
CLOTHES = {
    "shirt": "variant03 variant04 variant05 variant08 variant11 variant14",
    "striped": "variant13",
    "checked": "variant06 variant02",
    "vest": "variant17 variant19 variant20",
}
EYES = "variant02 variant05 variant06 variant07 variant08 variant09 variant12"
MOUTH_COLOURS = ("de0f0d", "c2185b")  # no attribute names them
FRAMES = "323232"
UNDER_HATS = ("bald", "short", "bob", "long", "pigtails", "ponytail")  # hair that is told apart below a hat

VOCABULARY: Mapping[str, tuple[str, ...]] = {
    "style": ("pixel",),
    "skin": tuple(SKINS),
    "hair": tuple(HAIRS),
    "hair_color": (NONE, *HAIR_COLOURS),
    "eyes": tuple(EYE_COLOURS),
    "glasses": tuple(GLASSES),
    "beard": tuple(BEARDS),
    "hat": tuple(HATS),
    "hat_color": (NONE, *CLOTHES_COLOURS),
    "mouth": tuple(MOUTHS),
    "clothing": tuple(CLOTHES),
    "clothing_color": tuple(CLOTHES_COLOURS),
    "background": tuple(BACKGROUNDS),
}
NAMES = tuple(VOCABULARY)
ABSENT = {"glasses": 0.5, "beard": 0.65, "hat": 0.7}  # how often one is drawn without
HELD_OUT = (  # pairs that training never sees, and tests ask for
    {"hair_color": "blue", "clothing_color": "yellow"},
    {"hair_color": "green", "clothing_color": "purple"},
    {"hair_color": "pink", "clothing_color": "orange"},
    {"hair_color": "blonde", "clothing_color": "green"},
    {"hair": "mohawk", "glasses": "sunglasses"},
)
Which = Literal["seen", "held_out", "all"]


@dataclass(frozen=True)
class Attributes:
    """What is known of a portrait; every field is a value of `VOCABULARY` or "any"."""

    style: str = ANY
    skin: str = ANY
    hair: str = ANY
    hair_color: str = ANY  # of the beard too; "none" where there is neither
    eyes: str = ANY
    glasses: str = ANY
    beard: str = ANY
    hat: str = ANY
    hat_color: str = ANY  # "none" where there is no hat
    mouth: str = ANY
    clothing: str = ANY
    clothing_color: str = ANY
    background: str = ANY

    def row(self) -> tuple[int, ...]:
        """The codes of the fields. Raises UserError for a value that its field does not have."""
        return tuple(code(name, getattr(self, name)) for name in NAMES)

    @classmethod
    def of(cls, row: Any) -> Attributes:
        """The attributes of a row of codes."""
        return cls(**{name: ((ANY, *VOCABULARY[name])[int(c)]) for name, c in zip(NAMES, row, strict=True)})


assert tuple(field.name for field in fields(Attributes)) == NAMES


def code(name: str, value: str) -> int:
    """The code of an attribute's value. Raises UserError for a value that the attribute does not have."""
    values = (ANY, *VOCABULARY[name])
    if value not in values:
        raise UserError(f"The attribute '{name}' cannot be '{value}'; it is one of: {', '.join(values)}.")
    return values.index(value)


# --------------------------------------------------------------------------------------------------- what goes together
def settle(attributes: Attributes) -> Attributes:
    """The same with what follows from it filled in. Raises UserError if no portrait can be like that."""
    known = {name: getattr(attributes, name) for name in NAMES}
    if known["hat_color"] == NONE:
        known["hat"] = known["hat"] if known["hat"] != ANY else NONE
    if known["hat"] == NONE and known["hat_color"] == ANY:
        known["hat_color"] = NONE
    if (known["hair"], known["beard"], known["hair_color"]) == ("bald", NONE, ANY):
        known["hair_color"] = NONE
    settled = Attributes(**known)
    _refuse_impossible(settled)
    return settled


def _refuse_impossible(known: Attributes) -> None:
    if known.hat not in (NONE, ANY) and known.hair not in (ANY, *UNDER_HATS):
        raise UserError(
            f"The {known.hat} would hide the hair of kind '{known.hair}'; leave out the {known.hat}, "
            f"or ask for one of these below it: {', '.join(UNDER_HATS)}."
        )
    if known.hat_color not in (NONE, ANY) and known.hat in (NONE, ANY):
        raise UserError(f"A {known.hat_color} hat needs a hat: say which, {', '.join(list(HATS)[1:])}.")
    if known.hat not in (NONE, ANY) and known.hat_color == NONE:
        raise UserError(f"A {known.hat} without a colour cannot be drawn; name one of: {', '.join(CLOTHES_COLOURS)}.")
    bare = known.hair == "bald" and known.beard in (NONE, ANY)
    if bare and known.hair_color not in (NONE, ANY):
        raise UserError(f"A bald head has no {known.hair_color} hair; leave out one of the two, or name a beard.")
    if known.hair_color == NONE and (known.hair, known.beard) != ("bald", NONE):
        raise UserError("Only a bald head without a beard has no hair colour; name a hair colour, or leave it open.")


def held_out(attributes: Attributes) -> bool:
    """Whether these attributes contain a pair that training never sees."""
    return any(all(getattr(attributes, name) == value for name, value in pair.items()) for pair in HELD_OUT)


def held_out_rows(rows_BA: Ints) -> Bools:
    """The same for rows of codes: [B]."""
    found = np.zeros(len(rows_BA), dtype=bool)
    for pair in HELD_OUT:
        match = [rows_BA[:, NAMES.index(name)] == code(name, value) for name, value in pair.items()]
        found |= np.all(match, axis=0)
    return found


def draw_rows(count: int, rng: np.random.Generator, like: Attributes | None = None, which: Which = "seen") -> Ints:
    """Rows of codes [count, A] of possible portraits, nothing left open.

    Args:
        like: what they have in common. which: without held-out pairs, only with one, or both.
            Raises UserError if `like` is impossible, and if it leaves no portrait of that kind.
    """
    given = np.asarray(settle(like or Attributes()).row())
    rows, tries = np.empty((0, len(NAMES)), dtype=np.int64), 0
    while len(rows) < count:
        drawn = np.stack([_draw_codes(name, max(64, count), rng) for name in NAMES], axis=1)
        drawn = np.where(given > 0, given, drawn)
        bare = (drawn[:, NAMES.index("hair")] == code("hair", "bald")) & (
            _column(drawn, "beard") == code("beard", NONE)
        )
        hatless = _column(drawn, "hat") == code("hat", NONE)
        for name, without in (("hair_color", bare), ("hat_color", hatless)):
            column = drawn[:, NAMES.index(name)]
            column[without & (given[NAMES.index(name)] == 0)] = code(name, NONE)
        good = (_column(drawn, "hair_color") == code("hair_color", NONE)) == bare
        good &= (_column(drawn, "hat_color") == code("hat_color", NONE)) == hatless
        good &= hatless | np.isin(_column(drawn, "hair"), [code("hair", value) for value in UNDER_HATS])
        if which != "all":
            good &= held_out_rows(drawn) == (which == "held_out")
        rows, tries = np.concatenate([rows, drawn[good]]), tries + 1
        if tries >= 200 and not len(rows):
            raise UserError(f"No portrait like that is among the {which.replace('_', '-')} ones; leave something open.")
    return rows[:count]


def _column(rows_BA: Ints, name: str) -> Ints:
    return rows_BA[:, NAMES.index(name)]


def _draw_codes(name: str, count: int, rng: np.random.Generator) -> Ints:
    values = VOCABULARY[name]
    low = 2 if name in ABSENT or values[0] == NONE else 1
    drawn = rng.integers(low, len(values) + 1, count)
    if name in ABSENT:
        drawn[rng.random(count) < ABSENT[name]] = 1
    return drawn


# ------------------------------------------------------------------------------------------------------------- pictures
@dataclass(frozen=True)
class Recipe:
    """What the style draws: for every component the variant's index or -1, and for every slot the colours [B, 3]."""

    picks: Mapping[str, Ints]
    colours: Mapping[str, Ints]

    def options(self, row: int) -> dict[str, Any]:
        """The options with which DiceBear draws the same portrait."""
        asked: dict[str, Any] = {"accessories": [], "accessoriesProbability": 0}
        for component in ORDER[1:]:
            pick = int(self.picks[component][row])
            asked[component] = [variants(component)[pick]] if pick >= 0 else []
            if component in ("glasses", "beard", "hat"):
                asked[f"{component}Probability"] = 100 if pick >= 0 else 0
        for slot, colour in self.colours.items():
            asked[f"{slot}Color"] = [bytes(colour[row].tolist()).hex()]
        return asked


@cache
def variants(component: str) -> tuple[str, ...]:
    """Names of a component's variants in the atlas."""
    return tuple(pixel_art().layers[component])


GROUPS = {
    **{"hair": HAIRS, "glasses": GLASSES, "beard": BEARDS, "hat": HATS, "mouth": MOUTHS, "clothing": CLOTHES},
    "eyes": {"": EYES},
}
COLOURS = {
    **{"skin": SKINS, "hair_color": HAIR_COLOURS, "eyes": EYE_COLOURS, "hat_color": CLOTHES_COLOURS},
    **{"clothing_color": CLOTHES_COLOURS, "background": BACKGROUNDS},
}


@cache
def _choices(component: str) -> tuple[Ints, ...]:
    """For every value of a component's attribute, the variants it may be drawn with, as indices."""
    groups = GROUPS[component].values()
    return tuple(np.asarray([variants(component).index(name) for name in group.split()], np.int64) for group in groups)


@cache
def _hair_below(hat: int) -> tuple[Ints, ...]:
    """The choices of hair of which enough shows below one variant of hat."""
    bare = ~pixel_art().covers("hat", variants("hat")[hat])
    shown = [int((pixel_art().own("hair", name) & bare).sum()) >= LEAST_SEEN for name in variants("hair")]
    return tuple(choice[np.asarray(shown)[choice]] for choice in _choices("hair"))


@cache
def _eyes_behind(glasses: int) -> Ints:
    """The eyes of which both irises show behind one variant of glasses."""
    clear = ~pixel_art().covers("glasses", variants("glasses")[glasses]).reshape(pixel_art().grid)
    irises = [(pixel_art().own("eyes", name).reshape(pixel_art().grid) & clear) for name in variants("eyes")]
    half = pixel_art().grid[1] // 2
    shown = np.asarray([iris[:, :half].any() and iris[:, half:].any() for iris in irises])
    (choice,) = _choices("eyes")
    return np.asarray(choice[shown[choice]])


def _pick(choices: tuple[Ints, ...], values_B: Ints, rng: np.random.Generator) -> Ints:
    """One variant for each value, -1 where a value has none."""
    picked, chance = np.full(len(values_B), -1, dtype=np.int64), rng.random(len(values_B))
    for value, choice in enumerate(choices):
        rows = np.flatnonzero(values_B == value)
        if len(rows) and len(choice):
            picked[rows] = choice[(chance[rows] * len(choice)).astype(np.int64)]
    return picked


def recipe(rows_BA: Ints, rng: np.random.Generator) -> Recipe:
    """Variants and colours for rows of codes with nothing left open; what no attribute says is drawn at random."""
    values = {name: _column(rows_BA, name) - 1 for name in NAMES}
    picks = {name: _pick(_choices(name), values[name], rng) for name in GROUPS if name != "eyes"}
    picks["eyes"] = _pick(_choices("eyes"), np.zeros_like(values["eyes"]), rng)
    for hat in np.unique(picks["hat"][picks["hat"] >= 0]):
        rows = np.flatnonzero(picks["hat"] == hat)
        picks["hair"][rows] = _pick(_hair_below(int(hat)), values["hair"][rows], rng)
    for glasses in np.unique(picks["glasses"][picks["glasses"] >= 0]):
        rows = np.flatnonzero(picks["glasses"] == glasses)
        picks["eyes"][rows] = _pick((_eyes_behind(int(glasses)),), np.zeros(len(rows), np.int64), rng)
    colours = {}
    for name, palette in COLOURS.items():
        table = np.asarray([rgb(c) for c in palette.values()], np.int64)
        index = values[name] - (VOCABULARY[name][0] == NONE)  # "none" reads the last colour, which nothing shows
        colours[name.removesuffix("_color")] = table[index]
    colours["mouth"] = np.asarray([rgb(c) for c in MOUTH_COLOURS], np.int64)[rng.integers(0, 2, len(rows_BA))]
    colours["glasses"] = np.repeat(np.asarray([rgb(FRAMES)], np.int64), len(rows_BA), axis=0)
    return Recipe(picks, colours)


def draw_rows_as_pixels(rows_BA: Ints, rng: np.random.Generator) -> Pixels:
    """Pictures [B, 16, 16, 3] of rows of codes with nothing left open."""
    return bake(recipe(rows_BA, rng))


def bake(made: Recipe) -> Pixels:
    """The pictures [B, 16, 16, 3] of a recipe."""
    return paint(pixel_art(), made.picks, {component: variants(component) for component in ORDER[1:]}, made.colours)


def draw_many(
    count: int, rng: np.random.Generator, like: Attributes | None = None, which: Which = "seen"
) -> tuple[Pixels, Ints]:
    """Pictures [count, 16, 16, 3] and their rows of codes [count, A]; see `draw_rows` for the arguments."""
    rows = draw_rows(count, rng, like, which)
    return draw_rows_as_pixels(rows, rng), rows


def draw(attributes: Attributes, rng: np.random.Generator) -> Pixels:
    """A picture [64, 64, 3] with these attributes; what they leave open is drawn at random, held-out pairs included."""
    pixels, _ = draw_many(1, rng, attributes, "all")
    return enlarge(pixels[0])


def enlarge(pixels_HWC: Pixels, side: int = SIDE) -> Pixels:
    """A square picture with every pixel repeated, to a side that is a multiple of its own."""
    times = side // pixels_HWC.shape[0]
    assert times * pixels_HWC.shape[0] == side, f"{side} is no multiple of {pixels_HWC.shape[0]}"
    return pixels_HWC.repeat(times, axis=0).repeat(times, axis=1)
