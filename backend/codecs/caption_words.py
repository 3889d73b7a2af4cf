"""The words of portrait captions: nouns, the values that may stand before them, synonyms, and what changes nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from backend.codecs.portraits import ANY, NONE, VOCABULARY, Attributes, settle


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


TITLES = {
    **{"style": "style", "skin": "skin", "hair": "hair shape", "hair_color": "hair colour", "eyes": "eye colour"},
    **{"glasses": "glasses", "beard": "beard", "hat": "hat", "hat_color": "hat colour", "mouth": "mouth"},
    **{"clothing": "clothing", "clothing_color": "clothing colour", "background": "background"},
}
SYNONYMS: Mapping[str, Mapping[str, str]] = {  # words for values besides the values' own names
    "skin": {"fair": "pale", "white": "pale", "beige": "light", "tanned": "tan", "black": "dark"},
    "hair": {"cropped": "short", "spiked": "spiky", "thinning": "receding"},
    "hair_color": {
        **{"blond": "blonde", "fair": "blonde", "golden": "blonde", "ginger": "orange", "gray": "grey"},
        **{"silver": "grey", "brunette": "brown"},
    },
    "glasses": {"thin": "narrow", "slim": "narrow", "dark": "sunglasses"},
    "beard": {"bushy": "full"},
    "hat_color": {"gray": "grey", "violet": "purple"},
    "clothing": {"plain": "shirt", "stripy": "striped", "stripey": "striped", "checkered": "checked"},
    "clothing_color": {"gray": "grey", "violet": "purple"},
    "background": {
        **{"gray": "grey", "green": "mint", "sky": "blue", "purple": "lavender", "violet": "lavender"},
        **{"lilac": "lavender"},
    },
}
OWN_NOUN = (NONE, "bald", "bob", "mohawk", "pigtails", "ponytail", "bun", "goatee", "sunglasses", "vest", "shirt")
MOUTHS = {
    "smile": ("smile", "smiling", "smiles", "grin", "grinning", "grins", "happy"),
    "laugh": ("laugh", "laughing", "laughs", "laughter"),
    "smirk": ("smirk", "smirking", "smirks"),
    "neutral": ("neutral", "serious"),
    "frown": ("frown", "frowning", "frowns", "sad", "unhappy"),
    "surprised": ("surprised", "surprise", "astonished", "amazed"),
}
FILLERS = _words("""
    a an the with who that has have having is are was of in on at against wearing wears wear dressed plus also his her
    hers their its some please draw paint show make me i want would like there face faces expression look looks looking
    mouth lips head style colored coloured color colour but for it this whose
""")
PORTRAITS = _words("portrait portraits picture image avatar drawing icon art")
PEOPLE = _words("""
    person people human someone somebody man woman boy girl guy lady gentleman kid child adult character figure he she
    they teenager
""")
NEGATIONS = _words("no without not lacking minus")
LINKS = frozenset(("or", "nor", "and"))
PHRASES = tuple(  # several words that count as one; read after punctuation is gone
    (re.compile(rf"\b(?:{phrase})\b"), word)
    for phrase, word in (
        *((r"t shirts?|tee shirts?|tees?|tshirts?", "shirt"), (r"tank tops?|singlets?", "vest")),
        *(
            (r"top hats?|bowler hats?|bowlers?", "hat"),
            (r"(?:baseball|flat) caps?", "cap"),
            ("sun glasses", "sunglasses"),
        ),
        *((r"(?:woolly|wool|knit|knitted) (?:hats?|caps?)", "beanie"), (r"clean shaven|no facial hair", "beardless")),
        *((r"pony tails?", "ponytail"), ("pig tails", "pigtails"), (r"shaved heads?", "bald"), ("bob cut", "bob")),
        *((r"(?:open|big|toothy|broad) (?:smiles?|grins?)", "laugh"), (r"(?:half|crooked) smiles?", "smirk")),
        *((r"short beards?", "beard"), (r"(?:straight|closed) (?:mouths?|lips)", "neutral")),
        *((r"redheads?|red heads?", "red hair"), (r"light blue background|sky blue background", "blue background")),
    )
)

WORDINGS: Mapping[str, Mapping[str, tuple[str, ...]]] = {  # by attribute and value, "" for all others; plainest first
    "skin": {"": ("{value} skin", "{value}-skinned", "a {value} complexion")},
    "hair": {
        "": ("{value} {colour} hair", "{value} {colour} hair", "{colour} {value} hair"),
        "bald": ("bald", "no hair", "a bald head"),
        **{word: ("{colour} " + word, "a {colour} " + word) for word in ("bob", "mohawk", "ponytail", "bun")},
        "pigtails": ("{colour} pigtails", "{colour} pig-tails"),
    },
    "eyes": {"": ("{value} eyes", "{value}-eyed", "eyes: {value}")},
    "glasses": {
        "": ("{value} glasses", "wearing {value} spectacles"),
        NONE: ("no glasses", "without glasses"),
        "sunglasses": ("sunglasses", "dark glasses", "black shades"),
    },
    "beard": {
        NONE: ("no beard", "without a beard", "clean-shaven"),
        "full": ("{colour} beard", "a full {colour} beard", "{colour}-bearded"),
        "long": ("long {colour} beard", "a {colour} long beard"),
        "goatee": ("{colour} goatee", "a {colour} goatee"),
    },
    "hat": {
        NONE: ("no hat", "without a hat", "hatless"),
        "hat": ("{colour} hat", "a {colour} top hat"),
        "": ("{colour} {value}", "wearing a {colour} {value}"),
    },
    "mouth": {"": ("{value}",)},
    "clothing": {
        ANY: ("{colour} clothes", "dressed in a {colour} outfit"),
        "shirt": ("{colour} shirt", "wearing a {colour} t-shirt", "a plain {colour} shirt"),
        "vest": ("{colour} vest", "in a {colour} tank top"),
        "": ("{value} {colour} shirt", "a {colour} {value} shirt"),
    },
    "background": {"": ("{value} background", "on a {value} background", "background: {value}")},
}


@dataclass(frozen=True)
class Values:
    """What words say values of attributes. own_noun: values that are nouns themselves and stand before none."""

    vocabulary: Mapping[str, tuple[str, ...]]
    synonyms: Mapping[str, Mapping[str, str]]
    own_noun: tuple[str, ...] = ()


PIXEL_VALUES = Values(VOCABULARY, SYNONYMS, OWN_NOUN)


@dataclass(frozen=True)
class Noun:
    """A word that says which attributes are meant.

    Args:
        of: attributes whose values may stand before it. also: further such words.
        says: values it stands for. usual: values it stands for unless the prompt says others.
        without: what "no" before it says; empty where "no" makes no sense. told: words for values.
    """

    of: tuple[str, ...] = ()
    says: Mapping[str, str] = field(default_factory=dict)
    usual: Mapping[str, str] = field(default_factory=dict)
    without: Mapping[str, str] = field(default_factory=dict)
    also: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    told: Values = PIXEL_VALUES

    def read(self, word: str) -> tuple[str, str] | None:
        """The attribute and value that a word before this noun says."""
        if word in self.also:
            return self.also[word]
        for name in self.of:
            value = self.told.synonyms.get(name, {}).get(word, word)
            if value in self.told.vocabulary[name] and word not in self.told.own_noun:
                return name, value
        return None

    @property
    def words(self) -> tuple[str, ...]:
        """Words that may stand before this noun, synonyms left out."""
        values = [v for name in self.of for v in self.told.vocabulary[name] if v not in self.told.own_noun]
        return tuple(dict.fromkeys([*values, *self.also]))


def _nouns() -> dict[str, Noun]:
    no_glasses, no_beard, no_hat = {"glasses": NONE}, {"beard": NONE}, {"hat": NONE}
    black = dict.fromkeys(("dark", "black"), ("glasses", "sunglasses"))
    made = {
        "pixel|pixelated": Noun(says={"style": "pixel"}),
        "skin|skinned|complexion": Noun(("skin",)),
        "hair|haired|hairs|hairstyle|haircut": Noun(("hair", "hair_color"), without={"hair": "bald"}),
        "bald|hairless": Noun(says={"hair": "bald"}),
        "eyes|eyed|eye": Noun(("eyes",)),
        "glasses|spectacles|eyeglasses|specs": Noun(("glasses",), usual={"glasses": "round"}, without=no_glasses),
        "sunglasses|shades": Noun((), {"glasses": "sunglasses"}, without=no_glasses, also=black),
        "beard|bearded|beards": Noun(("beard", "hair_color"), usual={"beard": "full"}, without=no_beard),
        "goatee|goatees": Noun(("hair_color",), {"beard": "goatee"}, without=no_beard),
        "beardless|shaven|shaved": Noun(says=no_beard),
        "hatless|bareheaded": Noun(says=no_hat),
        "shirt|shirts": Noun(("clothing", "clothing_color"), usual={"clothing": "shirt"}),
        "vest|vests": Noun(("clothing_color",), {"clothing": "vest"}),
        "clothes|clothing|outfit|top|jumper|sweater|pullover": Noun(("clothing", "clothing_color")),
        "background|backdrop|bg|backgrounds": Noun(("background",)),
    }
    for word, plural in (("mohawk", "mohawks"), ("pigtails", "pigtail"), ("ponytail", "ponytails"), ("bun", "buns")):
        made[f"{word}|{plural}"] = Noun(("hair_color",), {"hair": word})
    made["bob|bobs"] = Noun(("hair_color",), {"hair": "bob"})
    for word in ("hat", "cap", "beanie"):
        made[f"{word}|{word}s"] = Noun(("hat_color",), {"hat": word}, without=no_hat)
    for value, words in MOUTHS.items():
        made["|".join(words)] = Noun(says={"mouth": value})
    fair = {
        word: ("hair_color", SYNONYMS["hair_color"].get(word, word))
        for word in ("blonde", "blond", "ginger", "brunette")
    }
    made["|".join(PEOPLE)] = Noun(("skin",), also=fair)
    return {word: noun for words, noun in made.items() for word in words.split("|")}


NOUNS: Mapping[str, Noun] = _nouns()


def values_of(nouns: Mapping[str, Noun], synonyms: Mapping[str, Mapping[str, str]]) -> frozenset[str]:
    """All words that say a value of something."""
    said = {word for noun in nouns.values() for word in noun.words}
    return frozenset(said | {word for table in synonyms.values() for word in table})


@dataclass(frozen=True)
class Lexicon:
    """What prompts of a style are read with.

    Args:
        name: what a picture shows. things: what can be said of one. example: a prompt. titles: of attributes.
        nouns, phrases, portraits, fillers, people: see the tables of this module; portraits alone ask for any picture.
        make: attributes of values by name, with what follows from them; raises UserError if no picture is like that.
        shown: nouns that a message offers for a value that stands alone; usual: what goes behind others.
    """

    name: str
    things: str
    example: str
    titles: Mapping[str, str]
    nouns: Mapping[str, Noun]
    make: Callable[[Mapping[str, str]], Any]
    shown: tuple[str, ...]
    usual: str
    told: Values = PIXEL_VALUES
    phrases: tuple[tuple[re.Pattern[str], str], ...] = PHRASES
    portraits: frozenset[str] = PORTRAITS
    people: frozenset[str] = PEOPLE

    @property
    def values(self) -> frozenset[str]:
        """All words that say a value of something."""
        return values_of(self.nouns, self.told.synonyms)


PIXEL_WORDS = Lexicon(
    "portrait",
    "skin, hair, eyes, glasses, beard, hat, mouth, clothes and background",
    "brown skin, short blue hair, round glasses, smile, red shirt, mint background",
    TITLES,
    NOUNS,
    lambda said: settle(Attributes(**said)),
    ("skin", "hair", "eyes", "glasses", "beard", "hat", "shirt", "background"),
    "clothes",
)
