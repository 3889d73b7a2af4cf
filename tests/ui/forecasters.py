"""Forecasters for the screen: seasonal ones without weights, and a catalog of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from backend.catalog import Catalog, Entry
from backend.codecs.forecast import SeriesCodec
from backend.errors import UserError
from backend.meter import Meter
from backend.protocols import BandSession, EventSession, LookaheadSession, PatchLaw, PathSession, Prompt
from backend.run import record
from backend.trace import Trace
from backend.types import Request, Sampling
from backend.unrolling import filled
from tests.ui.painters import PainterCatalog

TARGET, DRAFT = "house/forecaster", "house/forecaster-draft"
EVENTS = ("house/events", "house/events-draft")
WARM = Sampling(temperature=1.0)
LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


class SeasonalSession:
    """The next patch is the same steps one season before, and noise that leans on the noise before it."""

    season: int
    levels, sizes, reach = LEVELS, (16, 128), 3

    def __init__(self, model: Seasonal, prompt: Prompt, sampling: Sampling, meter: Meter) -> None:
        self.series_CT = torch.tensor([prompt.extras["context"]], dtype=torch.float64)
        self.patch, self.season = model.patch, int(prompt.extras["season"])
        self.lengths: list[int] = []
        self._model, self._temperature, self._meter = model, sampling.temperature, meter
        self._past_T = filled(self.series_CT)
        self._paths: list[Tensor] = []

    def fork(self, paths: int) -> None:
        self.lengths, self._paths = [0] * paths, [self._past_T] * paths

    def score(self, draft_RKP: Tensor | None = None, rows: Sequence[int] | None = None) -> PatchLaw:
        rows = range(len(self.lengths)) if rows is None else rows
        past_RT = torch.stack([self._paths[row][-512:] for row in rows]) if self._even(rows) else None
        count = 1 + (0 if draft_RKP is None else draft_RKP.shape[1])
        with self._meter.call(len(rows) * count):
            time.sleep(self._model.seconds)
            laws = []
            for r, row in enumerate(rows):
                past_T = self._paths[row] if past_RT is None else past_RT[r]
                drafted_N = draft_RKP[r].flatten() if draft_RKP is not None else past_T[:0]
                whole_T = torch.cat((past_T, drafted_N))
                end = len(past_T)
                means = [self._mean(whole_T[: end + k * self.patch], self.patch) for k in range(count)]
                laws.append(torch.stack(means))
        mean_RKP = torch.stack(laws)
        return PatchLaw(mean_RKP, self._tril(self.patch).expand(*mean_RKP.shape, self.patch) * self._temperature)

    def look(self, draft_RKP: Tensor | None = None, rows: Sequence[int] | None = None) -> tuple[PatchLaw, PatchLaw]:
        law = self.score(draft_RKP, rows)
        ahead_RKAP = law.mean_NP[:, :, None].expand(-1, -1, self.reach, -1)
        tril = law.tril_NPP[:, :, None].expand(-1, -1, self.reach, -1, -1) * 1.3
        return law, PatchLaw(ahead_RKAP, tril)

    def commit(self, patches_RKP: Tensor, counts: Sequence[int], rows: Sequence[int] | None = None) -> None:
        for r, row in enumerate(range(len(self.lengths)) if rows is None else rows):
            self._paths[row] = torch.cat((self._paths[row], patches_RKP[r, : counts[r]].flatten().double()))
            self.lengths[row] += counts[r]

    def predict(self, size: int, futures_RH: Tensor | None = None) -> Tensor:
        futures_RH = torch.empty(1, 0, dtype=torch.float64) if futures_RH is None else futures_RH.double()
        with self._meter.call(len(futures_RH)):
            time.sleep(self._model.seconds)
        mean_RH = torch.stack([self._mean(torch.cat((self._past_T, f)), size) for f in futures_RH])
        width_H = self._tril(size).square().sum(-1).sqrt()
        z_L = torch.special.ndtri(torch.tensor(LEVELS, dtype=torch.float64))
        return mean_RH[:, None] + z_L[:, None] * width_H

    def _even(self, rows: Sequence[int]) -> bool:
        return len({len(self._paths[row]) for row in rows}) == 1

    def _mean(self, past_T: Tensor, size: int) -> Tensor:
        season = self.season if self.season > 1 else 1
        steps = torch.arange(size) % season
        back = past_T[-season:][steps]
        return back + self._model.lean * (past_T[-1] - past_T[-1 - season]) * 0.6 ** torch.arange(1, size + 1)

    def _tril(self, size: int) -> Tensor:
        steps = torch.arange(size, dtype=torch.float64)
        return self._model.spread * torch.tril(0.93 ** (steps[:, None] - steps).clamp_min(0))


class Seasonal:
    """A forecaster that has learned nothing."""

    speaks = frozenset[type]({PathSession, LookaheadSession, BandSession})
    codec = SeriesCodec(512)
    num_params, context, patch = 1_000, 4096, 16

    def __init__(self, model_id: str, spread: float = 0.12, lean: float = 0.8, seconds: float = 0.0) -> None:
        self.id, self.spread, self.lean, self.seconds = model_id, spread, lean, seconds

    def open(self, protocol: type, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> SeasonalSession:
        return SeasonalSession(self, prompt, sampling, meter)


class SeriesCatalog(PainterCatalog):
    """The fake models of text and pictures, forecasters, and the small models of events that ship."""

    def __init__(self, seconds: float = 0.0, load_seconds: float = 0.0) -> None:
        super().__init__(seconds, load_seconds)
        made = (Seasonal(TARGET, seconds=seconds / 2), Seasonal(DRAFT, 0.1, 0.5, seconds / 20))
        self._forecasters = {model.id: model for model in made}
        self._shipped = Catalog("cpu", "float32")

    def entries(self) -> list[Entry]:
        kinds = {TARGET: "lookahead", DRAFT: "paths"}
        made = [Entry(i, i, "house", "series", kind, 1000, "A fake.", True) for i, kind in kinds.items()]
        return [*super().entries(), *made]

    def get(self, model_id: str, progress: Callable[[str, float], None] | None = None) -> Any:
        if model_id in EVENTS:
            return self._shipped.get(model_id, progress)
        return self._forecasters.get(model_id) or super().get(model_id, progress)

    def default_target(self, protocol: type) -> str:
        if protocol is EventSession:
            return EVENTS[0]
        return TARGET if protocol in Seasonal.speaks else super().default_target(protocol)

    def default(self, role: str, target: str) -> str:
        if target in EVENTS:
            return self._shipped.default(role, target)
        if target in self._forecasters:
            if (target, role) != (TARGET, "draft"):
                raise UserError(f"There is no {role} model for {target}.")
            return DRAFT
        return super().default(role, target)


def forecast(strategy: str, prompt: Any, horizon: int, seed: int = 3, **knobs: Any) -> Trace:
    """A trace of one of these forecasters."""
    request = Request(strategy, prompt, {"target": TARGET}, knobs, WARM, horizon, seed)
    return record(request, SeriesCatalog())  # type: ignore[arg-type]
