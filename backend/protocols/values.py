"""Sessions over numbers: vectors drawn by a head, whole samples denoised at once, series continued."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol, runtime_checkable

import torch
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


@dataclass(frozen=True)
class PatchLaw:
    """Normal laws of patches of P values: mean_NP [..., P] and the lower Cholesky factors tril_NPP [..., P, P].

    A factor of zeros is a point mass at the mean, as at temperature 0. Leading dimensions are what the call says.
    Sessions return laws in float64 on the CPU: ratios of densities of long patches need the digits.
    """

    mean_NP: Tensor
    tril_NPP: Tensor

    def __getitem__(self, at: Any) -> PatchLaw:
        """Some of the laws, by the leading dimensions."""
        return PatchLaw(self.mean_NP[at], self.tril_NPP[at])


@dataclass(frozen=True, init=False)
class EchoLaw(PatchLaw):
    """Patch laws whose noise is an autoregression, e_i = rho e_{i-1} + s_i w_i with w standard normal.

    scale_NP [..., P] holds s, rho_N [...] one coefficient for each patch. Placing and whitening then cost P steps and
    not P^2; the factors are made when something asks for them. Scales of zero are a point mass.
    """

    scale_NP: Tensor
    rho_N: Tensor

    def __init__(self, mean_NP: Tensor, scale_NP: Tensor, rho_N: Tensor) -> None:
        self.__dict__.update(mean_NP=mean_NP, scale_NP=scale_NP, rho_N=rho_N)

    @cached_property  # type: ignore[misc]
    def tril_NPP(self) -> Tensor:  # noqa: N802
        """The lower Cholesky factors, s_j rho^(i-j)."""
        size = self.mean_NP.shape[-1]
        power_NP = self.rho_N[..., None].repeat_interleave(size, -1)
        power_NP[..., 0] = 1.0
        step_P = torch.arange(size, device=power_NP.device)
        gap_PP = (step_P[:, None] - step_P).clamp_min(0)
        return (power_NP.cumprod(-1)[..., gap_PP] * self.scale_NP[..., None, :]).tril_()

    def __getitem__(self, at: Any) -> EchoLaw:
        """Some of the laws, by the leading dimensions."""
        return EchoLaw(self.mean_NP[at], self.scale_NP[at], self.rho_N[at])


@runtime_checkable
class ForecastSession(Protocol):
    """A series that a model continues; what it can do beyond holding it is said by the protocols below.

    Values are in the model's units: a scale taken from the observed context once and frozen for the whole decode, so
    that the law of a patch depends on nothing that comes after it.
    """

    series_CT: Tensor  # observed values of C channels, NaN where missing; the first channel is the one to continue


@runtime_checkable
class PathSession(ForecastSession, Protocol):
    """S sample paths of one series, written patch by patch, each with a length of its own.

    One call serves any of the paths, so that calls count what must happen one after the other. A one-step model has
    patches of one value; a point model is read through the means of its laws.
    """

    patch: int  # P
    season: int  # steps, 1 without one
    lengths: Sequence[int]  # patches that each path has

    def fork(self, paths: int) -> None:
        """Start this many paths behind the series, once, before anything else."""
        ...

    def score(self, draft_RKP: Tensor | None = None, rows: Sequence[int] | None = None) -> PatchLaw:
        """Laws [R, K + 1] of the next patch after nothing and after each drafted one: one call. Commits nothing.

        Args:
            draft_RKP: guesses that follow each path, None for none. rows: the paths, all if None.
        """
        ...

    def commit(self, patches_RKP: Tensor, counts: Sequence[int], rows: Sequence[int] | None = None) -> None:
        """Append the first counts[r] patches of row r to its path for good."""
        ...


@runtime_checkable
class FeatureSession(PathSession, Protocol):
    """A path session that shows what it thought, for drafters that carry it on."""

    def features(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Features [R, C] behind the last patch of each row that a call has read, and how many of its path those are.

        Costs no call; there must have been one.
        """
        ...


@runtime_checkable
class HearingSession(PathSession, Protocol):
    """A drafter that can be told what a target thought: its laws then carry on the target's own features."""

    def hear(self, features_RC: Tensor, read_R: Tensor, rows: Sequence[int]) -> None:
        """Put a target's features in the place of those behind the first read_R[r] patches of each row.

        See `FeatureSession.features`. The first time, of all rows. Raises UserError where they do not fit.
        """
        ...


@runtime_checkable
class LookaheadSession(PathSession, Protocol):
    """A path session with heads that look further ahead than the next patch, not knowing what lies between."""

    reach: int  # A: patches behind the next one that heads have laws for

    def look(self, draft_RKP: Tensor | None = None, rows: Sequence[int] | None = None) -> tuple[PatchLaw, PatchLaw]:
        """What `score` returns and, from the same call, laws [R, K + 1, A] of the A patches behind each next one."""
        ...


@runtime_checkable
class ReorderingPathSession(PathSession, Protocol):
    """A path session whose paths can be copied over one another."""

    def keep(self, rows: Sequence[int]) -> None:
        """Path s becomes a copy of path rows[s], for every s. All paths have the same length."""
        ...


@runtime_checkable
class BandSession(ForecastSession, Protocol):
    """A model that gives quantiles of each coming step by itself: bands, no paths."""

    season: int  # steps, 1 without one
    levels: Sequence[float]  # of the quantiles, ascending
    sizes: Sequence[int]  # steps that a call can give, ascending: one head each

    def predict(self, size: int, futures_RH: Tensor | None = None) -> Tensor:
        """Quantiles [R, levels, size] of the steps behind the series and a future taken for observed: one call.

        Args:
            size: one of `sizes`. futures_RH: R continuations of H steps, each a row of the call; None for none (R = 1).
        """
        ...


@dataclass(frozen=True)
class Lags:
    """Linear maps from the last p values to the A steps behind them, and the law of what they leave.

    weights_Ap: of the lags, the nearest first; 0 for lags that are not used. constant_A. tril_AA: Cholesky factor of
    the residuals' covariance.
    """

    weights_Ap: Tensor
    constant_A: Tensor
    tril_AA: Tensor


@runtime_checkable
class LagsSession(PathSession, Protocol):
    """A path session of a linear autoregression that is fitted to the series itself."""

    def fit(self, lags: int, share: float, ahead: int = 1) -> Lags:
        """Fit anew, before `fork`: from now on patches have `ahead` values, one linear map each. A call of part "fit".

        Args:
            lags: p. share: of the lags, expected to have a weight; the rest is pressed towards 0. 1: least squares.

        Raises UserError where the series is too short for that.
        """
        ...


@runtime_checkable
class LoopSession(ForecastSession, Protocol):
    """A model whose decoder is a linear recursion that feeds itself: states are powers of one matrix apart."""

    season: int  # steps, 1 without one
    poles_Z: Tensor  # complex eigenvalues of the recursion, the largest first: beyond 1 it grows without end

    def listen(self) -> Tensor:
        """The state behind the series, [D]: a call."""
        ...

    def advance(self, states_ND: Tensor, steps: int) -> Tensor:
        """These states, so many steps later without any input: a call. steps: a power of 2."""
        ...

    def read(self, states_ND: Tensor) -> Tensor:
        """The values [N] that are seen in these states, in the units of the series."""
        ...


@runtime_checkable
class SegmentSession(ForecastSession, Protocol):
    """A point model that writes one segment a call, from what lies before it however that came about.

    It takes its own location and scale from the window that it looks at, written values included: an answer to a guess
    says nothing about what it would be without, so that nothing can be judged in one call.
    """

    season: int  # steps, 1 without one
    segment: int  # P: values that a call gives
    lookback: int  # most values that it looks back on

    def follow(self, written_H: Tensor) -> Tensor:
        """The next segment behind the series and H written values, as parts [K, P] whose sum it is: a call."""
        ...


@runtime_checkable
class ExampleSession(SegmentSession, Protocol):
    """A segment session that can be shown examples: windows of other times, with what came behind them."""

    example: int  # X: values of one example, its last segment being the answer

    def recall(self, written_H: Tensor, examples_EX: Tensor) -> Tensor:
        """What `follow` gives behind E examples: a call."""
        ...


@runtime_checkable
class SeriesDiffusionSession(DenoiserSession, ForecastSession, Protocol):
    """Windows of a series denoised whole, the S rows of a call; the model was never told where a context ends.

    `shape` holds the most steps L of a window; shorter ones are fine. Noise levels are t = 1 / T, 2 / T, ..., 1.
    """

    season: int  # steps, 1 without one
    noise_levels: int  # T that the model was trained at
    temperature: float  # a factor on all noise that a sampler draws

    def predict(self, x_SL: Tensor, t: float) -> Tensor:
        """The noise [S, L] in these windows: one call."""
        ...

    def guided(self, x_SL: Tensor, t: float, force: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """The noise [S, L], and what a force on it comes to at x: (d noise / d x)^T force(noise), each row for itself.

        Two calls: the pass forward, and the pass back through the net, which costs about as much. force: of the noise
        [S, L], such as the gradient of an energy in it.
        """
        ...
