"""Fans: bands of quantiles over the sample paths of one forecast, however many runs they were drawn in. No torch here.

A run on tokens writes one path, so a fan takes several: `seeded` gives their requests, one seed apart, and `fan_of`
joins the traces that answer them, finished or under way. The measures of all of them together are those of
`backend.trace.summarise`; runs of one path after the other take that many times as long.

In one run the same paths come from the strategy `temporal_fusion`, whose call writes a step of all of them, with a
prompt that says {"paths": n} and a budget of n times the horizon: path i is what `autoregressive` writes with seed + i.

Shape letters: S sample paths, Q quantile levels, H horizon.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from backend.codecs.dates import Floats
from backend.codecs.series_scale import Scale
from backend.series.forecasts import forecast_of
from backend.series.metrics import LEVELS, quantiles_of
from backend.trace import Trace
from backend.types import Request

SEEDS = 1 << 32  # a seed lies below


@dataclass(frozen=True, eq=False)
class Fan:
    """What to draw of a forecast.

    Args:
        paths_SH: the paths, NaN where nothing is written yet.
        levels: those of the wanted levels that the paths can tell: with S paths, levels from 1 / S to 1 - 1 / S, so
            none with a single one, the median with two, and 0.1 to 0.9 with ten.
        bands_QH: quantiles at these levels, NaN at steps that not all of the paths have reached.
    """

    paths_SH: Floats
    levels: tuple[float, ...]
    bands_QH: Floats


def seeded(request: Request, paths: int) -> list[Request]:
    """The requests of that many paths: the request itself, and the same with the seeds behind its own."""
    return [replace(request, seed=(request.seed + i) % SEEDS) for i in range(paths)]


def fan_of(
    traces: Sequence[Trace],
    scale: Scale | None = None,
    wanted: Sequence[float] = LEVELS,
    num_steps: int | None = None,
) -> Fan:
    """The fan of what these runs have written in their first `num_steps` steps, all if None; at least one run.

    Args:
        traces: of one prompt and one horizon, each with one path or several. At temperature 0 every run writes the
            same path, so there is only one. scale: of the context, if not the one that the traces tell.

    Raises ValueError for runs of different horizons, and for runs that wrote quantiles and no paths.
    """
    drawn = traces if traces[0].request.sampling.temperature > 0 else traces[:1]
    forecasts = [forecast_of(trace, scale, num_steps) for trace in drawn]
    if len({f.values_SH.shape[1] for f in forecasts}) > 1 or not all(f.joint for f in forecasts):
        raise ValueError("a fan is made of sample paths over one horizon")
    paths_SH = np.concatenate([f.values_SH for f in forecasts])
    count = len(paths_SH)
    levels = tuple(q for q in wanted if count * min(q, 1 - q) >= 1 - 1e-9)
    bands_QH = quantiles_of(paths_SH, levels) if levels else np.empty((0, paths_SH.shape[1]))
    return Fan(paths_SH, levels, bands_QH)
