"""Sessions over events in continuous time: the time to the next one, and which kind it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor


@dataclass(frozen=True)
class EventLaw:
    """Laws of next events: M log-normal laws of the time to it, each with a law of its own over V kinds.

    p(t, k) = sum over m of weight_m LogNormal(t; mean_m, spread_m) kind_mk. The time alone is a mixture of log-normal
    laws; given the time, the kind's law is a mixture too, so that kinds may depend on how long it took.
    log_weight_NM [..., M] and log_kind_NMV [..., M, V] are normalised; spreads of 0 are point masses, as at
    temperature 0. Sessions return laws in float64 on the CPU.
    """

    log_weight_NM: Tensor
    mean_NM: Tensor  # of the log of the time
    spread_NM: Tensor
    log_kind_NMV: Tensor

    def __getitem__(self, at: Any) -> EventLaw:
        """Some of the laws, by the leading dimensions."""
        return EventLaw(self.log_weight_NM[at], self.mean_NM[at], self.spread_NM[at], self.log_kind_NMV[at])


@runtime_checkable
class EventSession(Protocol):
    """S paths of events behind one history, written event by event, each with a length of its own.

    Times are gaps: from an event to the next, in the model's unit, which was taken from the history once and is frozen
    for the whole decode. Kinds are whole numbers from 0 to V - 1. One call serves any of the paths.
    """

    gaps_T: Tensor  # of the history; the first is NaN, for nobody knows what came before
    kinds_T: Tensor  # of the history
    num_kinds: int  # V
    until: float  # when paths end: model units behind the last event of the history
    lengths: Sequence[int]  # events that each path has

    def fork(self, paths: int) -> None:
        """Start this many paths behind the history, once, before anything else."""
        ...

    def score(
        self, gaps_RK: Tensor | None = None, kinds_RK: Tensor | None = None, rows: Sequence[int] | None = None
    ) -> EventLaw:
        """Laws [R, K + 1] of the next event after nothing and after each drafted one: one call. Commits nothing.

        Args:
            gaps_RK, kinds_RK: guesses that follow each path, None for none. rows: the paths, all if None.
        """
        ...

    def commit(
        self, gaps_RK: Tensor, kinds_RK: Tensor, counts: Sequence[int], rows: Sequence[int] | None = None
    ) -> None:
        """Append the first counts[r] events of row r to its path for good."""
        ...
