"""A state space model of series with companion matrices: an encoder that reads the past, a decoder that feeds itself.

Zhang et al. 2023 (2303.09489), SpaceTime. A companion matrix shifts the state by one place and adds its last entry,
times a, to all: with the input at the first place it is a line of delays, and K, which reads the next input off the
state, holds the weights of an autoregression. Layers run over the past by FFT; a and K have absolute sums of at most 1.

Shape letters: B windows, L steps of the past, H horizon, C channels, D places of a state, E features of an input.
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

INPUTS = 2  # of a step: its value, and whether it was observed


@dataclass(frozen=True, slots=True)
class SpaceConfig:
    """Sizes. lag: L, the past that is read. channels: C. state: D. layers: of the encoder."""

    lag: int = 192
    channels: int = 32
    state: int = 64
    layers: int = 2


class Companion(nn.Module):
    """One linear recursion x' = A x + b u for each channel, seen as c x."""

    def __init__(self, channels: int, state: int) -> None:
        super().__init__()
        self.a_CD = nn.Parameter(0.02 * torch.randn(channels, state))
        self.b_CD = nn.Parameter(0.02 * torch.randn(channels, state) + F.one_hot(torch.tensor(0), state))
        self.c_CD = nn.Parameter(torch.randn(channels, state) * state**-0.5)

    def matrix(self) -> Tensor:
        """A of every channel, [C, D, D]: ones below the diagonal, a in the last column."""
        a_CD = bounded(self.a_CD)
        shift_DD = torch.eye(a_CD.shape[1], dtype=a_CD.dtype, device=a_CD.device).roll(1, 0)
        shift_DD = shift_DD * (torch.arange(len(shift_DD), device=a_CD.device) > 0)[:, None]
        return shift_DD + F.pad(a_CD[:, :, None], (a_CD.shape[1] - 1, 0))

    def answers(self, length: int) -> Tensor:
        """A^i b for i below length: what an input has become i steps after its own. [C, length, D]"""
        return krylov(self.matrix(), self.b_CD, length)

    def forward(self, u_BCL: Tensor) -> Tensor:
        """The output at every step of the input, [B, C, L]."""
        kernel_CL = torch.einsum("cd,cld->cl", self.c_CD, self.answers(u_BCL.shape[-1]))
        return convolved(u_BCL, kernel_CL)


class Layer(nn.Module):
    """Encoder layer: a recursion in every channel, then a small net across channels, each added to the stream."""

    def __init__(self, channels: int, state: int) -> None:
        super().__init__()
        self.space = Companion(channels, state)
        self.skip_C = nn.Parameter(torch.ones(channels))
        self.mix = nn.Linear(channels, channels)
        self.wide, self.narrow = nn.Linear(channels, 2 * channels), nn.Linear(2 * channels, channels)
        for linear in (self.mix, self.narrow):
            nn.init.normal_(linear.weight, std=0.3 * linear.in_features**-0.5)
            nn.init.zeros_(linear.bias)

    def forward(self, x_BCL: Tensor, kernel_CT: Tensor | None) -> Tensor:
        """kernel_CT: fixed filters in front of the recursion; None for none."""
        u_BCL = x_BCL if kernel_CT is None else convolved(x_BCL, kernel_CT)
        seen_BCL = self.space(u_BCL) + self.skip_C[:, None] * u_BCL
        x_BLC = x_BCL.mT + self.mix(F.gelu(seen_BCL).mT)
        out_BLC: Tensor = x_BLC + self.narrow(F.gelu(self.wide(x_BLC)))
        return out_BLC.mT


class StateSpace(nn.Module):
    """The whole model. Reads windows of values that are counted from their mean, in units of their spread."""

    kernel_CT: Tensor

    def __init__(self, config: SpaceConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Linear(INPUTS, config.channels)
        self.layers = nn.ModuleList(Layer(config.channels, config.state) for _ in range(config.layers))
        self.into = nn.Linear(config.channels, config.channels, bias=False)
        self.loop = Companion(config.channels, config.state)
        self.gain_CD = nn.Parameter(0.1 * torch.randn(config.channels, config.state))
        self.out = nn.Linear(config.channels, 1)
        nn.init.eye_(self.into.weight)
        self.register_buffer("kernel_CT", filters(config.channels), persistent=False)

    def inputs(self, y_BL: Tensor, known_BL: Tensor) -> Tensor:
        """What the decoder reads at every step, [B, C, L]."""
        x_BCL = self.embed(torch.stack((y_BL, known_BL), -1)).mT
        z_BCL = x_BCL
        for i, layer in enumerate(self.layers):
            z_BCL = layer(z_BCL, self.kernel_CT if i == 0 else None)
        inputs_BLC: Tensor = self.into(z_BCL.mT)
        return inputs_BLC.mT

    def state(self, z_BCL: Tensor) -> Tensor:
        """The state behind these inputs, [B, C, D]."""
        return torch.einsum("bcl,cld->bcd", z_BCL.flip(-1), self.loop.answers(z_BCL.shape[-1]))

    def closed(self) -> Tensor:
        """A + b K of every channel, [C, D, D]."""
        return self.loop.matrix() + self.loop.b_CD[:, :, None] * bounded(self.gain_CD)[:, None, :]

    def read(self, x_NCD: Tensor) -> Tensor:
        """The values [N] that are seen in states."""
        seen_N1: Tensor = self.out(torch.einsum("ncd,cd->nc", x_NCD, self.loop.c_CD))
        return seen_N1[:, 0]

    def unrolled(self, x_BCD: Tensor, horizon: int) -> Tensor:
        """Values [B, H] from states on, by powers of the closed loop: the rows c M^h are the same for all windows."""
        rows_CHD = krylov(self.closed().mT, self.loop.c_CD, horizon)
        seen_BH1: Tensor = self.out(torch.einsum("bcd,chd->bhc", x_BCD, rows_CHD))
        return seen_BH1[..., 0]

    def taught(self, z_BCL: Tensor) -> tuple[Tensor, Tensor]:
        """From true inputs at every step: the value [B, L] and the input [B, C, L] that are expected next."""
        answers_CLD = self.loop.answers(z_BCL.shape[-1])
        seen_BCL = convolved(z_BCL, torch.einsum("cd,cld->cl", self.loop.c_CD, answers_CLD))
        next_BCL = convolved(z_BCL, torch.einsum("cd,cld->cl", bounded(self.gain_CD), answers_CLD))
        return self.out(seen_BCL.mT)[..., 0], next_BCL

    @property
    def num_params(self) -> int:
        """Number of weights."""
        return sum(p.numel() for p in self.parameters())


def bounded(row_CD: Tensor) -> Tensor:
    """Rows with absolute sums of at most 1."""
    return row_CD / row_CD.abs().sum(-1, keepdim=True).clamp_min(1.0)


def krylov(matrix_CDD: Tensor, start_CD: Tensor, length: int) -> Tensor:
    """M^i x for i below length, by doubling. [C, length, D]"""
    out_CND, power_CDD = start_CD[:, None], matrix_CDD
    while out_CND.shape[1] < length:
        out_CND = torch.cat((out_CND, out_CND @ power_CDD.mT), 1)
        power_CDD = power_CDD @ power_CDD if out_CND.shape[1] < length else power_CDD
    return out_CND[:, :length]


def convolved(u_BCL: Tensor, kernel_CT: Tensor) -> Tensor:
    """Causal convolution of every channel with its own kernel, by FFT. [B, C, L]"""
    length = u_BCL.shape[-1]
    size = length + kernel_CT.shape[-1]
    spectrum = torch.fft.rfft(u_BCL, size) * torch.fft.rfft(kernel_CT, size)
    out_BCT: Tensor = torch.fft.irfft(spectrum, size)
    return out_BCT[..., :length]


def filters(channels: int) -> Tensor:
    """Fixed filters, [C, 16]: differences of order 0 to 3 in turn, and in every other channel what a moving average
    over 4, 8 or 16 steps leaves.
    """
    kernel_CT = torch.zeros(channels, 16)
    differences = ((1.0,), (1.0, -1.0), (1.0, -2.0, 1.0), (1.0, -3.0, 3.0, -1.0))
    for channel in range(channels):
        if channel % 2 == 0:
            weights = differences[channel // 2 % 4]
            kernel_CT[channel, : len(weights)] = torch.tensor(weights)
        else:
            width = (4, 8, 16)[channel // 2 % 3]
            kernel_CT[channel, :width] = -1.0 / width
            kernel_CT[channel, 0] += 1.0
    return kernel_CT


def save_space(path: Path, model: StateSpace) -> None:
    """Write the weights in float16, but what the recursion multiplies again and again in float32."""
    exact = ("a_CD", "b_CD", "c_CD", "gain_CD")
    state = {
        name: (w.detach().cpu().float() if name.endswith(exact) else w.detach().cpu().half()).contiguous()
        for name, w in model.state_dict().items()
    }
    save_file(state, path, metadata={"kind": "state-space", "config": json.dumps(asdict(model.config))})


def read_space(path: Path, device: torch.device | str = "cpu") -> StateSpace:
    """The model of a file of `save_space`, in float64: powers of a matrix need the digits."""
    with safe_open(path, framework="pt", device=str(device)) as file:
        config = SpaceConfig(**json.loads(file.metadata()["config"]))
        state = {name: file.get_tensor(name).double() for name in file.keys()}  # noqa: SIM118 (not a mapping)
    model = StateSpace(config).to(device, torch.float64)
    model.load_state_dict(state)
    return model.eval().requires_grad_(False)
