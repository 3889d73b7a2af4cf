"""Building blocks of the Llama family: root-mean-square norm, rotary angles, and linear maps packed for the device.

Letters: N rows, B batch, T time, C features of the residual stream, H heads, D numbers in a head, O outputs.
Rotary pairs are interleaved (2i, 2i+1), so that turning a head is one complex product; checkpoints that store the
halves apart are permuted when they are loaded (`interleave`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LinearMap = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How a checkpoint stretches its rotary angles beyond the length it was first trained on.

    Args:
        kind: "linear" (every angle divided by factor) or "llama3" (only the slow angles, with a smooth ramp between).
        factor: how much longer. low, high, original: the ramp of "llama3", in turns over the original context.
    """

    kind: str
    factor: float
    low: float = 1.0
    high: float = 4.0
    original: int = 8192


def rotary_speeds(head_dim: int, theta: float, scaling: RopeScaling | None = None) -> Tensor:
    """Angle per position of each rotary pair, [D/2] float32, radians."""
    speed_P = 1.0 / theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    if scaling is None:
        return speed_P
    if scaling.kind == "linear":
        return speed_P / scaling.factor
    turns_P = scaling.original * speed_P / (2 * math.pi)
    keep_P = ((turns_P - scaling.low) / (scaling.high - scaling.low)).clamp(0, 1)
    return speed_P * (keep_P + (1 - keep_P) / scaling.factor)


def rotary_turns(positions_N: Tensor, speed_P: Tensor, dtype: torch.dtype) -> Tensor:
    """Complex turns [N, 1, D/2] of the given positions; dtype is the real type (float32 or float64)."""
    angle_NP = torch.outer(positions_N.to(torch.float32), speed_P).to(dtype)
    return torch.polar(torch.ones_like(angle_NP), angle_NP).unsqueeze(1)


def rotate(x_NHD: Tensor, turn_N1P: Tensor) -> Tensor:
    """Turn each interleaved pair of every head by its row's angles. x [..., N, H, D] real, contiguous in D."""
    pairs = torch.view_as_complex(x_NHD.view(*x_NHD.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turn_N1P).flatten(-2)


def interleave(weight: Tensor, head_dim: int) -> Tensor:
    """Reorder rows from halves apart (i, i + D/2) to interleaved pairs, head by head. [H*D, ...] -> [H*D, ...]."""
    return weight.reshape(-1, 2, head_dim // 2, *weight.shape[1:]).transpose(1, 2).reshape(weight.shape)


def wide(dtype: torch.dtype) -> torch.dtype:
    """The type of the residual stream and of logits: at least float32."""
    return dtype if dtype == torch.float64 else torch.float32


def norm_floor(width: int, eps: float, like: Tensor) -> Tensor:
    """The constant of `unit_norm` for rows of this width: sqrt(width * eps), a scalar tensor."""
    return torch.tensor(math.sqrt(width * eps), dtype=wide(like.dtype), device=like.device)


def unit_norm(x: Tensor, floor: Tensor) -> Tensor:
    """x / sqrt(sum(x^2) + floor^2) along the last axis: a root-mean-square norm but for its weight times sqrt(width).

    Three small operators are quicker on CPUs than one `F.rms_norm`, and the factor folds into the next linear map.
    """
    return x / torch.hypot(torch.linalg.vector_norm(x, dim=-1, keepdim=True), floor)


class Norm(nn.Module):
    """Root-mean-square norm with a learned weight, over the last axis."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Norm in the type of x."""
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)

    def scale(self) -> Tensor:
        """What multiplies `unit_norm` to give this norm: weight * sqrt(width)."""
        return self.weight.detach().to(wide(self.weight.dtype)) * math.sqrt(self.weight.shape[0])


def pack_linear(
    weight_OI: Tensor, bias_O: Tensor | None, dtype: torch.dtype, scale_I: Tensor | None = None
) -> LinearMap:
    """A frozen linear map [N, I] -> [N, O] in dtype, as fast as this device allows.

    Args:
        weight_OI, bias_O: as in `nn.Linear`; any float type.
        dtype: bfloat16, float32 or float64: of the inputs, outputs and stored weights.
        scale_I: multiplies the inputs; folded into the weights before they are rounded to dtype.
    """
    weight_OI = weight_OI.detach()
    if scale_I is not None:
        weight_OI = weight_OI.to(wide(weight_OI.dtype)) * scale_I
    weight_OI = weight_OI.to(dtype).contiguous()
    bias_O = None if bias_O is None else bias_O.detach().to(dtype)
    if not packs_for_onednn(weight_OI):
        return lambda x: F.linear(x, weight_OI, bias_O)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight_OI)
    linear = torch.ops.mkldnn._linear_pointwise.default  # the overload itself: less to resolve on every call
    return lambda x: linear(x, packed, bias_O, "none", [], "")


@dataclass(frozen=True, slots=True)
class ByteMap:
    """A linear map whose weights are whole numbers from -127 to 127, one scale an output, for bfloat16 rows.

    For small models on CPUs: a map of 256 features takes half the time that oneDNN takes in bfloat16.
    """

    whole_OI: Tensor
    step_O: Tensor

    def narrow(self, x_NI: Tensor) -> Tensor:
        """The map of bfloat16 rows, in bfloat16."""
        out_NO: Tensor = torch.ops.aten._weight_int8pack_mm.default(x_NI, self.whole_OI, self.step_O)
        return out_NO

    def __call__(self, x_NI: Tensor) -> Tensor:
        """The map of rows of any type, in their type."""
        return self.narrow(x_NI.to(torch.bfloat16)).to(x_NI.dtype)


def pack_bytes(weight_OI: Tensor, scale_I: Tensor | None = None) -> ByteMap:
    """A frozen linear map of one-byte weights. Arguments as in `pack_linear`."""
    weight_OI = weight_OI.detach().float()
    if scale_I is not None:
        weight_OI = weight_OI * scale_I
    step_O = (weight_OI.abs().amax(dim=1).clamp_min(1e-12) / 127).to(torch.bfloat16)
    whole_OI = (weight_OI / step_O.float()[:, None]).round().clamp(-127, 127).to(torch.int8)
    return ByteMap(whole_OI, step_O)


def packs_for_onednn(weight: Tensor) -> bool:
    """Whether oneDNN can keep this weight in its own blocked layout, ready to multiply."""
    if weight.device.type != "cpu" or not torch._C._has_mkldnn:
        return False
    if weight.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight.dtype == torch.float32
