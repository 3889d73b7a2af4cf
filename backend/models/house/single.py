"""One row of a small model on a CPU: torch multiplies, numpy does what lies between the products.

A row of a few hundred numbers is so little work that starting an operator costs more than running it, and numpy starts
one in a fifth of torch's time. The same arithmetic as `Llama.forward_rows` for one row of a chain, in float32, for
weights packed as `ByteMap`s; half the time of a call of our draft model.

Letters: C features, F width of the feed-forward layer, H heads, KVH key-value heads, G = H / KVH, D numbers in a head,
S cache slots in use, V vocabulary.
"""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import torch
from torch import Tensor

from backend.models.house.cache import KVCache
from backend.models.house.layers import ByteMap, rotary_turns
from backend.models.house.llama import Llama


class Buffer:
    """Memory that torch and numpy share, one row of `width` float32 numbers, and the same row in bfloat16."""

    def __init__(self, width: int) -> None:
        self.wide = torch.zeros(1, width)
        self.array: np.ndarray = self.wide.numpy()[0]
        self._narrow = torch.zeros(1, width, dtype=torch.bfloat16)

    def through(self, product: ByteMap, out: Buffer) -> np.ndarray:
        """Multiply this row into `out`, and return its array."""
        out.wide.copy_(product.narrow(self._narrow.copy_(self.wide)))
        return out.array


class RowCache(KVCache):
    """A cache in float32 with numpy's view of every layer, and the memory that one row needs on its way."""

    def __init__(self, model: Llama, capacity: int) -> None:
        c = model.config
        super().__init__(c.num_layers, c.num_kv_heads, c.head_dim, capacity, torch.float32, model.device)
        self.layers = [(kv[0], kv[1]) for kv in self.kv_LZHSD.numpy()]  # keys and values [KVH, capacity, D]
        self.x, self.out, self.inner = Buffer(c.dim), Buffer(c.dim), Buffer(c.ffn_dim)
        self.mixed = Buffer(c.num_heads * c.head_dim)
        self.heads, self.gate_up = Buffer((c.num_heads + 2 * c.num_kv_heads) * c.head_dim), Buffer(2 * c.ffn_dim)


class SingleRow:
    """Runs a model that `Llama.pack(torch.float32, in_bytes=True)` made, without norms of heads, one row a call."""

    def __init__(self, model: Llama) -> None:
        packed, c = model.weights(), model.config
        assert packed.dtype == torch.float32
        assert not c.qk_norm
        self._model = model
        self._layers = [
            tuple(cast(ByteMap, m) for m in (layer.qkv, layer.out, layer.gate_up, layer.down))
            for layer in packed.layers
        ]
        self._head = packed.head
        self._embed_VC = packed.embed_VC.numpy()
        self._scale_C = packed.norm_scale_C.numpy()
        self._floor = float(packed.floor) ** 2
        self._turns = rotary_turns(torch.arange(c.context), model.speed_P, torch.float32).numpy()[:, 0]
        self._sharp = np.float32(c.head_dim**-0.5)

    def open_cache(self, capacity: int) -> RowCache:
        """An empty cache for one sequence, for this class and for `Llama.forward_rows` alike."""
        return RowCache(self._model, capacity)

    def run(self, row: int, position: int, cache: RowCache) -> tuple[Tensor, Tensor]:
        """Append one row to the cache and evaluate it.

        Args:
            row: of the embedding.

        Returns:
            Logits [1, V] and final normed features [1, C], float32.
        """
        c = self._model.config
        slot = cache.append(1)
        turned, width = c.num_heads + c.num_kv_heads, c.head_dim
        heads_HD = cache.heads.array.reshape(-1, width)
        pairs_HP = heads_HD[:turned].view(np.complex64)
        mixed_KGD = cache.mixed.array.reshape(c.num_kv_heads, -1, width)
        gate_F, up_F = cache.gate_up.array[: c.ffn_dim], cache.gate_up.array[c.ffn_dim :]
        x_C, inner_F = cache.x.array, cache.inner.array
        h_C = self._embed_VC[row].copy()
        turn_P = self._turns[position]
        for (qkv, out, gate_up, down), (keys_KSD, values_KSD) in zip(self._layers, cache.layers, strict=True):
            self._norm(h_C, x_C)
            cache.x.through(qkv, cache.heads)
            np.multiply(pairs_HP, turn_P, out=pairs_HP)
            keys_KSD[:, slot] = heads_HD[c.num_heads : turned]
            values_KSD[:, slot] = heads_HD[turned:]
            q_KGD = (heads_HD[: c.num_heads] * self._sharp).reshape(mixed_KGD.shape)
            share_KGS = q_KGD @ keys_KSD[:, : slot + 1].swapaxes(1, 2)
            np.exp(share_KGS - share_KGS.max(axis=-1, keepdims=True), out=share_KGS)
            np.matmul(share_KGS / share_KGS.sum(axis=-1, keepdims=True), values_KSD[:, : slot + 1], out=mixed_KGD)
            h_C += cache.mixed.through(out, cache.out)
            self._norm(h_C, x_C)
            cache.x.through(gate_up, cache.gate_up)
            np.divide(gate_F, 1.0 + np.exp(-gate_F), out=inner_F)
            inner_F *= up_F
            h_C += cache.inner.through(down, cache.out)
        self._norm(h_C, x_C)
        hidden_1C = torch.from_numpy((x_C * self._scale_C)[None])
        return self._head(hidden_1C), hidden_1C

    def _norm(self, h_C: np.ndarray, x_C: np.ndarray) -> None:
        np.multiply(h_C, 1.0 / math.sqrt(float(h_C @ h_C) + self._floor), out=x_C)
