"""The committed series: readable, small, with a provenance each; the chaotic ones forget as fast as they should."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from backend.codecs.series import read_series
from backend.series import chaos
from backend.series.synthetic import FAMILIES, autoregressive
from backend.train import series_data

FOLDER = Path(__file__).resolve().parents[1] / "assets" / "series"
INDEX = json.loads((FOLDER / "index.json").read_text(encoding="utf-8"))
MEASURED = json.loads((FOLDER / "lyapunov.json").read_text(encoding="utf-8"))


# -------------------------------------------------------------------------------------------------------------- files
def test_files_are_small_and_the_index_is_true() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 600_000
    assert series_data.index() == INDEX
    assert {entry["file"] for entry in INDEX["files"]} == {path.name for path in FOLDER.glob("*.csv")}
    for entry in INDEX["files"]:
        assert "public domain" in entry["provenance"] or "free for any use" in entry["provenance"]


def test_public_series_are_the_known_ones() -> None:
    co2 = read_series(FOLDER / "co2.csv").series["co2"]
    assert (co2.frequency.name, co2.season, len(co2)) == ("W", 52, 2284)
    assert co2.y_T[0] == 316.1
    assert 0 < np.isnan(co2.y_T).sum() < 80  # weeks without a measurement
    nile = read_series(FOLDER / "nile.csv").series["nile"]
    assert (nile.ds[0], nile.y_T[0], nile.future(1)) == ("1871-01-01", 1120, ["1971-01-01"])


def test_synthetic_files_are_made_again_from_their_seed() -> None:
    lines = [f"{i},{ds},{'' if np.isnan(y) else f'{y:.6g}'}" for i, ds, y in series_data.synthetic()]
    assert (FOLDER / "synthetic.csv").read_text(encoding="utf-8").splitlines()[1:] == lines


@pytest.mark.parametrize("name", list(FAMILIES))
def test_families_repeat_with_their_stream(name: str) -> None:
    first, second, other = (FAMILIES[name].make(np.random.default_rng(seed), 100) for seed in (1, 1, 2))
    assert np.array_equal(first, second, equal_nan=True)
    assert not np.array_equal(first, other, equal_nan=True)


def test_an_autoregression_has_its_variance() -> None:
    y_T = autoregressive(np.random.default_rng(0), 50_000, (0.8,))
    assert y_T.var() == pytest.approx(1 / (1 - 0.64), rel=0.05)
    assert np.corrcoef(y_T[1:], y_T[:-1])[0, 1] == pytest.approx(0.8, abs=0.02)


# -------------------------------------------------------------------------------------------------------------- chaos
@pytest.mark.parametrize("name", list(chaos.SYSTEMS))
def test_measured_exponents_are_those_of_the_literature(name: str) -> None:
    system, measured = chaos.SYSTEMS[name], MEASURED[name]
    assert measured["literature"] == system.exponent
    assert (measured["step"], measured["span"]) == (system.step, system.span), "measure it again"
    assert measured["exponent"] == pytest.approx(system.exponent, rel=system.tolerance)
    assert len(chaos.SYSTEMS) == 12


@pytest.mark.parametrize("name", [name for name, system in chaos.SYSTEMS.items() if not system.step])
def test_exponents_of_maps_are_measured_here(name: str) -> None:
    system = chaos.SYSTEMS[name]
    assert chaos.lyapunov(system, 32, 1_000) == pytest.approx(system.exponent, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, system in chaos.SYSTEMS.items() if system.step])
def test_exponents_of_flows_are_measured_here(name: str) -> None:
    system = chaos.SYSTEMS[name]
    assert chaos.lyapunov(system, 8 if name == "lorenz96" else 64) == pytest.approx(system.exponent, rel=0.05)


@pytest.mark.parametrize("name", list(chaos.SYSTEMS))
def test_jacobians_are_derivatives(name: str) -> None:
    system = chaos.SYSTEMS[name]
    point_BD = np.array(system.start) + np.random.default_rng(3).normal(size=(4, len(system.start))) * 0.3
    linear_BDD = system.linear(point_BD)
    for d in range(point_BD.shape[1]):
        shift_D = np.zeros(point_BD.shape[1])
        shift_D[d] = 1e-6
        column_BD = (system.rule(point_BD + shift_D) - system.rule(point_BD - shift_D)) / 2e-6
        assert linear_BDD[..., d] == pytest.approx(column_BD, abs=1e-6, rel=1e-6)


def test_steps_are_of_fourth_order() -> None:
    """Half the step, a sixteenth of the error: on the circle x'' = -x, whose way is known."""
    errors = []
    for step in (0.1, 0.05):
        circle = chaos.System(
            "circle", lambda p: np.stack((p[:, 1], -p[:, 0]), 1), lambda p: p, (1.0, 0.0), step, 1, 0, ""
        )
        point_BD = np.array([[1.0, 0.0]])
        for _ in range(round(2 / step)):
            point_BD = chaos.advance(circle, point_BD)
        errors.append(float(np.linalg.norm(point_BD - [np.cos(2), -np.sin(2)])))
    assert errors[0] / errors[1] == pytest.approx(16, rel=0.1)


def test_chaotic_series_stay_bounded_and_are_no_cycles() -> None:
    table = read_series(FOLDER / "chaos.csv")
    assert list(table.series) == list(chaos.SYSTEMS)
    for series in table.series.values():
        assert np.isfinite(series.y_T).all()
        assert np.abs(series.y_T).max() < 100
        assert len(np.unique(series.y_T)) > 380
