"""Weights in files: matrices in whole numbers of 8 or 6 bits with a step for each row and group of columns.

Six bits are codes of the whole numbers from -31 to 31, four of them in three bytes, the first in the lowest bits.

Letters: O rows, I columns, G groups of columns, B bytes of a row.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

STEP = ".step"  # ending of the name of a matrix's steps
GROUP = 64  # columns that share a step, where a matrix has a multiple of them; else all do
LEAST = 1e-12  # step of a group of zeros
MIDDLE = 32  # six-bit code of the whole number 0; code 0 fills up the last three bytes of a row


def in_bytes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state with every matrix rounded to int8, and its steps [O, G] float32 beside it; other tensors unchanged."""
    return in_bits(state, 8)


def in_bits(state: Mapping[str, Tensor], bits: int = 6, finer: Collection[str] = ()) -> dict[str, Tensor]:
    """The state with every matrix rounded to `bits` bits, 6 or 8 (8: as `in_bytes`).

    Six bits are uint8 [O, B] with B = 3 ceil(I / 4), their steps bfloat16. finer: names of matrices that take 8 bits
    in any case. Raises ValueError for other numbers of bits.
    """
    if bits not in (6, 8):
        raise ValueError(f"weights can be stored in 6 or 8 bits, not in {bits}")
    out: dict[str, Tensor] = {}
    for name, weight in state.items():
        if weight.dim() == 2:
            weight, out[name + STEP] = _stored(weight.float(), 8 if name in finer else bits)
        out[name] = weight.contiguous()
    return out


def from_bytes(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `in_bytes` or `in_bits` was given, its matrices as float32; a state that holds neither comes back as it is.

    Steps may be [O], too: one for each row.
    """
    steps = {name.removesuffix(STEP): step for name, step in stored.items() if name.endswith(STEP)}
    weights = {name: weight for name, weight in stored.items() if not name.endswith(STEP)}
    return {name: _scaled(w, steps[name]) if name in steps else w for name, w in weights.items()}


def _stored(weight_OI: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """A matrix as files hold it, and its steps [O, G]."""
    most = 2 ** (bits - 1) - 1
    size = GROUP if weight_OI.shape[1] % GROUP == 0 else weight_OI.shape[1]
    parts_OGI = weight_OI.reshape(len(weight_OI), -1, size)
    step_OG1 = (parts_OGI.abs().amax(dim=2, keepdim=True) / most).clamp_min(LEAST)
    if bits == 6:
        step_OG1 = step_OG1.to(torch.bfloat16)
    whole_OI = (parts_OGI / step_OG1.float()).round().to(torch.int8).flatten(1)
    return whole_OI if bits == 8 else _packed(whole_OI), step_OG1.squeeze(2).contiguous()


def _packed(whole_OI: Tensor) -> Tensor:
    """Whole numbers from -31 to 31 as uint8 [O, B]."""
    code_OI = F.pad(whole_OI + MIDDLE, (0, -whole_OI.shape[1] % 4)).to(torch.uint8)
    a, b, c, d = code_OI.reshape(len(code_OI), -1, 4).unbind(2)
    return torch.stack((a | b << 6, b >> 2 | c << 4, c >> 4 | d << 2), dim=2).flatten(1)


def _unpacked(byte_OB: Tensor) -> Tensor:
    """The whole numbers int8 [O, I] of `_packed`."""
    x, y, z = byte_OB.reshape(len(byte_OB), -1, 3).unbind(2)
    code_OI = torch.stack((x, x >> 6 | y << 2, y >> 4 | z << 4, z >> 2), dim=2).flatten(1) & 63
    columns = int(code_OI[0].count_nonzero())
    return code_OI[:, :columns].to(torch.int8) - MIDDLE


def _scaled(stored: Tensor, step: Tensor) -> Tensor:
    whole_OI = _unpacked(stored) if stored.dtype == torch.uint8 else stored
    rows = len(whole_OI)
    step_OG1 = step.float().reshape(rows, -1, 1)
    return (whole_OI.float().reshape(rows, step_OG1.shape[1], -1) * step_OG1).flatten(1)
