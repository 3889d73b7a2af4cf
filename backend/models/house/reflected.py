"""Guidance learned into a small net: what the guided model would say, from the state of the sequence with conditions.

After CoRe^2, Shao et al. 2025 (2503.09662), whose form for tokens is ours: a net g reads the last hidden state h given
the conditions, and the logits are those of h + g(h) through the model's own head. Trained to say what guidance of one
scale says, it needs no second sequence ("fast"). With both, l = l_g + omega (l_guided - l_g): omega 1 is plain
guidance, above 1 it goes on beyond what the net can do ("refine").

Letters: N rows of a call, M of them with logits, V vocabulary, C features.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from backend.errors import UserError
from backend.models.guided import Guided, PairCache
from backend.models.house import rounded
from backend.models.house.raster import Raster


class Reflection(nn.Module):
    """The net g: features to a change of them, [..., C] -> [..., C]; none before it is trained.

    Args:
        dim: C. width: of its hidden layer. scale: s of the guidance that it stands for, convention A.
    """

    def __init__(self, dim: int, width: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.inner = nn.Linear(dim, width)
        self.outer = nn.Linear(width, dim)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, hidden_NC: Tensor) -> Tensor:
        change_NC: Tensor = self.outer(F.gelu(self.inner(hidden_NC)))
        return change_NC


class Reflected:
    """The backbone of the fast mode: one sequence, logits as if guided."""

    def __init__(self, raster: Raster, reflection: Reflection) -> None:
        self.raster, self.reflection = raster, reflection
        self.vocab_size = raster.vocab_size
        self.context = raster.context
        self.device = raster.device

    def open_cache(self, capacity: int) -> Any:
        """See `Backbone.open_cache`."""
        return self.raster.open_cache(capacity)

    @torch.inference_mode()
    def forward_rows(
        self,
        ids_N: Tensor,
        positions_N: Tensor,
        cache: Any,
        visible_NS: Tensor | None = None,
        last: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """See `Backbone.forward_rows`."""
        raw_MV, hidden_NC = self.raster.forward_rows(ids_N, positions_N, cache, visible_NS, last)
        return self.logits(hidden_NC[len(hidden_NC) - len(raw_MV) :]), hidden_NC

    def logits(self, hidden_MC: Tensor) -> Tensor:
        """What the guided model would say, [M, V], as the net has it."""
        packed = self.raster.llama.weights()
        moved_MC = hidden_MC + self.reflection(hidden_MC.to(self.reflection.inner.weight.dtype)).to(hidden_MC.dtype)
        return packed.head(moved_MC.to(packed.dtype)).to(hidden_MC.dtype)


class Refined:
    """The backbone of the refined mode: both sequences of the guided model in one call, and the net."""

    def __init__(self, guided: Guided, reflected: Reflected, omega: float) -> None:
        assert guided.scale == reflected.reflection.scale, "the net stands for guidance of another scale"
        self.guided, self.reflected, self.omega = guided, reflected, omega
        self.vocab_size = guided.vocab_size
        self.context = guided.context
        self.device = guided.device

    def open_cache(self, capacity: int) -> PairCache:
        """See `Backbone.open_cache`."""
        return self.guided.open_cache(capacity)

    @torch.inference_mode()
    def forward_rows(
        self,
        ids_N: Tensor,
        positions_N: Tensor,
        cache: PairCache,
        visible_NS: Tensor | None = None,
        last: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """See `Backbone.forward_rows`; one call with 2 N rows."""
        raw_MV, hidden_NC = self.guided.forward_rows(ids_N, positions_N, cache, visible_NS, last)
        weak_MV = self.reflected.logits(hidden_NC[len(hidden_NC) - len(raw_MV) :])
        return torch.lerp(weak_MV, raw_MV, self.omega), hidden_NC


def save_reflection(path: Path, reflection: Reflection) -> None:
    """Write a net, its matrices in 8 bits; see `rounded`."""
    state = rounded.in_bytes({name: weight.detach().float().cpu() for name, weight in reflection.state_dict().items()})
    save_file(state, path, metadata={"scale": repr(reflection.scale)})


def read_reflection(path: Path, device: torch.device | str = "cpu") -> Reflection:
    """The net in a file of `save_reflection`, float32. Raises UserError if there is no such file."""
    if not path.is_file():
        raise UserError(
            f"{path.name} is not in {path.parent}; train it with python -m backend.train.portraits.reflect."
        )
    with safe_open(path, framework="pt", device=str(device)) as file:
        scale = float(file.metadata()["scale"])
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    state = {name: weight.float() for name, weight in rounded.from_bytes(stored).items()}
    width, dim = state["inner.weight"].shape
    reflection = Reflection(dim, width, scale).to(device)
    reflection.load_state_dict(state)
    return reflection.eval().requires_grad_(False)
