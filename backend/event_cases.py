"""What strategies of events are benchmarked on: the shipped histories, and lanes that continue them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from backend.bench_lanes import OurLane, Prompted, Timed
from backend.event_scores import paths_of, under_target, uniformity
from backend.forecast_cases import ForecastLane
from backend.series.event_sets import event_sets
from backend.types import Request

AHEAD = 32  # mean gaps of the history that paths reach ahead
MOST_EVENTS = 512  # of a path


@dataclass(frozen=True, eq=False)
class EventCase(Prompted):
    """A shipped history and how far to go, as a prompt; `text` is its name."""

    prompt: Mapping[str, Any]


def event_cases() -> list[EventCase]:
    """All shipped histories."""
    out = []
    for name, item in event_sets().items():
        times_N = item.times_N[: item.history]
        gap = float(times_N[-1] - times_N[0]) / (item.history - 1)
        out.append(EventCase(name, "events", item.prompt(AHEAD * gap)))
    return out


@dataclass
class EventLane(ForecastLane):
    """A strategy that continues events."""

    def run(self, prompt: Prompted, seed: int) -> Timed:
        """Continue a history."""
        assert isinstance(prompt, EventCase)
        return OurLane.run(self, Prompted(prompt.prompt, prompt.kind), seed)  # type: ignore[arg-type]

    def request(self, prompt: Any, seed: int) -> Request:
        """What the lane asks of a prompt."""
        return replace(super().request(prompt, seed), budget=MOST_EVENTS)


def event_quality(lane: EventLane, every: Sequence[EventCase]) -> dict[str, Any]:
    """Time-rescaled residuals of a lane's paths under its target: distance from the right law, and its 95 % bound."""
    residuals: list[float] = []
    for i, case in enumerate(every):
        trace = lane.run(case, i).trace
        assert trace is not None
        residuals += under_target(trace, paths_of(trace), case.prompt["horizon"], lane.catalog)
    told = uniformity(residuals)
    shown = {f"ks_{name}": told[name] for name in ("count", "distance", "band")}
    return {"cases": len(every), "paths": lane.request({}, 0).knobs["paths"], **shown}
