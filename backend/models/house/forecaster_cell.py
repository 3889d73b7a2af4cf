"""A drafter for a forecaster: a small recurrent cell that carries on the target's own features, patch by patch.

The target's features behind a patch hold what it expects of all that follows. The cell starts from them, reads each
patch that comes next together with how far it lies from what its own law expected, and gives the features behind it, or
nearly, without looking back at anything else: a patch costs a few products and no attention. Where no target was heard,
it starts from features of its own and reads the context from the beginning.

Letters: B batch (or rows), N patches, W patches that are read together, P values of a patch, C features, I inputs.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from backend.errors import UserError
from backend.models.house import rounded
from backend.models.house.forecaster import Forecaster, Laws, bounded

MOST = 6.0  # surprises beyond it are read as that


@dataclass(frozen=True, slots=True)
class CellConfig:
    """Sizes.

    Args:
        patch: P. dim: C, the target's. hidden: width of the gated map. head: width of the head's hidden layer.
        context: most observed steps that are read. window: W.
    """

    patch: int
    dim: int
    hidden: int
    head: int
    context: int = 512
    window: int = 2


class PatchCell(nn.Module):
    """The network. Values are in model units throughout, NaN where missing."""

    def __init__(self, config: CellConfig) -> None:
        super().__init__()
        inputs, laws = (config.window + 2) * config.patch + 1, 2 * config.patch + 1
        self.config = config
        self.start = nn.Parameter(torch.zeros(config.dim))
        self.gain = nn.Parameter(torch.ones(config.dim))
        self.up = nn.Linear(config.dim + inputs, 2 * config.hidden)
        self.down = nn.Linear(config.hidden, config.dim)
        self.straight = nn.Linear(config.dim, laws)
        self.head_up = nn.Linear(config.dim, config.head)
        self.head_down = nn.Linear(config.head, laws)
        nn.init.normal_(self.down.weight, std=0.02)
        nn.init.zeros_(self.down.bias)

    @property
    def num_params(self) -> int:
        """Number of weights."""
        return sum(weight.numel() for weight in self.parameters())

    @torch.no_grad()
    def begin_with(self, target: Forecaster) -> None:
        """Take over the target's last norm, and its head for the next patch. It must be as wide as ours."""
        self.gain.copy_(target.norm.weight)
        told = 2 * self.config.patch + 1
        pairs = ((self.straight, target.law.straight), (self.head_up, target.law.up), (self.head_down, target.law.down))
        for ours, theirs in pairs:
            count = told if ours is not self.head_up else len(theirs.weight)
            ours.weight.copy_(theirs.weight[:count])
            ours.bias.copy_(theirs.bias[:count])

    def law(self, h: Tensor, base: Tensor) -> Laws:
        """The law [...] of the patch behind features [..., C] and a last observed value [...]."""
        out, size = self.straight(h) + self.head_down(F.silu(self.head_up(h))), self.config.patch
        return Laws(base[..., None] + out[..., :size], bounded(out[..., size:-1]), torch.tanh(out[..., -1]))

    def forward(self, h: Tensor, law: Laws, window_WP: Tensor, base: Tensor) -> Tensor:
        """Features [..., C] behind one more patch.

        Args:
            h, law: features in front of it and the law that they give. window_WP: it and the patches before it,
                [..., W, P]. base: last observed value behind it, [...].
        """
        known_WP = torch.isfinite(window_WP)
        near_WP = torch.where(known_WP, window_WP - base[..., None, None], 0.0)
        gap_P = torch.where(known_WP[..., -1, :], window_WP[..., -1, :] - law.mean_P, 0.0).clamp(-MOST, MOST)
        surprise_P = gap_P - law.rho[..., None] * F.pad(gap_P[..., :-1], (1, 0))
        surprise_P = (surprise_P * torch.exp(-law.log_scale_P)).clamp(-MOST, MOST)
        told = torch.cat((h, near_WP.flatten(-2), base[..., None], gap_P, surprise_P), -1)
        gate, up = self.up(told).chunk(2, dim=-1)
        plain = h / self.gain + self.down(F.silu(gate) * up)
        return F.rms_norm(plain, plain.shape[-1:], eps=1e-5) * self.gain


@torch.no_grad()
def wider(cell: PatchCell, hidden: int) -> PatchCell:
    """The same function with more hidden features, no fewer than before; the new ones say nothing until trained."""
    before, model = cell.config.hidden, PatchCell(replace(cell.config, hidden=hidden)).to(cell.start.device)
    state, ours = cell.state_dict(), model.state_dict()
    for name in ours:
        if ours[name].shape == state[name].shape:
            ours[name].copy_(state[name])
    for half in (0, 1):  # gates, then what they let through
        ours["up.weight"][half * hidden :][:before] = state["up.weight"][half * before :][:before]
        ours["up.bias"][half * hidden :][:before] = state["up.bias"][half * before :][:before]
    ours["down.weight"].zero_()
    ours["down.weight"][:, :before] = state["down.weight"]
    return model


def windows_of(patches_BNP: Tensor, window: int) -> Tensor:
    """Every patch behind those before it, NaN in front of the series. [B, N, W, P]"""
    return F.pad(patches_BNP, (0, 0, window - 1, 0), value=torch.nan).unfold(1, window, 1).transpose(2, 3)


# ----------------------------------------------------------------------------------------------------------- in files
def save_cell(path: Path, model: PatchCell, bits: int = 8) -> None:
    """Write a model, its matrices in so many bits; see `rounded`."""
    state = {name: weight.detach().float().cpu() for name, weight in model.state_dict().items()}
    metadata = {"kind": "forecaster cell", "config": json.dumps(asdict(model.config))}
    save_file(rounded.in_bits(state, bits), path, metadata=metadata)


def read_cell(path: Path, device: torch.device | str = "cpu") -> PatchCell:
    """The model of a file of `save_cell`, float32. Raises UserError if there is no such file."""
    if not path.is_file():
        raise UserError(f"There is no drafter at {path.name}: train it with python -m backend.train.forecast.drafter.")
    with safe_open(path, framework="pt", device=str(device)) as file:
        config = CellConfig(**json.loads(file.metadata()["config"]))
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    model = PatchCell(config).to(device)
    model.load_state_dict(rounded.from_bytes(state))
    return model.eval()
