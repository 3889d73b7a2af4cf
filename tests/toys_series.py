"""Tiny models of series as tokens with random weights, and runs of them through the real runner."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from backend.codecs.bins import SIZE
from backend.models.house.llama import Llama, LlamaConfig
from backend.models.house.strip import Strip
from backend.models.series_tokens import SeriesMaskedModel, SeriesTokenModel, numbers_only
from backend.run import record
from backend.trace import Trace
from backend.types import Request, Sampling
from tests.toys_raster import Painters

HORIZON = 24
WAVE = [round(10 + 3 * math.sin(2 * math.pi * t / 8) + 0.1 * (t % 5), 3) for t in range(60)]
PROMPT = {"y": WAVE, "season": 8}
GAPPED = {"y": [None if t in (7, 20, 21, 22) else y for t, y in enumerate(WAVE)], "season": 8}
WARM = Sampling(temperature=1.0)


def net(seed: int = 0, extra_inputs: int = 0, sharpness: float = 0.5) -> Llama:
    """Random weights, unpacked. sharpness: size of the embedding's numbers, so of differences between logits."""
    torch.manual_seed(seed)
    made = Llama(LlamaConfig(SIZE, 16, 2, 2, 2, 8, 24, 128, 1000.0, extra_inputs=extra_inputs))
    for name, weight in made.named_parameters():
        if weight.dim() == 2:
            torch.nn.init.normal_(weight, std=sharpness if "embed" in name else 0.4)
    return made


def continuer(
    name: str = "toy/continuer", seed: int = 0, like: Llama | None = None, share: float = 0.0, wide: bool = True
) -> SeriesTokenModel:
    """A causal model. like, share: moves its weights that part of the way to those of another one of its size."""
    made = net(seed)
    if like is not None:
        with torch.no_grad():
            for own, other in zip(made.parameters(), like.parameters(), strict=True):
                own.lerp_(other, share)
    packed = made.pack(torch.float64 if wide else torch.float32)
    return SeriesTokenModel(name, numbers_only(packed), packed.num_params)


def filler(name: str = "toy/filler", seed: int = 0) -> SeriesMaskedModel:
    """A masked model, in float64."""
    packed = net(seed, extra_inputs=1).pack(torch.float64)
    return SeriesMaskedModel(name, Strip(numbers_only(packed)), packed.num_params)


def continued(
    strategy: str,
    models: Sequence[Any],
    raw: Any = PROMPT,
    budget: int = HORIZON,
    sampling: Sampling = WARM,
    seed: int = 3,
    **knobs: Any,
) -> Trace:
    """The trace of a run through the real runner: the first model is the target, the last one plays other roles."""
    request = Request(strategy, raw, {"target": models[0].id}, knobs, sampling, budget, seed)
    return record(request, Painters(*models))  # type: ignore[arg-type]
