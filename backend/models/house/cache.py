"""Keys and values of one sequence, preallocated and addressed by slot: a rejected draft costs nothing to forget."""

from __future__ import annotations

from collections.abc import Sequence

import torch


class KVCache:
    """Keys and values of every layer: one tensor [L, 2, KVH, S, D] whose first `length` slots are in use.

    Writing goes by absolute slot: what lies behind `length` is overwritten by the next append, so that rolling back
    only moves the counter. The memory never moves, as CUDA graphs need.

    Args:
        num_layers: L. num_kv_heads: KVH. head_dim: D. capacity: S, the most slots the sequence may take.
        dtype, device: of the stored numbers.
    """

    def __init__(
        self, num_layers: int, num_kv_heads: int, head_dim: int, capacity: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.kv_LZHSD = torch.zeros(num_layers, 2, num_kv_heads, capacity, head_dim, dtype=dtype, device=device)
        self.capacity = capacity
        self.length = 0

    def append(self, rows: int) -> int:
        """Take the next `rows` slots and return the first of them. Raises ValueError when the cache is full."""
        start, end = self.length, self.length + rows
        if end > self.capacity:
            raise ValueError(f"the cache holds {self.capacity} slots, and {end} are needed")
        self.length = end
        return start

    def truncate(self, length: int) -> None:
        """Forget every slot from `length` on (0 <= length <= self.length). Free: only the counter moves."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot cut a cache of {self.length} slots to {length}")
        self.length = length

    def keep(self, slots: Sequence[int]) -> None:
        """Make the rows of `slots` (ascending, in use) rows 0..len-1; a leading run already in place is not copied."""
        lead = 0
        while lead < len(slots) and slots[lead] == lead:
            lead += 1
        rest = list(slots[lead:])
        if any(b <= a for a, b in zip([lead - 1, *rest], rest, strict=False)) or (rest and rest[-1] >= self.length):
            raise ValueError(f"slots to keep must ascend and lie below {self.length}: {list(slots)}")
        if lead > self.length:
            raise ValueError(f"cannot keep {lead} slots of a cache that holds {self.length}")
        if rest:
            index_K = torch.tensor(rest, device=self.kv_LZHSD.device)
            self.kv_LZHSD[:, :, :, lead : len(slots)] = self.kv_LZHSD.index_select(3, index_K)
        self.length = len(slots)
