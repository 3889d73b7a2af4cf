"""Make the events that ship, assets/series/events.json: `python -m backend.train.forecast.event_sets`.

Earthquakes are read with `--quakes FILE` from a week of the feed of the USGS (all_week.geojson, for example the copy of
2018 in the npm package vega-datasets); without it those in the file stay.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from backend.series.event_sets import FILE
from backend.series.hawkes import Hawkes, simulate

HISTORY, AHEAD, SEED = 128, 80, 7  # known events, those behind them, and the seed of the first process
DIGITS = 4
PROCESSES: dict[str, tuple[str, str, Any, Any, Any]] = {  # title, what it is, base, jump, decay
    "bursts": ("Bursts", "one kind; each event sets off 0.8 more, within moments", [0.2], [[4.8]], [[6.0]]),
    "poisson": ("No memory", "one kind; a Poisson process, nothing can be known but its rate", [1.0], [[0.0]], [[1.0]]),
    "benchmark": ("Hawkes", "one kind; the process of TPP-SD: base 2.5, jump 1, decay 2", [2.5], [[1.0]], [[2.0]]),
    "swells": ("Slow swells", "one kind; each event raises the rate for a long while", [0.3], [[0.28]], [[0.4]]),
    "two_sides": (
        *("Two sides", "two kinds that set each other off, as buying and selling do"),
        *([0.25, 0.25], [[0.5, 2.2], [2.2, 0.5]], [[4.0, 4.0], [4.0, 4.0]]),
    ),
    "chain": (
        *("A chain", "three kinds: the first sets off the second, that the third, in time the third the first"),
        *([0.3, 0.03, 0.03], [[0.0, 0.0, 0.2], [4.0, 0.0, 0.0], [0.0, 4.0, 0.0]]),
        [[1.0, 1.0, 0.5], [5.0, 1.0, 1.0], [1.0, 5.0, 1.0]],
    ),
}  # fmt: skip


NETWORK = "nc"  # of Northern California
STRONG = 1.0  # magnitude of the second kind


def quakes(feed: Path) -> dict[str, Any]:
    """The last earthquakes of a network in a week of the feed: hours since the first, and whether they were strong."""
    told = json.loads(feed.read_text(encoding="utf-8"))["features"]
    found = {
        row["properties"]["time"] / 3_600_000: float(row["properties"]["mag"])
        for row in told
        if row["properties"]["net"] == NETWORK and row["properties"]["type"] == "earthquake"
        if row["properties"]["mag"] is not None
    }
    times = sorted(found)[-(HISTORY + AHEAD) :]
    return {
        "title": "Earthquakes",
        "about": f"two kinds, below magnitude {STRONG:g} and from there on; Northern California, hours of early 2018",
        "marks": [f"M < {STRONG:g}", f"M {STRONG:g}+"],
        "provenance": "U.S. Geological Survey, feed of all earthquakes of the week to 2018-02-07, network NC. A work "
        "of the United States government: public domain.",
        "times": [round(t - times[0] + 1e-3, DIGITS) for t in times],
        "kinds": [int(found[t] >= STRONG) for t in times],
    }


def made(real: dict[str, Any]) -> dict[str, Any]:
    """The content of the file. real: the earthquakes."""
    sets = {}
    for i, (name, (title, about, base, jump, decay)) in enumerate(PROCESSES.items()):
        gaps_1N, kinds_1N = simulate(Hawkes.of(base, jump, decay), HISTORY + AHEAD, np.random.default_rng(SEED + i))
        times_N = gaps_1N[0].cumsum().round(DIGITS)
        assert (np.diff(times_N) > 0).all(), f"{name}: two events at one time"
        sets[name] = {
            **{"title": title, "about": about, "base": base, "jump": jump, "decay": decay},
            **{"times": times_N.tolist(), "kinds": kinds_1N[0].tolist()},
        }
    sets["quakes"] = real
    provenance = (
        "Made by backend/train/forecast/event_sets.py of this project: Hawkes processes with exponential kernels, "
        "simulated by thinning from an empty past. CC0. Others say theirs."
    )
    return {"provenance": provenance, "history": HISTORY, "sets": sets}


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(prog="python -m backend.train.forecast.event_sets", description=__doc__)
    parser.add_argument("--quakes", type=Path, help="a week of the feed of the USGS")
    asked = parser.parse_args()
    real = quakes(asked.quakes) if asked.quakes else json.loads(FILE.read_text(encoding="utf-8"))["sets"]["quakes"]
    FILE.write_text(json.dumps(made(real), separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
