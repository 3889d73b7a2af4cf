"""Tiny painters of portraits with random weights, and a catalog of them for the real runner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from backend.codecs.image import ImageCodec
from backend.codecs.of_models import style_of_model
from backend.codecs.palette import PaletteTokenizer
from backend.codecs.styles import PIXEL, THUMBS
from backend.errors import UserError
from backend.models.house.llama import Llama
from backend.models.house.raster import Layout, Raster
from backend.models.raster import RasterModel
from backend.run import record
from backend.trace import Trace
from backend.types import Request, Sampling

PROMPT = "brown skin, short blue hair, round glasses, smile, red shirt, mint background"
PROMPTS = {PIXEL: PROMPT, THUMBS: "orange thumb, round eyes, laughing, leaning left, mint background"}
CODEC = ImageCodec(PaletteTokenizer())
LAYOUT = Layout.of(CODEC)
CELLS = 256
GREEDY = Sampling()


def prompt_for(model_id: str) -> str:
    """A prompt in the words of a model's style."""
    return PROMPTS[style_of_model(model_id)]


def painter_net(seed: int = 0, num_layers: int = 2, sharpness: float = 0.5) -> Llama:
    """Random weights, unpacked. sharpness: size of the embedding's numbers, so of differences between logits."""
    torch.manual_seed(seed)
    net = Llama(LAYOUT.config(dim=16, num_layers=num_layers, num_heads=2, ffn_dim=24))
    for name, weight in net.named_parameters():
        if weight.dim() == 2:
            torch.nn.init.normal_(weight, std=sharpness if "embed" in name else 0.4)
    return net


def painter(name: str = "toy/painter", seed: int = 0, like: Llama | None = None, share: float = 0.0) -> RasterModel:
    """A model in float64. like, share: moves its weights that part of the way to those of another one of its size."""
    net = painter_net(seed)
    if like is not None:
        with torch.no_grad():
            for own, other in zip(net.parameters(), like.parameters(), strict=True):
                own.lerp_(other, share)
    packed = net.pack(torch.float64)
    return RasterModel(name, Raster(packed, LAYOUT), CODEC, packed.num_params)


class Painters:
    """The part of `catalog.Catalog` that the runner uses, over models at hand."""

    def __init__(self, *models: RasterModel) -> None:
        self._models = {model.id: model for model in models}

    def get(self, model_id: str, progress: Callable[[str, float], None] | None = None) -> RasterModel:
        if model_id not in self._models:
            raise UserError(f"There is no model {model_id!r}; pick one of: {', '.join(self._models)}.")
        return self._models[model_id]

    def default(self, role: str, target: str) -> str:
        return list(self._models)[-1]

    def sync(self) -> None:
        return None

    def environment(self) -> dict[str, Any]:
        return {"device": "cpu", "dtype": "float64"}


def paint(
    strategy: str,
    models: Sequence[RasterModel],
    raw: Any = PROMPT,
    budget: int = CELLS,
    sampling: Sampling = GREEDY,
    **knobs: Any,
) -> Trace:
    """The trace of a run through the real runner: the first model is the target, the last one plays other roles."""
    request = Request(strategy, raw, {"target": models[0].id}, knobs, sampling, budget, seed=3)
    return record(request, Painters(*models))  # type: ignore[arg-type]
