"""The image tab without a browser: what handlers yield, what snapshots of pictures hold, links, files, endpoints."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from backend.codecs.image import UNKNOWN, data_url
from backend.codecs.of_models import codec_of_style
from backend.errors import UserError
from backend.trace import Trace
from backend.types import Fate, Mark, Request, Step
from demos import api, image, text
from demos.parts import brush as brushes
from demos.parts import films, knobs, links, painting, subjects, tables
from demos.parts.lab import Lab
from demos.parts.painting import MODES, NUMBERS, RACE
from demos.parts.race import Lane, State
from demos.parts.snapshot import Snapshots, recorded
from demos.parts.subjects import PROTOCOLS
from demos.record import record_pictures
from tests.toys_raster import PROMPT
from tests.ui.painters import MAPS, MURAL, RASTER, PainterCatalog, painted, stopped, three

CATALOG = PainterCatalog()
TRACES = three()


def form(**changes: Any) -> dict[str, Any]:
    numbers = {name: default for name, (_, _, default, _) in NUMBERS.items()}
    lanes = [{"strategy": s, "models": {}, "knobs": k} for s, k in (("confidence", {"steps": 6}), ("next_scale", {}))]
    base = {"prompt": PROMPT, "mode": RACE, "brush": "", "precision": "auto", **numbers, "lock": True}
    return {**base, "lanes": [*lanes, None], **changes}


def brush(rows: range, side: int = 16) -> str:
    """A grey picture of which these rows are to be painted again."""
    mask = np.zeros((side, side), dtype=np.uint8)
    mask[list(rows)] = 1
    packed = {"picture": np.full((side, side, 3), 200, dtype=np.uint8).tobytes(), "mask": mask.tobytes()}
    return json.dumps({"side": side, **{k: base64.b64encode(v).decode() for k, v in packed.items()}})


def lines(lane: dict[str, Any]) -> list[list[Any]]:
    return [json.loads(line) for line in lane["log"].splitlines()]


def play(lane: dict[str, Any]) -> np.ndarray[Any, Any]:
    """The last picture as the browser makes it from what it was sent."""
    side = lane["picture"]["side"]
    rgb = np.full((side * side, 3), 128, dtype=np.uint8)
    for frame in [lane["picture"]["start"], *(line[15] for line in lines(lane) if len(line) > 15)]:
        data = np.frombuffer(base64.b64decode(frame[1:]), dtype=np.uint8)
        if frame[:1] == "f":
            rgb = data.reshape(-1, 3).copy()
        elif frame:
            for record in data.reshape(-1, films.RECORD):
                rgb[int(record[0]) | int(record[1]) << 8] = record[2:]
    return rgb.reshape(side, side, 3)


# ---------------------------------------------------------------------------------------------------------- snapshots
@pytest.mark.parametrize("trace", TRACES, ids=lambda trace: trace.request.strategy)
def test_what_is_sent_makes_the_picture_that_the_codec_decodes(trace: Trace) -> None:
    lane = recorded([trace], "then", film=films.film)["lanes"][0]
    codec = CATALOG.get(trace.request.models["target"]).codec
    whole = np.asarray(codec.decode(trace.replay()))
    every = whole.shape[0] // 16
    assert (play(lane) == whole[::every, ::every]).all()
    assert lines(lane)[-1][1] == 256, "a whole picture has as many cells, whoever painted it"


def test_pictures_only_grow_in_snapshots_and_stay_small() -> None:
    snapshots, logs = Snapshots("run", 3, film=films.film), [""] * 3
    for n in (0, 1, 3, 7, 60, 256):
        lanes = [Lane(t.request, State.RUNNING, trace=stopped(t, n)) for t in TRACES]
        taken = snapshots.take(lanes)
        for i, lane in enumerate(taken["lanes"]):
            assert lane["log"].startswith(logs[i])
            logs[i] = lane["log"]
    assert taken["unit"] == "cell"
    frames = [len(line[15]) for lane in taken["lanes"] for line in lines(lane) if len(line) > 15]
    assert max(frames) <= 1 + 4 * 16 * 16, "no frame is larger than the picture"
    assert sum(len(line[15]) for line in lines(taken["lanes"][0]) if len(line) > 15) < 256 * 12, "a cell is one record"


def test_maps_are_told_by_the_figures_of_their_steps() -> None:
    units = [line[1] for line in lines(recorded([TRACES[2]], "", film=films.film)["lanes"][0])]
    assert units == [1, 4, 9, 16, 36, 100, 256]


def test_text_has_no_pictures() -> None:
    taken = Snapshots("run", 1).take([Lane(Request("autoregressive", "x"))])
    assert taken["unit"] == "token"
    assert taken["lanes"][0]["picture"] is None


def test_painters_of_other_kinds_are_other_models() -> None:
    kinds = [lane["exact"]["kind"] for lane in recorded(TRACES, "", film=films.film)["lanes"]]
    assert kinds == ["baseline", "model", "model"]


def test_what_a_file_paints_must_fit_its_canvas() -> None:
    data = TRACES[0].to_json()
    data["steps"][0]["marks"][0][0] = 300
    with pytest.raises(UserError, match="cell 301 of a canvas that has 256"):
        recorded([Trace.from_json(data)], "", film=films.film)
    data = TRACES[0].to_json()
    data["steps"][0]["marks"][0][1] = 999
    with pytest.raises(UserError, match="not of its model's pictures"):
        recorded([Trace.from_json(data)], "", film=films.film)


@pytest.mark.parametrize("size", [(5, 5), (1e300, 1.0), (16, 16)])
def test_a_file_can_name_no_other_maps(size: tuple[float, float]) -> None:
    data = TRACES[2].to_json()
    data["steps"][0]["figures"] |= {"height": size[0], "width": size[1]}
    with pytest.raises(UserError, match="not of its model's pictures"):
        recorded([Trace.from_json(data)], "", film=films.film)


def test_files_open_in_their_own_tab(tmp_path: Path) -> None:
    path = tables.save_race(TRACES, tmp_path / "pictures.json.gz", "then")
    value, traces = image.PAGE.show(path)
    assert [t.to_json() for t in traces] == [t.to_json() for t in TRACES]
    assert value["lanes"][0]["picture"]["grid"] == [16, 16]
    with pytest.raises(UserError, match="open it in the image tab"):
        text.PAGE.show(path)


def test_tables_count_cells() -> None:
    from demos.parts.snapshot import finished

    rows = tables.summary_rows([finished(t) for t in TRACES], films.film)
    assert [row[1] for row in rows] == [256, 256, 256]
    calls = [row[tables.SUMMARY.index("× calls")] for row in rows]
    assert calls == [1.0, 256 / 8, round(256 / 7, 3)]
    assert "cells" in tables.summary_headers("cell")


# --------------------------------------------------------------------------------------------------------------- form
def test_every_lane_gets_the_painter_of_its_kind_guided() -> None:
    requests = painting.requests_of(form(), CATALOG)  # type: ignore[arg-type]
    assert [r.models["target"] for r in requests] == [f"{m}@cfg=2" for m in (RASTER, MURAL, MAPS)]
    assert [r.budget for r in requests] == [256, 256, 422]
    plain = painting.requests_of(form(guidance=1, share=50), CATALOG)  # type: ignore[arg-type]
    assert [r.models["target"] for r in plain] == [RASTER, MURAL, MAPS]
    assert [r.budget for r in plain] == [128, 128, 211]


def test_models_of_a_lane_are_guided_too_and_a_chosen_painter_counts() -> None:
    lanes = [{"strategy": "speculative", "models": {"draft": "house/portraits-draft"}, "knobs": {}}, None, None]
    chosen = form(lanes=lanes, model_causal="house/portraits-draft")
    base, lane = painting.requests_of(chosen, CATALOG)  # type: ignore[arg-type]
    assert base.models == {"target": "house/portraits-draft@cfg=2"}
    assert lane.models["draft"] == "house/portraits-draft", "more of its guesses are kept without guidance"


def test_a_student_is_asked_as_it_is() -> None:
    """It paints in one call what guidance made of its teacher, and knows none itself."""
    student = "house/portraits-student"
    lanes = [{"strategy": "one_step", "models": {}, "knobs": {}}, None, None]
    asked = painting.requests_of(form(lanes=lanes, model_distilled=student), CATALOG)  # type: ignore[arg-type]
    assert asked[1].models == {"target": student}


def test_a_student_shows_the_maps_that_one_call_fills() -> None:
    request = Request("one_step", "round glasses", {"target": "house/portraits-student"})
    codec = films.codec_of(request)
    tokens = [slot % 64 for slot in range(codec.length)]
    early = sum(height * width for height, width in codec.pyramid.sizes[:-1])
    kept = tuple(Mark(slot, token, Fate.BONUS) for slot, token in enumerate(tokens[:early]))
    guessed = tuple(Mark(slot, tokens[slot], Fate.GUESS) for slot in range(early, codec.length))
    rest = tuple(Mark(slot, tokens[slot], Fate.BONUS) for slot in range(early, codec.length))
    film = films.film(Trace(request))
    film.take(Step((*kept, *guessed)))
    height, width = codec.pyramid.sizes[-2]
    assert film.units == height * width, "guesses are no cells yet"
    film.take(Step(rest))
    assert film.units == codec.pyramid.palette.side**2
    assert (film.picture == codec.pyramid.decode(np.asarray(tokens))).all()


def test_a_schedule_of_guidance_is_for_painters_whose_guidance_can_grow() -> None:
    requests = painting.requests_of(form(schedule="cosine"), CATALOG)  # type: ignore[arg-type]
    wanted = [f"{RASTER}@cfg=2-cosine", f"{MURAL}@cfg=2", f"{MAPS}@cfg=2-cosine"]
    assert [r.models["target"] for r in requests] == wanted
    again = painting.form_of([Trace(request) for request in requests])
    assert (again["guidance"], again["schedule"], again["model_causal"]) == (2.0, "cosine", RASTER)
    assert painting.requests_of({**form(), **again, "lanes": form()["lanes"]}, CATALOG) == requests  # type: ignore
    plain = painting.form_of([Trace(r) for r in painting.requests_of(form(), CATALOG)])  # type: ignore[arg-type]
    assert plain["schedule"] == "each painter's own"


def test_four_seeds_of_one_strategy() -> None:
    requests = painting.requests_of(form(mode=MODES[2], seed=5), CATALOG)  # type: ignore[arg-type]
    assert [(r.strategy, r.seed) for r in requests] == [("confidence", seed) for seed in (5, 6, 7, 8)]
    with pytest.raises(UserError, match="Four seeds of lane 4"):
        painting.requests_of(form(mode=MODES[4]), CATALOG)  # type: ignore[arg-type]


def test_only_what_painters_can_play_is_offered() -> None:
    known = [s.id for s in knobs.playable(knobs.offered(*PROTOCOLS, modality="image"), CATALOG, "image")]  # type: ignore[arg-type]
    assert known[0] == "autoregressive"
    assert {"speculative", "jacobi", "relaxed", "confidence", "halton_order", "next_scale"} <= set(known)
    assert not {"eagle", "ffn_skip", "temporal_fusion", "block_transformer", "flexible_scale"} & set(known)
    assert "relaxed" not in {s.id for s in knobs.offered("causal")}, "text has no colours that look alike"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"prompt": " "}, "prompt is empty"),
        ({"prompt": "a blue dragon"}, "dragon"),
        ({"mode": MODES[4]}, "no strategy"),
        ({"brush": "{}"}, "cannot be read"),
    ],
)
def test_what_cannot_run_is_refused_at_once(changes: dict[str, Any], sentence: str) -> None:
    lab = Lab(CATALOG)  # type: ignore[arg-type]
    with pytest.raises(gr.Error, match=sentence):
        next(image.run(lab, form(**changes), "me"))
    assert lab.running == 0


def test_the_handler_paints_and_ends_with_tables() -> None:
    lab = Lab(CATALOG)  # type: ignore[arg-type]
    seen = list(image.run(lab, form(), "me"))
    assert {len(values) for values in seen} == {8}
    last = seen[-1]
    assert [lane["state"] for lane in last[0]["lanes"]] == ["done"] * 3
    assert [row[1] for row in last[5]] == [256] * 3
    assert str(last[7]).endswith(".json.gz")


def test_closing_the_handler_frees_the_device() -> None:
    catalog = PainterCatalog(0.01)
    lab = Lab(catalog)  # type: ignore[arg-type]
    mine = image.run(lab, form(), "me")
    next(mine)
    race = lab.race_of("me")
    mine.close()
    assert race is not None
    assert race.wait(20)
    assert not catalog.lock.locked()


def test_links_and_traces_fill_the_form_again() -> None:
    asked = form(brush=brush(range(8, 16)), guidance=3.0, mode=MODES[2])
    parts = dict(pair.split("=", 1) for pair in links.make_link("image", asked)[1:].split("&"))
    assert links.read_link(parts)["brush"] == asked["brush"]
    again = painting.form_of(TRACES)
    assert (again["prompt"], again["guidance"], again["mode"]) == (PROMPT, 1.0, RACE)
    assert [lane["strategy"] for lane in again["lanes"]] == ["confidence", "next_scale"]
    assert again["model_masked"] == MURAL


# -------------------------------------------------------------------------------------------------------------- brush
def test_the_brush_paints_only_there() -> None:
    prompt = painting.prompt_of(form(brush=brush(range(10, 16))))
    trace = painted("confidence", MURAL, 96, prompt, steps=4)
    assert {mark.slot for step in trace.steps for mark in step.marks} == set(range(160, 256))
    lane = recorded([Trace.from_json(json.loads(json.dumps(trace.to_json())))], "", film=films.film)["lanes"][0]
    assert lane["picture"]["given"] == list(range(160))
    assert lines(lane)[-1][1] == 96
    held = json.loads(painting.form_of([trace])["brush"])
    assert base64.b64decode(held["mask"]).count(1) == 96


def test_a_painter_that_cannot_fill_a_hole_says_so_on_its_lane() -> None:
    lab = Lab(CATALOG)  # type: ignore[arg-type]
    last = list(image.run(lab, form(brush=brush(range(4, 8))), "me"))[-1][0]
    assert [lane["state"] for lane in last["lanes"]] == ["error", "done", "done"]
    assert "row by row" in last["lanes"][0]["message"]


def test_uploads_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    Image.new("RGB", (64, 64), "red").save(path)
    assert len(base64.b64decode(json.loads(brushes.loaded(str(path)))["picture"])) == 768
    for size, sentence in (((60, 64), "must be square"), ((2048, 2048), "largest that is read")):
        Image.new("RGB", size).save(path)
        with pytest.raises(UserError, match=sentence):
            brushes.loaded(str(path))
    path.write_text("no picture")
    with pytest.raises(UserError, match="no picture"):
        brushes.loaded(str(path))


def test_pictures_travel_as_data_urls() -> None:
    picture, mask = Image.new("RGB", (64, 64), "red"), Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 8, 4))
    asked = {"prompt": PROMPT, "image": data_url(picture), "mask": data_url(mask)}
    canvas = codec_of_style("pixel").encode(asked).extras["canvas"]
    assert [slot for slot, token in enumerate(canvas) if token == UNKNOWN] == [0, 1]
    for bad in ("data:image/png;base64,!!", "data:text/plain;base64,aGFsbG8=", data_url(mask)[:60]):
        with pytest.raises(UserError, match="cannot be read"):
            codec_of_style("pixel").encode({**asked, "image": bad})


def test_what_was_understood_is_told() -> None:
    told = subjects.reading("a woman with blue hair and a yellow shirt")
    assert {"title": "hair colour", "value": "blue", "tint": "009bbd"} in told["chips"]
    assert told["ignored"] == ["woman"]
    assert "held out" in told["note"]
    assert "dragon" in subjects.reading("a dragon")["error"]


# ---------------------------------------------------------------------------------------------------- record and API
def test_races_of_pictures_can_be_recorded() -> None:
    traces = record_pictures(CATALOG, subjects.EXAMPLES[0], ["confidence"], 1)  # type: ignore[arg-type]
    assert [t.request.strategy for t in traces] == ["autoregressive", "confidence"]
    assert all(t.end == "budget" for t in traces)


def test_the_endpoint_tells_the_picture() -> None:
    told = api.picture_of(TRACES[2])
    assert told is not None
    assert len(told["rows"]) == len(told["rows"][0]) == 16
    assert told["png"].startswith("data:image/png;base64,")
    assert api.picture_of(Trace(Request("autoregressive", "x", {"target": "local/fake"}))) is None


# ------------------------------------------------------------------------------------------------------- another style
