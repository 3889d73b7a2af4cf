"""Forecasters over patches: sample paths that are judged patch by patch, looks ahead, and quantiles of whole horizons.

All laws are in the units of a scale that was taken from the context once, so a guess never changes what stands before
it. Temperature multiplies the factor of every law: at 0 each is a point at its mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backend.codecs.forecast import SeriesCodec
from backend.errors import UserError
from backend.meter import Meter
from backend.models.house.forecaster import LEVELS, Laws, read_forecaster
from backend.models.house.forecaster_rows import Frozen, Strands, band
from backend.protocols import BandSession, LookaheadSession, PatchLaw, PathSession, Prompt, ReorderingPathSession
from backend.types import Sampling

ROOM = 1 << 20  # steps that can be written; only the context is limited


class PatchSession:
    """A `LookaheadSession`, a `FeatureSession`, a `ReorderingPathSession` and a `BandSession` on a forecaster."""

    levels: Sequence[float] = LEVELS

    def __init__(self, model: ForecasterModel, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> None:
        config = model.net.config
        self.series_CT = torch.tensor([prompt.extras["context"]], dtype=torch.float64)
        self.season: int = prompt.extras["season"]
        self.patch, self.reach = config.patch, config.reach
        self.sizes: Sequence[int] = [size * config.patch for size in config.sizes]
        self._model, self._temperature, self._meter = model, sampling.temperature, meter
        self._room = -(-room // self.patch)
        self._strands: Strands | None = None

    @property
    def lengths(self) -> Sequence[int]:
        """See `PathSession.lengths`."""
        return () if self._strands is None else self._strands.lengths

    def fork(self, paths: int) -> None:
        """See `PathSession.fork`."""
        assert self._strands is None, "forked twice"
        context_T = self.series_CT[0].to(self._model.net.dtype)
        self._strands = Strands(self._model.net, context_T, paths, self._room)

    def score(self, draft_RKP: Tensor | None = None, rows: Sequence[int] | None = None) -> PatchLaw:
        """See `PathSession.score`. Raises UserError if the model returns no numbers."""
        return self._laws(draft_RKP, rows, 0)[:, :, 0]

    def look(self, draft_RKP: Tensor | None = None, rows: Sequence[int] | None = None) -> tuple[PatchLaw, PatchLaw]:
        """See `LookaheadSession.look`. Raises UserError if the model returns no numbers."""
        law = self._laws(draft_RKP, rows, self.reach)
        return law[:, :, 0], law[:, :, 1:]

    def commit(self, patches_RKP: Tensor, counts: Sequence[int], rows: Sequence[int] | None = None) -> None:
        """See `PathSession.commit`."""
        self._forked().commit(patches_RKP, counts, self._rows(rows))

    def features(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """See `FeatureSession.features`."""
        return self._forked().features(rows)

    def keep(self, rows: Sequence[int]) -> None:
        """See `ReorderingPathSession.keep`."""
        self._forked().take(rows)

    def predict(self, size: int, futures_RH: Tensor | None = None) -> Tensor:
        """See `BandSession.predict`. Raises UserError if the model returns no numbers."""
        assert size in self.sizes, size
        net = self._model.net
        context_T = self.series_CT[0].to(net.dtype)
        with self._meter.call(0):
            futures_RH = None if futures_RH is None else futures_RH.cpu().to(net.dtype)
            out_RQH, ran = band(net, context_T, futures_RH, size)
        self._meter.rows += ran
        self._check(out_RQH)
        return out_RQH.cpu().double()

    def _laws(self, draft_RKP: Tensor | None, rows: Sequence[int] | None, ahead: int) -> PatchLaw:
        with self._meter.call(0):
            read, ran = self._forked().laws(draft_RKP, self._rows(rows), ahead)
            with torch.no_grad():
                laws: Laws = read()
            self._check(laws.mean_P)
            law = laws.patch_law(self._temperature)
        self._meter.rows += ran
        return law

    def _check(self, numbers: Tensor) -> None:
        if not math.isfinite(float(numbers.abs().max())):
            raise UserError(
                f"{self._model.id} returned numbers that are no forecast (NaN or infinity); pick another model, or a "
                "longer context."
            )

    def _forked(self) -> Strands:
        assert self._strands is not None, "not forked"
        return self._strands

    def _rows(self, rows: Sequence[int] | None) -> Sequence[int]:
        return range(len(self.lengths)) if rows is None else rows


class ForecasterModel:
    """Loaded weights of a forecaster. Shared by all sessions, never written."""

    def __init__(self, model_id: str, net: Frozen) -> None:
        self.id = model_id
        self.net = net
        self.codec = SeriesCodec(net.config.context)
        self.num_params = net.num_params
        self.context = ROOM
        more = {LookaheadSession} if net.config.reach else set()
        bands = {BandSession} if net.config.sizes else set()
        self.speaks: frozenset[type] = frozenset({PathSession, ReorderingPathSession} | more | bands)

    def open(self, protocol: type, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> Any:
        """A session on a prompt of `SeriesCodec`."""
        assert protocol in self.speaks, protocol
        return PatchSession(self, prompt, sampling, meter, room)


def load_forecaster(
    model_id: str, path: Path, device: torch.device | str, dtype: torch.dtype = torch.float32
) -> ForecasterModel:
    """A model of a file of `house.forecaster.save_forecaster`. Raises UserError if there is no such file."""
    return ForecasterModel(model_id, Frozen(read_forecaster(path, device), dtype))
