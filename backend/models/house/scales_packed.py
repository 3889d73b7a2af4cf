"""A model of maps as sessions run it: weights packed for the device, numbers of every map made once, one pass a call.

The same law as `Scales.features` and `Scales.logits`, up to rounding. Norms are folded into the products behind them,
keys and values go to preallocated memory, and behind the last block's keys only the rows that are read go on.

Letters: A attributes, N cells of a map, T rows of a pass, S rows to see, V codes, B batch, C features, D numbers in a
head, P rotary pairs, Y the side of the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backend.models.house.adaln import UNASKED, Asked, Unasked
from backend.models.house.layers import LinearMap, norm_floor, pack_linear, unit_norm, wide
from backend.models.house.scales import (
    CHOICES,
    EPS,
    Map,
    ScaleBlock,
    Scales,
    View,
    block_mask,
    turns,
    views_of,
)

HIDDEN = len(CHOICES)


class PackedCache:
    """Keys and values of the rows of a batch that were run: one tensor [layers, 2, B, heads, S, D], `rows` in use.

    Later passes may run fewer of the sequences, the first ones; what the others have missed they cannot catch up on.
    """

    def __init__(self, net: Scales, batch: int) -> None:
        heads = net.config.num_heads
        shape = (net.config.num_layers, 2, batch, heads, HIDDEN + net.pyramid.length, net.config.dim // heads)
        self.kv_LZBHSD = torch.empty(shape, dtype=net.embed_start.dtype, device=net.device)
        self.rows = 0


@dataclass(frozen=True)
class _Block:
    """A block's maps, norms folded in; qk_scale_HD: of the norms of queries and keys, [2 heads, D].

    block: what attributes speak to, where they do: then the first norms of its branches are not folded in.
    """

    qkv: LinearMap
    out: LinearMap
    gate_up: LinearMap
    down: LinearMap
    qk_scale_HD: Tensor
    block: ScaleBlock

    @classmethod
    def of(cls, block: ScaleBlock, dtype: torch.dtype) -> _Block:
        scales = [norm.scale().expand(block.heads, -1) for norm in (block.q_norm, block.k_norm)]
        attn, ffn = (None if block.own is not None else norm.scale() for norm in (block.attn_norm, block.ffn_norm))
        return cls(
            pack_linear(block.qkv.weight, None, dtype, attn),
            pack_linear(block.out.weight, None, dtype),
            pack_linear(block.gate_up.weight, None, dtype, ffn),
            pack_linear(block.down.weight, None, dtype),
            torch.cat(scales),
            block,
        )

    def asked(self, told_BX: Tensor | None) -> Sequence[Asked | Unasked]:
        """By branch, what attributes say to it, the scales of its norm in it."""
        if told_BX is None:
            return UNASKED
        return [
            Asked((1 + each.scale) * norm.scale() - 1, each.shift, each.gate) if isinstance(each, Asked) else each
            for each, norm in zip(self.block.asked(told_BX), (self.block.attn_norm, self.block.ffn_norm), strict=True)
        ]


class PackedScales:
    """A frozen copy of a model, or of its mask branch. Shared by all sessions, never written.

    Args:
        redraws: pack the mask branch in place of what draws a map first.
    """

    def __init__(self, net: Scales, redraws: bool = False) -> None:
        self.net = net
        self.dtype = net.embed_start.dtype
        full = wide(self.dtype)
        blocks, norm, heads = list(net.blocks), net.norm, net.heads
        if redraws:
            blocks = [*blocks[: len(blocks) - net.config.redraws], *net.redraw_blocks]
            norm, heads = net.redraw_norm, net.redraw_heads
        self._blocks = [_Block.of(block, self.dtype) for block in blocks if isinstance(block, ScaleBlock)]
        weights = [head.weight for head in heads if isinstance(head, nn.Linear)]
        self._norm_scale_C = norm.scale()
        folded = None if net.config.adaln else self._norm_scale_C
        self._heads = [pack_linear(weight_VC, None, self.dtype, folded) for weight_VC in weights]
        self._patch_in = pack_linear(net.patch_in.weight, net.patch_in.bias, self.dtype)
        self._patch_out = pack_linear(net.patch_out.weight, None, self.dtype)
        self._floor = norm_floor(net.config.dim, EPS, net.embed_start)
        self._head_floor = norm_floor(net.config.dim // net.config.num_heads, EPS, net.embed_start)
        self._starts_A = torch.tensor(net.starts, device=net.device)
        numbers, head_dim = range(len(net.pyramid.sizes)), net.config.dim // net.config.num_heads
        self._turns = [turns(net.pyramid.sizes[at], head_dim, full).to(net.device) for at in numbers]
        self._places = [net.place(at).to(full) for at in numbers]
        self._around = [_neighbours(*net.pyramid.sizes[at]).to(net.device) for at in numbers]

    def logits(
        self, conditions_BA: Tensor, maps: Sequence[Map], cache: PackedCache, told_N: Tensor | None = None
    ) -> Tensor:
        """Logits [B, N, V] of the last of these maps, float32 at least; the others are read only.

        The maps must follow those of earlier passes with this cache; in an empty one the attributes' rows come first.
        B may be less than the cache's. told_N: of the mask branch, tokens of the one map, -1 where masked.
        """
        first, batch = not cache.rows, len(conditions_BA)
        entered = [self._entry(at, total) for at, total in maps]
        if told_N is not None:
            entered[-1] = entered[-1] + self.net.retold(*maps[-1], told_N[None])[0].to(entered[-1].dtype)
        counts, hidden = [len(rows) for rows in entered], HIDDEN if first else 0
        cells_BTC = (torch.cat(entered) if len(entered) > 1 else entered[0]).expand(batch, -1, -1)
        h_BTC = torch.cat((self._asked(conditions_BA), cells_BTC), dim=1) if first else cells_BTC.clone()
        turned = [self._turns[at] for at, _ in maps]
        if first:
            turned.insert(0, turned[0].new_ones(hidden, 1, turned[0].shape[-1]))
        turn_T1P = torch.cat(turned) if len(turned) > 1 else turned[0]
        views = None
        if first or len(maps) > 1:
            visible_TS = block_mask(hidden, counts, cache.rows, self.net.config.markov).to(h_BTC.device)
            views = views_of(visible_TS, hidden + sum(counts[:-1]))
        told_BX, ending = self.net.told_of(conditions_BA)
        h_BNC = self._through(h_BTC, turn_T1P, views, cache, counts[-1], told_BX)
        normed_BNC = unit_norm(h_BNC, self._floor)
        if self.net.config.adaln:
            normed_BNC = ending.entering(normed_BNC * self._norm_scale_C)
        features = normed_BNC.to(self.dtype)
        raw_BNV = self._heads[min(maps[-1][0], len(self._heads) - 1)](features)
        return raw_BNV.to(h_BNC.dtype)

    def _through(
        self,
        h_BTC: Tensor,
        turn_T1P: Tensor,
        views: Sequence[View] | None,
        cache: PackedCache,
        last: int,
        told_BX: Tensor | None,
    ) -> Tensor:
        """The last rows [B, N, C] behind all blocks. views: what rows see, the last ones apart; None for everything."""
        batch, rows, dim = h_BTC.shape
        start, end = cache.rows, cache.rows + rows
        cache.rows = end
        heads = self.net.config.num_heads
        for layer, block in enumerate(self._blocks):
            mixing, thinking = block.asked(told_BX)
            x_BTC = mixing.entering(unit_norm(h_BTC, self._floor)).to(self.dtype)
            qkv_BTHD = block.qkv(x_BTC).view(batch, rows, 3 * heads, -1)
            qk = unit_norm(qkv_BTHD[:, :, : 2 * heads].to(h_BTC.dtype), self._head_floor).mul_(block.qk_scale_HD)
            torch.view_as_complex(qk.view(*qk.shape[:-1], -1, 2)).mul_(turn_T1P)
            kv_ZBHSD = cache.kv_LZBHSD[layer, :, :batch, :, :end]
            kv_ZBHSD[0, :, :, start:].copy_(qk[:, :, heads:].transpose(1, 2))
            kv_ZBHSD[1, :, :, start:].copy_(qkv_BTHD[:, :, 2 * heads :].transpose(1, 2))
            q_BHTD = qk[:, :, :heads].to(self.dtype).transpose(1, 2)
            seen = views
            if layer == len(self._blocks) - 1 and last < rows:
                h_BTC, seen = h_BTC[:, -last:], None if views is None else views[-1:]
                q_BHTD = q_BHTD[:, :, -last:]
            mixed_BTC = _attended(q_BHTD, kv_ZBHSD, seen).transpose(1, 2).reshape(batch, -1, dim)
            h_BTC = h_BTC + mixing.leaving(block.out(mixed_BTC))
            x_BTC = thinking.entering(unit_norm(h_BTC, self._floor)).to(self.dtype)
            gate, up = block.gate_up(x_BTC).chunk(2, dim=-1)
            h_BTC += thinking.leaving(block.down(F.silu(gate).mul_(up)))
        return h_BTC

    def _asked(self, conditions_BA: Tensor) -> Tensor:
        """Rows [B, A, C] of the attributes."""
        rows: Tensor = self.net.embed_conditions(conditions_BA + self._starts_A)
        return rows.to(wide(self.dtype))

    def _entry(self, at: int, total_13YY: Tensor | None) -> Tensor:
        """What the rows [N, C] of a map read."""
        place_NC = self._places[at]
        if total_13YY is None:
            return place_NC + self.net.embed_start
        small_3N = self.net.tables.shrunk(total_13YY, at)[0].flatten(1)
        around_NI = small_3N[:, self._around[at]].transpose(0, 1).flatten(1)
        patch_NC = self._patch_out(F.gelu(self._patch_in(around_NI.to(self.dtype))))
        nearest_N = self.net.tables.nearest(small_3N.T)
        return place_NC + patch_NC + self.net.embed_colour.weight[nearest_N]


def _attended(q_BHTD: Tensor, kv_ZBHSD: Tensor, views: Sequence[View] | None) -> Tensor:
    """Attention [B, H, T, D] of rows to all columns, or by view to some."""
    k_BHSD, v_BHSD = kv_ZBHSD.unbind(0)
    if views is None:
        return F.scaled_dot_product_attention(q_BHTD, k_BHSD, v_BHSD)
    mixed = []
    for view in views:
        rows_BHTD = q_BHTD if len(views) == 1 else q_BHTD[:, :, view.rows]
        whole = len(view.columns) == k_BHSD.shape[2]
        k, v = (k_BHSD, v_BHSD) if whole else (k_BHSD[:, :, view.columns], v_BHSD[:, :, view.columns])
        bias = None if view.bias is None else view.bias.to(k.dtype)
        mixed.append(F.scaled_dot_product_attention(rows_BHTD, k, v, bias))
    return torch.cat(mixed, dim=2) if len(mixed) > 1 else mixed[0]


def _neighbours(height: int, width: int) -> Tensor:
    """By cell, the numbers [N, 9] of the cells around it, row by row; outside are those of the edge."""
    near = torch.tensor([-1, 0, 1])
    rows = (torch.arange(height)[:, None] + near).clamp(0, height - 1)
    columns = (torch.arange(width)[:, None] + near).clamp(0, width - 1)
    return (rows[:, None, :, None] * width + columns[None, :, None, :]).reshape(height * width, 9)
