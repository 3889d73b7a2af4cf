"""A net that tells the noise in windows of series: residual dilated convolutions, one of each kind over the season.

Unconditional (Kollovieh et al. 2023, 2307.11494, TSDiff): no input says what is context and what is horizon. It reads a
noised window, how much noise there is, and how many steps a season has: some blocks look one season back and ahead
instead of a fixed number of steps. The last layer tells v = alpha noise - sigma window, of which the noise is made up
as sigma x + alpha v, so that nothing has to be learned where the input is nearly all noise.

Letters: B windows, L steps of a window, C channels, E features of the noise level.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from backend.errors import UserError
from backend.models.house import rounded

SEASON = 0  # instead of a number of steps between taps


@dataclass(frozen=True)
class DiffusionConfig:
    """Sizes. gaps: steps between the three taps of each block's convolution, or SEASON. noise_levels: T."""

    window: int = 256
    channels: int = 64
    embedding: int = 64
    gaps: tuple[int, ...] = (1, 2, 4, SEASON, 16, 64, SEASON, 8)
    noise_levels: int = 100
    first_beta: float = 1e-4
    last_beta: float = 0.1


class LinearBetas:
    """x_t = alpha(t) x_0 + sigma(t) noise with betas that grow linearly; see `backend.protocols.Schedule`."""

    predicts: Literal["eps", "v", "x0", "flow"] = "eps"

    def __init__(self, config: DiffusionConfig) -> None:
        betas = torch.linspace(config.first_beta, config.last_beta, config.noise_levels, dtype=torch.float64)
        self._log = [0.0, *(0.5 * (1 - betas).log().cumsum(0)).tolist()]  # log alpha of levels 0 to T

    def alpha(self, t: float) -> float:
        """Of the window; between two levels its logarithm is a straight line."""
        at = t * (len(self._log) - 1)
        low = min(int(at), len(self._log) - 2)
        return math.exp(self._log[low] + (at - low) * (self._log[low + 1] - self._log[low]))

    def sigma(self, t: float) -> float:
        """Of the noise: variances add up to 1."""
        return math.sqrt(1 - self.alpha(t) ** 2)


class Block(nn.Module):
    """Three taps, a gate, and what is added to the channels."""

    def __init__(self, config: DiffusionConfig, gap: int) -> None:
        super().__init__()
        wide = config.channels
        self.gap = gap
        self.told = nn.Linear(config.embedding, 2 * wide)
        self.whole = nn.Linear(wide, wide, bias=False)
        self.taps = nn.Linear(3 * wide, 2 * wide)
        self.out = nn.Linear(wide, wide)
        nn.init.zeros_(self.out.weight)

    def forward(self, h_BCL: Tensor, noise_BE: Tensor, seasons: Sequence[int]) -> Tensor:
        """The channels behind this block."""
        grow_B2C = self.told(noise_BE)[..., None]
        grow_BC1, shift_BC1 = grow_B2C.chunk(2, 1)
        x_BCL = h_BCL * (1 + grow_BC1) + shift_BC1 + self.whole(h_BCL.mean(-1))[..., None]
        one = len(set(seasons)) == 1
        if self.gap == SEASON and not one:
            x_BCL = torch.stack([beside(x_CL, n) for x_CL, n in zip(x_BCL, seasons, strict=True)]).flatten(1, 2)
            z_BCL = F.conv1d(x_BCL, self.taps.weight[..., None], self.taps.bias)
        else:
            gap, wide = seasons[0] if self.gap == SEASON else self.gap, x_BCL.shape[1]
            weight = self.taps.weight.view(2 * wide, wide, 3)
            z_BCL = F.conv1d(x_BCL, weight, self.taps.bias, padding=gap, dilation=gap)
        gate_BCL, value_BCL = z_BCL.chunk(2, 1)
        held_BCL = gate_BCL.sigmoid() * value_BCL.tanh()  # bounded: without norms an open gate grows without end
        return h_BCL + F.conv1d(held_BCL, self.out.weight[..., None], self.out.bias)


def beside(x_CL: Tensor, gap: int) -> Tensor:
    """What stands `gap` steps before, here and `gap` steps behind, 0 outside the window: [C, 3, L]"""
    padded_Cl = F.pad(x_CL, (gap, gap))
    length = x_CL.shape[1]
    return torch.stack((padded_Cl[:, :length], x_CL, padded_Cl[:, 2 * gap :]), 1)


class SeriesDiffusion(nn.Module):
    """The whole net."""

    rates: Tensor

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        self.config, self.schedule = config, LinearBetas(config)
        wide, told = config.channels, config.embedding
        self.register_buffer("rates", torch.logspace(-1.0, 0.5, told // 2), persistent=False)
        self.noise = nn.Sequential(nn.Linear(told, told), nn.SiLU(), nn.Linear(told, told), nn.SiLU())
        self.enter = nn.Linear(3, wide)
        self.blocks = nn.ModuleList(Block(config, gap) for gap in config.gaps)
        self.leave = nn.Sequential(nn.Linear(wide, wide), nn.SiLU(), nn.Linear(wide, 1))

    @property
    def num_params(self) -> int:
        """Number of weights."""
        return sum(weight.numel() for weight in self.parameters())

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.enter.weight.device

    def forward(self, x_BL: Tensor, alpha_B: Tensor, sigma_B: Tensor, seasons: Sequence[int]) -> Tensor:
        """The noise [B, L], float32, in windows x = alpha window + sigma noise.

        Args:
            seasons: steps of a season of each window, 1 without one; one for all where they are equal, which is
                quicker. One as long as the window counts as none.
        """
        seasons = [n if n < x_BL.shape[1] else 1 for n in seasons]
        ratio_B1 = 2 * (alpha_B.log() - sigma_B.log())[:, None]
        wave_BE = ratio_B1 * self.rates
        noise_BE = self.noise(torch.cat((wave_BE.sin(), wave_BE.cos()), 1).to(self.enter.weight.dtype))
        entered = F.conv1d(x_BL[:, None], self.enter.weight[:, None], self.enter.bias, padding=1)
        for block in self.blocks:
            entered = block(entered, noise_BE, seasons)
        v_BL: Tensor = self.leave(F.silu(entered).transpose(1, 2))[..., 0].float()
        return sigma_B[:, None] * x_BL + alpha_B[:, None] * v_BL


# ---------------------------------------------------------------------------------------------------------------- files
def save_series_diffusion(path: Path, net: SeriesDiffusion) -> None:
    """Write the net, its matrices in 8 bits; see `rounded`."""
    state = rounded.in_bytes({name: weight.detach().float().cpu() for name, weight in net.state_dict().items()})
    save_file(state, path, metadata={"config": json.dumps(asdict(net.config))})


def read_series_diffusion(path: Path, device: torch.device | str = "cpu") -> SeriesDiffusion:
    """The net of a file of `save_series_diffusion`, float32. Raises UserError if there is no such file."""
    if not path.is_file():
        raise UserError(f"There is no house model at {path}: train it with python -m backend.train.forecast.diffusion.")
    with safe_open(path, framework="pt", device=str(device)) as file:
        metadata = file.metadata()
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    sizes = json.loads(metadata["config"])
    net = SeriesDiffusion(DiffusionConfig(**{**sizes, "gaps": tuple(sizes["gaps"])})).to(device)
    net.load_state_dict(rounded.from_bytes(state))
    return net.eval().requires_grad_(False)
