"""Rolling backtests: where origins lie, what is scored, and pooled measures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backend.backtest import Backtest, at_origin, origins
from backend.codecs.series import read_series
from backend.errors import UserError
from backend.series.forecasts import Forecast
from backend.series.metrics import LEVELS, wql
from backend.types import Request, Sampling
from tests.test_forecast_bench import here

CSV = "unique_id,ds,y\n" + "".join(
    f"s,2024-{m:02}-{d:02},{10 + d % 7 + 0.1 * m}\n" for m in (1, 3) for d in range(1, 29)
)
WARM = Sampling(temperature=1.0)


def test_origins_end_with_the_series_and_are_as_far_apart_as_it_allows() -> None:
    assert origins(400, 20, 4) == [320, 340, 360, 380]
    assert origins(100, 20, 8, 32) == [38, 44, 50, 56, 62, 68, 74, 80]
    assert origins(55, 20, 8, 32) == [32, 33, 34, 35], "fewer where they do not fit"
    for length, horizon, count in ((52, 20, 8), (400, 20, 1), (30, 40, 8)):
        with pytest.raises(UserError, match="needs at least 2 of them"):
            origins(length, horizon, count)


def asked(strategy: str, **knobs: Any) -> Request:
    series = "y\n" + "\n".join(f"{x:.4f}" for x in np.sin(np.arange(120.0)) + 5)
    return Request(strategy, series, {}, knobs, WARM, 8, 1)


def made(*requests: Request, count: int = 3) -> Backtest:
    series = next(iter(read_series(requests[0].prompt).series.values()))
    return Backtest.plan(series, requests, 8, count, 1)


def test_lanes_are_scored_at_every_origin_and_together() -> None:
    backtest = made(asked("recursive", paths=30), asked("speculative_patches", paths=30), asked("rolled_direct"))
    assert list(backtest.run(here())) == [(i + 1, 9) for i in range(9)]
    result = backtest.result()
    assert [o["until"] for o in result["origins"]] == [96, 104, 112]
    plain, ours, bands = result["lanes"]
    assert [row["calls"] for row in plain["rows"]] == [2, 2, 2]
    assert [row["speedup_calls"] for row in plain["rows"]] == [1, 1, 1]
    assert ours["guarantee"] == "lossless"
    assert bands["pooled"]["crps_of_sum"] is None
    assert plain["pooled"]["crps_of_sum"] == pytest.approx(np.mean([row["crps_of_sum"] for row in plain["rows"]]))
    tally, helds = backtest.tallies[0], [backtest.held_at(i) for i in range(3)]
    truths = [held.truth_H for held in helds if held.truth_H is not None]
    assert plain["pooled"]["wql"] == pytest.approx(wql(truths, [tally.quantiles[i] for i in range(3)], LEVELS))
    assert len(plain["by_step"]["sql"]) == 8
    assert np.mean(plain["by_step"]["mase"]) == pytest.approx(plain["pooled"]["mase"], rel=1e-3)
    assert np.mean(plain["by_step"]["coverage80"]) == pytest.approx(plain["pooled"]["coverage80"], rel=1e-3)


def test_a_single_curve_is_scored_and_has_no_band(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.backtest.forecast_of", lambda *_: Forecast(np.full((1, 8), 5.0), (0.5,)))
    backtest = made(asked("recursive", paths=2), asked("rolled_direct"))
    list(backtest.run(here()))
    curve = backtest.result()["lanes"][0]
    assert curve["pooled"]["wql"] > 0
    assert curve["pooled"]["coverage80"] is None
    assert curve["by_step"]["coverage80"] == curve["by_step"]["width"] == [None] * 8
    assert curve["by_step"]["sql"] == curve["by_step"]["mase"]


def test_a_lane_that_cannot_run_is_noted_and_the_others_go_on() -> None:
    backtest = made(asked("recursive", paths=5), asked("lookahead_heads"), count=2)
    list(backtest.run(here()))
    plain, broken = backtest.result()["lanes"]
    assert plain["pooled"]["origins"] == 2
    assert broken["rows"] == [None, None]
    assert broken["problems"] == ["none", "none"]
    assert broken["pooled"]["wql"] is None
    assert broken["by_step"]["sql"] == [None] * 8


def test_closing_it_early_keeps_what_is_there() -> None:
    backtest = made(asked("recursive", paths=5))
    running = backtest.run(here())
    next(running)
    running.close()
    lane = backtest.result()["lanes"][0]
    assert [row is not None for row in lane["rows"]] == [True, False, False]
    assert lane["pooled"]["origins"] == 1


def test_gaps_in_the_truth_are_left_out_step_by_step() -> None:
    table = read_series(CSV)
    series = table.series["s"]
    assert np.isnan(series.y_T).any(), "a month is missing"
    requests = [Request("recursive", CSV, {}, {"paths": 5}, WARM, 8, 1)]
    backtest = Backtest.plan(series, requests, 8, 3)
    list(backtest.run(here()))
    lane = backtest.result()["lanes"][0]
    assert lane["pooled"]["origins"] >= 1
    assert len(lane["rows"]) == 3


def test_prompts_say_where_the_origin_is() -> None:
    assert at_origin(asked("recursive"), 40).prompt["until"] == 40
    named = Request("recursive", {"csv": CSV, "series": "s"})
    assert at_origin(named, 30).prompt == {"csv": CSV, "series": "s", "until": 30}
    with pytest.raises(UserError, match="horizon must lie between"):
        Backtest.plan(read_series(CSV).series["s"], [named], 0)
