"""Notionists with known attributes: people in black and white, from the chest up, before a coloured background.

The avatar style Notionists by Zoish is under CC0 1.0; the readings of its variants are this project's choice. Left out
because 64 pixels do not show them, or too little: eyes, brows, noses, what is printed on shirts, and small gestures.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from backend.codecs.atlas import Ints
from backend.codecs.drawings import ANY, BACKGROUNDS, FACES, NONE, Drawing, Kind, Limit, maybe, numbered, one

HAIRS = {
    "short": "05 06 13 15 16 18 27 34 35 54",
    "quiff": "01 03 17 26",
    "spiky": "50 51 52 53",
    "curly": "20 22 31 33 40",
    "long": "02 10 23 28 36 41",
    "ponytail": "39 45 46 47",
    "bun": "29 48 57",
    "buns": "30 59",
    "cap": "",  # its variant has a name
    "turban": "61",
    "hijab": "62 63",
}
CAP = "hat"
GLASSES = {NONE: "", "round": "11", "square": "03", "sunglasses": "01 02 09 10"}
BEARDS = {NONE: "", "short": "12", "full": "01 02", "moustache": "07 09"}
MOUTHS = {
    "smile": "03 23",
    "laugh": "05 25",
    "grin": "07 26",
    "surprised": "15",
    "frown": "18 24",
    "neutral": "04 20 21",
}
CLOTHES = {
    "white": "01 03 05 07 14 21 23",
    "black": "02 04 06 08",
    "dotted": "15 24",
    "jacket": "10 17",
    "tie": "20",
}
GESTURES = {NONE: "", "phone": "handPhone", "waving": "waveLongArm waveLongArms"}
EYES, BROWS, NOSES = "04 05", "01 05 06 09 11 12", "01 02 03 04 05 06 07 08"  # no attribute says them
SCALE, DOWN = 142, 4  # percent: nearer than the style has it, and lower, so that faces are large and buns are not cut

VOCABULARY = {
    "style": ("notionists",),
    "hair": tuple(HAIRS),
    "glasses": tuple(GLASSES),
    "beard": tuple(BEARDS),
    "mouth": (NONE, *MOUTHS),
    "clothing": tuple(CLOTHES),
    "gesture": tuple(GESTURES),
    "face": FACES,
    "background": tuple(BACKGROUNDS),
}
KIND = Kind(
    "notionist",
    VOCABULARY,
    (
        Limit("hair", "beard", {"hijab": (NONE,)}, tuple(BEARDS), "it would cover the beard"),
        Limit("beard", "mouth", {"full": (NONE,)}, tuple(MOUTHS), "a full beard hides the mouth, a short one does not"),
    ),
    (
        {"hair": "bun", "glasses": "round"},
        {"hair": "spiky", "clothing": "tie"},
        {"clothing": "black", "background": "mint"},
        {"mouth": "laugh", "gesture": "phone"},
    ),
    {"glasses": 0.5, "beard": 0.55, "gesture": 0.6},
)


@dataclass(frozen=True)
class Notionist(Drawing):
    """What is known of a person; see `Drawing`."""

    kind = KIND
    style: str = ANY
    hair: str = ANY  # or what is worn over it
    glasses: str = ANY
    beard: str = ANY
    mouth: str = ANY  # "none" in a full beard
    clothing: str = ANY
    gesture: str = ANY
    face: str = ANY
    background: str = ANY


assert tuple(field.name for field in fields(Notionist)) == tuple(VOCABULARY)


def options(row: Ints, rng: np.random.Generator) -> dict[str, Any]:
    """What DiceBear is asked for; what no attribute says is drawn at random."""
    known = Notionist.of(row)
    lips = MOUTHS.get(known.mouth) or MOUTHS["neutral"]
    return {
        "backgroundColor": [BACKGROUNDS[known.background]],
        "hair": one(CAP if known.hair == "cap" else numbered(HAIRS[known.hair]), rng),
        "lips": one(numbered(lips), rng),
        "body": one(numbered(CLOTHES[known.clothing]), rng),
        "eyes": one(numbered(EYES), rng),
        "brows": one(numbered(BROWS), rng),
        "nose": one(numbered(NOSES), rng),
        **maybe("glasses", numbered(GLASSES[known.glasses]), rng),
        **maybe("beard", numbered(BEARDS[known.beard]), rng),
        **maybe("gesture", GESTURES[known.gesture], rng),
        **maybe("bodyIcon", "", rng),
        "flip": known.face == "left",
        "scale": SCALE,
        "translateY": DOWN,
    }
