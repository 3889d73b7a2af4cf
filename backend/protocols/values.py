"""Sessions over numbers: vectors drawn by a head, whole samples denoised at once, series continued."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class ContinuousSession(Protocol):
    """Slots that hold vectors, drawn by a small denoising head on top of a backbone."""

    num_slots: int
    dims: int

    def condition(self, slots: Sequence[int]) -> Tensor:
        """z_NC for these slots given everything committed: a backbone call."""
        ...

    def head(self, x_ND: Tensor, t: float, z_NC: Tensor) -> Tensor:
        """The head's prediction of the clean x at noise level t in [0, 1]: a head call."""
        ...

    def commit(self, slots: Sequence[int], x_ND: Tensor) -> None:
        """Write the vectors of these slots."""
        ...


class Schedule(Protocol):
    """x_t = alpha(t) x_0 + sigma(t) noise, t from 1 (noise) to 0 (data); `predicts` says what a denoiser returns."""

    predicts: Literal["eps", "v", "x0", "flow"]

    def alpha(self, t: float) -> float: ...

    def sigma(self, t: float) -> float: ...


@runtime_checkable
class DenoiserSession(Protocol):
    """A whole sample denoised at once."""

    shape: tuple[int, ...]
    schedule: Schedule

    def predict(self, x: Tensor, t: float) -> Tensor:
        """The model's prediction (see schedule.predicts) at x_t, same shape as x."""
        ...


@dataclass(frozen=True)
class Band:
    """A forecast of H steps: values_SH are quantiles at `levels` (S of them), or S sample paths if levels is empty."""

    values_SH: Tensor
    levels: tuple[float, ...] = ()


@runtime_checkable
class ForecastSession(Protocol):
    """A series and a model that continues it."""

    series_CT: Tensor

    def predict(self, horizon: int) -> Band:
        """The next `horizon` values of the first channel."""
        ...

    def extend(self, values_CH: Tensor) -> None:
        """Append values as if they had been observed."""
        ...
