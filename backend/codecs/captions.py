"""Captions of portraits: attributes into words, and a visitor's words into attributes.

"pixel portrait, brown skin, short blue hair, round glasses, smile, red shirt, mint background" reads as one noun phrase
after another. A noun (or a word like "bald" and "smiling") says which attributes are meant, the words before it say
their values; a value behind its noun ("hair: blue") counts where nothing else claims it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backend.codecs.caption_words import (
    FILLERS,
    LINKS,
    MOUTHS,
    NEGATIONS,
    PIXEL_WORDS,
    SYNONYMS,
    WORDINGS,
    Lexicon,
    Noun,
)
from backend.codecs.portraits import ANY, NONE, Attributes, settle
from backend.errors import UserError

MOST_LETTERS = 400
MOST_TOLD = 4  # strange words that a message names
EXAMPLE = PIXEL_WORDS.example


# -------------------------------------------------------------------------------------------------------------- writing
def caption(attributes: Attributes, rng: np.random.Generator | None = None) -> str:
    """A caption of everything that is known, which `parse` reads back.

    rng: chooses among wordings and orders; without it, always the plainest.
    Raises UserError if no portrait can have these attributes.
    """
    known = settle(attributes)
    style = [] if known.style == ANY else [f"{known.style} portrait"]
    told = [_told(name, known, rng) for name in WORDINGS]
    rest = [phrase for phrase in told if phrase]
    if rng is not None and rng.random() < 0.5:
        rest = [rest[i] for i in rng.permutation(len(rest))]
    return ", ".join([*style, *rest]) or "portrait"


def _told(name: str, known: Attributes, rng: np.random.Generator | None) -> str:
    """The phrase about an attribute and its colour; empty where nothing is known."""
    value, colour = getattr(known, name), getattr(known, f"{name}_color", ANY)
    if name == "beard" and known.hair == "bald" and value not in (ANY, NONE):
        colour = known.hair_color
    if value == "bald" or colour == NONE:
        colour = ANY
    if value == ANY and colour == ANY:
        return ""
    wordings = WORDINGS[name].get(value) or WORDINGS[name][""]
    wording = wordings[0] if rng is None else wordings[int(rng.integers(len(wordings)))]
    words = {"value": "" if value == ANY else _worded(name, value, rng), "colour": ""}
    if colour != ANY:
        words["colour"] = _worded("hair_color" if name == "beard" else f"{name}_color", colour, rng)
    return " ".join(wording.format(**words).split())


def _worded(name: str, value: str, rng: np.random.Generator | None) -> str:
    """The value's name, or sometimes another word for it."""
    if name == "mouth":
        return MOUTHS[value][0 if rng is None else int(rng.integers(len(MOUTHS[value])))]
    others = [word for word, meant in SYNONYMS.get(name, {}).items() if meant == value]
    if rng is None or not others or rng.random() < 0.6:
        return value
    return others[int(rng.integers(len(others)))]


# -------------------------------------------------------------------------------------------------------------- reading
@dataclass(frozen=True)
class Reading:
    """What a prompt says: attributes, and the words about people that no attribute can hold."""

    attributes: Any  # `portraits.Attributes`, or those of another style
    ignored: tuple[str, ...] = ()


@dataclass
class _Group:
    """A noun with the values around it."""

    word: str
    noun: Noun
    values: list[str]
    negated: str  # the word that denies it, or ""

    def takes(self, value: str) -> bool:
        """Whether a value behind the noun may be its own: it fits, and the noun has none of that attribute."""
        said = {read[0] for read in map(self.noun.read, self.values) if read}
        found = self.noun.read(value)
        return not self.negated and found is not None and found[0] not in said


def parse(prompt: str) -> Attributes:
    """The attributes that a prompt asks for, "any" where it says nothing.

    Raises UserError for an empty or too long prompt, unknown words, words that fit no noun, and contradictions.
    """
    attributes: Attributes = read(prompt).attributes
    return attributes


def read(prompt: str, told: Lexicon = PIXEL_WORDS) -> Reading:
    """The same, with the words that were left out. told: the words of the style."""
    if not isinstance(prompt, str) or not prompt.strip():
        raise UserError(f'The prompt is empty; describe a {told.name}, such as "{told.example}".')
    if len(prompt) > MOST_LETTERS:
        raise UserError(f"The prompt has {len(prompt)} characters; describe the {told.name} in at most {MOST_LETTERS}.")
    clauses = _clauses(prompt, told)
    words = [word for clause in clauses for word in clause]
    _refuse_unknown(words, told)
    groups, waiting = [], list[str]()
    for clause in clauses:
        found, waiting = _groups(clause, waiting, told)
        groups += found
    if waiting:
        raise UserError(
            f"The prompt says {_listed(waiting)} without saying of what; "
            f"write, for example, {' or '.join(_uses(waiting[0], told))}."
        )
    if not groups and not told.portraits & set(words):
        raise UserError(f'The prompt says nothing about a {told.name}; describe one, such as "{told.example}".')
    return Reading(told.make(_attributes(groups, told)), tuple(word for word in words if word in told.people))


def _clauses(prompt: str, told: Lexicon) -> list[list[str]]:
    """Words between commas, in lower case; several words that count as one are one."""
    text = re.sub(r"[-–—_/'’\"“”‘():]+", " ", prompt.lower())
    clauses = []
    for part in re.split(r"[,.;!?&+|\n]+", text):
        joined = " ".join(part.split())
        for phrase, word in told.phrases:
            joined = phrase.sub(word, joined)
        clauses.append(joined.split())
    return [clause for clause in clauses if clause]


def _refuse_unknown(words: Iterable[str], told: Lexicon) -> None:
    spare = FILLERS | NEGATIONS | LINKS | told.values | told.portraits | set(told.nouns)
    strange = list(dict.fromkeys(word for word in words if word not in spare))
    if not strange:
        return
    known = sorted(told.values | set(told.nouns))
    named = []
    for word in strange[:MOST_TOLD]:
        near = difflib.get_close_matches(word[:30], known, 1, 0.7)
        named.append(f"'{word[:30]}' (did you mean '{near[0]}'?)" if near else f"'{word[:30]}'")
    more = [f"{len(strange) - MOST_TOLD} more words"] if len(strange) > MOST_TOLD else []
    raise UserError(
        f"A {told.name} cannot be told with {_joined([*named, *more])}; say its {told.things}, "
        f'such as "{told.example}".'
    )


def _groups(words: Sequence[str], waiting: list[str], told: Lexicon) -> tuple[list[_Group], list[str]]:
    """The nouns of a clause with their values, and the values that still wait for a noun."""
    groups: list[_Group] = []
    denied, linked = "", False  # a "no" that waits for its noun; a link right behind a noun that was denied
    for word in words:
        if word in NEGATIONS:
            denied = word
        elif word in told.nouns:
            noun = told.nouns[word]
            negated = denied or ("no" if linked and not waiting and noun.without else "")
            groups.append(_Group(word, noun, waiting if noun.words else [], negated))
            waiting, denied = [] if noun.words else waiting, ""
        elif word in told.values:
            waiting = [*waiting, word]
        linked = word in LINKS and bool(groups and groups[-1].negated)
    if denied:
        raise UserError(f"The prompt says '{denied}' without saying to what; write, for example, 'no glasses'.")
    for value in list(waiting):
        if groups and groups[-1].takes(value):
            groups[-1].values.append(value)
            waiting = [word for word in waiting if word != value]
    return groups, waiting


def _attributes(groups: Sequence[_Group], told: Lexicon) -> dict[str, str]:
    """What the groups say together."""
    said: dict[str, str] = {}
    for group in groups:
        for name, value in _says(group, told):
            _hear(said, name, value, told)
    for group in groups:
        for name, value in group.noun.usual.items():
            if not group.negated and said.get(name, value) in (value, NONE):
                _hear(said, name, value, told)
    for group in groups:
        plain = not (group.noun.says or group.noun.usual or group.word in told.people | told.portraits)
        if plain and not any(name in said for name in group.noun.of):
            raise UserError(f"The prompt names '{group.word}' without saying which; {_possible(group)}.")
    return said


def _says(group: _Group, told: Lexicon) -> list[tuple[str, str]]:
    """Attributes and values of a noun and the words around it."""
    if group.negated:
        if not group.noun.without or group.values:
            spare = [name for name in told.titles if any(name in noun.without for noun in told.nouns.values())]
            denied = " ".join([group.negated, *group.values, group.word])
            only = f"only {_joined(spare)} can be left away, each without further words" if spare else "leave it out"
            raise UserError(f"'{denied}' cannot be drawn; {only}.")
        return list(group.noun.without.items())
    said = list(group.noun.says.items())
    for word in group.values:
        found = group.noun.read(word)
        if found is None:
            raise UserError(f"The prompt asks for '{word} {group.word}', which does not exist; {_possible(group)}.")
        said.append(found)
    return said


def _possible(group: _Group) -> str:
    own = [
        value
        for value in group.noun.told.own_noun
        if "hair" in group.noun.of and value in group.noun.told.vocabulary["hair"]
    ]
    others = f", and other hair is called {_joined(own, 'or')}" if own else ""
    words = f"can be {_joined(group.noun.words, 'or')}" if group.noun.words else "stands alone"
    return f"'{group.word}' {words}{others}"


def _hear(said: dict[str, str], name: str, value: str, told: Lexicon) -> None:
    before = said.setdefault(name, value)
    if before != value:
        before, value = (f"no {told.titles[name]}" if each == NONE else each for each in (before, value))
        both = name == "hair_color" and "beard" in told.nouns and name in told.nouns["beard"].of
        shared = ", and hair and beard share it" if both else ""
        raise UserError(
            f"The prompt asks for two things as {told.titles[name]}, '{before}' and '{value}'; "
            f"a {told.name} has one{shared}, so leave one out."
        )


def _uses(value: str, told: Lexicon) -> list[str]:
    return [f"'{value} {word}'" for word in told.shown if told.nouns[word].read(value)][:3] or [
        f"'{value} {told.usual}'"
    ]


def _joined(words: Sequence[str], last: str = "and") -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"


def _listed(words: Sequence[str]) -> str:
    return _joined([f"'{word}'" for word in words])
