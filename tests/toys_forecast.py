"""Exact forecasters in float64: laws of patches that are known in closed form, alone and jointly, and their quantiles.

A `ToyPaths` is a vector autoregression over patches: v' = level + pull (v - level) + factor noise, v the last patch. A
scalar AR(1) is one whose patches hold P steps; a VAR is one whose patches hold the channels of a step. With `bend` mean
and spread depend on the last patch in a crooked way: no joint law in closed form, but every conditional.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from backend.gaussian import whitened
from backend.meter import Meter
from backend.protocols import (
    BandSession,
    ExampleSession,
    Lags,
    LoopSession,
    PatchLaw,
    PathSession,
    Prompt,
    SegmentSession,
    SeriesDiffusionSession,
)
from backend.types import Sampling
from tests.toys import Counting, Toy, ToyCodec
from tests.toys_diffusion import ToyWindows
from tests.toys_linear import ToyLoop, ToySegments

CODEC = ToyCodec("series", "series", least=0)
SERIES = (0.3, 1.2, -0.4, 0.8, 1.9, 0.1, -0.7, 0.6, 1.4, 0.2, -1.1, 0.5, 1.0, 0.4, -0.2, 0.9)


class ToyPaths(Toy):
    """A target or drafter of patches.

    Args:
        pull_PP, factor_PP: see above; the factor is lower triangular. reach: patches that look-ahead heads see behind
            the next one. season: said to strategies. series: what is observed.
    """

    def __init__(
        self,
        model_id: str = "toy/paths",
        *,
        pull_PP: Tensor,
        factor_PP: Tensor,
        level: float = 0.5,
        bend: float = 0.0,
        reach: int = 2,
        season: int = 4,
        protocol: type = PathSession,
        series: Sequence[float] = SERIES,
    ) -> None:
        super().__init__(model_id, protocol, CODEC, 512)
        self.pull_PP, self.factor_PP, self.level, self.bend = pull_PP, factor_PP, level, bend
        self.patch, self.reach, self.season, self.series = len(pull_PP), reach, season, tuple(series)

    @classmethod
    def ar1(cls, model_id: str, phi: float, spread: float, patch: int, **options: object) -> ToyPaths:
        """x' = level + phi (x - level) + spread noise, `patch` steps at a time."""
        steps = torch.arange(1, patch + 1, dtype=torch.float64)
        pull_PP = torch.zeros(patch, patch, dtype=torch.float64)
        pull_PP[:, -1] = phi**steps
        factor_PP = spread * torch.tril(phi ** (steps[:, None] - steps).clamp_min(0))
        return cls(model_id, pull_PP=pull_PP, factor_PP=factor_PP, **options)  # type: ignore[arg-type]

    def law(self, last_NP: Tensor) -> PatchLaw:
        """The next patch's laws after these last patches."""
        away_NP = last_NP - self.level
        mean_NP = self.level + away_NP @ self.pull_PP.T + self.bend * torch.tanh(2 * away_NP)
        wide_N = 1 + self.bend * torch.sigmoid(away_NP.sum(-1))
        return PatchLaw(mean_NP, self.factor_PP * wide_N[..., None, None])

    def ahead(self, last_NP: Tensor) -> PatchLaw:
        """Laws of the `reach` patches behind the next one, nothing known between: [..., A]. Exact where bend is 0."""
        mean_NP, cover_PP = last_NP - self.level, torch.zeros_like(self.pull_PP)
        means, trils = [], []
        for _ in range(self.reach + 1):
            mean_NP = mean_NP @ self.pull_PP.T
            cover_PP = self.pull_PP @ cover_PP @ self.pull_PP.T + self.factor_PP @ self.factor_PP.T
            means.append(self.level + mean_NP)
            trils.append(torch.linalg.cholesky(cover_PP).expand(*last_NP.shape[:-1], -1, -1))
        return PatchLaw(torch.stack(means[1:], -2), torch.stack(trils[1:], -3))

    def joint(self, patches: int) -> tuple[Tensor, Tensor]:
        """Mean [N P] and covariance [N P, N P] of all the next patches together; bend must be 0."""
        assert not self.bend
        size = self.patch
        away_P, gain = self.start() - self.level, torch.zeros(patches * size, patches * size, dtype=torch.float64)
        mean = []
        for n in range(patches):
            away_P = self.pull_PP @ away_P
            mean.append(self.level + away_P)
            row = slice(n * size, (n + 1) * size)
            if n:
                gain[row] = self.pull_PP @ gain[(n - 1) * size : n * size]
            gain[row, row] = self.factor_PP
        return torch.cat(mean), gain @ gain.T

    def noise_of(self, paths_SNP: Tensor) -> Tensor:
        """The noise that these paths were made of, by the model's own laws: standard normal if the law is exact."""
        before_SNP = torch.cat((self.start().expand(len(paths_SNP), 1, -1), paths_SNP[:, :-1]), 1)
        return whitened(self.law(before_SNP), paths_SNP)

    def start(self) -> Tensor:
        """The last patch of the series."""
        return torch.tensor(self.series[-self.patch :], dtype=torch.float64)

    def make(self, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> ToyPathsSession:
        return ToyPathsSession(self, sampling.temperature, meter)


class ToyPathsSession(Counting):
    """A path session. `written` holds every path as the session has it."""

    def __init__(self, model: ToyPaths, temperature: float, meter: Meter) -> None:
        super().__init__(meter)
        self.series_CT = torch.tensor([model.series], dtype=torch.float64)
        self.patch, self.season, self.reach = model.patch, model.season, model.reach
        self.lengths: list[int] = []
        self.drafts: list[tuple[int, ...]] = []  # shapes of all calls
        self._model, self._temperature = model, temperature
        self._paths: list[Tensor] = []

    @property
    def written(self) -> list[Tensor]:
        """Patches [N, P] of every path."""
        return [path[1:] for path in self._paths]

    def fit(self, lags: int, share: float, ahead: int = 1) -> Lags:
        """See `LagsSession.fit`: it is what it is, whatever is asked for."""
        assert not self.lengths, "fitted after the fork"
        with self._meter.part("fit").call(1):
            pull_PP = self._model.pull_PP
            level_P = torch.full((len(pull_PP),), self._model.level, dtype=torch.float64)
            return Lags(pull_PP.flip(1), level_P - pull_PP @ level_P, self._model.factor_PP)

    def fork(self, paths: int) -> None:
        """See `PathSession.fork`."""
        assert not self.lengths, "forked twice"
        self.lengths = [0] * paths
        self._paths = [self._model.start()[None]] * paths

    def score(self, draft_RKP: Tensor | None = None, rows: Sequence[int] | None = None) -> PatchLaw:
        """See `PathSession.score`."""
        return self._law(self._lasts(draft_RKP, rows))

    def look(self, draft_RKP: Tensor | None = None, rows: Sequence[int] | None = None) -> tuple[PatchLaw, PatchLaw]:
        """See `LookaheadSession.look`."""
        last_RKP = self._lasts(draft_RKP, rows)
        return self._law(last_RKP), self._model.ahead(last_RKP)

    def commit(self, patches_RKP: Tensor, counts: Sequence[int], rows: Sequence[int] | None = None) -> None:
        """See `PathSession.commit`."""
        for r, row in enumerate(range(len(self.lengths)) if rows is None else rows):
            assert 0 <= counts[r] <= patches_RKP.shape[1]
            self._paths[row] = torch.cat((self._paths[row], patches_RKP[r, : counts[r]]))
            self.lengths[row] += counts[r]

    def keep(self, rows: Sequence[int]) -> None:
        """See `ReorderingPathSession.keep`."""
        assert len(rows) == len(self.lengths)
        assert len(set(self.lengths)) == 1
        self._paths = [self._paths[row] for row in rows]

    def _law(self, last_RKP: Tensor) -> PatchLaw:
        law = self._model.law(last_RKP)
        return PatchLaw(law.mean_NP, law.tril_NPP * self._temperature)

    def _lasts(self, draft_RKP: Tensor | None, rows: Sequence[int] | None) -> Tensor:
        assert self.lengths, "not forked"
        rows = range(len(self.lengths)) if rows is None else rows
        last_R1P = torch.stack([self._paths[row][-1] for row in rows])[:, None]
        last_RKP = last_R1P if draft_RKP is None else torch.cat((last_R1P, draft_RKP), 1)
        self.charge(last_RKP.shape[0] * last_RKP.shape[1])
        self.drafts.append(tuple(last_RKP.shape))
        return last_RKP


class ToyBands(Toy):
    """Quantiles of an AR(1) in closed form, for heads of several sizes."""

    def __init__(
        self,
        model_id: str = "toy/bands",
        phi: float = 0.8,
        spread: float = 0.5,
        level: float = 0.5,
        sizes: Sequence[int] = (1, 2, 4, 8),
        levels: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    ) -> None:
        super().__init__(model_id, BandSession, CODEC, 512)
        self.phi, self.spread, self.level = phi, spread, level
        self.sizes, self.levels = tuple(sizes), tuple(levels)

    def moments(self, last_R: Tensor, horizon: int) -> tuple[Tensor, Tensor]:
        """Means [R, H] and deviations [H] of the steps behind these values."""
        steps_H = torch.arange(1, horizon + 1, dtype=torch.float64)
        mean_RH = self.level + (last_R[:, None] - self.level) * self.phi**steps_H
        return mean_RH, self.spread * ((1 - self.phi ** (2 * steps_H)) / (1 - self.phi**2)).sqrt()

    def make(self, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> ToyBandsSession:
        return ToyBandsSession(self, meter)


class ToyBandsSession(Counting):
    """A band session."""

    def __init__(self, model: ToyBands, meter: Meter) -> None:
        super().__init__(meter)
        self.series_CT = torch.tensor([SERIES], dtype=torch.float64)
        self.season, self.levels, self.sizes = 4, model.levels, model.sizes
        self._model = model

    def predict(self, size: int, futures_RH: Tensor | None = None) -> Tensor:
        """See `BandSession.predict`."""
        assert size in self.sizes
        last_R = self.series_CT[0, -1:] if futures_RH is None else futures_RH[:, -1].double()
        self.charge(len(last_R))
        mean_RH, spread_H = self._model.moments(last_R, size)
        z_L = torch.special.ndtri(torch.tensor(self.levels, dtype=torch.float64))
        return mean_RH[:, None] + z_L[:, None] * spread_H


def toys_for(roles: dict[str, type], patch: int = 2, bend: float = 0.4) -> dict[str, Toy]:
    """A toy for every role; a drafter is another autoregression than the target, narrower and pulled elsewhere."""
    out: dict[str, Toy] = {}
    for i, (role, protocol) in enumerate(roles.items()):
        if protocol is BandSession:
            out[role] = ToyBands(f"toy/{role}")
        elif protocol is LoopSession:
            out[role] = ToyLoop(f"toy/{role}")
        elif protocol in (SegmentSession, ExampleSession):
            out[role] = ToySegments(f"toy/{role}", protocol)
        elif protocol is SeriesDiffusionSession:
            out[role] = ToyWindows(f"toy/{role}", SERIES)
        else:
            made = ToyPaths.ar1(
                f"toy/{role}", 0.8 - 0.2 * i, 0.6 - 0.1 * i, patch,
                bend=bend if i == 0 else 0.0, protocol=protocol, level=0.5 - 0.2 * i,
            )  # fmt: skip
            out[role] = made
    return out
