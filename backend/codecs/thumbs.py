"""Thumbs with known attributes: what can be said of one, which pairs are held out, and how DiceBear is asked for one.

The avatar style Thumbs by DiceBear is under CC0 1.0; which of its variants count as "closed eyes" or "a smile", and the
colours by name, are this project's choice. Its pictures are drawn by node (`backend/train/portraits/styles.mjs`), 64
pixels a side; nothing here draws. Rows of codes are those of `portraits`: one a field, 0 for "any".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from backend.codecs.atlas import Bools, Ints
from backend.errors import UserError

ANY = "any"
SIDE = 64

COLOURS = {
    **{"red": "d1495b", "orange": "f88c49", "yellow": "f2c53d", "green": "4caf6d"},
    **{"blue": "2f7fc4", "purple": "7b4fa3"},
}
BACKGROUNDS = {"white": "ffffff", "grey": "ccd1d9", "mint": "b6e8d2", "pink": "fac3dc", "navy": "1b2a49"}
EYES = {
    **{"hearts": "variant1", "closed": "variant2", "squeezed": "variant3", "arched": "variant4"},
    **{"round": "variant5", "tall": "variant6", "small": "variant8", "winking": "variant9"},
}
MOUTHS = {"smile": "variant3 variant4", "grin": "variant1", "laugh": "variant2", "kiss": "variant5"}
TILTS = {"left": (-14, -8), "upright": (-2, 2), "right": (8, 14)}  # degrees
FACES = {"left": (-12, -8), "middle": (-2, 2), "right": (8, 12)}  # places of the face, in percent of the picture
APART = ("W10", "W12", "W14", "W16")  # how far apart the eyes stand; no attribute says it
LAYOUTS = 5  # of a face: how high eyes and mouth are; no attribute says it either

VOCABULARY: Mapping[str, tuple[str, ...]] = {
    "style": ("thumbs",),
    "color": tuple(COLOURS),
    "eyes": tuple(EYES),
    "mouth": tuple(MOUTHS),
    "tilt": tuple(TILTS),
    "face": tuple(FACES),
    "background": tuple(BACKGROUNDS),
}
NAMES = tuple(VOCABULARY)
HELD_OUT = (  # pairs that training never sees, and tests ask for
    {"color": "purple", "background": "mint"},
    {"color": "yellow", "eyes": "winking"},
    {"eyes": "hearts", "mouth": "kiss"},
)


@dataclass(frozen=True)
class Thumb:
    """What is known of a thumb; every field is a value of `VOCABULARY` or "any"."""

    style: str = ANY
    color: str = ANY
    eyes: str = ANY
    mouth: str = ANY
    tilt: str = ANY
    face: str = ANY
    background: str = ANY

    def row(self) -> tuple[int, ...]:
        """The codes of the fields. Raises UserError for a value that its field does not have."""
        codes = []
        for name, values in VOCABULARY.items():
            value = getattr(self, name)
            if value not in (ANY, *values):
                raise UserError(f"The attribute '{name}' cannot be '{value}'; it is one of: {', '.join(values)}.")
            codes.append((ANY, *values).index(value))
        return tuple(codes)

    @classmethod
    def of(cls, row: Any) -> Thumb:
        """The attributes of a row of codes."""
        return cls(**{name: (ANY, *VOCABULARY[name])[int(c)] for name, c in zip(NAMES, row, strict=True)})


assert tuple(field.name for field in fields(Thumb)) == NAMES


def held_out(thumb: Thumb) -> bool:
    """Whether these attributes contain a pair that training never sees."""
    return any(all(getattr(thumb, name) == value for name, value in pair.items()) for pair in HELD_OUT)


def held_out_rows(rows_BA: Ints) -> Bools:
    """The same for rows of codes: [B]."""
    found = np.zeros(len(rows_BA), dtype=bool)
    for pair in HELD_OUT:
        same = [rows_BA[:, NAMES.index(name)] == 1 + VOCABULARY[name].index(value) for name, value in pair.items()]
        found |= np.all(same, axis=0)
    return found


def draw_rows(count: int, rng: np.random.Generator, which: str = "seen") -> Ints:
    """Rows of codes [count, A] with nothing left open. which: "seen", without held-out pairs, "held_out" or "all"."""
    rows = np.empty((0, len(NAMES)), dtype=np.int64)
    while len(rows) < count:
        drawn = np.stack([rng.integers(1, len(values) + 1, 2 * count) for values in VOCABULARY.values()], axis=1)
        good = held_out_rows(drawn) == (which == "held_out") if which != "all" else np.ones(len(drawn), dtype=bool)
        rows = np.concatenate([rows, drawn[good]])
    return rows[:count]


def mirrored(rows_BA: Ints) -> tuple[Ints, Bools]:
    """Rows [B, A] of the same thumbs seen in a mirror, and which of them could have been drawn so: not winking ones."""
    turned_BA = rows_BA.copy()
    for name in ("tilt", "face"):
        column = turned_BA[:, NAMES.index(name)]
        column[:] = np.where(column > 0, len(VOCABULARY[name]) + 1 - column, 0)
    winking = 1 + VOCABULARY["eyes"].index("winking")
    may_B: Bools = rows_BA[:, NAMES.index("eyes")] != winking
    return turned_BA, may_B


def options(row: Ints, rng: np.random.Generator) -> dict[str, Any]:
    """What DiceBear is asked for; what no attribute says is drawn at random. Eyes and mouth contrast with the thumb."""
    thumb = Thumb.of(row)
    mouths = MOUTHS[thumb.mouth].split()
    turned = int(rng.integers(TILTS[thumb.tilt][0], TILTS[thumb.tilt][1] + 1))
    moved = int(rng.integers(FACES[thumb.face][0], FACES[thumb.face][1] + 1))
    low, high, still = (int(rng.integers(-5, 6)), int(rng.integers(-2, 3)), int(rng.integers(-2, 3)))
    return {
        "shapeColor": [COLOURS[thumb.color]],
        "backgroundColor": [BACKGROUNDS[thumb.background]],
        "eyes": [EYES[thumb.eyes] + APART[int(rng.integers(len(APART)))]],
        "mouth": [mouths[int(rng.integers(len(mouths)))]],
        "face": [f"variant{int(rng.integers(1, LAYOUTS + 1))}"],
        "shapeRotation": [turned, turned],
        "faceRotation": [0, 0],
        "faceOffsetX": [moved, moved],
        "faceOffsetY": [low, low],
        "shapeOffsetX": [still, still],
        "shapeOffsetY": [high, high],
    }
