"""A finished or running forecast as numbers in the units of its series, read off a trace alone. No torch here.

Shape letters: S sample paths or quantile levels, H horizon.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backend.codecs.bins import MISSING, Ints, fill_of, paths_of, values_of
from backend.codecs.dates import Floats
from backend.codecs.series_scale import Scale
from backend.series.metrics import quantiles_of
from backend.trace import Trace
from backend.types import Fate


@dataclass(frozen=True, eq=False)
class Forecast:
    """values_SH: quantiles at `levels`, or S sample paths where there are none; NaN where nothing is written yet."""

    values_SH: Floats
    levels: tuple[float, ...] = ()

    @property
    def joint(self) -> bool:
        """Whether rows are paths, so that steps can be added up."""
        return not self.levels

    @property
    def point(self) -> bool:
        """Whether it is a single curve of medians, with nothing around it."""
        return self.levels == (0.5,)

    def quantiles(self, levels: Sequence[float]) -> Floats:
        """Quantiles [Q, H] at `levels`: of the paths, or read between the given ones. NaN beyond the outer ones."""
        if self.joint:
            return quantiles_of(self.values_SH, levels)
        read = [np.interp(levels, self.levels, column_S, left=np.nan, right=np.nan) for column_S in self.values_SH.T]
        return np.stack(read, axis=1)


def scale_of(trace: Trace) -> Scale | None:
    """What the numbers of a trace are written in, as its run told; None where it told nothing."""
    told = trace.scale
    return Scale(told["location"], told["spread"], bool(told["bent"])) if told else None


def forecast_of(trace: Trace, scale: Scale | None = None, num_steps: int | None = None) -> Forecast:
    """What the first `num_steps` steps (all if None) have written, in the units of the series.

    scale: of its context, if not the one that the trace tells; in model units where neither is known.
    Tokens are told as the centres of their bins; a run on them writes one path, or as many as its prompt asks for.
    """
    scale = scale or scale_of(trace)
    if trace.prompt:
        return Forecast(values_of(_written_tokens(trace, num_steps), scale))
    horizon = trace.request.budget
    named = [step.figures for step in trace.steps[:1]]
    levels = tuple(value for figures in named for name, value in figures.items() if name.startswith("level "))
    held = trace.values(num_steps)
    rows = len(levels) or 1 + max(trace.values(), default=-1) // horizon
    values_SH = np.full((rows, horizon), np.nan)
    for slot, value in held.items():
        values_SH[divmod(slot, horizon)] = value
    return Forecast(values_SH if scale is None else scale.decode(values_SH), levels)


def filled_of(trace: Trace, scale: Scale | None = None, num_steps: int | None = None) -> Floats:
    """The context [T] of a run on tokens, with what its first steps have filled; NaN in gaps that are still open.

    Values that were observed come back as the centres of their bins; only those of gaps are news. scale: as in
    `forecast_of`.
    """
    return values_of(trace.replay(num_steps)[: len(trace.prompt)], scale or scale_of(trace))


def _written_tokens(trace: Trace, num_steps: int | None) -> Ints:
    """Tokens [S, H] of every path, -1 where none is yet. Gaps to be filled are part of the budget, not of a path."""
    paths = paths_of(trace.request.prompt)
    gaps = trace.prompt.count(MISSING) if fill_of(trace.request.prompt) else 0
    horizon = (trace.request.budget - gaps) // paths
    told = trace.written(num_steps)
    told += [-1] * (paths * horizon - len(told))
    return np.array(told[: paths * horizon], dtype=np.int64).reshape(paths, horizon)


@dataclass(frozen=True)
class Acceptance:
    """Over a whole trace: drafted patches kept and judged by their place in the draft, 0 first."""

    kept: tuple[int, ...]
    judged: tuple[int, ...]

    @property
    def rates(self) -> tuple[float, ...]:
        """Kept / judged by place."""
        return tuple(k / j if j else 0.0 for k, j in zip(self.kept, self.judged, strict=True))


def acceptance_of(trace: Trace) -> Acceptance:
    """How often a draft of a place was kept once all before it were; every path is a chain of its own."""
    horizon = trace.request.budget
    kept: dict[int, int] = {}
    judged: dict[int, int] = {}
    for step in trace.steps:
        chains: dict[int, list[tuple[int, Fate]]] = {}
        for mark in step.marks:
            if mark.fate in (Fate.KEPT, Fate.REJECTED):
                chains.setdefault(mark.slot // horizon, []).append((mark.slot, mark.fate))
        for chain in chains.values():
            for place, (_, fate) in enumerate(sorted(chain)):
                judged[place] = judged.get(place, 0) + 1
                kept[place] = kept.get(place, 0) + (fate is Fate.KEPT)
    places = range(max(judged, default=-1) + 1)
    return Acceptance(tuple(kept.get(i, 0) for i in places), tuple(judged.get(i, 0) for i in places))
