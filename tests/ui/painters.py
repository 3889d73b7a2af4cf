"""Painters for the screen: tiny ones with random weights and the real codecs, and a catalog of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from backend.catalog import Entry
from backend.codecs.of_models import codec_of_style
from backend.codecs.pyramid import shipped
from backend.codecs.scales import ScaleCodec
from backend.codecs.styles import THUMBS as THUMB_STYLE
from backend.errors import UserError
from backend.meter import Meter
from backend.models import masked, raster
from backend.models.house.llama import Llama
from backend.models.house.masked import Mural, config_of
from backend.models.house.raster import Layout, Raster
from backend.protocols import Prompt, ScaleSession
from backend.run import record
from backend.sampling import distribution
from backend.trace import Trace
from backend.types import Request, Sampling
from tests.toys_masked import mural
from tests.toys_raster import PROMPT, painter
from tests.ui.fakes import FakeCatalog

RASTER, DRAFT = "house/portraits", "house/portraits-draft"
MURAL, MAPS = "house/portraits-masked", "house/portraits-scales"
THUMBS, THUMB_MURAL = "house/thumbs", "house/thumbs-masked"
WARM = Sampling(temperature=1.0)


def thumbs(model_id: str, seed: int = 0) -> raster.RasterModel | masked.MaskedModel:
    """A painter of thumbs that has learned nothing: in any order where its name says so, else row by row."""
    codec, mural_too = codec_of_style(THUMB_STYLE), model_id == THUMB_MURAL
    layout, sizes = Layout.of(codec), {"dim": 16, "num_layers": 2, "num_heads": 2, "ffn_dim": 24}
    torch.manual_seed(seed)
    net = Llama(config_of(layout, **sizes) if mural_too else layout.config(**sizes))
    for name, weight in net.named_parameters():
        if weight.dim() == 2:
            torch.nn.init.normal_(weight, std=0.5 if "embed" in name else 0.4)
    packed = net.pack(torch.float64)
    if mural_too:
        return masked.MaskedModel(model_id, Mural(packed, layout), codec, packed.num_params)
    return raster.RasterModel(model_id, Raster(packed, layout), codec, packed.num_params)


class MapsSession:
    """Every map has the same random law in all its cells."""

    def __init__(self, model: MapsModel, sampling: Sampling, meter: Meter) -> None:
        self.sizes, self.at = model.codec.pyramid.sizes, 0
        self._model, self._sampling, self._meter = model, sampling, meter

    def score(self) -> torch.Tensor:
        height, width = self.sizes[self.at]
        with self._meter.call(height * width):
            time.sleep(self._model.seconds)
            raw_NV = self._model.logits_KV[self.at].expand(height * width, -1)
        return distribution(raw_NV, self._sampling, [[]] * len(raw_NV))

    def commit(self, tokens_N: Sequence[int]) -> None:
        self.at += 1


class MapsModel:
    """A model of scales that has learned nothing."""

    speaks = frozenset[type]({ScaleSession})
    num_params = 1_000

    def __init__(self, model_id: str, seconds: float = 0.0, seed: int = 0) -> None:
        self.id, self.seconds = model_id, seconds
        self.codec = ScaleCodec(shipped("area"))
        self.context = self.codec.length
        shape = (len(self.codec.pyramid.sizes), self.codec.size)
        self.logits_KV = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 2

    def open(self, protocol: type, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> MapsSession:
        return MapsSession(self, sampling, meter)


class Slow:
    """A session that takes its time for every score."""

    def __init__(self, session: Any, seconds: float) -> None:
        self.session, self.seconds, self.tokens = session, seconds, session.tokens

    def score(self, *args: Any) -> Any:
        time.sleep(self.seconds)
        return self.session.score(*args)

    def commit(self, tokens: Sequence[int]) -> None:
        self.session.commit(tokens)


class PainterCatalog(FakeCatalog):
    """The fake text models, painters of all three kinds, and two of another style."""

    def __init__(self, seconds: float = 0.0, load_seconds: float = 0.0) -> None:
        super().__init__(seconds, load_seconds)
        self._seconds = seconds / 8
        first = painter(RASTER)
        self._painters: dict[str, Any] = {
            RASTER: first,
            DRAFT: painter(DRAFT, 1),
            MURAL: mural(MURAL),
            MAPS: MapsModel(MAPS, self._seconds),
            THUMBS: thumbs(THUMBS),
            THUMB_MURAL: thumbs(THUMB_MURAL),
        }

    def entries(self) -> list[Entry]:
        kinds = {RASTER: "causal", DRAFT: "causal", MURAL: "grid", MAPS: "scale"}
        kinds |= {THUMBS: "causal", THUMB_MURAL: "grid"}
        made = [Entry(i, i, "house", "image", kind, 1000, "A fake.", True) for i, kind in kinds.items()]
        return [*super().entries(), *made]

    def get(self, model_id: str, progress: Callable[[str, float], None] | None = None) -> Any:
        base, _, scale = model_id.partition("@cfg=")
        if base not in self._painters:
            return super().get(model_id, progress)
        model = self._painters[base]
        if scale and isinstance(model, raster.RasterModel):
            model = raster.guided(model, float(scale))
        elif scale and isinstance(model, masked.MaskedModel):
            model = masked.guided(model, float(scale))
        if self._seconds and isinstance(model, raster.RasterModel):
            return _Slowed(model, self._seconds)
        return model

    def default(self, role: str, target: str) -> str:
        base, at, scale = target.partition("@")
        usual = {(RASTER, "draft"): DRAFT, (RASTER, "twin"): RASTER, (MAPS, "refiner"): MAPS}
        usual[THUMBS, "twin"] = THUMBS
        if base in self._painters:
            if (base, role) not in usual:
                raise UserError(f"There is no {role} model for {target}.")
            return usual[base, role] + at + scale
        return super().default(role, target)


class _Slowed:
    """A raster painter whose sessions are slow."""

    def __init__(self, model: raster.RasterModel, seconds: float) -> None:
        self._model, self._slow = model, seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def open(self, *args: Any) -> Slow:
        return Slow(self._model.open(*args), self._slow)


def painted(strategy: str, model: str, budget: int, prompt: Any = PROMPT, seed: int = 3, **knobs: Any) -> Trace:
    """A trace of one of these painters."""
    request = Request(strategy, prompt, {"target": model}, knobs, WARM, budget, seed)
    return record(request, PainterCatalog())  # type: ignore[arg-type]


def three() -> list[Trace]:
    """One picture of each kind: pixel by pixel, in any order, scale by scale."""
    return [
        painted("autoregressive", RASTER, 256),
        painted("confidence", MURAL, 256, steps=8),
        painted("next_scale", MAPS, 422),
    ]


def stopped(trace: Trace, steps: int) -> Trace:
    """The trace as it was after some steps."""
    return replace(trace, steps=trace.steps[:steps], end="")
