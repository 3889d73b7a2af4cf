"""The lean forward for one row that may leave out feed-forward nets. Attention always runs, so the cache is whole."""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor
from torch.nn import functional as F

from backend.models.house.cache import KVCache
from backend.models.house.layers import unit_norm, wide
from backend.models.house.llama import Kernels, Llama, Packed, norm_into


@torch.inference_mode()
def forward_skipping(
    llama: Llama, token: int, position: int, cache: KVCache, similarity: float, region: range
) -> tuple[Tensor, Tensor, tuple[float, ...]]:
    """Append one row to the cache and evaluate it; see `SkippingSession.skim` for the rule.

    The cosine of a layer is that of the residual stream before and after its net. A skipped net changes the keys and
    values of the layers above it, for all rows that will look at this one.

    Returns:
        Logits [1, V] and final normed features [1, C] as `Llama.forward_rows`, and the cosines of the region's nets
        that ran.
    """
    packed = llama.weights()
    full = wide(packed.dtype)
    start = cache.append(1)
    h_1C = llama.embeddings(torch.tensor([token], device=llama.device))
    turn_11P = llama.turns(torch.tensor([position], device=llama.device), cache.capacity, full)
    x_1C = torch.empty(h_1C.shape, dtype=packed.dtype, device=h_1C.device)
    seen = cache.kv_LZHSD[:, :, :, : start + 1].unbind(0)
    cosines: list[float] = []
    skipping = False
    for i, layer in enumerate(packed.layers):
        norm_into(x_1C, h_1C, packed.floor, layer.attn_scale_C)
        h_1C.add_(layer.out(_attention(llama, packed, layer, x_1C, turn_11P, seen[i])))
        if skipping and i in region:
            continue
        norm_into(x_1C, h_1C, packed.floor, layer.ffn_scale_C)
        gate_1F, up_1F = layer.gate_up(x_1C).chunk(2, dim=-1)
        change_1C = layer.down(F.silu(gate_1F).mul_(up_1F))
        if i in region:
            cosines.append(_cosine(h_1C, change_1C))
            skipping = cosines[-1] >= similarity
        h_1C.add_(change_1C)
    return *packed.read(h_1C, 1), tuple(cosines)


def _attention(
    llama: Llama, packed: Packed, layer: Kernels, x_1C: Tensor, turn_11P: Tensor, seen_ZHSD: Tensor
) -> Tensor:
    """What one row reads, [1, H * D]; its own key and value are written to the last slot of seen_ZHSD."""
    width, num_heads, num_kv_heads = llama.config.head_dim, llama.config.num_heads, llama.config.num_kv_heads
    turned = num_heads + num_kv_heads
    heads_1HD = layer.qkv(x_1C).to(turn_11P.real.dtype).view(1, -1, width)
    if layer.qk_scale_HD is not None:
        qk_1HD = heads_1HD[:, :turned]
        qk_1HD.copy_(unit_norm(qk_1HD, packed.head_floor) * layer.qk_scale_HD)
    torch.view_as_complex(heads_1HD[:, :turned].view(1, turned, -1, 2)).mul_(turn_11P)
    seen_ZHSD[:, :, -1].copy_(heads_1HD[0, num_heads:].view(2, num_kv_heads, width))
    q_1HGD = heads_1HD[:, :num_heads].to(packed.dtype).view(1, num_kv_heads, -1, width)
    return F.scaled_dot_product_attention(q_1HGD, seen_ZHSD[:1], seen_ZHSD[1:]).view(1, -1)


def _cosine(h_1C: Tensor, change_1C: Tensor) -> float:
    """cos(h, h + change), in one product."""
    both_2C = torch.cat((h_1C, change_1C.to(h_1C.dtype)))
    (hh, hd), (_, dd) = (both_2C @ both_2C.T).tolist()
    return float(hh + hd) / sqrt(hh * (hh + 2 * hd + dd))
