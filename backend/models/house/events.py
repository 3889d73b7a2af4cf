"""A point process in a causal transformer: from past events to a mixture of log-normal laws of the next one.

It was never told which process it sees: what it knows of it, it reads off the events. Half of each head's rotary pairs
turn with time and half with the number of the event. Times are in units of the mean gap of the history.

Letters: B sequences, T events, C features, H heads, D numbers of a head, P pairs, M parts of a mixture, V kinds.
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
from backend.models.house.forecaster import Reader
from backend.models.house.layers import Norm, rotate
from backend.models.house.llama import Block, LlamaConfig
from backend.protocols import EventLaw

FASTEST, SLOWEST = 4.0, 0.05  # radians a unit of time of the rotary pairs that turn with it; the others, an event
LEAST_GAP = 1e-7  # shorter gaps are read as this one
WIDEST = 1.5  # of the log of a spread, about 0.3 below 0


@dataclass(frozen=True)
class EventConfig:
    """Sizes. parts: M. kinds: most kinds V that it can tell apart. window: events that a layer looks back on."""

    dim: int
    num_layers: int
    num_heads: int
    ffn_dim: int
    parts: int
    kinds: int = 4
    window: int = 96

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
            context=1 << 20,
        )


class EventNet(nn.Module):
    """The network."""

    speed_P: Tensor

    def __init__(self, config: EventConfig) -> None:
        super().__init__()
        self.config = config
        self.read = Reader(3 + 2 * config.kinds, config.dim)
        self.blocks = nn.ModuleList(Block(config.llama) for _ in range(config.num_layers))
        self.norm = Norm(config.dim, config.llama.norm_eps)
        self.law = Reader(config.dim, config.parts * (3 + config.kinds))
        self.centre_M = nn.Parameter(torch.linspace(-3.0, 1.5, config.parts))
        self.register_buffer("speed_P", speeds(config.dim // config.num_heads), persistent=False)
        for head in (self.law.down, self.law.straight):
            nn.init.normal_(head.weight, std=0.01)
            nn.init.zeros_(head.bias)

    @property
    def num_params(self) -> int:
        """Number of weights."""
        return sum(weight.numel() for weight in self.parameters())

    def forward(self, gaps_BT: Tensor, kinds_BT: Tensor, num_kinds_B: Tensor) -> EventLaw:
        """Laws [B, T] of the event behind each. gaps: NaN where unknown. Differentiable, float32."""
        h_BTC = self.read(told(gaps_BT, kinds_BT, num_kinds_B, self.config.kinds))
        count = gaps_BT.shape[1]
        at_T = torch.arange(count, device=gaps_BT.device)
        turn_BT1P = turns(gaps_BT.nan_to_num().double().cumsum(1), at_T.expand_as(gaps_BT), self.speed_P)
        back_TT = at_T[:, None] - at_T
        seen_TT = (back_TT >= 0) & (back_TT < self.config.window)
        for block in self.blocks:
            assert isinstance(block, Block)
            h_BTC = _layer(block, h_BTC, turn_BT1P, seen_TT)
        return self.laws(self.norm(h_BTC), num_kinds_B)

    def laws(self, h_BTC: Tensor, num_kinds_B: Tensor) -> EventLaw:
        """Laws behind events with these features."""
        return read_law(self.law(h_BTC), self.centre_M, num_kinds_B, self.config)


def _layer(block: Block, h_BTC: Tensor, turn_BT1P: Tensor, seen_TT: Tensor) -> Tensor:
    """One layer of which every event sees those of a window."""
    heads_BT3HD = block.qkv(block.attn_norm(h_BTC)).unflatten(-1, (3, block.config.num_heads, -1))
    q, k, v = heads_BT3HD.unbind(2)
    q, k = (rotate(x, turn_BT1P).transpose(1, 2) for x in (q, k))
    mixed_BHTD = F.scaled_dot_product_attention(q, k, v.transpose(1, 2), seen_TT)
    h_BTC = h_BTC + block.out(mixed_BHTD.transpose(1, 2).flatten(2))
    gate, up = block.gate_up(block.ffn_norm(h_BTC)).chunk(2, dim=-1)
    out: Tensor = h_BTC + block.down(F.silu(gate) * up)
    return out


def speeds(width: int) -> Tensor:
    """Radians of every rotary pair of a head: the first half a unit of time, the others an event. [P]"""
    half = width // 4
    speed_P = torch.logspace(math.log10(FASTEST), math.log10(SLOWEST), half)
    return torch.cat((speed_P, torch.logspace(0.0, math.log10(SLOWEST), width // 2 - half)))


def turns(time_BT: Tensor, at_BT: Tensor, speed_P: Tensor) -> Tensor:
    """Complex turns [B, T, 1, P] of events at these times with these numbers."""
    half = len(speed_P) // 2
    speed_P = speed_P.double()
    angle_BTP = torch.cat((time_BT[..., None] * speed_P[:half], at_BT[..., None].double() * speed_P[half:]), -1)
    angle_BTP = torch.remainder(angle_BTP, 2 * math.pi).to(torch.float32)
    return torch.polar(torch.ones_like(angle_BTP), angle_BTP)[..., None, :]


def told(gaps_BT: Tensor, kinds_BT: Tensor, num_kinds_B: Tensor, kinds: int) -> Tensor:
    """What is read of events: their gaps in two forms, whether they are known, the kind, and how many kinds there are.

    [B, T, 3 + 2 V], in the type of the gaps.
    """
    known_BT = torch.isfinite(gaps_BT)
    gap_BT = torch.where(known_BT, gaps_BT, 1.0).clamp_min(LEAST_GAP)
    numbers = torch.stack((gap_BT.log() / 2, torch.exp(-gap_BT), known_BT.to(gap_BT.dtype)), -1)
    kind = F.one_hot(kinds_BT, kinds).to(gap_BT.dtype)
    size = F.one_hot(num_kinds_B - 1, kinds).to(gap_BT.dtype)[:, None].expand_as(kind)
    return torch.cat((numbers, kind, size), -1)


def read_law(out: Tensor, centre_M: Tensor, num_kinds_B: Tensor, config: EventConfig) -> EventLaw:
    """What the head says, [B, T, M (3 + V)], as laws. Kinds that the process does not have, have probability 0."""
    part = out.view(*out.shape[:-1], config.parts, 3 + config.kinds)
    log_spread = WIDEST * torch.tanh(part[..., 2] / WIDEST) - 0.3
    absent_BV = torch.arange(config.kinds, device=out.device) >= num_kinds_B[:, None]
    log_kind = part[..., 3:].masked_fill(absent_BV[:, None, None], -torch.inf).log_softmax(-1)
    return EventLaw(part[..., 0].log_softmax(-1), centre_M + part[..., 1], log_spread.exp(), log_kind)


# ----------------------------------------------------------------------------------------------------------- in files
def save_events(path: Path, model: EventNet, bits: int = 8) -> None:
    """Write a model, its matrices in so many bits; see `rounded`."""
    state = {name: weight.detach().float().cpu() for name, weight in model.state_dict().items()}
    save_file(
        rounded.in_bits(state, bits), path, metadata={"kind": "events", "config": json.dumps(asdict(model.config))}
    )


def read_events(path: Path, device: torch.device | str = "cpu") -> EventNet:
    """The model of a file of `save_events`, float32. Raises UserError if there is no such file."""
    if not path.is_file():
        raise UserError(
            f"There is no model of events at {path.name}: train it with python -m backend.train.forecast.events."
        )
    with safe_open(path, framework="pt", device=str(device)) as file:
        config = json.loads(file.metadata()["config"])
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    model = EventNet(EventConfig(**config)).to(device)
    model.load_state_dict(rounded.from_bytes(state))
    return model.eval()
