"""The lean forward for one row of each of several sequences, whose keys and values share one buffer.

Everything but attention runs over all rows at once. Attention reads the buffer where it is, padded to the longest
sequence: one call with a mask, which is about as quick as a call for each sequence on one thread, quicker on two.

Letters: A sequences in a call, S cache slots in use, V vocabulary, C features, H heads, KVH key-value heads,
G = H / KVH, D numbers in a head.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from backend.models.house.cache import KVCache
from backend.models.house.layers import unit_norm, wide
from backend.models.house.llama import Llama, norm_into


class FleetCache:
    """Keys and values of several sequences: one tensor [L, places, 2, KVH, S, D], preallocated.

    Places that lie side by side are one view of it, so that a call over a run of places copies nothing.

    Args:
        llama: whose sizes, type and device it takes. places: sequences it can hold. capacity: S of each.
    """

    def __init__(self, llama: Llama, places: int, capacity: int) -> None:
        c = llama.config
        shape = (c.num_layers, places, 2, c.num_kv_heads, capacity, c.head_dim)
        self.kv_LAZHSD = torch.zeros(shape, dtype=llama.dtype, device=llama.device)
        self.capacity = capacity
        self.lengths = [0] * places  # slots in use at every place

    def at(self, place: int) -> PlaceCache:
        """One place as the cache of one sequence, for `Llama.forward_rows`."""
        return PlaceCache(self, place)

    def take(self, first: int, live: Sequence[bool]) -> list[int]:
        """The next slot of each of the places first, first + 1, ...; live places keep it.

        Raises ValueError when one of them is full.
        """
        lengths = self.lengths[first : first + len(live)]
        for place, (length, lives) in enumerate(zip(lengths, live, strict=True), first):
            if lives and length == self.capacity:
                raise ValueError(f"place {place} holds {self.capacity} slots, and one more is needed")
        self.lengths[first : first + len(live)] = [n + lives for n, lives in zip(lengths, live, strict=True)]
        return [min(length, self.capacity - 1) for length in lengths]

    def move(self, source: int, target: int) -> None:
        """Copy the sequence at one place to another, and forget it where it was."""
        length = self.lengths[source]
        self.kv_LAZHSD[:, target, :, :, :length] = self.kv_LAZHSD[:, source, :, :, :length]
        self.lengths[target], self.lengths[source] = length, 0


class PlaceCache(KVCache):
    """One place of a `FleetCache`, with the same memory and the same counter."""

    def __init__(self, fleet: FleetCache, place: int) -> None:
        self.kv_LZHSD = fleet.kv_LAZHSD[:, place]
        self.capacity = fleet.capacity
        self._fleet, self._place = fleet, place

    @property
    def length(self) -> int:
        """Slots in use."""
        return self._fleet.lengths[self._place]

    @length.setter
    def length(self, length: int) -> None:
        self._fleet.lengths[self._place] = length


@torch.inference_mode()
def forward_fleet(llama: Llama, ids: Sequence[int], cache: FleetCache, first: int, live: Sequence[bool]) -> Tensor:
    """Append one row to each of the places first, first + 1, ... and evaluate them in one go.

    Args:
        ids: A token ids, one a place. live: where False the row is padding: it is computed, and not kept.

    Returns:
        Logits [A, V], float32 at least; those of padding mean nothing. ValueError when a live place is full.
    """
    packed, config, rows = llama.weights(), llama.config, len(ids)
    dtype, full = packed.dtype, wide(packed.dtype)
    width, num_heads, num_kv_heads = config.head_dim, config.num_heads, config.num_kv_heads
    turned = num_heads + num_kv_heads
    slots_A = torch.tensor(cache.take(first, live), device=llama.device)
    h_AC = packed.embed_VC[torch.tensor(ids, device=llama.device)].to(full)
    turn_A1P = llama.turns(slots_A, cache.capacity, full)
    bias_A11S = _attention_bias(slots_A, dtype)
    layers = cache.kv_LAZHSD[:, first : first + rows]
    keys, values = (layers[:, :, z, :, : bias_A11S.shape[-1]].unbind(0) for z in (0, 1))
    # a layer seen as lines of D numbers, and those that the new keys and values go to, in the order of `qkv`
    lines = layers.flatten(1, 4).unbind(0)
    start_AM = torch.arange(rows * 2 * num_kv_heads, device=llama.device).view(rows, -1) * cache.capacity
    at_M = (start_AM + slots_A[:, None]).flatten()
    x_AC = torch.empty(h_AC.shape, dtype=dtype, device=h_AC.device)
    for i, layer in enumerate(packed.layers):
        norm_into(x_AC, h_AC, packed.floor, layer.attn_scale_C)
        heads_AHD = layer.qkv(x_AC).to(full).view(rows, -1, width)
        qk_AHD = heads_AHD[:, :turned]
        if layer.qk_scale_HD is not None:
            qk_AHD.copy_(unit_norm(qk_AHD, packed.head_floor) * layer.qk_scale_HD)
        torch.view_as_complex(qk_AHD.view(rows, turned, -1, 2)).mul_(turn_A1P)
        typed_AHD = heads_AHD.to(dtype)
        lines[i].index_copy_(0, at_M, typed_AHD[:, num_heads:].reshape(-1, width))
        q_AHGD = typed_AHD[:, :num_heads].view(rows, num_kv_heads, -1, width)
        mixed_AHGD = F.scaled_dot_product_attention(q_AHGD, keys[i], values[i], bias_A11S)
        h_AC.add_(layer.out(mixed_AHGD.reshape(rows, -1)))
        norm_into(x_AC, h_AC, packed.floor, layer.ffn_scale_C)
        gate_AF, up_AF = layer.gate_up(x_AC).chunk(2, dim=-1)
        h_AC.add_(layer.down(F.silu(gate_AF).mul_(up_AF)))
    return packed.read(h_AC, rows)[0]


def _attention_bias(slots_A: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to the scores, [A, 1, 1, S]: 0 up to the slot of each row, -inf behind it."""
    behind_AS = torch.arange(int(slots_A.max()) + 1, device=slots_A.device) > slots_A[:, None]
    bias_AS = torch.zeros(behind_AS.shape, dtype=dtype, device=slots_A.device).masked_fill_(behind_AS, float("-inf"))
    return bias_AS[:, None, None]
