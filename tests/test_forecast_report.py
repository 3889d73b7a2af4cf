"""Rows of forecasts: costs, scores at common levels, intervals of shares, calibration, paired comparison."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from backend import forecast_report as report
from backend.codecs.dates import Floats
from backend.codecs.series import read_series
from backend.forecast_report import Held, paired_bootstrap, report_row, scores_of
from backend.registry import find
from backend.run import record
from backend.series.forecasts import Forecast, forecast_of
from backend.series.metrics import LEVELS, quantiles_of
from backend.trace import Trace
from backend.types import Request, Sampling
from tests.toys import ToyCatalog
from tests.toys_forecast import SERIES, toys_for

PAST = np.array(SERIES)
TRUTH = np.array([0.4, 0.1, 0.9, 0.6, 0.2, 1.1])
HELD = Held(PAST, 4, TRUTH)


def traced(strategy: str, horizon: int = 6, **knobs: Any) -> Trace:
    models = toys_for(dict(find(strategy).roles))
    ids = {role: model.id for role, model in models.items()}
    request = Request(strategy, "", ids, knobs, Sampling(temperature=1.0), horizon, 4)
    return record(request, ToyCatalog(list(models.values())))


def row(trace: Trace, **more: Any) -> report.Row:
    return report_row(trace, forecast_of(trace), HELD, **more)


# ---------------------------------------------------------------------------------------------------------------- rows
def test_a_row_tells_what_a_lane_cost_against_recursive_and_what_it_is_worth() -> None:
    plain = traced("recursive", paths=50)
    ours = traced("speculative_patches", paths=50, gamma=2)
    mine, base = row(ours, base=plain), row(plain, base=plain)
    assert (base.calls, base.draft_calls, base.speedup_calls, base.speedup_time) == (3, 0, 1, 1)
    assert mine.calls == ours.summary().num_target_calls
    assert mine.draft_calls == ours.summary().num_draft_calls > 0
    assert mine.speedup_calls == 3 / mine.calls
    assert mine.paths == 50
    assert mine.guarantee == "lossless"
    paths_SH = forecast_of(ours).values_SH
    median_H = np.quantile(paths_SH, 0.5, axis=0)
    assert mine.scores is not None
    assert mine.scores.mase == pytest.approx(np.abs(TRUTH - median_H).mean() / np.abs(PAST[4:] - PAST[:-4]).mean())
    assert mine.scores.crps_of_sum is not None
    assert mine.to_json()["scores"]["wql"] == mine.scores.wql


def test_bands_have_no_sum_and_are_scored_at_the_same_levels_as_paths() -> None:
    for strategy in ("rolled_direct", "recursive_point"):  # nine levels, and thirteen
        trace = traced(strategy)
        forecast, made = forecast_of(trace), row(trace)
        assert made.paths is None
        assert made.scores is not None
        assert made.scores.crps_of_sum is None
        nine = Forecast(forecast.quantiles(LEVELS), LEVELS)
        assert scores_of(nine, HELD) == made.scores


def test_a_single_curve_is_a_law_of_one_point() -> None:
    curve_H = np.linspace(1.0, 2.0, len(TRUTH))
    scores = scores_of(Forecast(curve_H[None], (0.5,)), HELD)
    assert scores is not None
    assert scores.mase is not None
    assert scores.wql == pytest.approx(np.abs(TRUTH - curve_H).sum() / np.abs(TRUTH).sum())  # weighted absolute error
    assert scores.sql == pytest.approx(scores.mase)
    assert scores.smape > 0
    assert (scores.coverage80, scores.crps_of_sum) == (None, None)
    by_path = scores_of(Forecast(np.tile(curve_H, (7, 1))), HELD)
    assert by_path is not None
    assert by_path.wql == pytest.approx(scores.wql)
    assert (report.nine_of(Forecast(curve_H[None], (0.5,))) == curve_H).all()
    assert scores_of(Forecast(np.full((1, len(TRUTH)), np.nan), (0.5,)), HELD) is None


def test_what_is_not_known_is_left_out() -> None:
    trace = traced("recursive", paths=3)
    halfway = replace(trace, steps=trace.steps[:1], end="stopped")
    unfinished = report_row(halfway, forecast_of(halfway), HELD, base=trace)
    assert (unfinished.scores, unfinished.speedup_calls, unfinished.calls) == (None, None, 1)
    assert row(trace, base=halfway).speedup_time is None
    assert row(trace, base=traced("recursive", horizon=8, paths=3)).speedup_calls is None
    assert report_row(trace, forecast_of(trace), Held(PAST, 4)).scores is None
    assert report_row(trace, forecast_of(trace), None).scores is None
    assert scores_of(Forecast(np.zeros((2, 6)), (0.25, 0.75)), HELD) is None


def test_what_lies_beyond_the_end_of_a_series_is_not_scored() -> None:
    csv = "y\n" + "\n".join(str(x % 5 + 0.1 * x) for x in range(30))
    series = next(iter(read_series(csv).series.values()))
    held = Held.of(series, 26, 6)
    assert held.truth_H is not None
    assert np.isfinite(held.truth_H).sum() == 4
    assert held.past_T[-1] == series.y_T[25]
    assert Held.of(series, 30, 6).truth_H is None
    forecast = Forecast(np.tile(held.truth_H, (9, 1)), LEVELS)
    assert scores_of(forecast, held) is None  # a forecast with gaps is not finished
    full = Forecast(np.where(np.isnan(forecast.values_SH), 0.0, forecast.values_SH), LEVELS)
    scores = scores_of(full, held)
    assert scores is not None
    assert (scores.mase, scores.coverage80) == (0.0, 1.0)


def test_intervals_of_shares() -> None:
    assert report.interval(0, 0) == (0.0, 1.0)
    assert report.interval(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    low, high = report.interval(20, 20)
    assert (low, high) == pytest.approx((0.8389, 1.0), abs=1e-4)


# --------------------------------------------------------------------------------------------------------- calibration
def normal(spread: float, count: int = 400) -> tuple[list[Forecast], list[Held]]:
    """Forecasts of standard normal truths, with this spread."""
    stream = np.random.default_rng(0)
    forecasts = [Forecast(spread * stream.normal(size=(300, 8))) for _ in range(count)]
    return forecasts, [Held(PAST, 1, stream.normal(size=8)) for _ in range(count)]


def test_a_calibrated_forecast_has_a_flat_histogram_and_lies_on_the_diagonal() -> None:
    forecasts, helds = normal(1.0)
    assert report.pit_histogram(forecasts, helds) == pytest.approx(np.full(10, 0.1), abs=0.02)
    assert report.reliability(forecasts, helds) == pytest.approx(LEVELS, abs=0.02)
    narrow, helds = normal(0.4)
    ends = report.pit_histogram(narrow, helds)
    assert ends[0] > 0.25
    assert ends[-1] > 0.25
    assert report.reliability(narrow, helds)[0] > 0.25


def test_truths_on_a_quantile_are_spread_over_its_bins() -> None:
    zeros: Floats = np.zeros((5, 1))
    found = report.pit_histogram([Forecast(zeros)], [Held(PAST, 1, np.zeros(1))])
    assert found == pytest.approx(np.full(10, 0.1))
    assert np.isnan(report.pit_histogram([Forecast(zeros)], [Held(PAST, 1)])).all()
    gap = Held(PAST, 1, np.array([np.nan]))
    assert np.isnan(report.reliability([Forecast(zeros)], [gap])).all()


# ---------------------------------------------------------------------------------------------------------- comparison
def test_a_paired_comparison_sees_a_difference_and_sees_none() -> None:
    stream = np.random.default_rng(3)
    theirs = np.exp(stream.normal(size=60))  # series differ a lot, lanes a little
    same = paired_bootstrap((theirs * np.exp(0.02 * stream.normal(size=60))).tolist(), theirs.tolist())
    assert same.same
    assert same.cases == 60
    worse = paired_bootstrap((1.05 * theirs * np.exp(0.02 * stream.normal(size=60))).tolist(), theirs.tolist())
    assert not worse.same
    assert worse.low < 1.05 < worse.high
    assert worse.ratio == pytest.approx(1.05, abs=0.01)
    assert math.log(same.high / same.low) < 0.03
    for ours, others in (([], []), ([1.0], [1.0, 2.0]), ([0.0], [1.0])):
        with pytest.raises(ValueError, match="paired comparison"):
            paired_bootstrap(ours, others)


def test_intervals_of_the_paired_comparison_hold_the_truth_about_as_often_as_they_say() -> None:
    held = 0
    for seed in range(200):
        logs = np.random.default_rng(seed).normal(0.1, 0.3, size=40)
        found = paired_bootstrap(np.exp(logs).tolist(), [1.0] * 40, draws=400, seed=seed)
        held += found.low <= math.exp(0.1) <= found.high
    assert 180 <= held <= 198


def test_quantiles_of_paths_are_those_of_the_metrics() -> None:
    paths_SH = np.random.default_rng(1).normal(size=(30, 6))
    assert Forecast(paths_SH).quantiles(LEVELS) == pytest.approx(quantiles_of(paths_SH))
