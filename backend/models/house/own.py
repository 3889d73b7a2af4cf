"""Files of house models that have a vocabulary of their own: matrices of few bits, with their sizes as metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from backend.errors import UserError
from backend.models.house import rounded
from backend.models.house.llama import Llama, LlamaConfig
from backend.models.house.two_level import TwoLevel, TwoLevelConfig, TwoLevelDecoder

KINDS: dict[str, tuple[type, type]] = {"llama": (LlamaConfig, Llama), "two-level": (TwoLevelConfig, TwoLevel)}


def save_own(path: Path, model: Llama | TwoLevel, bits: float = 8) -> None:
    """Write an unpacked model, its matrices in so many bits; see `rounded`."""
    kind = next(name for name, (_, made) in KINDS.items() if isinstance(model, made))
    state = rounded.in_bits({name: weight.detach().float().cpu() for name, weight in model.state_dict().items()}, bits)
    save_file(state, path, metadata={"kind": kind, "config": json.dumps(asdict(model.config))})


def read_own(path: Path, device: torch.device | str = "cpu") -> Llama | TwoLevel:
    """The model of a file of `save_own`, float32 and not packed. Raises UserError if there is no such file."""
    if not path.is_file():
        raise UserError(f"There is no house model at {path}: train it with python -m backend.train.tales.")
    with safe_open(path, framework="pt", device=str(device)) as file:
        metadata = file.metadata()
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    config, kind = KINDS[metadata["kind"]]
    model: nn.Module = kind(config(**json.loads(metadata["config"]))).to(device)
    model.load_state_dict(rounded.from_bytes(state))
    assert isinstance(model, Llama | TwoLevel)
    return model


def load_own(
    path: Path, dtype: torch.dtype, device: torch.device | str = "cpu", twin: Mapping[str, Any] | None = None
) -> Llama | TwoLevelDecoder:
    """The same, packed for decoding in dtype. twin: sizes of the plain model that a block transformer stands beside."""
    model = read_own(path, device).pack(dtype)
    if twin and isinstance(model, TwoLevelDecoder):
        sizes = LlamaConfig(**twin)
        model.twin_row_bytes = 2 * sizes.num_layers * sizes.num_kv_heads * sizes.head_dim * dtype.itemsize
    return model
