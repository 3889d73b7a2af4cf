"""Forecasts of series whose predictability is known: sources, windows, what is read off traces, the command line."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend import predictability
from backend.predictability import EXACT, NEAR, Probe, measure, merged, requests, sources, windows
from backend.series.chaos import SYSTEMS
from tests.test_forecast_bench import here

ARGS = argparse.Namespace(series=2, horizon=16, paths=10)


def test_sources_are_twelve_systems_and_autoregressions() -> None:
    found = sources()
    assert [name for name, s in found.items() if s.kind == "chaos"] == list(SYSTEMS)
    assert found["ar1-0.5"].exponent == pytest.approx(math.log(0.5))
    assert found["ar1-1"].exponent == 0
    assert all(s.exponent > 0 for s in found.values() if s.kind == "chaos")
    (one, two) = windows(found["ar1-0.8"], 2, 16, 64)
    assert one.truth_H is not None
    whole = np.concatenate((one.past_T, one.truth_H))
    assert (whole.mean(), whole.std()) == pytest.approx((0, 1), abs=1e-9)
    assert not np.allclose(one.past_T, two.past_T)
    again = windows(found["ar1-0.8"], 1, 16, 64)[0]
    assert (again.past_T == one.past_T).all(), "the same series every time"
    assert len(windows(found["henon_map"], 1, 8, 32)[0].past_T) == 32


def test_a_source_is_told_by_acceptance_sweeps_and_error() -> None:
    said: list[str] = []
    row = measure(sources()["ar1-0.8"], here(), ARGS, said.append)
    assert (row["kind"], row["series"], row["patches"], len(row["wql"])) == ("ar1", 2, 4, 1)
    assert row["interval"][0] < row["acceptance"] < row["interval"][1]
    assert 1 <= row["sweeps"][NEAR] <= row["sweeps"][EXACT] <= 4
    assert row["calls"] <= 4
    assert row["wql"][0] > 0
    assert len(said) == 6
    assert json.loads(json.dumps(row)) == row


def test_what_is_not_finished_tells_nothing() -> None:
    source = sources()["ar1-0.5"]
    held = windows(source, 1, 8, 32)[0]
    asked = requests(held, 5, 3)
    assert [r.strategy for r in asked] == ["speculative_patches", "noise_jacobi", "noise_jacobi"]
    assert {r.seed for r in asked} == {3}
    assert {r.budget for r in asked} == {8}
    row = Probe(source).row()
    assert (row["acceptance"], row["sweeps"], row["wql"]) == (None, {EXACT: None, NEAR: None}, [])


def test_rows_keep_their_order_and_new_ones_replace_old_ones() -> None:
    before = {"rows": [{"name": "ar1-0.5", "a": 1}, {"name": "lorenz", "a": 1}]}
    assert merged(before, [{"name": "ar1-0.5", "a": 2}]) == [{"name": "lorenz", "a": 1}, {"name": "ar1-0.5", "a": 2}]
    assert merged(None, []) == []


def test_the_command_writes_row_by_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: Any = here()
    monkeypatch.setattr(predictability, "Catalog", lambda **options: made)
    out = tmp_path / "p.json"
    usual = ["--json", str(out), "--series", "1", "--horizon", "8", "--paths", "4"]
    assert predictability.main([*usual, "--only", "ar1-0.5"]) == 0
    assert predictability.main([*usual, "--only", "henon_map"]) == 0
    told = predictability.read(out)
    assert told is not None
    assert [row["name"] for row in told["rows"]] == ["henon_map", "ar1-0.5"]
    assert told["environment"]["horizon"] == 8
    assert "Henon map" in capsys.readouterr().out
    assert predictability.main(["--only", "weather"]) == 2
    assert "There is no source 'weather'" in capsys.readouterr().err
    assert predictability.read(tmp_path / "none.json") is None
