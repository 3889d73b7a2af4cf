"""Weights in files: matrices in whole numbers of a few bits, with a step for each row and group of columns.

Whole numbers are stored as bytes under a Huffman code. They are bell-shaped, so that 6 bits take about 5.6 in a file,
and 8 bits about 7.7; which of them it was, a reader need not know. Half bits are worth having for the same reason: 5.5
bits are the 45 whole numbers around zero, and take half a bit less than 6.

Letters: O rows, I columns, G groups of columns, Z bytes of a file.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping

import numpy as np
import torch
from torch import Tensor

STEP = ".step"  # ending of the name of a matrix's steps
SHAPE = ".shape"  # ending of the name of a matrix's rows and columns
GROUP = 64  # columns that share a step, where a matrix has a multiple of them; else all do
LEAST = 1e-12  # step of a group of zeros


def in_bytes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state with every matrix rounded to 8 bits; see `in_bits`."""
    return in_bits(state, 8)


def in_bits(
    state: Mapping[str, Tensor], bits: float = 6, finer: Collection[str] = (), finer_bits: float = 8
) -> dict[str, Tensor]:
    """The state with every matrix [O, I] rounded to `bits` bits, from 4 to 8 in halves; other tensors unchanged.

    A matrix becomes uint8 [Z]; its steps [O, G] stand beside it, float32 for 8 bits and bfloat16 for fewer, and its
    shape. finer: names of matrices that take `finer_bits`. Raises ValueError for other numbers of bits.
    """
    out: dict[str, Tensor] = {}
    for name, weight in state.items():
        if weight.dim() == 2:
            whole_OI, step_OG = _rounded(weight.float(), finer_bits if name in finer else bits)
            out |= {name: _coded(whole_OI), name + STEP: step_OG, name + SHAPE: torch.tensor(weight.shape)}
        else:
            out[name] = weight.contiguous()
    return out


def from_bytes(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `in_bits` was given, its matrices as float32; a state that holds none of its matrices comes back as it is.

    Matrices may be int8 [O, I], too, and steps [O]: one for each row.
    """
    out: dict[str, Tensor] = {}
    for name, weight in stored.items():
        if name.endswith(STEP) or name.endswith(SHAPE):
            continue
        step = stored.get(name + STEP)
        if step is not None:
            shape = stored.get(name + SHAPE)
            weight = _scaled(weight if shape is None else _decoded(weight, shape.tolist()), step)
        out[name] = weight
    return out


def _rounded(weight_OI: Tensor, bits: float) -> tuple[Tensor, Tensor]:
    """A matrix as whole numbers int8, and its steps [O, G]."""
    if not 4 <= bits <= 8 or bits * 2 % 1:
        raise ValueError(f"weights can be stored in 4 to 8 bits, in halves, not in {bits}")
    most = round(2 ** (bits - 1) - 1)
    size = GROUP if weight_OI.shape[1] % GROUP == 0 else weight_OI.shape[1]
    parts_OGI = weight_OI.reshape(len(weight_OI), -1, size)
    step_OG1 = (parts_OGI.abs().amax(dim=2, keepdim=True) / most).clamp_min(LEAST)
    if bits < 8:
        step_OG1 = step_OG1.to(torch.bfloat16)
    whole_OI = (parts_OGI / step_OG1.float()).round().to(torch.int8).flatten(1)
    return whole_OI, step_OG1.squeeze(2).contiguous()


def _coded(whole_OI: Tensor) -> Tensor:
    """Whole numbers int8 as uint8 [Z]: a raw deflate stream, Huffman codes alone, for weights hold no repeats."""
    coder = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_HUFFMAN_ONLY)
    coded = coder.compress(whole_OI.cpu().contiguous().numpy().tobytes()) + coder.flush()
    return torch.from_numpy(np.frombuffer(coded, np.uint8).copy())


def _decoded(coded_Z: Tensor, shape: list[int]) -> Tensor:
    """The whole numbers int8 [O, I] of `_coded`, on the device of the code."""
    whole = np.frombuffer(zlib.decompress(coded_Z.cpu().numpy().tobytes(), -15), np.int8)
    return torch.from_numpy(whole.reshape(shape).copy()).to(coded_Z.device)


def _scaled(whole_OI: Tensor, step: Tensor) -> Tensor:
    rows = len(whole_OI)
    step_OG1 = step.float().reshape(rows, -1, 1)
    return (whole_OI.float().reshape(rows, step_OG1.shape[1], -1) * step_OG1).flatten(1)
