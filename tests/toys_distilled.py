"""A student of the toy of maps that is exact as far as it sees ahead, and so known in closed form.

Codes lie on a line, where the flow from noise to codes keeps the order: the token of a slot is where the noise's share
of the normal law falls among p.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from backend.meter import Meter
from backend.protocols import DistilledSession, Prompt
from backend.types import Sampling
from tests.toys import Counting, Toy, ToyCodec, ToyScale


class ToyDistilled(Toy):
    """A student of `teacher`.

    ahead: how many scales it tells from its own tokens; those further on are told as if coarser ones were still at 0.
    """

    def __init__(self, model_id: str = "toy/distilled", seed: int = 5, ahead: int = 99, **options: Any) -> None:
        self.teacher = ToyScale("toy/teacher", seed, **options)
        codec = ToyCodec("image", f"toy-{self.teacher.size}", size=self.teacher.size, least=0)
        super().__init__(model_id, DistilledSession, codec, self.teacher.context)
        self.sizes = self.teacher.sizes
        self.ahead = ahead

    def make(self, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> ToyDistilledSession:
        return ToyDistilledSession(self, meter)


class ToyDistilledSession(Counting):
    """A distilled session on the teacher's tables. `asked` holds the known tokens of every call."""

    dims = 1

    def __init__(self, model: ToyDistilled, meter: Meter) -> None:
        super().__init__(meter)
        self.sizes = model.sizes
        self.asked: list[tuple[int, ...]] = []
        self._model = model

    def predict(self, noise_LD: Tensor, known: Sequence[int] = ()) -> Tensor:
        """See `DistilledSession.predict`."""
        self.asked.append(tuple(known))
        self.charge(len(noise_LD))
        told, seen = list(known), 0
        for at, (height, width) in enumerate(self.sizes):
            count = height * width
            start = sum(h * w for h, w in self.sizes[:at])
            if start < len(known):
                continue
            coarser = told if seen < self._model.ahead else [*told[: len(known)], *[0] * (start - len(known))]
            p_NV = self._model.teacher.given(coarser, at)
            told += by_share(p_NV, noise_LD[start : start + count])
            seen += 1
        p_NV = torch.zeros(len(told) - len(known), self._model.teacher.size, dtype=torch.float64)
        p_NV[range(len(p_NV)), told[len(known) :]] = 1.0
        return p_NV


def by_share(p_NV: Tensor, noise_ND: Tensor) -> list[int]:
    """The tokens that one-dimensional noise is carried to."""
    share_N = (1 + torch.erf(noise_ND[:, 0].double() / math.sqrt(2))) / 2
    found = [int(torch.searchsorted(p_V.cumsum(0), x, right=True)) for p_V, x in zip(p_NV, share_N, strict=True)]
    return [min(token, p_NV.shape[1] - 1) for token in found]
