"""Many windows out of few real series: mixtures, sub-sampling, flips, trends and amplitudes that wander. No torch here.

TSMixup (Ansari et al. 2024, arXiv 2403.07815): a convex combination, with Dirichlet weights, of up to three series that
were divided by their mean size first. Here half of the windows are a single series, and partners are most often of the
same season, for a mixture of months with quarters has neither season.

Shape letters: T steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from backend.codecs.dates import Floats
from backend.train.forecast.pool import Real

Stream = np.random.Generator
LEAST = 20  # steps of a window
KINDS = {1: 0.6, 4: 1.2, 12: 3.0}  # how much a step of a season's series counts when one is drawn
SINGLE, SAME_SEASON = 0.5, 0.8
FACTORS = {12: (2, 3, 6, 12), 4: (2, 4), 1: (2,)}  # sub-sampling that leaves a season or ends it


class Augmenter:
    """Draws windows of real series. Series shorter than LEAST are left out."""

    def __init__(self, pool: Sequence[Real]) -> None:
        self.pool = [series for series in pool if len(series.y_T) >= LEAST and np.ptp(series.y_T) > 0]
        weight_N = np.array([KINDS[series.season] * len(series.y_T) ** 0.5 for series in self.pool])
        self._ends_N = np.cumsum(weight_N / weight_N.sum())
        self._of_season = {m: [s for s in self.pool if s.season == m] for m in KINDS}

    def window(self, stream: Stream, longest: int) -> Floats:
        """One series of at most `longest` steps, in units of its own."""
        first = self._draw(stream)
        count = 1 if stream.random() < SINGLE else int(stream.integers(2, 4))
        parts = [first.y_T, *(self._partner(stream, first).y_T for _ in range(count - 1))]
        y_T = mixed(stream, [cut(stream, part_T) for part_T in parts])
        if stream.random() < 0.15:
            y_T = subsampled(stream, y_T, first.season)
        return varied(stream, y_T)[-longest:]

    def _draw(self, stream: Stream) -> Real:
        return self.pool[min(int(np.searchsorted(self._ends_N, stream.random())), len(self.pool) - 1)]

    def _partner(self, stream: Stream, first: Real) -> Real:
        if stream.random() < SAME_SEASON:
            others = self._of_season[first.season]
            return others[int(stream.integers(len(others)))]
        return self._draw(stream)


def cut(stream: Stream, y_T: Floats) -> Floats:
    """All of a series, or for two in three a stretch of it that ends at most half of it earlier."""
    length = len(y_T)
    end = length if stream.random() < 1 / 3 else int(stream.integers(max(LEAST, length // 2), length + 1))
    start = 0 if stream.random() < 0.7 or end <= LEAST else int(stream.integers(0, end - LEAST + 1))
    return y_T[start:end]


def mixed(stream: Stream, parts: Sequence[Floats]) -> Floats:
    """Dirichlet mixture of the last steps that all parts have, each divided by its mean size, in units of the first."""
    if len(parts) == 1:
        return parts[0].copy()
    length = min(map(len, parts))
    weights = stream.dirichlet(np.full(len(parts), 1.5))
    sizes = [max(float(np.abs(part_T).mean()), 1e-12) for part_T in parts]
    scaled = [w * part_T[-length:] / size for w, part_T, size in zip(weights, parts, sizes, strict=True)]
    return np.asarray(sizes[0] * np.sum(scaled, axis=0))


def subsampled(stream: Stream, y_T: Floats, season: int) -> Floats:
    """Every k-th step, or the mean of k steps; as it was where less than LEAST steps would be left."""
    factor = int(stream.choice(FACTORS[season]))
    length = len(y_T) // factor
    if length < LEAST:
        return y_T
    blocks_TK = y_T[-length * factor :].reshape(length, factor)
    return np.asarray(blocks_TK.mean(axis=1) if stream.random() < 0.6 else blocks_TK[:, -1])


def varied(stream: Stream, y_T: Floats) -> Floats:
    """Now and then: backwards in time, upside down, with another trend, another growth, or a little noise."""
    spread, middle = float(y_T.std()), float(y_T.mean())
    place_T = np.linspace(0, 1, len(y_T))
    if stream.random() < 0.1:
        y_T = y_T[::-1].copy()
    if stream.random() < 0.1:
        y_T = 2 * middle - y_T
    if stream.random() < 0.25:
        y_T = y_T + stream.normal() * spread * place_T
    if stream.random() < 0.25:
        y_T = y_T * np.exp(stream.normal() * 0.4 * place_T)
    if stream.random() < 0.25:
        y_T = y_T + stream.normal(size=len(y_T)) * spread * stream.uniform(0.01, 0.1)
    return np.asarray(y_T, dtype=np.float64)
