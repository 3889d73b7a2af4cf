"""Segments of a series as the words of a frozen language model: one linear map in, one out, nothing else is trained.

Liu et al. 2024 (2402.02370), AutoTimes. The trunk is our model of short stories; its file is its own, and this one
holds the two maps and a vector that tells the series from examples in front of it. Timestamps are not read.

Shape letters: B windows, N segments, P values of a segment, C features of the trunk.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from backend.models.house.llama import Llama


@dataclass(frozen=True, slots=True)
class SegmentsConfig:
    """Sizes. segment: P. lookback: segments of the series that are read. example: segments of one example, the last of
    them its answer.
    """

    segment: int = 24
    lookback: int = 4
    example: int = 3


class Segments(nn.Module):
    """The two maps about a trunk, which is no part of the weights."""

    def __init__(self, config: SegmentsConfig, trunk: Llama) -> None:
        super().__init__()
        self.config = config
        width = trunk.config.dim
        self.into = nn.Linear(2 * config.segment, width)
        self.kind_2C = nn.Parameter(torch.zeros(2, width))
        self.out = nn.Linear(width, config.segment)
        nn.init.zeros_(self.out.bias)
        nn.init.normal_(self.into.weight, std=0.04)  # as large as the words that the trunk knows
        nn.init.normal_(self.out.weight, std=0.3 * width**-0.5)
        self._trunk = [trunk]  # in a list: not a module of this one

    @property
    def trunk(self) -> Llama:
        """The frozen language model."""
        return self._trunk[0]

    def forward(self, values_BNP: Tensor, known_BNP: Tensor, shown: int = 0) -> Tensor:
        """The segment that is expected behind each one. [B, N, P]

        Args:
            values_BNP: scaled, without gaps. known_BNP: 1 where a value was observed. shown: how many of the segments,
                the first ones, are examples.
        """
        words_BNC = self.into(torch.cat((values_BNP, known_BNP), -1))
        own_N = (torch.arange(values_BNP.shape[1], device=values_BNP.device) >= shown).long()
        found_BNP: Tensor = self.out(self.trunk.features(words_BNC + self.kind_2C[own_N]))
        return found_BNP

    @property
    def num_params(self) -> int:
        """Number of trained weights; the trunk's are its own."""
        return sum(p.numel() for p in self.parameters())


def save_segments(path: Path, model: Segments) -> None:
    """Write the two maps in float32."""
    state = {name: w.detach().cpu().float().contiguous() for name, w in model.state_dict().items()}
    save_file(state, path, metadata={"kind": "segments", "config": json.dumps(asdict(model.config))})


def read_segments(path: Path, trunk: Llama, device: torch.device | str = "cpu") -> Segments:
    """The maps of a file of `save_segments` about a trunk on the same device, in float32."""
    with safe_open(path, framework="pt", device=str(device)) as file:
        config = SegmentsConfig(**json.loads(file.metadata()["config"]))
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    model = Segments(config, trunk).to(device)
    model.load_state_dict(state)
    return model.eval().requires_grad_(False)
