"""Make the events that ship, assets/series/events.json: `python -m backend.train.forecast.event_sets`."""

from __future__ import annotations

import json
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


def made() -> dict[str, Any]:
    """The content of the file."""
    sets = {}
    for i, (name, (title, about, base, jump, decay)) in enumerate(PROCESSES.items()):
        gaps_1N, kinds_1N = simulate(Hawkes.of(base, jump, decay), HISTORY + AHEAD, np.random.default_rng(SEED + i))
        times_N = gaps_1N[0].cumsum().round(DIGITS)
        assert (np.diff(times_N) > 0).all(), f"{name}: two events at one time"
        sets[name] = {
            **{"title": title, "about": about, "base": base, "jump": jump, "decay": decay},
            **{"times": times_N.tolist(), "kinds": kinds_1N[0].tolist()},
        }
    provenance = (
        "Made by backend/train/forecast/event_sets.py of this project: Hawkes processes with exponential kernels, "
        "simulated by thinning from an empty past; no data of others. CC0."
    )
    return {"provenance": provenance, "history": HISTORY, "sets": sets}


def main() -> None:
    """Write the file."""
    FILE.write_text(json.dumps(made(), separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
