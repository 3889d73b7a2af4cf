"""Toys of pictures whose codes look more or less alike, and of judges of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from backend.meter import Meter
from backend.protocols import CausalSession, PictureJudgeSession, PictureSession, Prompt
from backend.types import Sampling
from tests.toys import Counting, Toy, ToyCausal, ToyCausalSession, ToyCodec


class ToyPicture(ToyCausal):
    """A causal table whose codes are shades: as far apart as their numbers; two columns."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.protocol = PictureSession
        self.speaks = frozenset({PictureSession, CausalSession})

    def make(self, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> ToyPictureSession:
        return ToyPictureSession(self, prompt.tokens, sampling, meter, room)


class ToyPictureSession(ToyCausalSession):
    """A picture session on the table."""

    grid = (32, 2)

    def neighbours(self, token: int) -> tuple[Tensor, Tensor]:
        """See `PictureSession.neighbours`."""
        size = self._model.size
        others = sorted((other for other in range(size) if other != token), key=lambda other: abs(other - token))
        far = [abs(other - token) / (size - 1) for other in others]
        return torch.tensor(others), torch.tensor(far, dtype=torch.float64)


class ToyPictureJudge(Toy):
    """A judge that likes code 0: the chance is the share of cells that have it. `asked` holds what it was shown."""

    def __init__(self, model_id: str = "toy/verifier", size: int = 2) -> None:
        super().__init__(model_id, PictureJudgeSession, ToyCodec("image", f"toy-{size}", size=size, least=0))

    def make(self, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> ToyPictureJudgeSession:
        return ToyPictureJudgeSession(meter)


class ToyPictureJudgeSession(Counting):
    """A session of that judge."""

    def __init__(self, meter: Meter) -> None:
        super().__init__(meter)
        self.asked: list[tuple[tuple[int, ...], ...]] = []

    def judge(self, canvases: Sequence[Sequence[int]]) -> list[float]:
        """See `PictureJudgeSession.judge`."""
        self.asked.append(tuple(map(tuple, canvases)))
        self.charge(len(canvases))
        return [canvas.count(0) / len(canvas) for canvas in map(list, canvases)]
