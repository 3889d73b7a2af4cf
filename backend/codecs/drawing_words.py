"""The words of prompts about drawn people: "lorelei, brown skin, long red hair, round glasses, laughing, flowers".

Styles of drawings share their words; of each table, a style takes what its vocabulary has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from backend.codecs import lorelei, notionists, peeps
from backend.codecs.caption_words import PEOPLE, PORTRAITS, Lexicon, Noun, Values
from backend.codecs.drawings import ANY, FACES, NONE, Drawing, Vocabulary

TITLES = {
    **{"style": "style", "skin": "skin", "hair": "hair or headwear", "hair_color": "hair colour", "eyes": "eyes"},
    **{"glasses": "glasses", "beard": "beard", "mouth": "expression", "flowers": "flowers", "clothing": "clothing"},
    **{"clothing_color": "clothing colour", "gesture": "gesture", "face": "face", "background": "background"},
}
SYNONYMS: Mapping[str, Mapping[str, str]] = {  # where a style lacks the value too, the value's own synonym counts
    "skin": {
        **{"fair": "pale", "white": "pale", "light": "pale", "beige": "light", "tanned": "tan"},
        **{"black": "dark", "dark": "brown"},
    },
    "hair": {
        **{"cropped": "short", "spiked": "spiky", "balding": "receding", "buzzed": "shaved", "shaved": "bald"},
        **{"curled": "curly", "hat": "cap"},
    },
    "hair_color": {
        **{"blond": "blonde", "fair": "blonde", "golden": "blonde", "ginger": "red", "orange": "red"},
        **{"gray": "grey", "silver": "grey", "brunette": "brown"},
    },
    "eyes": {"shut": "closed", "sleeping": "closed", "sleepy": "closed", "dot": "dotted", "opened": "open"},
    "glasses": {"circular": "round", "rectangular": "square", "dark": "sunglasses", "black": "sunglasses"},
    "beard": {"bushy": "full", "thick": "full", "long": "full", "goatee": "short"},
    "mouth": {"surprised": "amazed", "amazed": "surprised", "sad": "frown", "frown": "sad", "serious": "neutral"},
    "clothing": {"plain": "white", "spotted": "dotted", "dark": "black"},
    "clothing_color": {"orange": "yellow", "violet": "purple"},
    "background": {
        **{"green": "mint", "sky": "blue", "purple": "lavender", "violet": "lavender", "lilac": "lavender"},
    },
}
HAIRS = {  # kinds of hair that are nouns, and headwear
    **{"bald": ("bald", "hairless"), "mohawk": ("mohawk", "mohawks"), "afro": ("afro", "afros")},
    **{"bob": ("bob", "bobs"), "ponytail": ("ponytail", "ponytails"), "bun": ("bun",), "buns": ("buns",)},
    **{"knots": ("knots",), "quiff": ("quiff", "quiffs"), "flattop": ("flattop", "flattops")},
    **{"cap": ("cap", "caps"), "hat": ("hat", "hats"), "beanie": ("beanie", "beanies")},
    **{"turban": ("turban", "turbans"), "hijab": ("hijab", "hijabs", "headscarf")},
}
WORN = ("cap", "hat", "beanie", "turban", "hijab")
MOUTHS = {
    "smile": ("smile", "smiling", "smiles", "happy"),
    "laugh": ("laugh", "laughing", "laughs"),
    "grin": ("grin", "grinning", "grins"),
    "surprised": ("surprised", "astonished"),
    "amazed": ("amazed", "awed"),
    "frown": ("frown", "frowning", "frowns"),
    "neutral": ("neutral",),
    "sad": ("sad", "unhappy"),
    "angry": ("angry", "furious"),
    "serious": ("serious", "stern"),
    "loving": ("loving", "enamoured", "smitten"),
    "scared": ("scared", "frightened", "afraid"),
    "cyclops": ("cyclops",),
    "monster": ("monster",),
}
OWN_NOUN = (
    *(NONE, *HAIRS, "winking", "sunglasses", "eyepatch", "moustache", "goatee"),
    *("jacket", "tie", "phone", "waving"),
)

WORDINGS: Mapping[str, Mapping[str, tuple[str, ...]]] = {  # by attribute and value, "" for all others; plainest first
    "skin": {"": ("{value} skin", "{value}-skinned", "a {value} complexion")},
    "hair": {
        "": ("{value} {colour} hair", "{colour} {value} hair"),
        "bald": ("bald", "no hair", "a bald head"),
        **{word: ("{colour} " + word, "a {colour} " + word) for word in HAIRS if word != "bald" and word not in WORN},
        "buns": ("two {colour} buns", "{colour} space buns"),
        "knots": ("{colour} knots",),
        "flattop": ("{colour} flat-top", "a {colour} flat top"),
        **{word: (word, f"wearing a {word}") for word in WORN},
    },
    "eyes": {"": ("{value} eyes", "with {value} eyes", "eyes: {value}"), "winking": ("winking", "a winking eye")},
    "glasses": {
        "": ("{value} glasses", "wearing {value} spectacles"),
        NONE: ("no glasses", "without glasses"),
        "sunglasses": ("sunglasses", "dark glasses", "black shades"),
        "eyepatch": ("eyepatch", "an eye patch"),
    },
    "beard": {
        "": ("{value} beard", "a {value} beard"),
        NONE: ("no beard", "without a beard", "clean-shaven"),
        "moustache": ("moustache", "a mustache"),
        "goatee": ("goatee", "a goatee"),
    },
    "mouth": {},  # the words of MOUTHS
    "flowers": {"flowers": ("flowers", "flowers in the hair", "a flower"), NONE: ("no flowers", "without flowers")},
    "clothing": {
        "": ("{value} shirt", "wearing a {value} shirt"),
        "jacket": ("jacket", "in a jacket"),
        "tie": ("tie", "wearing a tie"),
    },
    "clothing_color": {"": ("{value} shirt", "a {value} shirt", "{value} clothes")},
    "gesture": {
        "phone": ("phone", "holding a phone"),
        "waving": ("waving", "waves"),
        NONE: ("no gesture", "without a gesture"),
    },
    "face": {"": ("looking {value}", "facing {value}")},
    "background": {"": ("{value} background", "on a {value} background", "background: {value}")},
}
PHRASES = tuple(
    (re.compile(rf"\b(?:{phrase})\b"), word)
    for phrase, word in (
        *((r"t shirts?|tee shirts?|tees?|tshirts?", "shirt"), (r"pony tails?", "ponytail"), (r"flat tops?", "flattop")),
        *((r"(?:two|double|space) (\w+ )?buns", r"\1buns"), (r"bantu (\w+ )?knots", r"\1knots"), ("bob cut", "bob")),
        *((r"shaved heads?", "shaved hair"), ("sun glasses", "sunglasses"), (r"eye patch(?:es)?", "eyepatch")),
        *(
            (r"(?:baseball|flat) caps?", "cap"),
            (r"head ?scarf", "hijab"),
            (r"clean shaven|no facial hair", "beardless"),
        ),
        *((r"heart(?:s| shaped)? eyes|hearts (?:for|as) eyes", "loving"), (r"one eyed|single eye", "cyclops")),
        *((r"(?:three|3) eyes|three eyed", "monster"), (r"winking eyes?|one eye closed", "winking")),
        (r"(?:waving|waves)(?: (?:an?|his|her|hers|their|the|both|one))? hands?", "waving"),
        (r"(flowers?) (?:in|on) (?:(?:the|his|her|their) )?hair", r"\1"),
        (r"(?:holding|holds|with) (?:an? |the |his |her |their )?phone", "phone"),
        *((r"smart ?phones?|cell ?phones?", "phone"), (r"open mouth", "surprised"), (r"redheads?", "red hair")),
        *((rf"(?:look(?:s|ing)?|fac(?:es|ing)|face) (?:to the )?{side}", f"looking_{side}") for side in FACES),
    )
)


def _meant(name: str, word: str, vocabulary: Vocabulary) -> str:
    """The value that a word says of an attribute, as far as the style has it; empty where it has none."""
    tried: list[str] = []
    while word not in vocabulary.get(name, ()) and word not in tried:
        tried, word = [*tried, word], SYNONYMS.get(name, {}).get(word, "")
    return word if word in vocabulary.get(name, ()) else ""


def _values(vocabulary: Vocabulary) -> Values:
    """The words for values of a style."""
    synonyms = {
        name: {
            word: _meant(name, word, vocabulary) for word in table if _meant(name, word, vocabulary) not in ("", word)
        }
        for name, table in SYNONYMS.items()
        if name in vocabulary
    }
    return Values(vocabulary, synonyms, OWN_NOUN)


def _all_nouns(style: str, name: str) -> dict[str, Noun]:
    """The nouns of every style, whatever it has."""
    no_glasses, no_beard = {"glasses": NONE}, {"beard": NONE}
    black = dict.fromkeys(("dark", "black"), ("glasses", "sunglasses"))
    usual = {"beard": "short" if style == "notionists" else "full"}
    shared = ("hair_color",) if style == "lorelei" else ()  # there beards have the colour of the hair
    made = {
        f"{name}|{name}s": Noun(says={"style": style}),
        "skin|skinned|complexion": Noun(("skin",)),
        "hair|haired|hairs|hairstyle|haircut": Noun(("hair", "hair_color"), without={"hair": "bald"}),
        "eyes|eyed|eye": Noun(("eyes",)),
        "winking|winks|wink": Noun(says={"eyes": "winking"}),
        "glasses|spectacles|eyeglasses|specs": Noun(("glasses",), usual={"glasses": "round"}, without=no_glasses),
        "sunglasses|shades": Noun((), {"glasses": "sunglasses"}, without=no_glasses, also=black),
        "eyepatch": Noun(says={"glasses": "eyepatch"}),
        "beard|bearded|beards": Noun(("beard", *shared), usual=usual, without=no_beard),
        "moustache|mustache|moustaches": Noun(says={"beard": "moustache"}, without=no_beard),
        "goatee|goatees": Noun(says={"beard": "goatee"}, without=no_beard),
        "beardless|shaven": Noun(says=no_beard),
        "flowers|flower": Noun(says={"flowers": "flowers"}, without={"flowers": NONE}),
        "clothes|clothing|outfit|top|shirt|shirts|jumper|sweater|pullover": Noun(("clothing", "clothing_color")),
        "jacket|jackets": Noun(says={"clothing": "jacket"}),
        "tie|ties|necktie": Noun(says={"clothing": "tie"}),
        "phone|phones": Noun(says={"gesture": "phone"}),
        "waving|waves|wave": Noun(says={"gesture": "waving"}),
        "gesture|gestures": Noun(("gesture",), without={"gesture": NONE}),
        **{f"looking_{side}": Noun(says={"face": side}) for side in FACES},
        "background|backdrop|bg|backgrounds": Noun(("background",)),
    }
    for value, words in HAIRS.items():
        made["|".join(words)] = Noun(() if value in WORN or value == "bald" else ("hair_color",), {"hair": value})
    for value, words in MOUTHS.items():
        made["|".join(words)] = Noun(says={"mouth": value})
    return made


def _nouns(vocabulary: Vocabulary, told: Values, name: str) -> dict[str, Noun]:
    """The nouns of a style: of all, those that say what its vocabulary has."""
    kept: dict[str, Noun] = {}
    for words, noun in _all_nouns(vocabulary["style"][0], name).items():
        of = tuple(attribute for attribute in noun.of if attribute in vocabulary)
        says = {attribute: _meant(attribute, value, vocabulary) for attribute, value in noun.says.items()}
        without = {each: value for each, value in noun.without.items() if value in vocabulary.get(each, ())}
        if all(says.values()) and (of or says):
            kept[words] = replace(noun, of=of, says=says, without=without, told=told)
    hues = ("blonde", "blond", "ginger", "brunette")
    fair = {hue: ("hair_color", _meant("hair_color", hue, vocabulary)) for hue in hues}
    kept["|".join(PEOPLE)] = Noun(
        tuple(each for each in ("skin",) if each in vocabulary),
        also=fair if "hair_color" in vocabulary else {},
        told=told,
    )
    return {word: noun for words, noun in kept.items() for word in words.split("|")}


def _lexicon(made: type[Drawing], things: str, example: str) -> Lexicon:
    vocabulary, name = made.kind.vocabulary, made.kind.name
    told = _values(vocabulary)
    nouns = _nouns(vocabulary, told, name)
    return Lexicon(
        name,
        things,
        example,
        {each: title for each, title in TITLES.items() if each in vocabulary},
        nouns,
        lambda said: made.kind.settle(made(**said)),
        tuple(word for word in ("skin", "hair", "eyes", "glasses", "beard", "shirt", "background") if word in nouns),
        "hair",
        told,
        PHRASES,
        PORTRAITS | {name, f"{name}s"},
    )


LORELEI_WORDS = _lexicon(
    lorelei.Lorelei,
    "skin, hair, eyes, glasses, beard, mouth, flowers, where it looks, and its background",
    "lorelei, brown skin, long red hair, round glasses, laughing, flowers, mint background",
)
NOTIONIST_WORDS = _lexicon(
    notionists.Notionist,
    "hair or headwear, glasses, beard, mouth, clothes, gesture, where it looks, and its background",
    "notionist, short hair, round glasses, smiling, beard, black shirt, waving, yellow background",
)
PEEP_WORDS = _lexicon(
    peeps.Peep,
    "skin, hair or headwear, expression, glasses, beard, shirt, where it looks, and its background",
    "peep, dark skin, afro, square glasses, grinning, yellow shirt, blue background",
)


def caption(known: Drawing, rng: np.random.Generator | None = None) -> str:
    """A caption of everything that is known, which is read back as the same. rng: chooses among wordings and orders.

    Raises UserError if no picture has these attributes.
    """
    known = known.kind.settle(known)
    told = [phrase for phrase in (_told(name, known, rng) for name in WORDINGS) if phrase]
    if rng is not None and rng.random() < 0.5:
        told = [told[i] for i in rng.permutation(len(told))]
    named = [] if known.style == ANY else [known.kind.name]
    return ", ".join([*named, *told]) or "portrait"


def _told(name: str, known: Drawing, rng: np.random.Generator | None) -> str:
    """The phrase about an attribute and its colour; empty where nothing is known, or nothing can be seen."""
    value, colour = getattr(known, name, ANY), getattr(known, "hair_color", ANY) if name == "hair" else ANY
    colour = "" if colour in (ANY, NONE) else colour
    if (value == ANY and not colour) or (value == NONE and NONE not in WORDINGS[name]):
        return ""
    wordings = MOUTHS[value] if name == "mouth" else WORDINGS[name].get(value) or WORDINGS[name][""]
    wording = wordings[0] if rng is None else wordings[int(rng.integers(len(wordings)))]
    return " ".join(wording.format(value="" if value == ANY else value, colour=colour).split())
