"""The benchmark of forecasts: cases, lanes, a tiny run over toys, resuming, and its reports."""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend import bench, findings, forecast_bench, forecast_table, registry
from backend.bench_report import FORECASTS
from backend.codecs.forecast import SeriesCodec
from backend.entries import OUTSIDE, Entry
from backend.errors import UserError
from backend.forecast_bench import Progress, Tally, lanes_here, law_of, make_lane, mean_ratio
from backend.forecast_cases import LEAST_CONTEXT, LOOK_BACK, case_of, cases, spread, target_of
from backend.forecast_long import REPEATS
from backend.forecast_report import Held
from backend.meter import Meter
from backend.protocols import BandSession, PathSession, Prompt
from backend.series.forecasts import Forecast
from backend.series.shipped import exponents, shipped
from backend.types import Sampling
from tests.toys_forecast import ToyBands, ToyBandsSession, ToyPaths, ToyPathsSession

CODEC: Any = SeriesCodec(64)


class OurPaths(ToyPaths):
    """An AR(1) that continues the context it is given."""

    def make(self, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> ToyPathsSession:
        opened = copy.copy(self)
        opened.series = tuple(float(np.nan_to_num(x)) for x in prompt.extras["context"])
        return ToyPathsSession(opened, sampling.temperature, meter)


class OurBands(ToyBands):
    """Bands that start at the end of the context."""

    def make(self, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> ToyBandsSession:
        session = super().make(prompt, sampling, meter, room)
        session.series_CT[0, -1] = float(np.nan_to_num(prompt.extras["context"][-1]))
        return session


class Here:
    """A target, its draft, and a model of bands as a catalog."""

    def __init__(self) -> None:
        target = OurPaths.ar1("house/forecaster", 0.8, 0.5, 4, level=0.0)
        draft = OurPaths.ar1("house/forecaster-draft", 0.7, 0.5, 4, level=0.0)
        bands = OurBands("toy/bands", level=0.0, sizes=(4, 8, 16))
        self.models: dict[str, Any] = {model.id: model for model in (target, draft, bands)}
        for model in self.models.values():
            model.codec = CODEC

    def get(self, model_id: str, progress: Any = None) -> Any:
        return self.models[model_id]

    def entries(self) -> list[Entry]:
        return [Entry(name, "", "house", "series", "paths", 1, "", True) for name in self.models]

    def default_target(self, protocol: type) -> str:
        wanted: dict[object, str] = {PathSession: "house/forecaster", BandSession: "toy/bands"}
        if protocol not in wanted:
            raise UserError("none")
        return wanted[protocol]

    def default(self, role: str, target: str) -> str:
        if role != "draft":
            raise UserError(f"no {role}")
        return "house/forecaster-draft"

    def sync(self) -> None:
        return None

    def environment(self) -> dict[str, Any]:
        told = {"device": "cpu", "dtype": "float64", "cpu": "a toy", "cores": 1}
        return {**told, "threads": 1, "torch": "2", "python": "3"}


def here() -> Any:
    return Here()


def arguments(out: Path | None, strategies: str, *more: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    forecast_bench.add_arguments(parser)
    args = parser.parse_args(["--horizon", "16", "--paths", "12", "--origins", "1", *more])
    told = {"prompts": "2", "repeats": 1, "temperature": 1.0, "quality_seconds": 0.0, "resume": False}
    return argparse.Namespace(**vars(args), **told, json=out, strategies=strategies)


# --------------------------------------------------------------------------------------------------------------- cases
def test_cases_are_shipped_series_with_the_truth_held_back() -> None:
    every = cases(128, 2)
    names = [case.text for case in every]
    assert len(names) == len(set(names)) > 40
    assert {case.kind for case in every} == {"measured", "synthetic", "chaos"}
    assert names.index("ar1") < names.index("co2 -1"), "last origins come first"
    assert "nile" not in names, "too short"
    for case in every:
        values = [x for x in case.prompt["y"] if x is not None]
        assert LEAST_CONTEXT <= len(values) <= len(case.prompt["y"]) <= LOOK_BACK
        assert case.held.truth_H is not None
        assert len(case.held.truth_H) == 128
        assert CODEC.encode(case.prompt).extras["season"] == case.prompt["season"]
    series = shipped()["ar1"].series
    case = next(case for case in every if case.text == "ar1 -1")
    assert case.held.truth_H == pytest.approx(series.y_T[-256:-128])
    assert case.prompt["y"][-1] == series.y_T[-257]
    assert [c.text for c in spread(every, 3)] == [names[0], names[len(names) // 3], names[2 * len(names) // 3]]
    with pytest.raises(UserError, match="at least 1, but 0"):
        spread(every, 0)


def test_every_shipped_chaotic_series_has_an_exponent_a_step() -> None:
    assert set(exponents()) == {name for name, item in shipped().items() if item.group == "chaos"}
    assert exponents()["logistic_map"] == pytest.approx(0.6931, rel=0.01)
    assert exponents()["lorenz"] == pytest.approx(0.9056 * 0.03, rel=0.02)


# --------------------------------------------------------------------------------------------------------------- lanes
def test_lanes_are_what_the_models_here_can_forecast() -> None:
    catalog = here()
    names = lanes_here(catalog)
    assert names[0] == "recursive"
    assert {"speculative_patches", "direct", "noise_jacobi:tolerance=0.001", "tolerant"} <= set(names)
    assert not {"lookahead_heads", "autoregressive", "speculative", "random_order", "temporal_fusion"} & set(names)
    assert target_of(catalog, "direct") == "toy/bands"
    catalog.entries = lambda: []
    assert lanes_here(catalog) == []
    with pytest.raises(UserError, match="no model here to forecast with"):
        make_lane("recursive", catalog, arguments(None, ""))


def test_a_lane_asks_for_paths_and_continues_the_case() -> None:
    lane = make_lane("speculative_patches:gamma=2", here(), arguments(None, ""))
    case = cases(16)[0]
    request = lane.request(case.prompt, 3)
    assert (request.knobs, request.budget) == ({"gamma": 2, "paths": 12}, 16)
    forecast, (trace,) = lane.forecast(case, [3])
    assert forecast.values_SH.shape == (12, 16)
    context = np.array(case.prompt["y"][-64:], dtype=float)
    assert np.nanmin(context) - 9 * np.nanstd(context) < forecast.values_SH.min()
    assert trace.request.seed == 3
    assert law_of(lane, arguments(None, ""), ["recursive"]) == "recursive"
    tolerant = make_lane("noise_jacobi:tolerance=0.001", here(), arguments(None, ""))
    assert law_of(tolerant, arguments(None, ""), ["recursive"]) is None, "with a tolerance it promises nothing"
    checked = make_lane("speculative_patches", here(), arguments(None, ""))
    assert law_of(checked, arguments(None, ""), ["recursive"]) is None, "measured, whatever it promises"


# ------------------------------------------------------------------------------------------------------------ the bench
LANES = "recursive,speculative_patches,noise_jacobi,direct"


def test_a_single_curve_is_scored_as_far_as_it_can_be() -> None:
    tally, curve_H = Tally(), np.linspace(-1.0, 1.0, 16)
    few = [case for case in cases(16)[:3] if case.held.truth_H is not None]
    for case in few:
        tally.add(case, Forecast(curve_H[None], (0.5,)), [])
    told = tally.result()
    missed = [np.nansum(np.abs(c.held.truth_H - curve_H)) / np.nansum(np.abs(c.held.truth_H)) for c in few]
    assert told["wql"] == pytest.approx(mean_ratio(missed))
    assert told["sql"] == pytest.approx(told["mase"])
    assert told["smape"] > 0
    assert (told["coverage80"], told["crps_of_sum"], told["pit"], told["reliability"]) == (None,) * 4
    assert forecast_table.worth(told) == [*[""] * 6, f"only {len(few)}"]
    enough = forecast_table.worth(told | {"cases": forecast_table.LEAST})
    assert all(enough[:4])
    assert enough[4:6] == ["", ""]


def test_measures_and_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast_bench, "LONG", 32)
    few = cases(16)[:3]
    monkeypatch.setattr(
        forecast_bench, "cases", lambda horizon, origins=1: few if horizon == 16 else cases(horizon)[:3]
    )
    monkeypatch.setattr(forecast_bench, "ALIKE", (few[0].text,))
    out, said = tmp_path / "forecasting.json", list[str]()
    args = arguments(out, LANES)
    result = forecast_bench.bench(args, here(), said.append)
    assert json.loads(out.read_text(encoding="utf-8")) == json.loads(json.dumps(result))
    rows = {row["strategy"]: row for row in result["rows"]}
    assert list(rows) == LANES.split(",")
    plain, ours, swept, direct = rows.values()
    assert (plain["calls"], plain["speedup_calls"], plain["paths"], plain["against"]) == (4, 1, 12, "recursive")
    assert ours["speedup_calls"] == pytest.approx(4 / ours["calls"])
    assert ours["calls_by_role"]["draft"] > 0
    assert swept["quality"] == {"law_of": "recursive"}
    assert (direct["calls"], direct["paths"], direct["quality"]["crps_of_sum"]) == (1, None, None)
    assert direct["quality"]["cases"] == 1, "no seconds: one forecast"
    assert plain["quality"]["cases"] == 3, "plain lanes forecast all"
    told = plain["quality"]
    assert told["wql"] == pytest.approx(mean_ratio([c["wql"] for c in told["by_case"].values()]))
    assert sum(told["pit"]) == pytest.approx(1, abs=1e-3)
    law = result["equal_law"]
    assert (law["cases"], law["same"]) == (3 * REPEATS, law["low"] <= 1 <= law["high"])
    assert (law["lane"], law["against"]) == ("speculative_patches", "recursive")
    assert forecast_table.law(law | {"same": False}).endswith(": a difference.")
    assert [(row["horizon"], len(row["lanes"])) for row in result["sweeps"]] == [(16, 4), (32, 4)]
    assert result["sweeps"][0]["lanes"]["recursive"]["calls"] == 4
    (long,) = result["long_drafts"]  # twice the horizon is the longest here
    assert (long["horizon"], long["paths"], long["lanes"]["recursive"]["calls"]) == (32, 12, 8)
    drafted = long["lanes"]["speculative_patches:gamma=4"]
    assert drafted["calls_a_path"] <= drafted["calls"] <= 8
    assert long["speedup_time"] > 0
    assert long["law"]["cases"] == long["series"] * long["repeats"]
    text = forecast_table.report(result)
    assert "| `direct` | toy/bands | 1.0 | " in text
    assert "| as `recursive` |" in text
    assert f"paired bootstrap over {3 * REPEATS} forecasts" in text
    gallery = forecast_table.for_gallery(result)["rows"]
    assert gallery[2]["worth"] is None, "of too few forecasts"
    monkeypatch.setattr(forecast_table, "LEAST", 3)
    gallery = forecast_table.for_gallery(result)["rows"]
    assert (gallery[2]["worth"], gallery[3]["worth"]) == (told["wql"], None)
    assert gallery[1]["num_draft_calls"] == ours["sums"]["num_draft_calls"]
    args.resume, said[:] = True, []
    assert forecast_bench.bench(args, here(), said.append) == json.loads(out.read_text(encoding="utf-8"))
    assert not said
    args.temperature = 0.5
    with pytest.raises(UserError, match=r"was measured with temperature 1\.0, not 0\.5; leave out --resume"):
        forecast_bench.bench(args, here(), said.append)


def test_a_lane_that_cannot_run_is_left_out_unless_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast_bench, "cases", lambda horizon, origins=1: cases(24)[:1])
    monkeypatch.setattr(forecast_bench, "lanes_here", lambda catalog: ["recursive", "direct"])
    monkeypatch.setattr(forecast_bench, "sweeps", lambda catalog, args, tell: [])
    said: list[str] = []
    result = forecast_bench.bench(arguments(None, "", "--horizon", "24", "--origins", "1"), here(), said.append)
    assert [row["strategy"] for row in result["rows"]] == ["recursive"]
    assert any("direct is left out: One call of this model reaches 16 steps" in line for line in said)
    with pytest.raises(UserError, match="reaches 16 steps"):
        forecast_bench.bench(arguments(None, "direct", "--horizon", "24"), here(), said.append)
    args = arguments(None, "recursive", "--horizon", "100000")
    monkeypatch.undo()
    with pytest.raises(UserError, match="No shipped series is long enough for 100000 steps"):
        forecast_bench.bench(args, here(), said.append)


def test_rows_without_quality_are_measured_again(tmp_path: Path) -> None:
    path, environment = tmp_path / "f.json", {"date": "today", "dtype": "float32"}
    rows = [{"strategy": "a", "quality": {"cases": 3}}, {"strategy": "b", "quality": None}]
    held = {"environment": {**environment, "date": "before"}, "rows": rows, "sweeps": [1]}
    path.write_text(json.dumps(held), encoding="utf-8")
    progress = Progress(environment, path)
    progress.resume()
    assert (list(progress.rows), progress.sweeps) == (["a"], [1])


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--tab", "forecasting", "--counts"], "--counts is not for the tab 'forecasting'"),
        (["--tab", "forecasting", "--model", "house/forecaster"], "--model is not for the tab 'forecasting'"),
        (["--tab", "forecasting", "--prompts", "some.jsonl"], "--prompts is the number of timed series"),
    ],
)
def test_arguments_of_another_tab_are_one_sentence(
    argv: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.main(argv) == 2
    assert sentence in capsys.readouterr().err


# -------------------------------------------------------------------------------------------------------------- reports
def lane(name: str, calls: float, seconds: float, wql: float | None, **more: Any) -> dict[str, Any]:
    worth = {"cases": 40, "paths": 64, "mase": 1.1, "wql": wql, "sql": 0.9, "smape": 0.2, "coverage80": 0.78}
    return {
        "strategy": name,
        "kind": "paths",
        "against": "recursive",
        "guarantee": "lossless",
        "models": {"target": "house/forecaster"},
        "knobs": {},
        "paths": 64,
        "calls": calls,
        "calls_by_role": {"target": calls},
        "rows_by_role": {"target": 600.0},
        "seconds": seconds,
        "seconds_quartiles": [seconds, seconds],
        "speedup_calls": 8 / calls,
        "speedup_time": 0.5 / seconds,
        "alpha": 0.75,
        "quality": {**worth, "crps_of_sum": None} if wql else {"law_of": "recursive"},
        **more,
    }


def made(**law: Any) -> dict[str, Any]:
    rows = [lane("recursive", 8, 0.5, 0.2), lane("speculative_patches", 4, 0.4, 0.2), lane("direct", 1, 0.01, 0.19)]
    both = {"recursive": {"calls": 8}, "noise_jacobi:carry=context:tolerance=0.0": {"calls": 4}}
    both["noise_jacobi:carry=context:tolerance=0.000001"] = {"calls": 4}
    both["noise_jacobi:carry=context:tolerance=0.001"] = {"calls": 2}
    found = {"lane": "speculative_patches", "against": "recursive", "ratio": 1.001, "cases": 40}
    return {
        "rows": rows,
        "equal_law": {**found, "low": 0.99, "high": 1.01, "same": True} | law,
        "sweeps": [{"case": "ar1", "target": "house/forecaster", "horizon": 128, "paths": 64, "lanes": both}],
    }


def told(result: dict[str, Any]) -> list[tuple[str, str]]:
    lines = [line.split(" | ") for line in forecast_table.figures(result).splitlines()[2:]]
    return [(line[1], line[2].removesuffix(" |")) for line in lines]


def test_figures_tell_what_was_asked_and_what_came_out() -> None:
    speculative, sweeps, direct, quick = told(made())
    assert speculative[1] == "yes"
    assert speculative[0].startswith("2.00x fewer calls (4.00 against 8.00), 1.25x in time at 64 paths, where")
    assert "where a call with its drafts takes 1.6 plain ones, 75% of the patches" in speculative[0]
    assert speculative[0].endswith("WQL 1.0010 of recursive's, 0.9900 to 1.0100 over 40 forecasts")
    assert told(made(same=False))[0][1] == "no"
    result = made()
    both = {"recursive": {"calls": 16.0, "calls_a_path": 16.0, "seconds": 0.2}}
    both["speculative_patches:gamma=4"] = {"calls": 10.0, "calls_a_path": 8.0, "seconds": 0.4}
    law = {"ratio": 1.01, "low": 0.9, "high": 1.1, "cases": 36, "same": True}
    long = {"horizon": 256, "series": 12, "repeats": 3, "paths": 64, "lanes": both, "speedup_time": 0.5, "law": law}
    result["long_drafts"] = [long | {"law": None}, long]
    result["rows"][1]["speedup_time"] = 0.8
    words, reached = told(result)[0]
    assert words.endswith(
        "0.50x in time; `speculative_patches:gamma=4` over 256 steps of 12 series: 1.60x fewer calls, 2.00x for a path "
        "on average, 0.50x in time; WQL 1.0100, 0.9000 to 1.1000"
    )
    assert reached == "no"
    result["long_drafts"] = [long, long | {"speedup_time": 1.05}]
    assert told(result)[0][1] == "yes"
    result["long_drafts"] = [long | {"speedup_time": 1.05, "law": law | {"same": False}}]
    assert told(result)[0][1] == "no"
    result = made()
    result["rows"][1]["calls_a_path"] = 2.5
    assert "4.00 against 8.00), 3.20x for a path on average (2.50), 1.25x in time" in told(result)[0][0]
    exactly, nearly, within = sweeps[0].split(", ")[1:]
    assert exactly == "128 steps of 64 paths: 2.00x to the last bit (4 against 8)"
    assert (nearly, within) == ("2.00x within 1e-06 (4 against 8)", "4.00x within 0.001 (2 against 8)")
    assert sweeps[1] == "no", "within a thousandth is not the same path"
    assert direct == ("8.0x fewer calls, 50.0x in time; WQL 0.190 against 0.200, MASE 1.100 against 1.100", "yes")
    assert quick == ("`recursive` 0.50 s at 64 paths; the slowest of 3 lanes, `recursive`, 0.50 s", "yes")
    assert told({"rows": []}) == [("not measured yet", "")] * 4


def test_nothing_is_claimed_before_it_is_measured(tmp_path: Path) -> None:
    assert findings.forecast_figures(tmp_path) == forecast_table.MISSING
    (tmp_path / "forecasting.json").write_text(json.dumps({"environment": {}, "rows": []}), encoding="utf-8")
    assert findings.forecast_figures(tmp_path).count("not measured yet") == len(forecast_table.FIGURES)


def test_the_readme_says_which_models_of_series_are_there() -> None:
    known = [
        Entry("house/forecaster", "", "house", "series", "lookahead", 1, "", True),
        Entry("house/series-tokens", "", "house", "series", "causal", 1, "", True),
        Entry("house/series-masked", "", "house", "series", "masked", 1, "", False),
    ]
    text = findings.forecasters(known)
    assert "`house/forecaster` (`direct`, `multi_resolution`, " in text
    assert "`speculative_patches`" in text
    assert "`house/series-tokens` (strategies that write one token after the other)" in text
    assert text.endswith("Not built yet: `house/series-masked`.")
    events = Entry("house/events", "", "house", "events", "events", 1, "", True)
    assert findings.forecasters([*known, events]).endswith("`house/events` (`event_sampling`, `speculative_events`).")
    assert findings.forecasters([]).startswith("There is no model of series yet")


def test_the_registry_names_the_models_of_series(capsys: pytest.CaptureFixture[str]) -> None:
    assert registry.main(["--json"]) == 0
    listed = {item["id"]: item["series_models"] for item in json.loads(capsys.readouterr().out)}
    assert listed["recursive"][:2] == ["house/forecaster", "house/forecaster-8"]
    assert listed["direct"][:2] == ["house/forecaster", "house/forecaster-8"]
    assert listed["direct"][2:] == list(OUTSIDE)
    assert "house/forecaster" in listed["speculative_patches"]
    assert not any("house/forecaster-draft" in ids for ids in listed.values())
    assert listed["speculative"] == listed["spectr"] == ["house/series-tokens"]
    assert listed["confidence"] == ["house/series-masked"]
    assert listed["medusa"] == listed["next_scale"] == []


def test_a_case_without_a_season_that_fits_has_none() -> None:
    past = np.arange(100.0)
    assert case_of("a", "b", Held(past, 60)).prompt["season"] == 1
    assert case_of("a", "b", Held(past, 50)).prompt["season"] == 50
    assert FORECASTS[1] == "<!-- /bench-forecasting -->"
