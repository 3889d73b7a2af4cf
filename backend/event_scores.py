"""What is known of the paths of events in a trace: when and which, their rate, and their time-rescaled residuals.

If paths have the law that they are judged by, the integrals of its intensity over the gaps are Exp(1) (time rescaling,
Brown et al. 2002). Paths end at an end of time, so that the last gap of each is cut short; what it had run up to is
carried over to the next path, for a unit Poisson process goes on where another one stopped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backend.catalog import Catalog
from backend.series.event_sets import EventSet
from backend.trace import Trace

BAND = 1.358  # times n^-1/2: Kolmogorov's 95 % bound
POINTS = 100  # of a curve that is drawn


@dataclass(frozen=True)
class EventPath:
    """One path: times behind the end of the history in its unit, kinds; whether it reached the end of time."""

    times: tuple[float, ...]
    kinds: tuple[int, ...]
    whole: bool


def paths_of(trace: Trace) -> list[EventPath]:
    """The paths of a finished trace."""
    budget, count = trace.request.budget, int(trace.request.knobs["paths"])
    values, kinds = trace.values(), {m.slot: m.token for step in trace.steps for m in step.marks if m.fate.commits}
    unit = trace.scale["spread"]
    out = []
    for path in range(count):
        slots = [slot for slot in range(path * budget, (path + 1) * budget) if slot in values]
        times = tuple(values[slot] * unit for slot in slots)
        out.append(EventPath(times, tuple(int(kinds[slot] or 0) for slot in slots), len(slots) < budget))
    return out


def rate(paths: Sequence[EventPath], until: float, bins: int) -> dict[str, list[float]]:
    """Events a unit of time in equal bins up to the end: mean over paths, and their quantiles 0.1 and 0.9."""
    edges = np.linspace(0.0, until, bins + 1)
    count_SB = np.stack([np.histogram(path.times, edges)[0] for path in paths]) * (bins / until)
    low_B, high_B = np.quantile(count_SB, (0.1, 0.9), axis=0)
    return {
        "at": ((edges[:-1] + edges[1:]) / 2).round(6).tolist(),
        **{name: x.round(6).tolist() for name, x in (("mean", count_SB.mean(0)), ("low", low_B), ("high", high_B))},
    }


def under_target(trace: Trace, paths: Sequence[EventPath], until: float, catalog: Catalog) -> list[float]:
    """Residuals of all paths under the law of the target that wrote them."""
    import torch

    from backend import events
    from backend.meter import Meter
    from backend.protocols import EventSession

    model = catalog.get(trace.request.models["target"])
    prompt = model.codec.encode(trace.request.prompt)
    unit, out, carried = trace.scale["spread"], list[float](), 0.0
    for path in paths:
        session = model.open(EventSession, prompt, trace.request.sampling, Meter(), len(path.times) + 1)
        session.fork(1)
        times = [t / unit for t in (*path.times, *([until] if path.whole else []))]
        gaps_RK = torch.tensor([times], dtype=torch.float64).diff(prepend=torch.zeros(1, 1, dtype=torch.float64))
        kinds_RK = torch.tensor([path.kinds], dtype=torch.long)
        law = session.score(gaps_RK[:, : len(path.kinds)], kinds_RK)[0, : len(times)]
        found = (-torch.log1p(-events.elapsed(law, gaps_RK[0]).clamp_max(1 - 1e-15))).tolist()
        carried = _join(out, carried, *((found[:-1], found[-1]) if path.whole else (found, 0.0)))
    return out


def under_truth(paths: Sequence[EventPath], until: float, shipped: EventSet) -> list[float]:
    """Residuals of all paths under the intensity of the process whose history they continue."""
    kinds = {shipped.mark(int(kind)): int(kind) for kind in shipped.kinds_N[: shipped.history]}
    named = [kinds[mark] for mark in sorted(kinds)]  # models number the marks that occur
    out, carried = list[float](), 0.0
    for path in paths:
        times = [shipped.now + t for t in path.times]
        end = shipped.now + until if path.whole else None
        carried = _join(out, carried, *shipped.residuals(times, [named[kind] for kind in path.kinds], end))
    return out


def uniformity(residuals: Sequence[float]) -> dict[str, Any]:
    """Distribution of 1 - exp(-residual) beside the diagonal: points, distance, and the 95 % bound of it."""
    share = np.sort(-np.expm1(-np.asarray(residuals)))
    count = len(share)
    if not count:
        return {"count": 0, "x": [], "y": [], "distance": None, "band": None}
    level = np.arange(1, count + 1) / count
    distance = float(np.maximum(level - share, share - (level - 1 / count)).max())
    at = np.unique(np.linspace(0, count - 1, min(count, POINTS)).astype(int))
    x, y = share[at].round(5).tolist(), level[at].round(5).tolist()
    return {"count": count, "x": x, "y": y, "distance": distance, "band": BAND / math.sqrt(count)}


def _join(out: list[float], carried: float, found: Sequence[float], left: float) -> float:
    """Append a path's residuals, the first with what was carried over; what is carried on."""
    if not found:
        return carried + left
    out.append(carried + found[0])
    out.extend(found[1:])
    return left
