"""Series drawn from Gaussian processes whose kernels are sums and products of a few base kernels. No torch here.

The idea is KernelSynth's (Ansari et al. 2024, arXiv 2403.07815): 1 to 5 base kernels out of a bank of periodic, smooth,
linear and white ones, joined by + or x at random. Gram matrices of the bank are made once.

Shape letters: N series, T steps.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from backend.codecs.dates import Floats

LENGTH = 512  # a Cholesky factor of this size takes milliseconds
PERIODS = (4, 5, 6, 7, 10, 12, 14, 24, 26, 30, 48, 52, 60, 84, 96, 120, 168, 182, 250, 336, 365)
MOST = 5  # kernels joined
EACH = 4  # series drawn from every joined kernel
JITTER = 1e-5


@cache
def bank() -> tuple[Floats, ...]:
    """Gram matrices [T, T] of the base kernels on a grid from 0 to 1."""
    at_T = np.arange(LENGTH) / LENGTH
    gap_TT = at_T[:, None] - at_T[None, :]
    periodic = [np.exp(-2 * np.sin(np.pi * gap_TT * LENGTH / period) ** 2) for period in PERIODS]
    linear = [np.outer(at_T, at_T) + offset**2 for offset in (0.0, 1.0, 10.0)]
    smooth = [np.exp(-((gap_TT / length) ** 2) / 2) for length in (0.1, 1.0, 10.0)]
    rational = [(1 + gap_TT**2 / (2 * alpha)) ** -alpha for alpha in (0.1, 1.0, 10.0)]
    white = [noise * np.eye(LENGTH) for noise in (0.1, 1.0)]
    return (*periodic, *linear, *smooth, *rational, *white, np.ones((LENGTH, LENGTH)))


def _joined(stream: np.random.Generator) -> Floats:
    grams = bank()
    picked = stream.integers(0, len(grams), stream.integers(1, MOST + 1))
    out_TT = grams[int(picked[0])]
    for i in picked[1:]:
        out_TT = out_TT + grams[int(i)] if stream.random() < 0.5 else out_TT * grams[int(i)]
    return out_TT


def drawn(stream: np.random.Generator, count: int) -> Floats:
    """`count` series [N, LENGTH], several from each joined kernel; constant ones are drawn again."""
    parts: list[Floats] = []
    have = 0
    while have < count:
        gram_TT = _joined(stream)
        size = float(np.diag(gram_TT).mean())
        factor_TT = np.linalg.cholesky(gram_TT / size + JITTER * np.eye(LENGTH))
        x_NT = stream.normal(size=(EACH, LENGTH)) @ factor_TT.T
        x_NT = x_NT[x_NT.std(axis=1) > 10 * np.sqrt(JITTER)]
        parts.append(x_NT)
        have += len(x_NT)
    return np.concatenate(parts)[:count]
