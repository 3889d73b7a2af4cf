"""Weights in files: matrices in whole numbers of one byte with a step for each row and group of columns.

Letters: O rows, I columns, G groups of columns.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

STEP = ".step"  # ending of the name of a matrix's steps
GROUP = 64  # columns that share a step, where a matrix has a multiple of them; else all do
LEAST = 1e-12  # step of a group of zeros


def in_bytes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state with every matrix rounded to int8, and its steps [O, G] float32 beside it; other tensors unchanged."""
    out: dict[str, Tensor] = {}
    for name, weight in state.items():
        if weight.dim() == 2:
            size = GROUP if weight.shape[1] % GROUP == 0 else weight.shape[1]
            parts_OGI = weight.float().reshape(len(weight), -1, size)
            step_OG1 = (parts_OGI.abs().amax(dim=2, keepdim=True) / 127).clamp_min(LEAST)
            out[name + STEP] = step_OG1.squeeze(2).contiguous()
            weight = (parts_OGI / step_OG1).round().to(torch.int8).flatten(1)
        out[name] = weight.contiguous()
    return out


def from_bytes(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `in_bytes` was given, its matrices as float32; a state that holds no bytes comes back as it is.

    Steps may be [O], too: one for each row.
    """
    steps = {name.removesuffix(STEP): step for name, step in stored.items() if name.endswith(STEP)}
    weights = {name: weight for name, weight in stored.items() if not name.endswith(STEP)}
    return {name: _scaled(w, steps[name]) if name in steps else w for name, w in weights.items()}


def _scaled(whole_OI: Tensor, step: Tensor) -> Tensor:
    rows = len(whole_OI)
    step_OG1 = step.float().reshape(rows, -1, 1)
    return (whole_OI.float().reshape(rows, step_OG1.shape[1], -1) * step_OG1).flatten(1)
