"""Captions: what is written is read back, what a visitor writes is understood, and what is not gets one sentence."""

from __future__ import annotations

import numpy as np
import pytest

from backend.codecs.captions import EXAMPLE, caption, parse, read
from backend.codecs.portraits import ANY, NAMES, Attributes, draw_rows, settle
from backend.errors import UserError


def known(attributes: Attributes) -> dict[str, str]:
    return {name: getattr(attributes, name) for name in NAMES if getattr(attributes, name) != ANY}


def test_parse_reads_back_what_caption_writes() -> None:
    """Thousands of portraits, whole and with some attributes left open, in the plainest words and in others."""
    rng = np.random.default_rng(0)
    tried = 0
    for number, row in enumerate(draw_rows(4000, rng, which="all")):
        left_open = rng.random(len(NAMES)) < (rng.random() if number % 2 else 0)
        attributes = Attributes.of(np.where(left_open, 0, row))
        try:
            attributes = settle(attributes)
        except UserError:  # such as a bald head with a hair colour, the beard left open
            continue
        for words in (caption(attributes), caption(attributes, rng)):
            assert parse(words) == attributes, words
            tried += 1
    assert tried > 7000


def test_captions_vary_and_the_plain_one_does_not() -> None:
    attributes = parse(EXAMPLE)
    rng = np.random.default_rng(0)
    assert len({caption(attributes, rng) for _ in range(50)}) > 20
    assert caption(attributes) == EXAMPLE
    assert caption(Attributes()) == "portrait"


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        (
            "A person with short blue hair and round glasses, wearing a red t-shirt",
            {"hair": "short", "hair_color": "blue", "glasses": "round", "clothing": "shirt", "clothing_color": "red"},
        ),
        (
            "brown skin short blue hair round glasses smile red shirt mint background",
            known(parse(EXAMPLE)),
        ),
        ("blue-haired, no glasses", {"hair_color": "blue", "glasses": "none"}),
        (
            "Grinning, bald, with a long GINGER beard!",
            {"mouth": "smile", "hair": "bald", "beard": "long", "hair_color": "orange"},
        ),
        ("without glasses or hat", {"glasses": "none", "hat": "none", "hat_color": "none"}),
        ("no hat and a red tee", {"hat": "none", "hat_color": "none", "clothing": "shirt", "clothing_color": "red"}),
        ("hair: blue; eyes: green", {"hair_color": "blue", "eyes": "green"}),
        ("pink pig-tails, sad", {"hair": "pigtails", "hair_color": "pink", "mouth": "frown"}),
        ("a pale girl with a checkered grey shirt", {"skin": "pale", "clothing": "checked", "clothing_color": "grey"}),
        ("blonde woman", {"hair_color": "blonde"}),
        ("clean-shaven, dark glasses", {"beard": "none", "glasses": "sunglasses"}),
        ("short, black hair and beard", {"hair": "short", "hair_color": "black", "beard": "full"}),
        ("blue hat", {"hat": "hat", "hat_color": "blue"}),
        ("striped red shirt, red striped shirt", {"clothing": "striped", "clothing_color": "red"}),
        ("bald, no beard", {"hair": "bald", "beard": "none", "hair_color": "none"}),
        ("a portrait", {}),
    ],
)
def test_free_prompts_are_understood(prompt: str, expected: dict[str, str]) -> None:
    assert known(parse(prompt)) == expected


def test_words_about_people_that_no_attribute_holds_are_handed_back() -> None:
    assert read("a happy woman with a bun").ignored == ("woman",)
    assert read(EXAMPLE).ignored == ()


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("", "The prompt is empty"),
        (" \n", "The prompt is empty"),
        ("the with", "says nothing about a portrait"),
        ("x" * 401, "has 401 characters"),
        ("purple elephant with glases", "'elephant' and 'glases' (did you mean 'glasses'?)"),
        ("one two three four five six", "'four' and 2 more words"),
        ("red hair, blue hair", "two things as hair colour, 'red' and 'blue'"),
        ("brown hair, ginger beard", "hair and beard share it"),
        ("short spiky hair", "two things as hair shape, 'short' and 'spiky'"),
        ("hat, no hat", "'hat' and 'no hat'"),
        ("bald, blue hair", "A bald head has no blue hair"),
        ("mohawk and a cap", "The cap would hide"),
        ("round hair", "'round hair', which does not exist; 'hair' can be short"),
        ("red", "says 'red' without saying of what; write, for example, 'red hair'"),
        ("eyes", "names 'eyes' without saying which; 'eyes' can be blue, brown or green"),
        ("no smile", "'no smile' cannot be drawn"),
        ("no red hat", "'no red hat' cannot be drawn"),
        ("smile, no", "says 'no' without saying to what"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_one_sentence(prompt: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(prompt)
    message = str(caught.value)
    assert words in message
    assert message.endswith(".")
    assert message.count(". ") == 0


def test_a_prompt_that_is_no_text_is_refused() -> None:
    with pytest.raises(UserError, match="empty"):
        parse(None)  # type: ignore[arg-type]
