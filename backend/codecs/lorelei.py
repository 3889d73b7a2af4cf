"""Lorelei with known attributes: faces in lines, with coloured hair and skin.

The avatar style Lorelei by Lisa Wischofsky is under CC0 1.0; the readings of its variants and the colours by name are
this project's choice. Left out because 64 pixels do not show them, or too little: earrings, freckles, noses, brows,
reading glasses that lie over the eyes, and hair that falls over one eye.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from backend.codecs.atlas import Ints
from backend.codecs.drawings import ANY, BACKGROUNDS, FACES, NONE, Drawing, Kind, Limit, maybe, numbered, one

SKINS = {"pale": "fff1e6", "light": "ffd9b0", "tan": "dda06a", "brown": "96603c"}
HAIR_COLOURS = {
    **{"black": "000000", "brown": "724133", "blonde": "e8c656", "red": "c93305"},
    **{"grey": "a9a9b3", "blue": "009bbd", "pink": "ea6fae"},
}
HAIRS = {
    "shaved": "28 47",
    "short": "01 02 03 07 08 12 43",
    "receding": "25",
    "mohawk": "27",
    "curly": "05 09 22 39",
    "wavy": "18 24 35",
    "bob": "13 19",
    "long": "15 16 21 23",
    "ponytail": "31 33 42",
    "bun": "14 38 46",
    "buns": "26",
}
EYES = {"open": "02 04 21 23", "closed": "01 19 22", "winking": "15", "dotted": "13 16"}
GLASSES = {NONE: "", "round": "01", "square": "03 04", "sunglasses": "02"}
BEARDS = {NONE: "", "full": "01 02"}
MOUTHS = {
    "smile": "happy01 happy02",
    "laugh": "happy05 happy06",
    "grin": "happy07 happy16",
    "surprised": "happy18 sad01",
    "frown": "sad04 sad05",
}
FLOWERS = {NONE: "", "flowers": "flowers"}
BROWS, NOSES, HEADS = "02 05 07 09 10", "02 03 04 05 06", "01 02 03 04"  # no attribute says them
DARK_HAIR = ("black", "brown")  # on a beard of these a mouth is drawn white

VOCABULARY = {
    "style": ("lorelei",),
    "skin": tuple(SKINS),
    "hair": tuple(HAIRS),
    "hair_color": tuple(HAIR_COLOURS),
    "eyes": (NONE, *EYES),
    "glasses": tuple(GLASSES),
    "beard": tuple(BEARDS),
    "mouth": tuple(MOUTHS),
    "flowers": tuple(FLOWERS),
    "face": FACES,
    "background": tuple(BACKGROUNDS),
}
KIND = Kind(
    "lorelei",
    VOCABULARY,
    (Limit("glasses", "eyes", {"sunglasses": (NONE,)}, tuple(EYES), "sunglasses hide the eyes"),),
    (
        {"hair_color": "pink", "background": "yellow"},
        {"hair": "bun", "glasses": "round"},
        {"hair_color": "blue", "eyes": "winking"},
        {"mouth": "laugh", "flowers": "flowers"},
    ),
    {"glasses": 0.5, "beard": 0.7, "flowers": 0.7},
)


@dataclass(frozen=True)
class Lorelei(Drawing):
    """What is known of a face; see `Drawing`."""

    kind = KIND
    style: str = ANY
    skin: str = ANY
    hair: str = ANY
    hair_color: str = ANY  # of the beard too
    eyes: str = ANY  # "none" behind sunglasses
    glasses: str = ANY
    beard: str = ANY
    mouth: str = ANY
    flowers: str = ANY  # in the hair
    face: str = ANY
    background: str = ANY


assert tuple(field.name for field in fields(Lorelei)) == tuple(VOCABULARY)


def options(row: Ints, rng: np.random.Generator) -> dict[str, Any]:
    """What DiceBear is asked for; what no attribute says is drawn at random."""
    known = Lorelei.of(row)
    shown = EYES.get(known.eyes) or EYES["open"]
    white = known.beard != NONE and known.hair_color in DARK_HAIR
    return {
        "skinColor": [SKINS[known.skin]],
        "hairColor": [HAIR_COLOURS[known.hair_color]],
        "mouthColor": ["ffffff" if white else "000000"],
        "backgroundColor": [BACKGROUNDS[known.background]],
        "hair": one(numbered(HAIRS[known.hair]), rng),
        "eyes": one(numbered(shown), rng),
        "mouth": one(MOUTHS[known.mouth], rng),
        "eyebrows": one(numbered(BROWS), rng),
        "nose": one(numbered(NOSES), rng),
        "head": one(numbered(HEADS), rng),
        **maybe("glasses", numbered(GLASSES[known.glasses]), rng),
        **maybe("beard", numbered(BEARDS[known.beard]), rng),
        **maybe("hairAccessories", FLOWERS[known.flowers], rng),
        **maybe("earrings", "", rng),
        **maybe("freckles", "", rng),
        "flip": known.face == "left",
    }
