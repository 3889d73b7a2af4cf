"""The forecasting tab without a browser: form and its sentences, snapshots of fans, tables, files, endpoint."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest

from backend.codecs.series import LARGEST_FILE
from backend.errors import UserError
from backend.forecast_report import Held, scores_of
from backend.series.forecasts import forecast_of
from backend.trace import Trace
from backend.types import Fate, Mark, Request, Step
from demos import api, forecasting, image
from demos.parts import fans, forecast_form, knobs, links, page, tables
from demos.parts.fans import SHOWN, Fan, fan
from demos.parts.forecast_form import BASELINE, BEYOND, HOLD, NUMBERS, OWN, reading, requests_of, window_of
from demos.parts.lab import Lab
from demos.parts.race import Lane, State
from demos.parts.snapshot import Snapshots, finished, recorded
from demos.record import record_example
from tests.ui.forecasters import DRAFT, TARGET, SeriesCatalog, forecast
from tests.ui.painters import stopped

CATALOG = SeriesCatalog()
STRATEGIES = ("speculative_patches", "direct", "rolled_direct")
ROWS = [("shop", f"2024-01-{day:02}", str(10 + day % 7 + day / 10)) for day in range(1, 31)]
GOOD = "unique_id,ds,y\n" + "\n".join(",".join(row) for row in ROWS)


def form(**changes: Any) -> dict[str, Any]:
    numbers = {name: default for name, (_, _, default, _) in NUMBERS.items()} | {"horizon": 40, "paths": 6}
    lanes = [{"strategy": s, "models": {}, "knobs": {}} for s in STRATEGIES]
    base = {"data": "trend_season", "csv": "", "own": "", "truth": HOLD, "model": "", "precision": "auto"}
    return {**base, **numbers, "lock": True, "lanes": lanes, **changes}


def own(text: str, **changes: Any) -> dict[str, Any]:
    return form(data=OWN, csv=text, **changes)


def traces() -> list[Trace]:
    return [forecast_trace(r) for r in requests_of(form(), CATALOG)]  # type: ignore[arg-type]


def forecast_trace(request: Request) -> Trace:
    return forecast(request.strategy, request.prompt, request.budget, request.seed, **request.knobs)


TRACES = traces()


def lines(lane: Mapping[str, Any]) -> list[list[Any]]:
    return [json.loads(line) for line in lane["log"].splitlines()]


def drawn(lane: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    """The quantiles as the browser puts them together from the frames."""
    quantiles = np.full((len(SHOWN), lane["picture"]["horizon"]), np.nan)
    for line in lines(lane):
        frame = line[15]
        for level, values in enumerate(frame.get("q", [])):
            at = slice(frame["c"], frame["c"] + len(values))
            quantiles[level, at] = [np.nan if y is None else y for y in values]
    return quantiles


# ---------------------------------------------------------------------------------------------------------- snapshots
@pytest.mark.parametrize("trace", TRACES, ids=lambda trace: trace.request.strategy)
def test_what_is_sent_makes_the_quantiles_of_the_forecast(trace: Trace) -> None:
    lane = recorded([trace], "then", film=fan, unit="value")["lanes"][0]
    made = Fan(trace)
    told = forecast_of(trace, made.asked.scale).quantiles(SHOWN)
    assert drawn(lane) == pytest.approx(told, abs=2e-3 * made.asked.scale.spread, nan_ok=True)
    assert lines(lane)[-1][1] == 40, "units are steps that every path has"
    assert all(line[12] == [] for line in lines(lane)), "frames say what marks would"


def test_snapshots_only_grow_and_tell_the_truth_that_was_held_back() -> None:
    snapshots, logs = Snapshots("run", 4, film=fan, unit="value"), [""] * 4
    for n in (0, 1, 2, 9):
        taken = snapshots.take([Lane(t.request, State.RUNNING, trace=stopped(t, n)) for t in TRACES])
        for i, lane in enumerate(taken["lanes"]):
            assert lane["log"].startswith(logs[i])
            assert lane["scores"] == {}
            logs[i] = lane["log"]
    assert taken["unit"] == "value"
    assert taken["prompt"].startswith("trend_season: 40 steps behind ")
    head = taken["lanes"][0]["picture"]
    whole = forecast_form.series_of(form())
    assert head["truth"] == pytest.approx(whole.y_T[-40:].tolist(), abs=0.01)
    assert head["ds"][-40:] == whole.ds[-40:]
    assert len(json.dumps(taken)) < 150_000


def test_scores_are_those_of_the_report_and_come_with_the_end() -> None:
    taken = recorded(TRACES, "", film=fan, unit="value")
    for trace, lane in zip(TRACES, taken["lanes"], strict=True):
        made = fans.opened(trace)
        held = Held(made.asked.past.y_T, made.asked.season, made.asked.truth_H)
        told = scores_of(made.forecast, held)
        assert told is not None
        assert lane["scores"]["mase"] == pytest.approx(told.mase, rel=1e-3)
        assert ("crps_of_sum" in lane["scores"]) == (told.crps_of_sum is not None)
    beyond = forecast_trace(requests_of(form(truth=BEYOND), CATALOG)[0])  # type: ignore[arg-type]
    lane = recorded([beyond], "", film=fan, unit="value")["lanes"][0]
    assert lane["scores"] == {}
    assert lane["picture"]["truth"] == []


def test_the_same_noise_gives_the_same_paths() -> None:
    again = forecast("noise_jacobi", TRACES[0].request.prompt, 40, TRACES[0].request.seed, paths=6)
    kinds = [lane["exact"]["kind"] for lane in recorded([*TRACES, again], "", film=fan, unit="value")["lanes"]]
    assert kinds == ["baseline", "sample", "", "", "same"]
    rows = tables.summary_rows([finished(t) for t in [*TRACES, again]], fan)
    against = [row[tables.SUMMARY.index("against lane 1")] for row in rows]
    assert against == ["baseline", "another sample", "another forecast", "another forecast", "same paths"]
    assert "values" in tables.summary_headers("value")


def test_flags_and_places_count_what_the_marks_say() -> None:
    trace = TRACES[1]
    frames = [line[15] for line in lines(recorded([trace], "", film=fan, unit="value")["lanes"][0])]
    marks = [mark.fate for step in trace.steps for mark in step.marks]
    for i, fate in enumerate(fans.FATES):
        assert sum(flag[2 + i] for frame in frames for flag in frame["f"]) == marks.count(fate)
    kept = sum(place[0] for frame in frames for place in frame.get("k", []))
    judged = sum(place[1] for frame in frames for place in frame.get("k", []))
    assert (kept, judged - kept) == (marks.count(Fate.KEPT), marks.count(Fate.REJECTED))
    assert any(frame.get("r") for frame in frames), "refused drafts are drawn"
    assert {row for frame in frames for row, *_ in frame.get("p", [])} == set(range(6))


def test_a_point_forecast_is_scored_by_its_absolute_error_and_has_no_band() -> None:
    prompt = window_of(form(horizon=4)).prompt
    step = Step((Mark(0, None, Fate.BONUS, values=(0.1, 0.2, 0.3, 0.4)),), 0, {"target": 1}, figures={"level 0": 0.5})
    made = fans.opened(trace := Trace(Request("closed_loop", prompt, budget=4), (), steps=(step,), end="budget"))
    scores, truth_H = made.scores(trace), made.asked.truth_H
    assert set(scores) == {"mase", "wql", "sql", "smape"}
    assert scores["wql"] == pytest.approx(np.abs(truth_H - made.values_RH[0]).sum() / np.abs(truth_H).sum())


def test_tokens_are_drawn_as_the_values_they_stand_for() -> None:
    prompt = window_of(form(horizon=4)).prompt
    scale = {"location": 100.0, "spread": 10.0, "bent": 1.0}
    steps = tuple(Step((Mark(3 + i, 255 + i, Fate.BONUS),), index=i, calls={"target": 1}) for i in range(4))
    trace = Trace(Request("autoregressive", prompt, budget=4), (0, 0, 0), steps=steps, end="budget", scale=scale)
    made = fans.opened(trace)
    assert made.values_RH[0, 0] == pytest.approx(100.0)
    assert (np.diff(made.values_RH[0]) > 0).all()
    assert set(made.scores(trace)) == {"mase", "smape"}, "one path has no law"
    assert tables.kind_of(trace) == "forecasting"


@pytest.mark.parametrize("change", [{"budget": 0}, {"budget": 10**9}, {"prompt": [1]}, {"prompt": {"csv": "a"}}])
def test_a_file_that_fits_no_forecast_is_a_sentence(change: dict[str, Any]) -> None:
    data = TRACES[0].to_json()
    data["request"] |= change
    with pytest.raises(UserError):
        recorded([Trace.from_json(data)], "", film=fan, unit="value")


def test_a_file_cannot_write_beyond_its_horizon() -> None:
    data = TRACES[2].to_json()
    data["steps"][0]["marks"][0][0] = 39
    with pytest.raises(UserError, match="of a forecast of 40 steps"):
        recorded([Trace.from_json(data)], "", film=fan, unit="value")


def test_files_open_in_their_own_tab(tmp_path: Path) -> None:
    path = tables.save_race(TRACES, tmp_path / "forecasts.json.gz", "then")
    value, held = forecasting.PAGE.show(path)
    assert [t.to_json() for t in held] == [t.to_json() for t in TRACES]
    assert value["lanes"][0]["scores"]["mase"] > 0
    with pytest.raises(UserError, match="open it in the forecasting tab"):
        image.PAGE.show(path)


# --------------------------------------------------------------------------------------------------------------- form
def test_every_lane_continues_the_same_context_with_the_same_paths() -> None:
    requests = requests_of(form(), CATALOG)  # type: ignore[arg-type]
    assert [r.strategy for r in requests] == [BASELINE, *STRATEGIES]
    assert {r.models["target"] for r in requests} == {TARGET}
    assert [r.knobs.get("paths") for r in requests] == [6, 6, None, 6]
    assert {r.budget for r in requests} == {40}
    assert all(r.prompt == requests[0].prompt for r in requests)
    assert "paths" not in knobs.own_knobs(next(s for s in forecast_form.offered(CATALOG) if s.id == BASELINE))  # type: ignore[arg-type]


def test_the_window_is_what_was_asked_for() -> None:
    window, whole = window_of(form(context=64, back=12)), forecast_form.series_of(form())
    assert (window.until, len(window.series)) == (64, 104)
    assert window.series.ds[63] == whole.ds[-40 - 12 - 1]
    assert window.season == 12
    assert window_of(form(context=16)).season == 1, "a season that fits once is none"
    assert window_of(form(truth=BEYOND)).until == len(window_of(form(truth=BEYOND)).series)


@pytest.mark.parametrize("series", list(forecast_form.house()))
def test_all_our_series_can_be_continued_as_they_are(series: str) -> None:
    told = reading(form(data=series, horizon=24))
    assert told["error"] == ""
    assert told["provenance"]
    assert 0 <= told["first"] < told["last"] < told["length"]
    assert len(told["curve"]) < 500


def test_gaps_at_the_origin_move_it_to_the_last_value() -> None:
    rows = [f"2024-01-{day:02},{'' if 15 <= day <= 17 else day % 5}" for day in range(1, 29)]
    window = window_of(own("ds,y\n" + "\n".join(rows), horizon=11))
    assert window.series.ds[window.until - 1] == "2024-01-17"
    assert np.isnan(window.series.y_T[window.until - 1])
    assert len(window.series) == 28


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "no data yet"),
        ("unique_id,ds,y", "no values"),
        (GOOD.replace("shop,2024-01-09,12.9", "shop,2024-01-09,twelve"), "Row 10, column y: 'twelve' is no number"),
        (GOOD.replace("2024-01-09", "2024-01-08"), "Row 10, column ds: '2024-01-08' comes twice"),
        (GOOD.replace("2024-01-09", "2023-01-09"), "earlier than the row before"),
        ("y\n" + "\n".join(["5"] * 30), "constant at 5"),
        ("y\n1\n2\n3", "has 3 values; at least 8"),
        ("y\n" + "\n".join(["nan"] * 30), "no value at all"),
        ("x" * (LARGEST_FILE + 1), "files up to 1000000 bytes"),
        ("y\n" + "1\n2\n" * 6000, "up to 10000 are read"),
    ],
)
def test_bad_files_are_told_in_a_sentence_and_nothing_is_lost(text: str, sentence: str) -> None:
    asked = own(text, horizon=5)
    assert sentence in reading(asked)["error"]
    lab = Lab(CATALOG)  # type: ignore[arg-type]
    with pytest.raises(gr.Error, match=sentence.split(":")[0].split("'")[0]):
        next(forecasting.run(lab, asked, "me"))
    assert lab.running == 0


def test_a_bad_series_is_named_and_the_rest_of_the_file_works() -> None:
    text = GOOD + "\n" + "\n".join(f"cafe,2024-01-{d:02},{'' if d % 3 else 'x' if d == 9 else d}" for d in range(1, 29))
    told = reading(own(text, own="shop", horizon=5))
    assert told["error"] == ""
    assert len(told["problems"]) == 1
    assert "Row 40, column y: 'x' is no number; series 'cafe' is left out." in told["problems"][0]
    assert [r.budget for r in requests_of(own(text, own="shop", horizon=5), CATALOG)] == [5] * 4  # type: ignore[arg-type]
    assert "no usable series 'cafe'" in reading(own(text, own="cafe", horizon=5))["error"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"horizon": 600}, "from 1 to 512, but 600"),
        ({"horizon": None}, "horizon must be a whole number"),
        ({"data": "nile", "horizon": 96}, "4 are left to look back on"),
        ({"back": 10_000}, "0 are left to look back on"),
        ({"season": 400}, "season of 400 steps does not fit"),
        ({"paths": 1000}, "sample paths must be a whole number from 2 to 256"),
        ({"truth": HOLD, "data": "gone", "csv": ""}, "no data yet"),
    ],
)
def test_what_cannot_run_is_refused_at_once(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(gr.Error, match=sentence):
        next(forecasting.run(Lab(CATALOG), form(**changes), "me"))  # type: ignore[arg-type]


def test_names_that_a_spreadsheet_would_run_can_be_forecast() -> None:
    text = GOOD.replace("shop", "=1+1")
    assert requests_of(own(text, horizon=5), CATALOG)[0].prompt["series"].endswith("=1+1")  # type: ignore[arg-type]


def test_the_handler_forecasts_and_ends_with_tables_and_both_files() -> None:
    lab = Lab(CATALOG)  # type: ignore[arg-type]
    seen = []
    for values in forecasting.run(lab, form(), "me"):
        seen.append(values)
        if not isinstance(values[7], str):
            continue
        table = list(csv.DictReader(io.StringIO(Path(values[8]).read_text())))
    assert {len(values) for values in seen} == {9}
    last = seen[-1]
    assert [lane["state"] for lane in last[0]["lanes"]] == ["done"] * 4
    assert [row[1] for row in last[5]] == [40] * 4
    assert len(table) == 40
    assert {"unique_id", "ds", "recursive", "recursive-lo-90", "recursive-hi-90", "direct-lo-80"} <= set(table[0])
    assert "direct-lo-90" not in table[0], "nothing is made up beyond the levels that a model gives"
    assert all(float(r["recursive-lo-80"]) <= float(r["recursive"]) <= float(r["recursive-hi-80"]) for r in table)


def test_a_lane_can_fail_alone() -> None:
    lab = Lab(CATALOG)  # type: ignore[arg-type]
    last = list(forecasting.run(lab, form(horizon=160), "me"))[-1][0]
    assert [lane["state"] for lane in last["lanes"]] == ["done", "done", "error", "done"]
    assert "pick rolled_direct" in last["lanes"][2]["message"]


def test_links_and_traces_fill_the_form_again() -> None:
    asked = form(context=100, back=7, lanes=[{"strategy": "rolled_direct", "models": {}, "knobs": {"head": 1}}])
    parts = dict(pair.split("=", 1) for pair in links.make_link("forecast", asked)[1:].split("&"))
    assert links.read_link(parts)["back"] == 7
    held = [forecast_trace(r) for r in requests_of(asked, CATALOG)]  # type: ignore[arg-type]
    again = forecast_form.form_of(held)
    assert {k: again[k] for k in ("data", "horizon", "back", "context", "truth", "paths")} == {
        "data": "trend_season", "horizon": 40, "back": 7, "context": 100, "truth": HOLD, "paths": 6,
    }  # fmt: skip
    assert again["lanes"][0]["knobs"]["head"] == 1
    mine = [forecast_trace(r) for r in requests_of(own(GOOD, horizon=6), CATALOG)]  # type: ignore[arg-type]
    theirs = forecast_form.form_of(mine)
    assert (theirs["data"], theirs["own"], theirs["back"]) == (OWN, "shop", 0)
    assert window_of({**form(), **theirs}).until == 24


def test_only_what_the_models_can_play_is_offered() -> None:
    known = forecast_form.offered(CATALOG)  # type: ignore[arg-type]
    assert known[0].id == BASELINE
    assert {"speculative_patches", "noise_jacobi", "direct", "lookahead_heads"} <= {s.id for s in known}
    assert "autoregressive" not in {s.id for s in known}, "no model of tokens is here"
    assert forecast_form.target_for("speculative_patches", form(model=DRAFT), CATALOG) == TARGET  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------------- record and API
def test_races_of_forecasts_can_be_recorded() -> None:
    made = record_example(CATALOG, "forecast", "noise", ["direct"])  # type: ignore[arg-type]
    assert [t.request.strategy for t in made] == [BASELINE, "direct"]
    assert all(t.end == "budget" for t in made)


def test_the_endpoint_tells_the_forecast() -> None:
    told = api.forecast_of(TRACES[0])
    assert told is not None
    assert list(told["quantiles"]) == ["0.05", "0.1", "0.25", "0.5", "0.75", "0.9", "0.95"]
    assert len(told["ds"]) == len(told["paths"][0]) == 40
    assert told["scores"]["mase"] > 0
    assert list(api.forecast_of(TRACES[2])["quantiles"]) == ["0.1", "0.25", "0.5", "0.75", "0.9"]  # type: ignore[index]
    numbers = forecast("direct", {"y": [float(i % 7) for i in range(60)]}, 10)
    assert api.forecast_of(numbers)["ds"][:2] == ["61", "62"]  # type: ignore[index]
    assert api.picture_of(TRACES[0]) is None
    assert api.forecast_of(Trace(Request("autoregressive", "x", {"target": "local/fake"}))) is None


def test_a_number_beyond_its_slider_reaches_the_form_whose_sentence_says_more() -> None:
    with gr.Blocks():
        made = page.slider(forecasting.ID, "horizon", 96, forecast_form.NUMBERS, forecast_form.LABELS)
    beyond = made.preprocess(5000)
    with pytest.raises(UserError, match="The horizon must be a whole number from 1 to 512, but 5000 was given"):
        window_of(form(horizon=beyond))
