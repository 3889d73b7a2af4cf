"""Portraits: pixels equal the rasteriser's, attributes can be seen and told apart, pairs are kept out of training."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.codecs import portraits
from backend.codecs.atlas import FOLDER, ORDER, over, pixel_art, rgb
from backend.codecs.portraits import (
    ANY,
    HELD_OUT,
    NAMES,
    NONE,
    VOCABULARY,
    Attributes,
    Recipe,
    bake,
    draw,
    draw_many,
    draw_rows,
    held_out,
    held_out_rows,
    recipe,
    settle,
    variants,
)
from backend.errors import UserError

DATA = Path(__file__).resolve().parent / "data"
SIDE = 16


# ------------------------------------------------------------------------------------------------------------- pixels
def test_pixels_equal_the_rasterisers_on_the_committed_sheet() -> None:
    told = json.loads((DATA / "portraits.json").read_text(encoding="utf-8"))
    sheet = Image.open(DATA / "portraits.png")
    assert "CC0 1.0" in told["licence"]
    assert "CC0 1.0" in str(sheet.info["Copyright"])
    columns, options = told["columns"], told["options"]
    pixels = np.asarray(sheet.convert("RGB"))
    rows = pixels.reshape(len(options) // columns, SIDE, columns, SIDE, 3).transpose(0, 2, 1, 3, 4)
    picks = {
        name: np.asarray([variants(name).index(asked[name][0]) if asked[name] else -1 for asked in options])
        for name in ORDER[1:]
    }
    slots = [name.removesuffix("Color") for name in options[0] if name.endswith("Color")]
    colours = {slot: np.asarray([rgb(asked[f"{slot}Color"][0]) for asked in options]) for slot in slots}
    assert len(options) == 24
    assert np.array_equal(bake(Recipe(picks, colours)), rows.reshape(-1, SIDE, SIDE, 3))


def test_the_options_of_a_recipe_name_what_was_drawn() -> None:
    rng = np.random.default_rng(0)
    asked = recipe(draw_rows(1, rng, Attributes(hat="cap", hat_color="red", glasses=NONE)), rng).options(0)
    assert asked["hat"][0] in portraits.HATS["cap"].split()
    assert (asked["hatColor"], asked["hatProbability"]) == ([portraits.CLOTHES_COLOURS["red"]], 100)
    assert (asked["glasses"], asked["glassesProbability"]) == ([], 0)


def test_shipped_files_are_small_and_say_their_licence() -> None:
    for path in (FOLDER / "pixel_art.json", FOLDER / "palette.json", DATA / "portraits.json", DATA / "portraits.png"):
        assert path.stat().st_size < 40_000
    for name in ("pixel_art", "palette"):
        assert json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))["licence"].startswith("CC0 1.0")


@pytest.mark.parametrize("opacity", [0.1, 0.3, 0.5])
def test_laying_over_stays_between_the_colours(opacity: float) -> None:
    below, above = np.meshgrid(np.arange(256), np.arange(256))
    mixed = over(below, above, opacity)
    assert np.abs(mixed - (below * (1 - opacity) + above * opacity)).max() < 2
    assert mixed.max() <= 255


def test_same_seed_same_portraits_and_two_thousand_a_second() -> None:
    one, two = (draw_many(64, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(one[0], two[0])
    assert np.array_equal(one[1], two[1])
    start = time.process_time()
    pixels, rows = draw_many(2000, np.random.default_rng(4))
    assert time.process_time() - start < 1
    assert (pixels.shape, pixels.dtype, rows.shape) == ((2000, 16, 16, 3), np.uint8, (2000, len(NAMES)))


def test_a_single_portrait_is_enlarged_without_a_new_colour() -> None:
    picture = draw(Attributes(background="mint"), np.random.default_rng(0))
    assert picture.shape == (64, 64, 3)
    assert tuple(picture[0, 0]) == rgb(portraits.BACKGROUNDS["mint"])
    assert np.array_equal(picture[::4, ::4].repeat(4, axis=0).repeat(4, axis=1), picture)


# --------------------------------------------------------------------------------------------------------- attributes
@pytest.mark.parametrize("name", NAMES)
def test_every_value_is_drawn_and_kept_when_asked_for(name: str) -> None:
    rng = np.random.default_rng(1)
    drawn = draw_rows(4000, rng)[:, NAMES.index(name)]
    assert set(drawn.tolist()) == set(range(1, len(VOCABULARY[name]) + 1))
    for value in VOCABULARY[name]:
        asked = {name: value}
        if name == "hat_color" and value != NONE:
            asked["hat"] = "cap"
        if (name, value) == ("hair_color", NONE):
            asked |= {"hair": "bald", "beard": NONE}
        for row in draw_rows(20, rng, Attributes(**asked), "all"):
            found = Attributes.of(row)
            assert getattr(found, name) == value
            assert settle(found) == found
            assert Attributes.of(found.row()) == found
            assert ANY not in {getattr(found, field) for field in NAMES}


@pytest.mark.parametrize("name", [name for name in NAMES if len(VOCABULARY[name]) > 1])
def test_another_value_is_another_picture(name: str) -> None:
    """Whatever else is drawn: no attribute hides behind another."""
    rng = np.random.default_rng(2)
    rows = draw_rows(600, rng, which="all")
    first = bake(recipe(rows, np.random.default_rng(5)))
    column = NAMES.index(name)
    for value in VOCABULARY[name]:
        changed = rows.copy()
        changed[:, column] = portraits.code(name, value)
        good = [i for i in range(len(rows)) if changed[i, column] != rows[i, column] and _possible(changed[i])]
        if good:
            second = bake(recipe(changed, np.random.default_rng(5)))
            assert (first != second).any(axis=(1, 2, 3))[good].all(), value


def _possible(row: np.ndarray) -> bool:
    try:
        return settle(Attributes.of(row)) == Attributes.of(row)
    except UserError:
        return False


def test_kinds_of_hair_never_look_alike_not_even_below_a_hat() -> None:
    for hat in [
        -1,
        *(i for i, name in enumerate(variants("hat")) if any(name in g.split() for g in portraits.HATS.values())),
    ]:
        bare = ~pixel_art().covers("hat", variants("hat")[hat]) if hat >= 0 else np.ones(SIDE * SIDE, dtype=bool)
        choices = portraits._hair_below(hat) if hat >= 0 else portraits._choices("hair")
        seen: dict[bytes, str] = {}
        for value, choice in zip(portraits.HAIRS, choices, strict=True):
            if hat >= 0 and value not in portraits.UNDER_HATS:
                continue
            assert value == "bald" or len(choice)
            for index in choice:
                mask = (pixel_art().own("hair", variants("hair")[index]) & bare).tobytes()
                assert seen.setdefault(mask, value) == value
        assert bytes(SIDE * SIDE) not in seen


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"hair": "mohawk", "hat": "cap"}, "The cap would hide the hair of kind 'mohawk'"),
        ({"hat_color": "red"}, "needs a hat"),
        ({"hat": NONE, "hat_color": "red"}, "needs a hat"),
        ({"hat": "cap", "hat_color": NONE}, "without a colour"),
        ({"hair": "bald", "hair_color": "red"}, "bald head has no red hair"),
        ({"hair": "short", "hair_color": NONE}, "Only a bald head"),
        ({"skin": "blue"}, "'skin' cannot be 'blue'; it is one of: any, pale"),
    ],
)
def test_impossible_portraits_are_refused_in_a_sentence(asked: dict[str, str], words: str) -> None:
    with pytest.raises(UserError) as caught:
        draw(Attributes(**asked), np.random.default_rng(0))
    assert words in str(caught.value)


def test_what_follows_is_filled_in() -> None:
    assert settle(Attributes(hat=NONE)).hat_color == NONE
    assert settle(Attributes(hat_color=NONE)).hat == NONE
    assert settle(Attributes(hair="bald", beard=NONE)).hair_color == NONE
    assert settle(Attributes(hair="bald", beard="full", hair_color="red")).hair_color == "red"


# ----------------------------------------------------------------------------------------------------------- held out
def test_training_never_sees_a_held_out_pair_and_tests_can_ask_for_them() -> None:
    rng = np.random.default_rng(6)
    every, seen, kept = (draw_rows(3000, rng, which=which) for which in ("all", "seen", "held_out"))
    assert not held_out_rows(seen).any()
    assert held_out_rows(kept).all()
    assert 0.02 < held_out_rows(every).mean() < 0.09
    assert [held_out(Attributes.of(row)) for row in every[:300]] == held_out_rows(every[:300]).tolist()
    for pair in HELD_OUT:  # every value is still seen, with other partners
        for name, value in pair.items():
            assert (seen[:, NAMES.index(name)] == portraits.code(name, value)).any()
            assert not held_out(replace(Attributes(**pair), **{name: ANY}))
        assert held_out(Attributes(**pair))


def test_a_pair_that_is_held_out_cannot_be_asked_of_the_seen_ones() -> None:
    with pytest.raises(UserError, match="No portrait like that is among the seen ones"):
        draw_rows(1, np.random.default_rng(0), Attributes(**HELD_OUT[0]), "seen")
    assert len(draw_rows(3, np.random.default_rng(0), Attributes(**HELD_OUT[0]), "held_out")) == 3
