"""The events in assets/series/events.json: of known processes, by our own simulation, and real ones. No torch here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from backend.series.hawkes import Array, Hawkes, judged
from backend.series.shipped import FOLDER

FILE = FOLDER / "events.json"


@dataclass(frozen=True, eq=False)
class EventSet:
    """Events from an empty past. history: how many of them are known; the others are the truth.

    process: what they come from, None where nobody knows. marks: names of the kinds, letters if there are none.
    """

    name: str
    title: str
    about: str
    process: Hawkes | None
    times_N: Array
    kinds_N: Array
    history: int
    marks: tuple[str, ...] = ()

    @property
    def now(self) -> float:
        """Time of the last known event."""
        return float(self.times_N[self.history - 1])

    @property
    def reach(self) -> float:
        """How far beyond it the truth is known."""
        return float(self.times_N[-1]) - self.now

    def mark(self, kind: int) -> str:
        """A kind as a mark: its name, else a, b, c, ..."""
        return self.marks[kind] if self.marks else chr(ord("a") + kind)

    def prompt(self, horizon: float) -> dict[str, Any]:
        """What models of events continue."""
        marks = [self.mark(int(kind)) for kind in self.kinds_N[: self.history]]
        return {"times": self.times_N[: self.history].tolist(), "marks": marks, "horizon": float(horizon)}

    def residuals(self, times: Sequence[float], kinds: Sequence[int], until: float | None) -> tuple[list[float], float]:
        """The true intensity's integrals over the gaps of a path behind the history, and over what follows its last.

        until: end of time of the path; None where it ends with its last event. kinds: as the process numbers them.
        """
        assert self.process is not None, "the true intensity is not known"
        past_N, kinds_N = self.times_N[: self.history], self.kinds_N[: self.history]
        end = [] if until is None else [until]
        gaps_BN = np.diff(np.r_[0.0, past_N, times, end])[None]
        kinds_BN = np.r_[kinds_N, np.asarray(kinds, dtype=np.int64), np.zeros(len(end), dtype=np.int64)][None]
        found = judged(self.process, gaps_BN, kinds_BN).residual_BN[0, self.history :].tolist()
        return (found, 0.0) if until is None else (found[:-1], found[-1])


@cache
def event_sets() -> Mapping[str, EventSet]:
    """Every shipped realisation by name."""
    told = json.loads(FILE.read_text(encoding="utf-8"))
    out = {}
    for name, item in told["sets"].items():
        process = Hawkes.of(item["base"], item["jump"], item["decay"]) if "base" in item else None
        times_N, kinds_N = np.array(item["times"]), np.array(item["kinds"], dtype=np.int64)
        marks = tuple(item.get("marks", ()))
        out[name] = EventSet(name, item["title"], item["about"], process, times_N, kinds_N, told["history"], marks)
    return out
