"""Series whose steps are filled in any order: one transformer that looks everywhere, at what is known.

The weights are a `Llama` with one more row of embedding, the mask; attention is not causal, and rotary positions alone
say how far apart two steps are, so that canvases of any length up to the context are read.

Letters: L steps of a canvas, V tokens, B canvases of a call, C features.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from backend.models.house.layers import rotary_turns, wide
from backend.models.house.llama import Llama, Packed, norm_into


def mask_of(llama: Llama) -> int:
    """The token that stands for an unknown step: the last row of the embedding."""
    return llama.config.vocab_size + llama.config.extra_inputs - 1


def features_of(llama: Llama, read_BL: Tensor) -> Tensor:
    """Final features [B, L, C] of every step of canvases with masks in them, differentiable."""
    h_BLC: Tensor = llama.embed(read_BL)
    turn_L1P = rotary_turns(torch.arange(read_BL.shape[1], device=read_BL.device), llama.speed_P, wide(h_BLC.dtype))
    for block in llama.blocks:
        h_BLC = block(h_BLC, turn_L1P, causal=False)
    features_BLC: Tensor = llama.norm(h_BLC)
    return features_BLC


class Strip:
    """A frozen masked model of series: logits of whole canvases, several in one call.

    Args:
        llama: its weights, usually packed.
    """

    def __init__(self, llama: Llama) -> None:
        assert llama.config.extra_inputs == 1, "a model without a mask"
        self.llama, self.config = llama, llama.config
        self.vocab_size, self.context, self.device = llama.vocab_size, llama.context, llama.device

    @torch.inference_mode()
    def logits(self, canvas_BL: Tensor) -> Tensor:
        """Logits [B, L, V], float32 at least, of every step. canvas_BL: tokens, -1 where unknown."""
        batch, length = canvas_BL.shape
        packed, llama = self.llama.weights(), self.llama
        h_NC = llama.embeddings(torch.where(canvas_BL < 0, mask_of(llama), canvas_BL)).flatten(0, 1)
        positions_L = torch.arange(length, device=self.device)
        turn_L1P = llama.turns(positions_L, self.context, wide(packed.dtype))
        for i in range(self.config.num_layers):
            self._layer(packed, i, h_NC, turn_L1P, batch)
        return packed.read(h_NC, len(h_NC))[0].view(batch, length, -1)

    def _layer(self, packed: Packed, i: int, h_NC: Tensor, turn_L1P: Tensor, batch: int) -> None:
        """Add what layer i says to the residual stream of all canvases."""
        layer, width = packed.layers[i], self.config.head_dim
        sizes = [self.config.num_heads, self.config.num_kv_heads, self.config.num_kv_heads]
        x_NC = torch.empty(h_NC.shape, dtype=packed.dtype, device=h_NC.device)
        norm_into(x_NC, h_NC, packed.floor, layer.attn_scale_C)
        heads_BLHD = layer.qkv(x_NC).to(h_NC.dtype).view(batch, -1, sum(sizes), width)
        turned = heads_BLHD[:, :, : sizes[0] + sizes[1]]
        torch.view_as_complex(turned.view(*turned.shape[:-1], -1, 2)).mul_(turn_L1P)
        q, k, v = torch.split(heads_BLHD.to(packed.dtype).transpose(1, 2), sizes, dim=1)
        mixed_BHLD = F.scaled_dot_product_attention(q, k, v, enable_gqa=sizes[0] != sizes[1])
        h_NC.add_(layer.out(mixed_BHLD.transpose(1, 2).reshape(x_NC.shape[0], -1)))
        norm_into(x_NC, h_NC, packed.floor, layer.ffn_scale_C)
        gate_NF, up_NF = layer.gate_up(x_NC).chunk(2, dim=-1)
        h_NC.add_(layer.down(F.silu(gate_NF).mul_(up_NF)))
