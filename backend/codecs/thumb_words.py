"""The words of prompts about thumbs: "orange thumb, winking eyes, laughing, leaning left, mint background"."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from backend.codecs.caption_words import PORTRAITS, Lexicon, Noun, Values
from backend.codecs.thumbs import ANY, VOCABULARY, Thumb

TITLES = {
    **{"style": "style", "color": "colour", "eyes": "eyes", "mouth": "mouth", "tilt": "leaning", "face": "face"},
    "background": "background",
}
SYNONYMS: Mapping[str, Mapping[str, str]] = {
    "color": {"violet": "purple", "green": "green", "golden": "yellow"},
    "eyes": {
        **{"heart": "hearts", "loving": "hearts", "sleepy": "closed", "sleeping": "closed", "shut": "closed"},
        **{"pinched": "squeezed", "squinting": "squeezed", "happy": "arched", "big": "tall", "tiny": "small"},
        **{"wink": "winking", "open": "round", "dotted": "small"},
    },
    "tilt": {"straight": "upright", "up": "upright"},
    "face": {"straight": "middle", "ahead": "middle", "forward": "middle", "centre": "middle", "center": "middle"},
    "background": {"gray": "grey", "blue": "navy", "dark": "navy", "green": "mint"},
}
MOUTHS = {
    "smile": ("smile", "smiling", "smiles"),
    "grin": ("grin", "grinning", "grins"),
    "laugh": ("laugh", "laughing", "laughs"),
    "kiss": ("kiss", "kissing", "pouting", "pout"),
}
SIDES = ("left", "right")
WORDINGS: Mapping[str, tuple[str, ...]] = {  # plainest first
    "color": ("{value} thumb", "a {value} thumb", "thumb: {value}"),
    "eyes": ("{value} eyes", "with {value} eyes", "eyes: {value}"),
    "mouth": ("{value}",),
    "tilt": ("leaning {value}", "tilted {value}"),
    "face": ("looking {value}", "face {value}"),
    "background": ("{value} background", "on a {value} background", "background: {value}"),
}


def _nouns() -> dict[str, Noun]:
    told = Values(VOCABULARY, SYNONYMS)
    made = {
        "thumb|thumbs|body": Noun(("color",), told=told),
        "eyes|eyed|eye": Noun(("eyes",), told=told),
        "winking|winks": Noun(says={"eyes": "winking"}, told=told),
        "leaning|leans|tilted|tilting|lean": Noun(("tilt",), told=told),
        "upright": Noun(says={"tilt": "upright"}, told=told),
        **{f"leaning_{side}": Noun(says={"tilt": side}, told=told) for side in SIDES},
        **{f"looking_{side}": Noun(says={"face": side}, told=told) for side in SIDES},
        "looking|looks|facing|face": Noun(("face",), told=told),
        "background|backdrop|bg|backgrounds": Noun(("background",), told=told),
    }
    for value, words in MOUTHS.items():
        made["|".join(words)] = Noun(says={"mouth": value}, told=told)
    return {word: noun for words, noun in made.items() for word in words.split("|")}


THUMB_WORDS = Lexicon(
    "thumb",
    "colour, eyes, mouth, where it leans and looks, and its background",
    "orange thumb, round eyes, laughing, leaning left, mint background",
    TITLES,
    _nouns(),
    lambda said: Thumb(**said),
    ("thumb", "eyes", "background"),
    "thumb",
    Values(VOCABULARY, SYNONYMS),
    tuple(
        (re.compile(rf"\b(?:{phrase})\b"), word)
        for phrase, word in (
            ("winking eyes?|one eye closed", "winking"),
            ("(?:leaning|tilted|standing) (?:upright|straight)|not leaning", "upright"),
            *((rf"(?:lean(?:s|ing)?|tilt(?:s|ed|ing)) (?:to the )?{side}", f"leaning_{side}") for side in SIDES),
            *((rf"(?:look(?:s|ing)?|facing|face) (?:to the )?{side}", f"looking_{side}") for side in SIDES),
        )
    ),
    PORTRAITS | {"thumb", "thumbs"},  # "a thumb" asks for any
    frozenset(),
)


def caption(thumb: Thumb, rng: np.random.Generator | None = None) -> str:
    """A caption of everything that is known, which is read back as the same. rng: chooses among wordings and orders."""
    told = []
    for name, wordings in WORDINGS.items():
        value = getattr(thumb, name)
        if value == ANY:
            continue
        wording = wordings[0] if rng is None else wordings[int(rng.integers(len(wordings)))]
        if name == "mouth":
            value = MOUTHS[value][0 if rng is None else int(rng.integers(len(MOUTHS[value])))]
        told.append(wording.format(value=value))
    if rng is not None and rng.random() < 0.5:
        told = [told[i] for i in rng.permutation(len(told))]
    return ", ".join(told) or "thumb"
