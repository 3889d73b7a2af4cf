"""What a call costs on this machine: T(rows) of a target, one-row time of a drafter, measured once, interpolated."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

from backend.meter import Meter
from backend.protocols import CausalSession, Model, Prompt
from backend.types import Sampling

ROWS = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64)
TEXT = 96  # committed tokens before the rows that are timed


def cost_curve(
    model: Model, sync: Callable[[], None], rows: Sequence[int] = ROWS, repeats: int = 5
) -> dict[int, float]:
    """Seconds of one call over so many rows behind a text of 96 tokens: medians of `repeats`, all sizes in turn."""
    prompt = Prompt(tuple(i % 89 + 5 for i in range(TEXT)))
    taken: dict[int, list[float]] = {n: [] for n in rows}
    for _ in range(repeats + 1):  # the first round warms up
        for n in rows:
            session = model.open(CausalSession, prompt, Sampling(), Meter(sync), room=max(rows))
            session.score()
            session.commit([7])
            start = time.perf_counter()
            session.score(list(range(5, 4 + n)))
            sync()
            taken[n].append(time.perf_counter() - start)
    return {n: statistics.median(times[1:]) for n, times in taken.items()}


def interpolated(curve: dict[int, float]) -> Callable[[int], float]:
    """The curve as a function: straight lines between measured sizes, the last slope beyond them."""
    sizes = sorted(curve)

    def cost(rows: int) -> float:
        high = next((n for n in sizes if n >= rows), sizes[-1])
        at = max(sizes.index(high), 1)
        a, b = sizes[at - 1], sizes[at]
        return curve[a] + (curve[b] - curve[a]) * (rows - a) / (b - a)

    return cost
