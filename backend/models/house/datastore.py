"""Texts written before as a causal model: the next token's law is how often each token followed the text's ending.

The longest ending of at most 16 tokens that the store holds decides, down to none at all, where every token of the
store counts. A suffix array (all places of the store in the order of the text behind them) makes each search a
bisection. It stands behind the same session as neural models do: its "cache" is the tokens themselves.
Letters: P places of the store, N rows, V the target's vocabulary, S slots of the cache.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from backend.errors import UserError

LONGEST = 16  # tokens of an ending that are searched


class Tokens:
    """The tokens of one sequence by slot: what this model keeps where others keep keys and values."""

    def __init__(self) -> None:
        self.ids: list[int] = []

    @property
    def length(self) -> int:
        """Slots in use."""
        return len(self.ids)

    def truncate(self, length: int) -> None:
        """Forget the slots behind `length`."""
        del self.ids[length:]

    def keep(self, slots: Sequence[int]) -> None:
        """Make the tokens of these slots (ascending) slots 0, 1, ... and forget the others."""
        self.ids = [self.ids[slot] for slot in slots]


class Datastore:
    """A `Backbone` whose weights are texts.

    Args:
        ids_P: the texts, one behind the other. order_P: their suffix array, see `suffix_order`.
        vocab_size: V. device: where laws are put; searching is done on the CPU.
    """

    context = 1 << 20  # no text is too long to look at its ending

    def __init__(
        self, ids_P: np.ndarray, order_P: np.ndarray, vocab_size: int, device: torch.device | str = "cpu"
    ) -> None:
        self.ids_P, self.order_P = ids_P, order_P
        self.vocab_size = vocab_size
        self.num_params = len(ids_P)
        self.device = torch.device(device)

    def open_cache(self, capacity: int) -> Tokens:
        """An empty cache; it grows as it needs."""
        return Tokens()

    def forward_rows(
        self,
        ids_N: Tensor,
        positions_N: Tensor,
        cache: Tokens,
        visible_NS: Tensor | None = None,
        last: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """See `Backbone.forward_rows`. Logits are log counts, -inf for what never followed; there is nothing hidden."""
        start = cache.length
        cache.ids += ids_N.tolist()
        rows = range(len(ids_N))[len(ids_N) - last :] if last is not None else range(len(ids_N))
        laws = []
        for row in rows:
            if visible_NS is None:
                ending = cache.ids[max(0, start + row + 1 - LONGEST) : start + row + 1]
            else:
                ending = [cache.ids[slot] for slot in visible_NS[row].nonzero()[-LONGEST:, 0].tolist()]
            counts_V = torch.bincount(self.followers(ending), minlength=self.vocab_size)
            seen_K = counts_V.nonzero()[:, 0]
            never_V = torch.full([self.vocab_size], -torch.inf)
            laws.append(never_V.index_copy_(0, seen_K, counts_V[seen_K].float().log()))
        raw_NV = torch.stack(laws).to(self.device)
        return raw_NV, raw_NV.new_empty(len(ids_N), 0)

    def followers(self, ending: Sequence[int]) -> Tensor:
        """The tokens that follow the longest part of `ending` that the store holds, one for each place."""
        lengths = range(1, len(ending) + 1)
        longest = bisect_left(lengths, True, key=lambda m: not self.find(ending[-m:]))  # a part of a find is a find
        places = self.find(ending[-longest:] if longest else ())
        next_M = self.ids_P[self.order_P[places.start : places.stop] + longest]
        return torch.from_numpy(next_M.astype(np.int64))

    def find(self, run: Sequence[int]) -> range:
        """Ranks in the suffix array of the places where `run` stands with a token behind it."""
        wanted, m = list(run), len(run)

        def read(place: np.integer) -> list[int]:
            return list(self.ids_P[place : place + m].tolist())

        low = bisect_left(self.order_P, wanted, key=read)
        high = bisect_right(self.order_P, wanted, lo=low, key=read)
        if low < high and self.order_P[low] + m == len(self.ids_P):  # nothing follows; such a place sorts first
            low += 1
        return range(low, high)


def suffix_order(ids_P: np.ndarray) -> np.ndarray:
    """The places of a text in the order of what stands from there on, shorter before longer: int32 [P].

    Prefix doubling: ranks by the first token, then by the first 2, 4, 8, ... until all differ.
    """
    size, width = len(ids_P), 1
    rank_P = ids_P.astype(np.int64) + 1
    while True:
        behind_P = np.concatenate([rank_P[width:], np.zeros(min(width, size), np.int64)])
        key_P = rank_P * (rank_P.max(initial=0) + 1) + behind_P
        order_P = np.argsort(key_P, kind="stable")
        steps_P = np.diff(key_P[order_P], prepend=-1) > 0
        rank_P[order_P] = np.cumsum(steps_P)
        if steps_P.all():
            return order_P.astype(np.int32)
        width *= 2


def save_datastore(path: Path, ids_P: np.ndarray, vocab_size: int) -> None:
    """Write the texts and their suffix array, compressed."""
    order_P = suffix_order(ids_P)
    with path.open("wb") as file:
        np.savez_compressed(file, ids_P=ids_P.astype(np.uint16), order_P=order_P, vocab_size=np.array(vocab_size))


def load_datastore(path: Path, device: torch.device | str = "cpu") -> Datastore:
    """The datastore in a file of `save_datastore`. Raises UserError if there is no such file."""
    if not path.is_file():
        raise UserError(f"There is no datastore at {path}: build it with python -m backend.train.smollm2_datastore.")
    with np.load(path, allow_pickle=False) as file:
        return Datastore(file["ids_P"], file["order_P"], int(file["vocab_size"]), device)
