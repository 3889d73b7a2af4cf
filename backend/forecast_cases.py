"""What forecasts are benchmarked on: series with an origin, and lanes that continue them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backend.bench_lanes import OurLane, Prompted, Timed
from backend.catalog import Catalog
from backend.codecs.dates import Floats
from backend.errors import UserError
from backend.forecast_report import Held
from backend.protocols import CausalSession, EventSession, FleetSession, MaskedSession
from backend.registry import Strategy, find
from backend.series.forecasts import Forecast, forecast_of
from backend.series.shipped import shipped
from backend.trace import Trace
from backend.types import Request

LEAST_CONTEXT = 96  # values that a case leaves to look back on
USUAL_PATHS = 64
LOOK_BACK = 512  # most values that any of our models looks back on
TOKENS, MASKED = "house/series-tokens", "house/series-masked"
PLAIN: Mapping[str, str] = {  # the plain way to unroll a target, by the kind of what is written
    "paths": "recursive",
    "tokens": "autoregressive",
    "masks": "random_order",
    "events": "event_sampling",
}


@dataclass(frozen=True, eq=False)
class Case(Prompted):
    """A series up to an origin, as a prompt, and what came then; `text` is its name, `kind` its group."""

    prompt: Mapping[str, Any]
    held: Held


def cases(horizon: int, origins: int = 1) -> list[Case]:
    """All shipped series that are long enough, each at its last origins, a horizon apart; the last origins first."""
    out: list[tuple[int, Case]] = []
    for name, item in shipped().items():
        series = item.series
        for back in range(origins):
            until = len(series) - (back + 1) * horizon
            known = np.isfinite(series.y_T[max(0, until - LOOK_BACK) : until]).sum() if until > 0 else 0
            if known >= LEAST_CONTEXT:
                held = Held.of(series, until, horizon)
                out.append((back, case_of(name if not back else f"{name} -{back}", item.group, held)))
    return [case for _, case in sorted(out, key=lambda pair: pair[0])]


def case_of(name: str, group: str, held: Held) -> Case:
    """The case of a past and its truth. The season is told where it fits twice into what is looked back on."""
    past_T = held.past_T[-LOOK_BACK:]
    season = held.season if 2 * held.season <= len(past_T) else 1
    y = [None if x != x else x for x in past_T.tolist()]
    return Case(name, group, {"y": y, "season": season}, held)


def spread(every: Sequence[Case], count: int) -> list[Case]:
    """So many of them, spread over all groups. Raises UserError for less than one."""
    if count < 1:
        raise UserError(f"The number of timed cases must be at least 1, but {count} was given.")
    count = min(count, len(every))
    return [every[i * len(every) // count] for i in range(count)]


@dataclass
class ForecastLane(OurLane):
    """A strategy that continues a series. horizon: steps. paths: sample paths, where the strategy draws them."""

    horizon: int = 128
    paths: int = 64

    def run(self, prompt: Prompted, seed: int) -> Timed:
        """Forecast a case."""
        assert isinstance(prompt, Case)
        return super().run(Prompted(prompt.prompt, prompt.kind), seed)  # type: ignore[arg-type]

    def request(self, prompt: Any, seed: int) -> Request:
        """What the lane asks of a prompt."""
        asked = super().request(prompt, seed)
        options, more = find(asked.strategy).knobs, dict[str, Any]()
        if "paths" in options and "paths" not in asked.knobs:  # strategies that pay for each path keep their few
            usual = options["paths"].default
            more["paths"] = self.paths if usual >= USUAL_PATHS else min(usual, self.paths)
        return Request(
            asked.strategy, prompt, asked.models, {**asked.knobs, **more}, asked.sampling, self.horizon, seed
        )

    @property
    def kind(self) -> str:
        """What is written: "paths" (or bands), "tokens", "masks" that are filled, or "events"."""
        return kind_of(find(self.name.partition(":")[0]))

    def forecast(self, case: Case, seeds: Sequence[int]) -> tuple[Forecast, list[Trace]]:
        """The forecast of a case, and the traces that made it: one a seed, whose paths are put together."""
        traces = [trace for seed in seeds if (trace := self.run(case, seed).trace) is not None]
        codec = self.catalog.get(traces[0].request.models["target"]).codec
        scale = codec.encode(case.prompt).extras["scale"]
        made = [forecast_of(trace, scale) for trace in traces]
        return (made[0] if len(made) == 1 else together(made)), traces


def together(forecasts: Sequence[Forecast]) -> Forecast:
    """One forecast of the paths of several."""
    assert all(forecast.joint for forecast in forecasts), "bands of several runs cannot be put together"
    values_SH: Floats = np.concatenate([forecast.values_SH for forecast in forecasts])
    return Forecast(values_SH)


def kind_of(strategy: Strategy) -> str:
    """What a strategy writes when it forecasts."""
    kinds: dict[object, str] = {CausalSession: "tokens", MaskedSession: "masks", EventSession: "events"}
    return kinds.get(strategy.base, "paths")


def target_of(catalog: Catalog, strategy_id: str) -> str | None:
    """The model of series that a strategy usually continues with; None where there is none, or a helper is missing."""
    strategy, here = find(strategy_id), {entry.id: entry for entry in catalog.entries()}
    if strategy.protocol is FleetSession:
        return None
    try:
        usual = {"tokens": TOKENS, "masks": MASKED}.get(kind_of(strategy))
        target = usual or catalog.default_target(strategy.protocol)
        ids = [target, *(catalog.default(role, target) for role in strategy.roles if role != "target")]
    except UserError:
        return None
    known = [here[name] for name in (i.partition("@")[0] for i in ids) if name in here]
    if any(not entry.available or entry.modality not in ("series", "events") for entry in known) or len(known) < len(
        ids
    ):
        return None
    return target if strategy.protocol in catalog.get(target).speaks else None
