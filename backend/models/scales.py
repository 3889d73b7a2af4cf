"""A model of described pictures that draws map after map, coarse to fine: sessions, guidance, parts that are given.

Guidance of scale S grows from map to map, as in Tian et al. 2024 (2404.02905): map k of K, from 0, has
s_k = 1 + (S - 1) k / (K - 1) in l = l_u + s_k (l_c - l_u), convention A, so that the first map has none and the last
all of it; other schedules can be named. What is asked and nothing asked are two sequences of one batch: one call, twice
the rows. Guidance may end with some map (an interval, as Kynkaanniemi et al. 2024, 2404.07724, have it in diffusion):
those behind it, where most rows are, are one sequence.

Of a given picture every map keeps the cells most of which are given: they get the code that brings the sum so far
nearest to it, with certainty, so that strategies need not know.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from backend.codecs.image import UNKNOWN
from backend.codecs.pyramid import SIDE, Floats
from backend.codecs.scales import ScaleCodec
from backend.errors import UserError
from backend.meter import Meter
from backend.models.guided import Guidance, Schedule, check_scale
from backend.models.house.layers import wide
from backend.models.house.scales import CHOICES, Map, Scales, read_scales
from backend.models.house.scales_packed import PackedCache, PackedScales
from backend.protocols import FlexibleSession, Prompt, RedrawingSession, ScaleSession
from backend.sampling import distribution
from backend.types import Sampling


class MapSession:
    """A `ScaleSession` on a `ScaleModel`.

    A model that looks back keeps keys and values of the maps it has read. Maps that were committed unread, such as
    those that another model drew, are read in the call of the next score, all in one pass.
    """

    def __init__(self, model: ScaleModel, prompt: Prompt, sampling: Sampling, meter: Meter) -> None:
        self.sizes: Sequence[tuple[int, int]] = model.net.pyramid.sizes
        self.at = 0
        self._model, self._sampling, self._meter = model, sampling, meter
        self._pyramid = model.net.pyramid
        self._plan = list(range(len(self.sizes)))  # numbers of the maps to write
        self._totals = [np.zeros((SIDE, SIDE, 3), dtype=np.float32)]  # the sum in front of every map so far
        self._cache: PackedCache | None = None
        self._read = 0  # maps whose rows are in the cache
        self._law_NV: Tensor | None = None
        conditions = prompt.extras["conditions"]
        self._asked_BA = torch.tensor([conditions], device=model.net.device)
        given = np.asarray(prompt.extras.get("canvas") or [UNKNOWN] * SIDE**2).reshape(SIDE, SIDE)
        self._known = given != UNKNOWN
        self._picture = self._pyramid.colours_VD[np.maximum(given, 0)]

    def score(self) -> Tensor:
        """See `ScaleSession.score`; float32 at least. Raises UserError if the model returns no numbers."""
        assert self.at < len(self.sizes), "all maps are written"
        if self._law_NV is None:
            self._law_NV = self._settled(self._guided())
        return self._law_NV

    def commit(self, tokens_N: Sequence[int]) -> None:
        """See `ScaleSession.commit`."""
        height, width = self.sizes[self.at]
        assert len(tokens_N) == height * width, (len(tokens_N), height, width)
        tokens = np.asarray(tokens_N, dtype=np.int64)
        self._totals.append(self._pyramid.add(self._totals[-1], tokens, self._plan[self.at]))
        self.at, self._law_NV = self.at + 1, None

    @property
    def total(self) -> Floats:
        """The sum [16, 16, 3] of the maps that are written."""
        return self._totals[-1]

    def _guided(self) -> Tensor:
        """Logits [N, V] of the current map, by one call."""
        net, strength = self._model.net, self._strength()
        asked_BA = self._asked_BA
        if strength is not None:
            asked_BA = torch.cat((asked_BA, torch.zeros_like(asked_BA)))
        if self._cache is None or net.config.markov:
            self._cache = PackedCache(net, len(asked_BA))
        first = self.at if net.config.markov else self._read
        maps = [self._map(index) for index in range(first, self.at + 1)]
        rows = sum(self.sizes[i][0] * self.sizes[i][1] for i in range(first, self.at + 1))
        rows += 0 if self._cache.rows else len(CHOICES)
        with self._meter.call(len(asked_BA) * rows), torch.inference_mode():
            raw_BNV = self._model.packs.drawing.logits(asked_BA, maps, self._cache)
        self._read = self.at + 1
        return raw_BNV[0] if strength is None else torch.lerp(raw_BNV[1], raw_BNV[0], strength)

    def _strength(self) -> float | None:
        """The guidance of the current map; None where it has none and no sequence for it is run."""
        guidance, last = self._model.guidance, len(self._plan) - 1
        if guidance is None or (guidance.first is not None and self._plan[self.at] >= guidance.first):
            return None
        return guidance.at(self.at / last if last else 1.0)

    def _map(self, index: int) -> Map:
        """What the model reads of a map of the plan."""
        if not index:
            return self._plan[0], None
        total = torch.from_numpy(self._totals[index]).to(self._model.net.device)
        return self._plan[index], total.permute(2, 0, 1)[None]

    def _settled(self, raw_NV: Tensor, told_N: Sequence[int] | None = None) -> Tensor:
        """Laws of the current map, one-hot where a cell is told or given. A repetition penalty is for those told."""
        raw_NV = raw_NV.to(wide(raw_NV.dtype))
        if not math.isfinite(float(raw_NV.abs().amax())):
            raise UserError(
                f"{self._model.id} returned numbers that are no probabilities (NaN or infinity); "
                "pick another model or precision."
            )
        known = [token for token in told_N or () if token != UNKNOWN]
        p_NV = distribution(raw_NV, self._sampling, [known] * len(raw_NV))
        held = self._held() if told_N is None else list(told_N)
        for slot, token in enumerate(held):
            if token != UNKNOWN:
                p_NV[slot] = 0.0
                p_NV[slot, token] = 1.0
        return p_NV

    def _held(self) -> list[int]:
        """Tokens of the current map that a given picture leaves no choice, else -1."""
        if not self._known.any():
            return []
        tokens = self._pyramid.told(self._picture, self._totals[-1], self._plan[self.at], self._known)
        return [int(token) for token in tokens]


class FlexibleMaps(MapSession):
    """A `FlexibleSession`: its maps are pictures, any of which may be left out."""

    def plan(self, sizes: Sequence[tuple[int, int]]) -> None:
        """See `FlexibleSession.plan`."""
        assert not self.at, "a plan is made before anything is written"
        assert self._law_NV is None, "a plan is made before anything is written"
        offered = list(self._pyramid.sizes)
        for height, width in sizes:
            if (height, width) not in offered:
                known = ", ".join(f"{h}x{w}" for h, w in offered)
                raise UserError(f"{self._model.id} offers no map of {height}x{width}; pick of {known}.")
        self.sizes = tuple(sizes)
        self._plan = [offered.index(size) for size in self.sizes]


class RedrawingMaps(MapSession):
    """A `RedrawingSession`: cells of the current map can be drawn again, by the mask branch and without guidance."""

    def redraw(self, partial_N: Sequence[int]) -> Tensor:
        """See `RedrawingSession.redraw`; float32 at least. Raises UserError if the model returns no numbers."""
        net, current = self._model.net, [self._map(self.at)]
        told_N = torch.tensor(list(partial_N), device=net.device)
        with self._meter.call(len(CHOICES) + len(partial_N)), torch.inference_mode():
            raw_NV = self._model.packs.redrawing.logits(self._asked_BA, current, PackedCache(net, 1), told_N)[0]
        held = self._held() or [UNKNOWN] * len(partial_N)
        return self._settled(raw_NV, [old if old != UNKNOWN else new for old, new in zip(partial_N, held, strict=True)])


class Packs:
    """A net as sessions run it, packed when it is first asked for; a model and its guided twins share one."""

    def __init__(self, net: Scales) -> None:
        self._net = net

    @cached_property
    def drawing(self) -> PackedScales:
        """What draws a map first."""
        return PackedScales(self._net)

    @cached_property
    def redrawing(self) -> PackedScales:
        """The mask branch."""
        return PackedScales(self._net, redraws=True)


class ScaleModel:
    """Loaded weights of a model of maps. Shared by all sessions, never written.

    Args:
        guidance: None runs one sequence alone. packs: of the net, where it has them already.
    """

    def __init__(
        self,
        model_id: str,
        net: Scales,
        codec: ScaleCodec,
        guidance: Guidance | None = None,
        packs: Packs | None = None,
    ) -> None:
        assert codec.pyramid.fingerprint == net.pyramid.fingerprint, "a codec of other maps"
        self.id = model_id
        self.net = net
        self.codec = codec
        self.num_params = net.num_params
        self.guidance = guidance
        self.packs = packs or Packs(net)
        self.context = codec.length
        offered: dict[type, bool] = {
            ScaleSession: True,
            FlexibleSession: net.config.kind == "flat" and not net.config.markov,
            RedrawingSession: net.config.redraws > 0,
        }
        self.speaks: frozenset[type] = frozenset(protocol for protocol, speaks in offered.items() if speaks)

    def open(self, protocol: type, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> MapSession:
        """A session on a prompt of the image codec; cells of a given picture stay."""
        assert protocol in self.speaks, protocol
        kinds: dict[type, type[MapSession]] = {FlexibleSession: FlexibleMaps, RedrawingSession: RedrawingMaps}
        return kinds.get(protocol, MapSession)(self, prompt, sampling, meter)


def guided(model: ScaleModel, scale: float, schedule: Schedule | None = None, first: int | None = None) -> ScaleModel:
    """The model under guidance that grows from map to map, up to this scale; see above.

    Args:
        scale: S, from 0 (conditions left open in the last map) over 1 (the model itself, at twice the rows) to 20.
        schedule: how it grows; "linear" by default. first: maps that have any, the others are one sequence.

    Raises UserError for another scale, for more maps than there are, and for a model that is guided already.
    """
    check_scale(scale, model.id, model.guidance is not None)
    offered = len(model.net.pyramid.sizes)
    if first is not None and not 1 <= first <= offered:
        raise UserError(f"{model.id} has {offered} maps, but the first {first} are to be guided; name 1 to {offered}.")
    named = "".join((f"-{schedule}" if schedule else "", f"-first{first}" if first is not None else ""))
    guidance = Guidance(scale, schedule or "linear", first)
    return ScaleModel(f"{model.id}@cfg={scale:g}{named}", model.net, model.codec, guidance, model.packs)


def load_scales(model_id: str, path: Path, dtype: torch.dtype, device: torch.device | str = "cpu") -> ScaleModel:
    """A model of a file of `house.scales.save_scales`, its weights in dtype.

    Raises UserError if there is no such file, and if it was trained with other codes than those that ship.
    """
    net = read_scales(path, device).to(dtype)
    return ScaleModel(model_id, net, ScaleCodec(net.pyramid))
