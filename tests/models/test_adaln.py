"""Attributes that speak to every block of a painter of maps (adaLN), against the formula written out."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from backend.models.house.scales import CHOICES, ScaleBlock, View
from tests.toys_scales import scales_net

A = len(CHOICES)


def test_what_is_asked_scales_shifts_and_gates_both_branches_of_a_block() -> None:
    """By hand: x += (1 + g) branch((1 + s) norm(x) + b), with s, b, g of the shared map and the block's own."""
    net = scales_net(kind="flat", adaln=True)
    block, C = net.blocks[1], net.config.dim
    assert isinstance(block, ScaleBlock)
    asked_BA = torch.randint(0, 2, (2, A), generator=torch.Generator().manual_seed(1))
    told_BX, ending = net.told_of(asked_BA)
    vectors = torch.stack([net.embed_asked.weight[asked_BA[:, a] + net.starts[a]] for a in range(A)]).sum(0)
    every_BX = F.silu(vectors) @ net.ada.weight.T + net.ada.bias
    torch.testing.assert_close(told_BX, every_BX[:, : 6 * C])
    s1, b1, g1, s2, b2, g2 = (every_BX[:, : 6 * C] + block.own)[:, None].split(C, dim=-1)
    h_BTC = torch.randn(2, 3, C, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    turn_T1P = torch.ones(3, 1, C // 2 // block.heads, dtype=torch.complex128)
    views = [View(slice(0, 3), torch.arange(3), None)]
    q, k, v = block.qkv((1 + s1) * block.attn_norm(h_BTC) + b1).unflatten(-1, (3 * block.heads, -1)).chunk(3, dim=2)
    q, k, v = (x.transpose(1, 2) for x in (block.q_norm(q), block.k_norm(k), v))
    mixed_BTC = views[0].mixed(q, k, v).transpose(1, 2).flatten(2)
    middle_BTC = h_BTC + (1 + g1) * block.out(mixed_BTC)
    gate, up = block.gate_up((1 + s2) * block.ffn_norm(middle_BTC) + b2).chunk(2, dim=-1)
    wanted_BTC = middle_BTC + (1 + g2) * block.down(F.silu(gate) * up)
    torch.testing.assert_close(block(h_BTC, turn_T1P, views, told_BX=told_BX), wanted_BTC)
    s, b = every_BX[:, None, 6 * C :].split(C, dim=-1)
    torch.testing.assert_close(ending.entering(h_BTC), (1 + s) * h_BTC + b)
