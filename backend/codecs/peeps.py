"""Open peeps with known attributes: people in bold lines, with coloured skin and shirts, and some with coloured hair.

The avatar style Open Peeps by Pablo Stanley is under CC0 1.0; the readings of its variants and the colours by name are
this project's choice. Most of its hair is black whatever is asked for, so a colour of hair chooses among the rest. Left
out: masks, which hide half a face, a bear's head, and faces that 64 pixels do not tell apart.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from backend.codecs.atlas import Ints
from backend.codecs.drawings import ANY, BACKGROUNDS, FACES, NONE, Drawing, Kind, Limit, maybe, one

SKINS = {"pale": "ffe2c8", "tan": "e8b27e", "brown": "bb7a48", "dark": "87563d"}
HAIR_COLOURS = {
    **{"black": "1c1614", "brown": "8a4b2d", "blonde": "e3bd62"},
    **{"red": "d2451e", "grey": "b9b6b6", "pink": "f08bb0"},
}
CLOTHES_COLOURS = {
    **{"red": "dd5a50", "yellow": "ffcf4a", "green": "5fc36d"},
    **{"blue": "5f86d6", "purple": "9a6fc9", "white": "f6f6f6"},
}
HAIRS = {  # whose hair is black, or has no colour
    "bald": "noHair1 noHair2",
    "short": "short1 short2 short3 short5",
    "flattop": "flatTop flatTopLong",
    "receding": "",
    "mohawk": "",
    "afro": "afro longAfro",
    "curly": "dreads1 dreads2 longCurly",
    "bob": "bangs2 medium1 mediumStraight",
    "long": "long longBangs",
    "ponytail": "cornrows cornrows2",
    "bun": "bun bun2",
    "knots": "bantuKnots buns",
    "beanie": "hatBeanie",
    "hat": "hatHip",
    "turban": "turban",
    "hijab": "hijab",
}
TINTED = {  # whose hair has the colour that is asked for
    "short": "short4 grayShort",
    "receding": "noHair3",
    "mohawk": "mohawk mohawk2",
    "curly": "mediumBangs2",
    "bob": "bangs",
    "bun": "grayBun",
}
COLOURLESS = ("bald", "beanie", "hat", "turban", "hijab")
MOUTHS = {
    "smile": "smile calm",
    "grin": "smileBig smileTeethGap",
    "laugh": "smileLOL",
    "sad": "solemn",
    "angry": "veryAngry",
    "serious": "serious",
    "loving": "lovingGrin1 lovingGrin2",
    "amazed": "awe",
    "scared": "fear hectic",
    "cyclops": "cyclops",
    "monster": "monster",
}
WITH_BEARD = {"smile": "smile", "grin": "smileBig"}  # whose eyes tell them apart where the mouth is hidden
EYES_OF_OWN = ("loving", "amazed", "scared", "cyclops", "monster")  # faces that glasses would hide
GLASSES = {
    NONE: "",
    "round": "glasses2 glasses5",
    "square": "glasses glasses3",
    "sunglasses": "sunglasses sunglasses2",
    "eyepatch": "eyepatch",
}
BEARDS = {
    NONE: "",
    "full": "full full2 full3",
    "goatee": "goatee1 goatee2",
    "moustache": "moustache5 moustache6 moustache7",
}
TINTED_BEARDS = {"full": "full4", "moustache": "moustache9"}
SCALE, DOWN = 90, 3  # percent: farther than the style has it, and lower, so that large hair is not cut

VOCABULARY = {
    "style": ("open-peeps",),
    "skin": tuple(SKINS),
    "hair": tuple(HAIRS),
    "hair_color": (NONE, *HAIR_COLOURS),
    "mouth": tuple(MOUTHS),
    "glasses": tuple(GLASSES),
    "beard": tuple(BEARDS),
    "clothing_color": tuple(CLOTHES_COLOURS),
    "face": FACES,
    "background": tuple(BACKGROUNDS),
}
KIND = Kind(
    "peep",
    VOCABULARY,
    (
        Limit(
            "hair",
            "hair_color",
            dict.fromkeys(COLOURLESS, (NONE,)) | dict.fromkeys(TINTED, tuple(HAIR_COLOURS)),
            ("black",),
            "the style draws that hair in black only, or none can be seen",
        ),
        Limit(
            "mouth",
            "glasses",
            dict.fromkeys(EYES_OF_OWN, (NONE,)),
            tuple(GLASSES),
            "glasses would hide these eyes",
        ),
        Limit(
            "glasses",
            "beard",
            {"sunglasses": (NONE,)},
            tuple(BEARDS),
            "too little of the face would be left to see",
        ),
        Limit("hair", "beard", {"hijab": (NONE,)}, tuple(BEARDS), "it would cover the beard"),
    ),
    (
        {"hair_color": "pink", "clothing_color": "yellow"},
        {"hair_color": "blonde", "background": "lavender"},
        {"hair": "afro", "glasses": "round"},
        {"mouth": "laugh", "clothing_color": "green"},
    ),
    {"glasses": 0.5, "beard": 0.6},
)


@dataclass(frozen=True)
class Peep(Drawing):
    """What is known of a person; see `Drawing`."""

    kind = KIND
    style: str = ANY
    skin: str = ANY
    hair: str = ANY  # or what is worn over it
    hair_color: str = ANY  # "none" where no hair is seen
    mouth: str = ANY  # the whole expression
    glasses: str = ANY
    beard: str = ANY
    clothing_color: str = ANY
    face: str = ANY
    background: str = ANY


assert tuple(field.name for field in fields(Peep)) == tuple(VOCABULARY)


def options(row: Ints, rng: np.random.Generator) -> dict[str, Any]:
    """What DiceBear is asked for; what no attribute says is drawn at random. Beards are coloured like the hair."""
    known = Peep.of(row)
    tinted = known.hair_color not in (NONE, "black")
    hair = TINTED[known.hair] if tinted else f"{HAIRS[known.hair]} {TINTED.get(known.hair, '')}"
    beard = TINTED_BEARDS.get(known.beard, "") if tinted else ""
    face = WITH_BEARD.get(known.mouth, "") if known.beard != NONE else ""
    return {
        "skinColor": [SKINS[known.skin]],
        "clothingColor": [CLOTHES_COLOURS[known.clothing_color]],
        "headContrastColor": [HAIR_COLOURS.get(known.hair_color, HAIR_COLOURS["black"])],
        "backgroundColor": [BACKGROUNDS[known.background]],
        "head": one(hair, rng),
        "face": one(face or MOUTHS[known.mouth], rng),
        **maybe("accessories", GLASSES[known.glasses], rng),
        **maybe("facialHair", beard or BEARDS[known.beard], rng),
        **maybe("mask", "", rng),
        "flip": known.face == "left",
        "scale": SCALE,
        "translateY": DOWN,
    }
