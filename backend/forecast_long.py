"""Drafting over long horizons, beside plain unrolling: a path then has many patches to draft, and calls even out.

As many calls are made as the slowest of the paths needs; the more patches a path has, the nearer that comes to what a
path needs on average. Part of `backend.forecast_bench`.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from backend.forecast_cases import Case, ForecastLane
from backend.forecast_report import paired_bootstrap, scores_of
from backend.trace import Trace

REPEATS = 3  # seeds a series
MOST = 12  # series
Tell = Callable[[str], None]


def drafted(lanes: Mapping[str, ForecastLane], timed: Sequence[Case], tell: Tell) -> dict[str, Any]:
    """Calls, seconds and errors of two lanes over one horizon, the plain one first; they take turns.

    speedup_time: median over pairs of the same series and seed. law: WQL of the second over that of the first, by
    pairs; without what differs between them by chance alone it would be 1.
    """
    plain, ours = lanes
    runs: dict[str, list[Trace]] = {name: [] for name in lanes}
    errors: dict[str, list[float | None]] = {name: [] for name in lanes}
    for lane in lanes.values():
        lane.run(timed[0], 0)  # warm
    for case in timed:
        for seed in range(REPEATS):
            for name, lane in lanes.items():
                tell(f"drafts over {lane.horizon} steps of {case.text}: {name}")
                forecast, traces = lane.forecast(case, [seed])
                found = scores_of(forecast, case.held)
                runs[name] += traces
                errors[name].append(found.wql if found else None)
    both = [(a, b) for a, b in zip(errors[ours], errors[plain], strict=True) if a and b]
    law = paired_bootstrap([a for a, _ in both], [b for _, b in both]) if both else None
    seconds = {name: [trace.summary().seconds for trace in traces] for name, traces in runs.items()}
    return {
        "horizon": lanes[plain].horizon,
        "series": len(timed),
        "repeats": REPEATS,
        "paths": lanes[plain].paths,
        "lanes": {
            name: {
                "calls": float(np.mean([trace.summary().num_target_calls for trace in traces])),
                "calls_a_path": float(np.mean([calls_a_path(trace) for trace in traces])),
                "seconds": statistics.median(seconds[name]),
            }
            for name, traces in runs.items()
        },
        "speedup_time": statistics.median(b / a for a, b in zip(seconds[ours], seconds[plain], strict=True)),
        "law": None if law is None else {**asdict(law), "same": law.same},
    }


def calls_a_path(trace: Trace) -> float:
    """Target calls that a path was in, on average over all paths: the slowest one decides how many there are."""
    horizon = trace.request.budget
    taken = sum(len({mark.slot // horizon for mark in step.marks}) for step in trace.steps)
    return taken / int(trace.request.knobs["paths"])
