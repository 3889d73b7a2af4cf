"""When each of several texts in one trace waited, started and ended: what a Gantt chart and latencies are made of.

For traces whose steps have the figures of `temporal_fusion`. No torch here.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from backend.errors import UserError
from backend.trace import Trace


@dataclass(frozen=True)
class Span:
    """One text of a run.

    arrived, prefill, last: steps, counted from 0, in which it arrived, got its first and its latest token; the latter
    two are None while it waits. tokens: what was written. first_token, latency: seconds of computing between its
    arrival, at the beginning of that step, and the end of the steps `prefill` and `last`.
    """

    arrived: int
    prefill: int | None
    last: int | None
    tokens: tuple[int, ...]
    first_token: float | None
    latency: float | None


def spans(trace: Trace) -> list[Span]:
    """One span a text, in the order of arrival. Raises UserError for a trace that tells of no texts."""
    if not trace.steps:
        return []
    figures = trace.steps[0].figures
    if not {"texts", "share"} <= set(figures):
        raise UserError(
            f"Several texts are shown for runs of temporal_fusion, but this is one of {trace.request.strategy}."
        )
    texts, share = int(figures["texts"]), int(figures["share"])
    times = [0.0, *accumulate(step.seconds for step in trace.steps)]
    written: list[list[tuple[int, int]]] = [[] for _ in range(texts)]  # (step, token)
    for at, step in enumerate(trace.steps):
        for mark in step.marks:
            if mark.token is not None and mark.fate.commits:
                written[(mark.slot - len(trace.prompt)) // share].append((at, mark.token))
    return [_span(at, marks, times) for at, marks in zip(_arrivals(trace), written, strict=False)]


def _arrivals(trace: Trace) -> list[int]:
    """The step in which each text arrived, of those that have."""
    out: list[int] = []
    let_in = 0
    for at, step in enumerate(trace.steps):
        let_in += int(step.figures["admitted"])
        out += [at] * (let_in + int(step.figures["waiting"]) - len(out))
    return out


def _span(arrived: int, marks: Sequence[tuple[int, int]], times: Sequence[float]) -> Span:
    if not marks:
        return Span(arrived, None, None, (), None, None)
    first, last = marks[0][0], marks[-1][0]
    start = times[arrived]
    tokens = tuple(token for _, token in marks)
    return Span(arrived, first, last, tokens, times[first + 1] - start, times[last + 1] - start)


def percentile(values: Sequence[float], percent: float) -> float:
    """The value below which so many percent lie, between the nearest two by a straight line."""
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=1000, method="inclusive")[round(percent * 10) - 1]
