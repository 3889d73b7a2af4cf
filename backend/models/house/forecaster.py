"""A causal transformer over patches of a series: normal laws of the next patches, and quantiles of whole horizons.

A patch is P values. Every patch is read together with the few before it, so that seasons of that length are seen at
once; values are relative to the last observed one of their patch where heads write them, so that levels need not be
learned. Noise inside a patch is an autoregression: e_i = rho e_{i-1} + s_i w_i, w standard normal, so the factor of its
covariance is s_j rho^(i-j), smooth paths cost no more than jagged ones, and a random walk (rho = 1) is a case of it.

Letters: B batch (or paths), N patches, P values of a patch, C features, A patches behind the next one, Q quantile
levels, H steps, D numbers of an attention head, M cache slots.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from backend.errors import UserError
from backend.models.house import rounded
from backend.models.house.layers import Norm, rotary_speeds, rotary_turns
from backend.models.house.llama import Block, LlamaConfig
from backend.protocols import EchoLaw

LEVELS = (0.05, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 0.95)  # of the quantile heads
THETA = 1000.0  # of the rotary angles: 64 patches are few
SLOWEST, WIDEST = -6.5, 3.5  # log-scales lie between


@dataclass(frozen=True, slots=True)
class ForecasterConfig:
    """Sizes.

    Args:
        patch: P. context: most observed steps that are read. window: patches that are read together. reach: A.
        sizes: patches that each quantile head gives, ascending; none for a drafter. clock: rows of a call are cut
        into patches from their end, so that the last is full.
    """

    patch: int
    dim: int
    num_layers: int
    num_heads: int
    ffn_dim: int
    context: int = 512
    window: int = 3
    reach: int = 3
    sizes: tuple[int, ...] = (1, 2, 4, 8)

    @property
    def llama(self) -> LlamaConfig:
        """The trunk as a member of the Llama family; it has no vocabulary."""
        return LlamaConfig(
            vocab_size=0,
            dim=self.dim,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            num_kv_heads=self.num_heads,
            head_dim=self.dim // self.num_heads,
            ffn_dim=self.ffn_dim,
            context=4 * self.context // self.patch,
            rope_theta=THETA,
        )


@dataclass(frozen=True, slots=True)
class Laws:
    """Normal laws of patches as heads give them: means and innovation scales [..., P], one rho for each patch [...]."""

    mean_P: Tensor
    log_scale_P: Tensor
    rho: Tensor

    def negative_log_density(self, x_P: Tensor, bound: float = math.inf) -> Tensor:
        """Of every value given those before it in its patch, [..., P]; NaN where the value is missing.

        An innovation behind a missing value is taken for one behind 0. bound: innovations beyond it cost linearly.
        """
        known_P = torch.isfinite(x_P)
        gap_P = torch.where(known_P, x_P - self.mean_P, 0.0)
        before_P = F.pad(gap_P[..., :-1], (1, 0))
        w_P = (gap_P - self.rho[..., None] * before_P) * torch.exp(-self.log_scale_P)
        size_P = w_P.abs()
        cost_P = torch.where(size_P <= bound, 0.5 * w_P.square(), bound * size_P - 0.5 * min(bound, 1e9) ** 2)
        out_P = cost_P + self.log_scale_P + 0.5 * math.log(2 * math.pi)
        return torch.where(known_P, out_P, torch.nan)

    def divergence(self, other: Laws) -> Tensor:
        """KL(self || other) in nats, [...], in closed form."""
        variance = torch.exp(2 * self.log_scale_P)
        spread_P, last = [], torch.zeros_like(self.rho)
        for i in range(variance.shape[-1]):  # variance of the error in front of each value
            spread_P.append(last)
            last = self.rho.square() * last + variance[..., i]
        gap_P = self.mean_P - other.mean_P
        d_P = gap_P - other.rho[..., None] * F.pad(gap_P[..., :-1], (1, 0))
        d_P = d_P.square() + (self.rho - other.rho).square()[..., None] * torch.stack(spread_P, -1) + variance
        ratio_P = d_P * torch.exp(-2 * other.log_scale_P)
        return (0.5 * ratio_P + other.log_scale_P - self.log_scale_P - 0.5).sum(-1)

    def patch_law(self, temperature: float = 1.0) -> EchoLaw:
        """The same in float64 on the CPU."""
        mean_P, log_scale_P, rho = (x.detach().cpu().double() for x in (self.mean_P, self.log_scale_P, self.rho))
        return EchoLaw(mean_P, log_scale_P.exp() * temperature, rho)


class Reader(nn.Module):
    """Windows of patches, values and whether they are observed, to features: a residual net."""

    def __init__(self, inputs: int, dim: int) -> None:
        super().__init__()
        self.straight = nn.Linear(inputs, dim)
        self.up = nn.Linear(inputs, 2 * dim)
        self.down = nn.Linear(2 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """[..., inputs] -> [..., C]."""
        out: Tensor = self.straight(x) + self.down(F.silu(self.up(x)))
        return out


class Quantiles(nn.Module):
    """Quantiles of the next H steps: a median and a width on either side for every step, a shape for the head.

    Levels cannot cross: shapes grow away from the median and widths are positive.
    """

    def __init__(self, dim: int, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.read = nn.Linear(dim, 3 * steps)
        z = torch.special.ndtri(torch.tensor(LEVELS, dtype=torch.float64))
        gaps = z[z > 1e-9].diff(prepend=torch.zeros(1, dtype=torch.float64)).float()
        self.grow = nn.Parameter(torch.log(torch.expm1(gaps)).repeat(2, 1).reshape(2, -1))  # below, above

    def forward(self, h_BC: Tensor, base_B: Tensor) -> Tensor:
        """[..., C], last observed values [...] -> [..., Q, H]."""
        middle, below, above = self.read(h_BC).unflatten(-1, (3, self.steps)).unbind(-2)
        shape_2K = F.softplus(self.grow).cumsum(-1)[..., None]
        middle = (base_B[..., None] + middle)[..., None, :]
        down, up = (bounded(x)[..., None, :].exp() for x in (below, above))
        return torch.cat((middle - (down * shape_2K[0]).flip(-2), middle, middle + up * shape_2K[1]), -2)


class Forecaster(nn.Module):
    """The network. Values are in model units throughout, NaN where missing."""

    speed_P: Tensor

    def __init__(self, config: ForecasterConfig) -> None:
        super().__init__()
        self.config = config
        self.read = Reader(2 * config.window * config.patch, config.dim)
        self.blocks = nn.ModuleList(Block(config.llama) for _ in range(config.num_layers))
        self.norm = Norm(config.dim, config.llama.norm_eps)
        self.law = Reader(config.dim, (1 + config.reach) * (2 * config.patch + 1))
        self.quantiles = nn.ModuleList(Quantiles(config.dim, size * config.patch) for size in config.sizes)
        self.register_buffer("speed_P", rotary_speeds(config.dim // config.num_heads, THETA), persistent=False)
        reads = [head.read for head in self.quantiles if isinstance(head, Quantiles)]
        for head in (self.law.down, self.law.straight, *reads):
            nn.init.normal_(head.weight, std=0.01)
            nn.init.zeros_(head.bias)

    @property
    def num_params(self) -> int:
        """Number of weights."""
        return sum(weight.numel() for weight in self.parameters())

    def forward(self, patches_BNP: Tensor) -> tuple[Tensor, Tensor]:
        """Features [B, N, C] behind every patch, differentiable, and its last observed value [B, N]."""
        wide_BNP = F.pad(patches_BNP, (0, 0, self.config.window - 1, 0), value=torch.nan)
        inputs_BNI = told(wide_BNP.unfold(1, self.config.window, 1).transpose(2, 3).flatten(2))
        h_BNC = self.read(inputs_BNI)
        turn_N1P = rotary_turns(torch.arange(h_BNC.shape[1], device=h_BNC.device), self.speed_P, torch.float32)
        with torch.autocast(h_BNC.device.type, torch.bfloat16, enabled=self.training):
            for block in self.blocks:
                h_BNC = block(h_BNC, turn_N1P)
        return self.norm(h_BNC.float()), last_known(patches_BNP)

    def laws(self, h_BNC: Tensor, base_BN: Tensor, ahead: int | None = None) -> Laws:
        """Laws of the next patch and of `ahead` patches (all A if None) behind it, [B, N, 1 + ahead]."""
        return read_laws(self.law(h_BNC), base_BN, self.config.patch, self.config.reach if ahead is None else ahead)


def bounded(x: Tensor) -> Tensor:
    """A log-scale from a number: smoothly between SLOWEST and WIDEST, near x - 1 around there."""
    half = (WIDEST - SLOWEST) / 2
    return half * torch.tanh(x / half) + (WIDEST + SLOWEST) / 2


def read_laws(out: Tensor, base: Tensor, patch: int, ahead: int) -> Laws:
    """What a law head says, [..., (1 + A) (2 P + 1)], as laws [..., 1 + ahead]."""
    part = out.view(*out.shape[:-1], -1, 2 * patch + 1)[..., : ahead + 1, :]
    mean, log_scale, rho = part[..., :patch], part[..., patch:-1], part[..., -1]
    return Laws(base[..., None, None] + mean, bounded(log_scale), torch.tanh(rho))


def told(values: Tensor) -> Tensor:
    """What is read of values [..., I] with gaps: the values with 0 in gaps, and which are observed. [..., 2 I]"""
    known = torch.isfinite(values)
    return torch.cat((torch.where(known, values, 0.0), known.to(values.dtype)), -1)


def last_known(patches_P: Tensor) -> Tensor:
    """The last observed value of every patch [..., P], 0 where it has none."""
    known = torch.isfinite(patches_P)
    place = torch.where(known, torch.arange(1, patches_P.shape[-1] + 1, device=patches_P.device), 0).amax(-1)
    value = patches_P.gather(-1, (place - 1).clamp_min(0)[..., None])[..., 0]
    return torch.where(place > 0, value, 0.0)


# ----------------------------------------------------------------------------------------------------------- in files
def save_forecaster(path: Path, model: Forecaster, bits: int = 8) -> None:
    """Write a model, its matrices in 8 or 6 bits, see `rounded`; those that laws are read with, in float16."""
    state = {name: weight.detach().float().cpu() for name, weight in model.state_dict().items()}
    laws = {name: weight.half() for name, weight in state.items() if name.startswith("law.")}
    others = {name: weight for name, weight in state.items() if name not in laws}
    stored = laws | rounded.in_bits(others, bits, finer=[name for name in others if name.startswith("read.")])
    save_file(stored, path, metadata={"kind": "forecaster", "config": json.dumps(asdict(model.config))})


def read_forecaster(path: Path, device: torch.device | str = "cpu") -> Forecaster:
    """The model of a file of `save_forecaster`, float32. Raises UserError if there is no such file."""
    if not path.is_file():
        raise UserError(
            f"There is no forecaster at {path.name}: train it with python -m backend.train.forecast.patches."
        )
    with safe_open(path, framework="pt", device=str(device)) as file:
        config = json.loads(file.metadata()["config"])
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    model = Forecaster(ForecasterConfig(**{**config, "sizes": tuple(config["sizes"])})).to(device)
    model.load_state_dict(rounded.from_bytes(state))
    return model.eval()
