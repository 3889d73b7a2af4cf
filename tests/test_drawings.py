"""Styles of drawn people: what prompts say, what goes together, held-out pairs, and what node draws."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backend.codecs.drawing_words import LORELEI_WORDS, NOTIONIST_WORDS, PEEP_WORDS, caption
from backend.codecs.drawings import ANY, NONE, Drawing
from backend.codecs.lorelei import Lorelei
from backend.codecs.notionists import Notionist
from backend.codecs.peeps import Peep
from backend.codecs.styles import LORELEI, NOTIONISTS, PEEPS, STYLES
from backend.errors import UserError
from backend.train.portraits import renders

MADE: dict[str, type[Drawing]] = {LORELEI: Lorelei, NOTIONISTS: Notionist, PEEPS: Peep}
WORDS = {LORELEI: LORELEI_WORDS, NOTIONISTS: NOTIONIST_WORDS, PEEPS: PEEP_WORDS}
MODULES = Path(os.environ.get("PORTRAITS_MODULES", renders.HERE)) / "node_modules" / "@dicebear" / "collection"
drawn_by_node = pytest.mark.skipif(
    shutil.which("node") is None or not MODULES.exists(), reason="needs node and the packages of package.json"
)
styles = pytest.mark.parametrize("style", list(MADE))


# -------------------------------------------------------------------------------------------------------------- prompts
@styles
@pytest.mark.parametrize("share", [0.0, 0.4])
def test_captions_are_read_back(style: str, share: float) -> None:
    rng = np.random.default_rng(7)
    for row in STYLES[style].draw_rows(300, rng, "all"):
        known = MADE[style].of(np.where(rng.random(len(row)) < share, 0, row))
        if share:  # "none" that no word says is told by what it follows from
            unsaid = [name for name in ("hair_color", "eyes", "mouth") if getattr(known, name, "") == NONE]
            known = known.kind.settle(replace(known, **dict.fromkeys(unsaid, ANY)))  # type: ignore[type-var]
        else:
            assert known.row() == tuple(row)
        for text in (caption(known), caption(known, rng)):
            assert STYLES[style].read(text).attributes == known, text


@pytest.mark.parametrize(
    ("style", "prompt", "told"),
    [
        (
            NOTIONISTS,
            "notionist, short hair, round glasses, smiling, beard",
            {"style": "notionists", "hair": "short", "glasses": "round", "mouth": "smile", "beard": "short"},
        ),
        (
            NOTIONISTS,
            "A guy with a hat, holding his phone, looking to the left",
            {"hair": "cap", "gesture": "phone", "face": "left"},
        ),
        (NOTIONISTS, "full beard, black t-shirt", {"beard": "full", "mouth": NONE, "clothing": "black"}),
        (
            LORELEI,
            "flowers in her hair, long pink hair, sunglasses",
            {"flowers": "flowers", "hair": "long", "hair_color": "pink", "glasses": "sunglasses", "eyes": NONE},
        ),
        (LORELEI, "two blue buns, one eye closed", {"hair": "buns", "hair_color": "blue", "eyes": "winking"}),
        (LORELEI, "a dark woman, no beard", {"skin": "brown", "beard": NONE}),
        (PEEPS, "bald, heart eyes, a purple jumper", {"hair": "bald", "hair_color": NONE, "mouth": "loving"}),
        (PEEPS, "light skin, blond mohawk, an eye patch", {"skin": "pale", "hair": "mohawk", "glasses": "eyepatch"}),
        (PEEPS, "peep", {"style": "open-peeps"}),
        (PEEPS, "portrait", {}),
    ],
)
def test_free_prompts(style: str, prompt: str, told: dict[str, str]) -> None:
    found = STYLES[style].read(prompt).attributes
    assert told.items() <= vars(found).items()
    if prompt in ("peep", "portrait"):
        assert {name: value for name, value in vars(found).items() if value != ANY} == told


@pytest.mark.parametrize(
    ("style", "prompt", "sentence"),
    [
        (LORELEI, "", "The prompt is empty; describe a lorelei"),
        (LORELEI, "a green elephant", "A lorelei cannot be told with 'elephant'; say its skin, hair, eyes"),
        (LORELEI, "sunglasses, winking", "'sunglasses' cannot have eyes 'winking': sunglasses hide the eyes"),
        (
            LORELEI,
            "red hair, blue beard",
            "two things as hair colour, 'red' and 'blue'; a lorelei has one, and hair and beard share it",
        ),
        (LORELEI, "no hair", "'no hair' cannot be drawn; only glasses, beard and flowers can be left away"),
        (NOTIONISTS, "red hair", "A notionist cannot be told with 'red'"),
        (NOTIONISTS, "full beard, smiling", "cannot have mouth 'smile': a full beard hides the mouth"),
        (NOTIONISTS, "short hair and a turban", "two things as hair or headwear, 'short' and 'turban'"),
        (PEEPS, "a red afro", "A peep with hair 'afro' cannot have hair colour 'red'"),
        (PEEPS, "scared, sunglasses", "glasses would hide these eyes; leave one out"),
        (PEEPS, "blue", "write, for example, 'blue shirt' or 'blue background'"),
    ],
)
def test_what_cannot_be_read_is_told(style: str, prompt: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        STYLES[style].read(prompt)
    assert ". " not in str(caught.value)


@styles
def test_words_belong_to_what_the_style_has(style: str) -> None:
    told, vocabulary = WORDS[style], STYLES[style].vocabulary
    for word, noun in told.nouns.items():
        for name, value in (*noun.says.items(), *noun.usual.items(), *noun.without.items(), *noun.also.values()):
            assert value in vocabulary[name], word
    assert STYLES[style].read(told.example).attributes.style in (ANY, style)


# ----------------------------------------------------------------------------------------------------------------- rows
@styles
def test_held_out_pairs_are_never_drawn_and_can_be_asked_for(style: str) -> None:
    rng, kind = np.random.default_rng(1), MADE[style].kind
    seen = kind.draw_rows(4000, rng)
    assert not kind.held_out_rows(seen).any()
    paired = [MADE[style].of(row) for row in kind.draw_rows(400, rng, "held_out")]
    assert all(STYLES[style].held_out(known) for known in paired)
    for pair in kind.held_out:
        assert any(all(getattr(known, name) == value for name, value in pair.items()) for known in paired)
        for name, value in pair.items():  # each half of it is seen, beside others
            assert (seen[:, list(kind.vocabulary).index(name)] == kind.code(name, value)).sum() > 20
        assert STYLES[style].held_out(STYLES[style].read(caption(MADE[style](**pair))).attributes)


@styles
def test_every_value_is_drawn_and_limits_hold(style: str) -> None:
    kind = MADE[style].kind
    rows = kind.draw_rows(4000, np.random.default_rng(2), "all")
    for column, (name, values) in zip(rows.T, kind.vocabulary.items(), strict=True):
        counts = Counter(column.tolist())
        assert min(counts[code] for code in range(1, len(values) + 1)) > 20, name
        assert counts[0] == 0
    for row in rows[:500]:
        known = MADE[style].of(row)
        assert kind.settle(known) == known


@styles
def test_strange_values_are_told(style: str) -> None:
    with pytest.raises(UserError, match="The attribute 'hair' cannot be 'green'; it is one of: "):
        MADE[style](hair="green").row()  # type: ignore[call-arg]


@styles
def test_options_leave_nothing_to_the_renderer(style: str) -> None:
    rng = np.random.default_rng(3)
    for row in STYLES[style].draw_rows(300, rng, "all"):
        asked = STYLES[style].options(row, rng)
        for name, value in asked.items():
            chance = asked.get(f"{name}Probability", 100)
            assert not isinstance(value, list) or len(value) == (chance == 100), name
        assert asked == json.loads(json.dumps(asked))


# ------------------------------------------------------------------------------------------------------------- pictures
@drawn_by_node
@styles
def test_renders_are_the_same_each_time_and_show_what_was_asked(style: str) -> None:
    kind = MADE[style].kind
    rows = kind.draw_rows(6, np.random.default_rng(4), "all")
    once, again = (renders.render(style, rows, np.random.default_rng(5)) for _ in range(2))
    assert once.shape == (6, 64, 64, 3)
    assert np.array_equal(once, again)
    assert len({picture.tobytes() for picture in once}) == 6
    for picture, row in zip(once, rows, strict=True):
        asked = STYLES[style].options(row, np.random.default_rng(0))
        ground = np.frombuffer(bytes.fromhex(asked["backgroundColor"][0]), np.uint8)
        assert (picture == ground).all(-1).mean() > 0.1
    turned, may = kind.mirrored(rows)
    assert may.all()
    assert np.array_equal(kind.mirrored(turned)[0], rows)
    mirrored = renders.render(style, turned, np.random.default_rng(5))[:, :, ::-1].astype(int)
    apart, plain = (np.abs(each - once).mean() for each in (mirrored, mirrored[:, :, ::-1]))
    assert apart < plain / 5, (apart, plain)  # edges are smoothed from the other side


@drawn_by_node
@styles
def test_every_variant_exists(style: str) -> None:
    """A name that the package does not have would leave its component out."""
    rng, kind = np.random.default_rng(6), MADE[style].kind
    asked = [STYLES[style].options(row, rng) for row in kind.draw_rows(2000, rng, "all")]
    used: dict[str, set[str]] = {}
    for options in asked:
        for name, value in options.items():
            if isinstance(value, list) and not name.endswith("Color"):
                used.setdefault(name, set()).update(value)
    there = variants_of(style)
    assert set(used) == set(there) - {"base"}  # what is not asked for would be the package's choice
    for component, names in used.items():
        assert names <= set(there[component]), component


def variants_of(style: str) -> dict[str, list[str]]:
    """By component, the variants that the package of a style has."""
    schema = MODULES.parent / STYLES[style].package / "lib" / "schema.js"
    code = f"import {{ schema }} from '{schema.resolve()}'; console.log(JSON.stringify(schema.properties))"
    asked = ["node", "--input-type=module", "-e", code]
    told = json.loads(subprocess.run(asked, check=True, capture_output=True, text=True).stdout)
    return {name: each["items"]["enum"] for name, each in told.items() if "enum" in each.get("items", {})}


@drawn_by_node
def test_one_command_renders_a_style(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renders, "PARTS", {"seen": 8, "fresh": 2, "held_out": 12})
    renders.main(["--style", PEEPS, "--data", str(tmp_path), "--count", "4"])
    pixels, rows = renders.read(PEEPS, tmp_path)
    assert pixels.shape == (4, 64, 64, 3)
    assert not MADE[PEEPS].kind.held_out_rows(rows).any()
    assert MADE[PEEPS].kind.held_out_rows(renders.read(PEEPS, tmp_path, "held_out")[1]).all()
    told = json.loads((tmp_path / "open-peeps-sheet.json").read_text(encoding="utf-8"))
    assert told["licence"].startswith("Open Peeps by Pablo Stanley, CC0 1.0, ")
    assert (tmp_path / "open-peeps.png").exists()


def test_without_node_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UserError, match="drawn by node, which is not installed"):
        renders.render(LORELEI, STYLES[LORELEI].draw_rows(1, np.random.default_rng(0)), np.random.default_rng(0))
