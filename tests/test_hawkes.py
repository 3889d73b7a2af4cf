"""Hawkes processes: rates, branching and time-rescaled residuals that theory knows, and the events that ship."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.series.event_sets import FILE, event_sets
from backend.series.hawkes import Hawkes, judged, random_processes, simulate
from backend.train.forecast.event_sets import AHEAD, HISTORY, NETWORK, made, quakes


def many(process: Hawkes, count: int) -> Hawkes:
    return Hawkes(*(np.repeat(x, count, 0) for x in (process.base_BV, process.jump_BVV, process.decay_BVV)))


def check_exponential(residuals: np.ndarray) -> None:  # type: ignore[type-arg]
    """Kolmogorov-Smirnov at 1 in 10,000."""
    share = np.sort(-np.expm1(-residuals.ravel()))
    level = np.arange(1, len(share) + 1) / len(share)
    assert np.abs(share - level).max() * np.sqrt(len(share)) < 2.23


def test_the_stationary_rate_is_base_over_one_minus_branching() -> None:
    one = Hawkes.of([0.5], [[1.6]], [[2.0]])
    assert one.radius[0] == pytest.approx(0.8)
    assert one.rate[0, 0] == pytest.approx(0.5 / (1 - 0.8))
    gaps_BN, _ = simulate(many(one, 300), 700, np.random.default_rng(0))
    late_B = gaps_BN[:, 300:].mean(1)
    assert abs(1 / late_B.mean() - 2.5) < 5 * 2.5 * late_B.std() / late_B.mean() / np.sqrt(300)


def test_rates_by_kind_and_residuals_of_a_process_with_several_kinds() -> None:
    process = Hawkes.of([0.4, 0.1], [[0.5, 2.0], [1.5, 0.3]], [[3.0, 5.0], [4.0, 2.0]])
    crowd = many(process, 200)
    gaps_BN, kinds_BN = simulate(crowd, 500, np.random.default_rng(1))
    found = judged(crowd, gaps_BN, kinds_BN)
    check_exponential(found.residual_BN)
    share = (kinds_BN[:, 250:] == 0).mean()
    assert share == pytest.approx(process.rate[0, 0] / process.rate.sum(), abs=0.02)


def test_a_wrong_intensity_is_noticed() -> None:
    crowd = many(Hawkes.of([0.5], [[1.6]], [[2.0]]), 50)
    gaps_BN, kinds_BN = simulate(crowd, 300, np.random.default_rng(2))
    with pytest.raises(AssertionError):
        check_exponential(judged(many(Hawkes.of([2.5], [[0.0]], [[1.0]]), 50), gaps_BN, kinds_BN).residual_BN)


def test_log_densities_of_two_events_by_hand() -> None:
    """log intensity minus its integral: base 0.5, jump 1, decay 2, events at 1 and 1.3."""
    found = judged(Hawkes.of([0.5], [[1.0]], [[2.0]]), np.array([[1.0, 0.3]]), np.zeros((1, 2), dtype=int))
    fallen = np.exp(-0.6)
    assert found.log_density_BN[0].tolist() == pytest.approx(
        [np.log(0.5) - 0.5, np.log(0.5 + fallen) - 0.15 - (1 - fallen) / 2]
    )


def test_random_processes_are_stationary_and_about_one_event_a_unit() -> None:
    processes, sizes_B = random_processes(400, 4, np.random.default_rng(3))
    assert processes.radius.max() < 0.86
    assert processes.rate.sum(1) == pytest.approx(np.ones(400))
    assert set(sizes_B) == {1, 2, 3, 4}
    gaps_BN, kinds_BN = simulate(processes, 60, np.random.default_rng(4))
    assert (gaps_BN > 0).all()
    assert (kinds_BN < sizes_B[:, None]).all()
    check_exponential(judged(processes, gaps_BN, kinds_BN).residual_BN)


# ------------------------------------------------------------------------------------------------------ those that ship
def test_shipped_events_are_what_the_script_makes() -> None:
    shipped = json.loads(FILE.read_text(encoding="utf-8"))
    assert shipped == made(shipped["sets"]["quakes"])


def test_earthquakes_are_read_from_a_feed(tmp_path: Path) -> None:
    def row(hour: float, magnitude: float | None, net: str = NETWORK, kind: str = "earthquake") -> dict[str, Any]:
        return {"properties": {"time": round(3_600_000 * hour), "mag": magnitude, "net": net, "type": kind}}

    hours = [0.5 * i for i in range(HISTORY + AHEAD)]
    rows = [row(h, 2.5 if i % 3 else 0.4) for i, h in enumerate(hours)]
    rows += [row(7.1, 3.0, "us"), row(7.2, 3.0, kind="quarry blast"), row(7.3, None), row(-9.0, 1.0)]
    feed = tmp_path / "week.geojson"
    feed.write_text(json.dumps({"features": rows[::-1]}))
    told = quakes(feed)
    assert told["times"] == pytest.approx([h + 0.001 for h in hours])
    assert told["kinds"] == [int(i % 3 > 0) for i in range(len(hours))]


def test_earthquakes_ship_with_their_provenance() -> None:
    item = event_sets()["quakes"]
    assert item.process is None
    assert (np.diff(item.times_N) > 0).all()
    assert item.reach > 24  # hours
    assert set(item.prompt(6.0)["marks"]) == {"M < 1", "M 1+"}
    told = json.loads(FILE.read_text(encoding="utf-8"))["sets"]["quakes"]["provenance"]
    assert "Geological Survey" in told
    assert "public domain" in told


def test_the_truth_of_shipped_events_has_the_residuals_of_its_process() -> None:
    out = []
    for item in event_sets().values():
        if item.process is None:
            continue
        times, kinds = item.times_N[item.history :].tolist(), item.kinds_N[item.history :].tolist()
        found, left = item.residuals(times, kinds, item.now + item.reach + 1.0)
        assert left > 0
        assert len(found) == len(times)
        out += found
    check_exponential(np.array(out))
