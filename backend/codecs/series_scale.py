"""The scale of a context: computed once from what was observed, then frozen for the whole forecast.

If location and spread were computed over a window that also holds forecast values, the law of an early patch would
change with a later guess, and no rule of acceptance would be exact any more. So a scale is a value: nothing can extend
it. Nothing is clamped either, for a clamp after drawing changes the law of what was drawn. No torch here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backend.codecs.dates import Floats
from backend.errors import UserError


@dataclass(frozen=True)
class Scale:
    """Values y to model units z and back: z = (y - location) / spread, then arcsinh where `bent`.

    Both ways are monotone, so quantiles and order are kept; means are not where the scale is bent.
    """

    location: float
    spread: float
    bent: bool = True

    @classmethod
    def of(cls, context_T: Floats, bent: bool = True) -> Scale:
        """Median and mean absolute deviation from it, over the observed values. Raises UserError where they are equal.

        The mean deviation and not the median one: a series that stands still half the time has a median of 0.
        """
        known_T = context_T[np.isfinite(context_T)]
        if not len(known_T):
            raise UserError("The context holds no value; take a longer one.")
        location = float(np.median(known_T))
        spread = float(np.abs(known_T - location).mean())
        if spread <= 1e-12 * float(np.abs(known_T).max()):
            raise UserError(f"The context is constant at {location:g}, so it has no scale; take a longer one.")
        return cls(location, spread, bent)

    def encode(self, y: Floats) -> Floats:
        """Model units of values of any shape; NaN stays NaN."""
        z = (y - self.location) / self.spread
        return np.arcsinh(z) if self.bent else z

    def decode(self, z: Floats) -> Floats:
        """Values of model units of any shape."""
        return self.location + self.spread * (np.sinh(z) if self.bent else z)
