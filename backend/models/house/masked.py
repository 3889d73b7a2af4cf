"""Pictures whose cells are filled in any order: one transformer that looks everywhere, at conditions and known cells.

The sequence is that of `raster.Layout`, one token an attribute and then the grid, but an input stands where it is
predicted: a cell's token, or the mask where it is unknown, plus the vectors of its row and column. Attention is not
causal, and half of every head is turned by the row and half by the column of its cell, so that "one up" is the same
angle everywhere; conditions are not turned, so that they can be seen from everywhere alike.

The weights are a `Llama` with one more row of embedding, the mask; only attention and places are told otherwise.

Letters: A attributes, L slots of the canvas, T = A + L positions, V codes, B sequences of a call, C features, M masked.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from backend.models.house.layers import rotary_speeds, rotary_turns, wide
from backend.models.house.llama import Llama, LlamaConfig, Packed, norm_into
from backend.models.house.raster import Layout

THETA = 100.0  # of the angles: the slowest pair turns by a third over 16 cells


def config_of(layout: Layout, dim: int, num_layers: int, num_heads: int, ffn_dim: int) -> LlamaConfig:
    """Sizes of a masked model of such pictures; heads of dim / num_heads numbers, a multiple of 4."""
    causal = layout.config(dim, num_layers, num_heads, ffn_dim)
    return replace(causal, extra_inputs=layout.extra_inputs + 1, rope_theta=THETA)


def mask_of(layout: Layout) -> int:
    """The token that stands for an unknown cell: the last row of the embedding."""
    return layout.num_codes + layout.extra_inputs


def turns_of(layout: Layout, config: LlamaConfig, dtype: torch.dtype = torch.float32) -> Tensor:
    """Complex turns [T, 1, D/2] of every place: none of conditions, then half by row and half by column."""
    slots_L = torch.arange(layout.length)
    speed_P = rotary_speeds(config.head_dim // 2, config.rope_theta)
    sides = (slots_L // layout.grid[1], slots_L % layout.grid[1])
    turned_L1P = torch.cat([rotary_turns(at_L, speed_P, dtype) for at_L in sides], dim=-1)
    return torch.cat((turned_L1P.new_ones(layout.hidden, 1, turned_L1P.shape[-1]), turned_L1P))


def features_of(llama: Llama, layout: Layout, conditions_BA: Tensor, read_BL: Tensor) -> Tensor:
    """Final features [B, L, C] of every slot given conditions and canvases with masks in them, differentiable."""
    device = read_BL.device
    asked_BA = conditions_BA + torch.tensor(layout.starts, device=device)
    rows_L, columns_L = (at_L.to(device) for at_L in layout.places())
    place_LC = llama.embed(rows_L) + llama.embed(columns_L)
    h_BTC = llama.embed(torch.cat((asked_BA, read_BL), dim=1)) + F.pad(place_LC, (0, 0, layout.hidden, 0))
    turn_T1P = turns_of(layout, llama.config, wide(h_BTC.dtype)).to(device)
    for block in llama.blocks:
        h_BTC = block(h_BTC, turn_T1P, causal=False)
    features_BTC: Tensor = llama.norm(h_BTC)
    return features_BTC[:, layout.hidden :]


def logits_of(llama: Llama, features: Tensor) -> Tensor:
    """Logits [..., V] of features, differentiable."""
    return F.linear(features, llama.head_weight())


class Mural:
    """A frozen masked model: logits of whole canvases, several in one call.

    Args:
        llama: its weights, usually packed. layout: of its sequences. more: rows of its embedding behind the mask.
    """

    def __init__(self, llama: Llama, layout: Layout, more: int = 0) -> None:
        wanted = layout.extra_inputs + 1 + more
        assert llama.config.extra_inputs == wanted, "a model of other conditions or another grid"
        self.llama, self.layout, self.config = llama, layout, llama.config
        self.vocab_size, self.device = llama.vocab_size, llama.device
        self._turn_T1P = turns_of(layout, llama.config, wide(llama.dtype)).to(llama.device)
        self._starts_A = torch.tensor(layout.starts, device=llama.device)
        with torch.no_grad():
            rows_L, columns_L = (llama.embeddings(at_L.to(llama.device)) for at_L in layout.places())
            self._place_TC = F.pad(rows_L + columns_L, (0, 0, layout.hidden, 0))

    @torch.inference_mode()
    def logits(self, conditions_BA: Tensor, canvas_BL: Tensor) -> Tensor:
        """Logits [B, L, V], float32 at least, of every slot. canvas_BL: codes, -1 where unknown."""
        return self.told(conditions_BA, torch.where(canvas_BL < 0, mask_of(self.layout), canvas_BL))

    @torch.inference_mode()
    def told(self, conditions_BA: Tensor, read_BL: Tensor) -> Tensor:
        """The same for rows of the embedding in the place of codes."""
        batch = len(read_BL)
        ids_BT = torch.cat((conditions_BA + self._starts_A, read_BL), dim=1)
        packed, length = self.llama.weights(), ids_BT.shape[1]
        h_NC = (self.llama.embeddings(ids_BT) + self._place_TC).flatten(0, 1)
        for i in range(self.config.num_layers):
            self._layer(packed, i, h_NC, batch)
        seen_NC = h_NC.view(batch, length, -1)[:, self.layout.hidden :].reshape(batch * self.layout.length, -1)
        return packed.read(seen_NC, len(seen_NC))[0].view(batch, self.layout.length, -1)

    def _layer(self, packed: Packed, i: int, h_NC: Tensor, batch: int) -> None:
        """Add what layer i says to the residual stream of all sequences."""
        layer, width = packed.layers[i], self.config.head_dim
        sizes = [self.config.num_heads, self.config.num_kv_heads, self.config.num_kv_heads]
        x_NC = torch.empty(h_NC.shape, dtype=packed.dtype, device=h_NC.device)
        norm_into(x_NC, h_NC, packed.floor, layer.attn_scale_C)
        heads_BTHD = layer.qkv(x_NC).to(h_NC.dtype).view(batch, -1, sum(sizes), width)
        turned = heads_BTHD[:, :, : sizes[0] + sizes[1]]
        torch.view_as_complex(turned.view(*turned.shape[:-1], -1, 2)).mul_(self._turn_T1P)
        q, k, v = torch.split(heads_BTHD.to(packed.dtype).transpose(1, 2), sizes, dim=1)
        mixed_BHTD = F.scaled_dot_product_attention(q, k, v, enable_gqa=sizes[0] != sizes[1])
        h_NC.add_(layer.out(mixed_BHTD.transpose(1, 2).reshape(x_NC.shape[0], -1)))
        norm_into(x_NC, h_NC, packed.floor, layer.ffn_scale_C)
        gate_NF, up_NF = layer.gate_up(x_NC).chunk(2, dim=-1)
        h_NC.add_(layer.down(F.silu(gate_NF).mul_(up_NF)))
