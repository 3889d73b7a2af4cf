"""Values as tokens: 511 bins of a series' model units, and one token for a missing value. No torch here.

A value y becomes z = arcsinh((y - median) / spread) by the frozen `Scale` of its context, and z the bin it lies in;
bins are equally wide in z, the middle one around the median. The spread is the mean deviation of at most CONTEXT
values, so none of them deviates by more than CONTEXT spreads: bins that reach that far hold every context there is, and
nothing is clamped. They are 2.4 % of a spread wide at the median and 3.5 % one spread from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.codecs.dates import Floats
from backend.codecs.series_scale import Scale

Ints = NDArray[np.int64]

CONTEXT = 256  # most values that a model looks back on
BINS = 511
MISSING = BINS  # the token of a value that is not known: models read it and never write it
SIZE = BINS + 1
REACH = float(np.arcsinh(CONTEXT))  # of the outermost bins, in model units
WIDTH = 2 * REACH / BINS
CENTRES: Floats = (np.arange(BINS, dtype=np.float64) - BINS // 2) * WIDTH


def tokens_of(z_T: Floats) -> Ints:
    """The bins of model units of any shape, MISSING for NaN. Raises ValueError for values beyond the bins."""
    known_T = np.isfinite(z_T)
    if np.isinf(z_T).any() or (np.abs(z_T[known_T]) > REACH * (1 + 1e-9)).any():
        raise ValueError(f"a value lies beyond the bins, which reach {CONTEXT} spreads from the median")
    at_T = np.floor((np.where(known_T, z_T, 0.0) + REACH) / WIDTH).astype(np.int64)
    return np.where(known_T, at_T.clip(0, BINS - 1), MISSING)  # the two ends belong to the bins inside them


def values_of(tokens: Sequence[int] | Ints, scale: Scale | None = None) -> Floats:
    """The centres of the bins of tokens in the units of a scale, in model units without one.

    NaN for MISSING, and for what is no token, such as the -1 of an open slot.
    """
    at_T = np.asarray(tokens, dtype=np.int64)
    known_T = (at_T >= 0) & (at_T < BINS)
    z_T = np.where(known_T, CENTRES[np.where(known_T, at_T, 0)], np.nan)
    return z_T if scale is None else scale.decode(z_T)


def fill_of(raw: Any) -> Any:
    """What a prompt says of filling gaps, False where nothing."""
    return raw.get("fill", False) if isinstance(raw, dict) else False


def paths_of(raw: Any) -> Any:
    """How many paths a prompt asks for, 1 where it says nothing."""
    return raw.get("paths", 1) if isinstance(raw, dict) else 1
