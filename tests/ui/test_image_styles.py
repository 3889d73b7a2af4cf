"""A second style on the image tab, without a browser: its form, lanes and pictures, and that styles are not mixed."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backend.codecs.of_models import codec_of_style
from backend.errors import UserError
from demos import api, image
from demos.parts import brush as brushes
from demos.parts import films, knobs, painting, subjects, tables
from demos.parts.lab import Lab
from demos.parts.subjects import PROTOCOLS
from tests.toys_raster import PROMPT
from tests.ui.painters import THUMB_MURAL, THUMBS, PainterCatalog, painted
from tests.ui.test_image import CATALOG, form, play

THUMB = "orange thumb, round eyes, laughing, mint background"


def thumb_form(**changes: Any) -> dict[str, Any]:
    lanes = [{"strategy": "confidence", "models": {}, "knobs": {"steps": 6}}, None, None]
    return {**form(prompt=THUMB, style="thumbs"), "lanes": lanes, **changes}


def test_a_style_has_strategies_and_painters_of_its_own() -> None:
    known = knobs.playable(knobs.offered(*PROTOCOLS, modality="image"), CATALOG, "image")  # type: ignore[arg-type]
    offers = subjects.offers(CATALOG, known)  # type: ignore[arg-type]
    assert list(offers) == ["pixel", "thumbs"]
    ids = {s.id for s in offers["thumbs"].known}
    assert {"autoregressive", "speculative_jacobi", "confidence", "halton_order"} <= ids
    assert not {"speculative", "next_scale", "collaborative"} & ids
    assert {s.id for s in known} == {s.id for s in offers["pixel"].known}
    assert offers["thumbs"].models == {"model_causal": THUMBS, "model_masked": THUMB_MURAL}
    named = {value for menu in offers["thumbs"].menus.values() for _, value in menu}
    assert named <= {"", THUMBS, THUMB_MURAL}


def test_without_a_painter_of_it_a_style_is_not_offered() -> None:
    known = knobs.playable(knobs.offered(*PROTOCOLS, modality="image"), CATALOG, "image")  # type: ignore[arg-type]

    class Fewer(PainterCatalog):
        def entries(self) -> list[Any]:
            return [e for e in super().entries() if "thumbs" not in e.id]

    assert list(subjects.offers(Fewer(), known)) == ["pixel"]  # type: ignore[arg-type]


def test_a_race_of_another_style() -> None:
    lab = Lab(CATALOG)  # type: ignore[arg-type]
    last = list(image.run(lab, thumb_form(), "me"))[-1][0]
    assert [lane["state"] for lane in last["lanes"]] == ["done", "done"]
    assert [lane["models"]["target"] for lane in last["lanes"]] == [f"{THUMBS}@cfg=2", f"{THUMB_MURAL}@cfg=2"]
    codec = codec_of_style("thumbs")
    assert {(lane["picture"]["side"], tuple(lane["picture"]["grid"])) for lane in last["lanes"]} == {(64, (16, 16))}
    assert len(last["lanes"][0]["picture"]["inks"]) == 6 * codec.size
    assert last["lanes"][0]["log"].count("code ") >= 256


@pytest.mark.parametrize("model", [THUMBS, THUMB_MURAL])
def test_pictures_of_another_style_arrive_whole_and_open_again(model: str, tmp_path: Path) -> None:
    trace = painted("autoregressive" if model == THUMBS else "confidence", model, 256, THUMB)
    path = tables.save_race([trace], tmp_path / "thumbs.json.gz", "then")
    value, traces = image.PAGE.show(path)
    codec = codec_of_style("thumbs")
    assert (play(value["lanes"][0]) == codec.decode(trace.replay())).all()
    again = painting.form_of(traces)
    assert (again["style"], again["prompt"]) == ("thumbs", THUMB)
    told = api.picture_of(trace)
    assert told is not None
    assert len(told["rows"]) == 64


def test_codes_have_the_colours_that_they_draw() -> None:
    codec = codec_of_style("thumbs")
    inks = bytes.fromhex(films.inks_of(codec))
    for code in (0, 7, codec.size - 1):
        alone = codec.decode([code] * codec.length)[24:40, 24:40].reshape(-1, 3).mean(axis=0)
        assert np.abs(np.frombuffer(inks[3 * code : 3 * code + 3], np.uint8) - alone).max() < 6
    assert films.inks_of(codec_of_style("pixel")) == ""


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"prompt": PROMPT}, "describes a portrait, but the style is Thumbs"),
        ({"prompt": THUMB, "style": "pixel"}, "describes a thumb, but the style is Pixel portraits"),
        ({"prompt": "a blue dragon"}, "dragon"),
        (
            {"lanes": [{"strategy": "self_speculative", "models": {"twin": "house/portraits@skip"}, "knobs": {}}]},
            "lanes",
        ),
        ({"model_causal": "house/portraits@skip=2"}, ""),
    ],
)
def test_styles_are_not_mixed(changes: dict[str, Any], sentence: str) -> None:
    asked = thumb_form(**changes)
    if not sentence:
        requests = painting.requests_of(asked, CATALOG)  # type: ignore[arg-type]
        assert {r.models["target"] for r in requests} == {f"{THUMBS}@cfg=2", f"{THUMB_MURAL}@cfg=2"}
        return
    with pytest.raises(UserError, match=sentence):
        painting.requests_of(asked, CATALOG)  # type: ignore[arg-type]


def test_a_strategy_that_the_style_has_no_painter_for_fails_on_its_lane() -> None:
    lab = Lab(CATALOG)  # type: ignore[arg-type]
    lanes = [{"strategy": "next_scale", "models": {}, "knobs": {}}, None, None]
    last = list(image.run(lab, thumb_form(lanes=lanes), "me"))[-1][0]
    assert [lane["state"] for lane in last["lanes"]] == ["done", "error"]
    assert "house/thumbs" in last["lanes"][1]["message"]


def test_the_brush_counts_in_cells_where_pixels_are_more(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    drawn = codec_of_style("thumbs").decode(list(range(256)))
    Image.fromarray(drawn).save(path)
    held = json.loads(brushes.loaded(str(path), "thumbs"))
    assert (held["side"], held["cells"], len(base64.b64decode(held["mask"]))) == (64, 16, 256)
    mask = np.zeros((16, 16), dtype=np.uint8)
    mask[12:] = 1
    asked = thumb_form(brush=json.dumps({**held, "mask": base64.b64encode(mask.tobytes()).decode()}))
    trace = painted("confidence", THUMB_MURAL, 64, painting.prompt_of(asked), steps=4)
    assert {mark.slot for step in trace.steps for mark in step.marks} == set(range(192, 256))
    again = json.loads(painting.form_of([trace])["brush"])
    assert (again["picture"], again["mask"]) == (held["picture"], base64.b64encode(mask.tobytes()).decode())


def test_no_two_values_for_the_brush_are_the_same() -> None:
    """The browser takes each once, since the first one comes back whenever something unfolds."""
    assert len({brushes.emptied() for _ in range(3)}) == 3
    assert all(brushes.brushed(held) == {} for held in (brushes.emptied(), "", "null"))


def test_switching_styles_fills_the_form() -> None:
    known = knobs.playable(knobs.offered(*PROTOCOLS, modality="image"), CATALOG, "image")  # type: ignore[arg-type]
    kind, settings = image._switched(subjects.offers(CATALOG, known)["thumbs"])  # type: ignore[arg-type]
    assert image.PAGE.asked(kind)["style"] == "thumbs"
    assert [lane["strategy"] for lane in settings["lanes"]] == ["speculative_jacobi", "confidence", "halton_order"]
    assert settings["model_masked"] == THUMB_MURAL


def test_the_endpoint_keeps_to_the_style_of_its_model() -> None:
    lab = Lab(CATALOG)  # type: ignore[arg-type]
    made = [
        api._request(lab, s, THUMB, THUMBS, None, None, painting.sampling_of(thumb_form()), None, 0, True)
        for s in ("autoregressive", "confidence")
    ]
    assert [(r.models["target"], r.budget) for r in made] == [(THUMBS, 256), (THUMB_MURAL, 256)]
