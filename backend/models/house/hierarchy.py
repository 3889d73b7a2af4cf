"""Four causal transformers that read one series coarse to fine, and write its next segment together.

Liu et al. 2024 (2402.16516), GPHT. Stage k pools the series by its rate (the largest value of every few), reads one
token a segment, and says at every token what the next segment will be. What it says is taken from the series, one
segment later, before the next stage reads it: that one sees what is left. The forecast is the sum.

Shape letters: B windows, N segments, P values of a segment, T = N P, K stages, C features.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from backend.models.house import rounded
from backend.models.house.layers import Norm, rotary_speeds, rotary_turns, wide
from backend.models.house.llama import Block, LlamaConfig


@dataclass(frozen=True, slots=True)
class HierarchyConfig:
    """Sizes. segment: P. segments: most N. channels: C. rates: of pooling, one a stage; they divide P."""

    segment: int = 24
    segments: int = 12
    channels: int = 64
    layers: int = 2
    heads: int = 4
    hidden: int = 96
    rates: tuple[int, ...] = (8, 4, 2, 1)


class Stage(nn.Module):
    """One causal transformer over segments of a pooled series."""

    speed_P: Tensor

    def __init__(self, config: HierarchyConfig, rate: int) -> None:
        super().__init__()
        width = config.channels // config.heads
        sizes = LlamaConfig(
            1, config.channels, config.layers, config.heads, config.heads, width, config.hidden, 4 * config.segments
        )
        self.rate, self.segment = rate, config.segment
        self.embed = nn.Linear(2 * config.segment // rate, config.channels)
        self.blocks = nn.ModuleList(Block(sizes) for _ in range(config.layers))
        self.norm = Norm(config.channels, sizes.norm_eps)
        self.out = nn.Linear(config.channels, config.segment)
        self.register_buffer("speed_P", rotary_speeds(width, sizes.rope_theta), persistent=False)
        nn.init.normal_(self.out.weight, std=0.1 * config.channels**-0.5)
        nn.init.zeros_(self.out.bias)

    def forward(self, y_BT: Tensor, known_BT: Tensor) -> Tensor:
        """What it adds to the segment behind each one. [B, N, P]"""
        both_B2T = F.max_pool1d(torch.stack((y_BT, known_BT), 1), self.rate)
        tokens_BN = both_B2T.reshape(len(y_BT), 2, -1, self.segment // self.rate).transpose(1, 2).flatten(2)
        h_BNC = self.embed(tokens_BN)
        places_N = torch.arange(h_BNC.shape[1], device=h_BNC.device)
        turn_N1P = rotary_turns(places_N, self.speed_P.float(), wide(h_BNC.dtype))
        for block in self.blocks:
            h_BNC = block(h_BNC, turn_N1P)
        added_BNP: Tensor = self.out(self.norm(h_BNC))
        return added_BNP


class Hierarchy(nn.Module):
    """All stages."""

    def __init__(self, config: HierarchyConfig) -> None:
        super().__init__()
        self.config = config
        self.stages = nn.ModuleList(Stage(config, rate) for rate in config.rates)

    def forward(self, y_BT: Tensor, known_BT: Tensor) -> Tensor:
        """What every stage adds to the segment behind each one, [B, K, N, P]; the forecast is their sum.

        Args:
            y_BT: whole segments, scaled and without gaps. known_BT: 1 where a value was observed, else 0.
        """
        rest_BT, parts = y_BT, []
        for stage in self.stages:
            parts.append(stage(rest_BT, known_BT))
            said_BT = F.pad(parts[-1][:, :-1].flatten(1), (self.config.segment, 0))
            rest_BT = rest_BT - said_BT
        return torch.stack(parts, 1)

    @property
    def num_params(self) -> int:
        """Number of weights."""
        return sum(p.numel() for p in self.parameters())


def save_hierarchy(path: Path, model: Hierarchy) -> None:
    """Write the weights, matrices in 8 bits; see `rounded`."""
    state = rounded.in_bytes({name: w.detach().float().cpu() for name, w in model.state_dict().items()})
    save_file(state, path, metadata={"kind": "hierarchy", "config": json.dumps(asdict(model.config))})


def read_hierarchy(path: Path, device: torch.device | str = "cpu") -> Hierarchy:
    """The model of a file of `save_hierarchy`, in float32."""
    with safe_open(path, framework="pt", device=str(device)) as file:
        told = json.loads(file.metadata()["config"])
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    state = {name: weight.float() for name, weight in rounded.from_bytes(stored).items()}
    model = Hierarchy(HierarchyConfig(**told | {"rates": tuple(told["rates"])})).to(device)
    model.load_state_dict(state)
    return model.eval().requires_grad_(False)
