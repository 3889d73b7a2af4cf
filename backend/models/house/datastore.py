"""Texts written before as a causal model: the next token's law is how often each token followed the text's ending.

The longest ending of at most 16 tokens that the store holds decides, down to none at all, where every token of the
store counts. A suffix array (all places of the store in the order of the text behind them) makes each search a
bisection. What followed is a few tokens of 50,000, so that a law is kept as their counts, and its row of V numbers is
made only where somebody reads it.
Letters: P places of the store, N rows, V the target's vocabulary, K different tokens that followed.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from backend.errors import UserError
from backend.meter import Meter
from backend.protocols import CausalSession, Prompt, Scores
from backend.sampling import distribution
from backend.types import Sampling

if TYPE_CHECKING:
    from backend.codecs.text import TextCodec

LONGEST = 16  # tokens of an ending that are searched


class Followers(NamedTuple):
    """The tokens that followed an ending, each once, and how often they did."""

    tokens_K: np.ndarray
    counts_K: np.ndarray


class Datastore:
    """Texts, and where each of their parts stands.

    Args:
        ids_P: the texts, one behind the other. order_P: their suffix array, see `suffix_order`.
        vocab_size: V. device: where laws are put; searching is done on the CPU.
    """

    def __init__(
        self, ids_P: np.ndarray, order_P: np.ndarray, vocab_size: int, device: torch.device | str = "cpu"
    ) -> None:
        self.ids_P, self.order_P = ids_P, order_P
        self.vocab_size = vocab_size
        self.num_params = len(ids_P)
        self.device = torch.device(device)
        self._order = np.ascontiguousarray(order_P).data
        self._bytes = ids_P.astype(">u2").tobytes()  # two bytes a token, the high one first: they sort as tokens do

    def followers(self, ending: Sequence[int]) -> Followers:
        """What follows the longest part of `ending` that the store holds, at all places where it stands."""
        lengths = range(1, len(ending) + 1)
        longest = bisect_left(lengths, True, key=lambda m: not self.find(ending[-m:]))  # a part of a find is a find
        places = self.find(ending[-longest:] if longest else ())
        next_M = self.ids_P[self.order_P[places.start : places.stop] + longest]
        if len(next_M) < self.vocab_size // 8:
            return Followers(*np.unique(next_M, return_counts=True))
        counts_V = np.bincount(next_M, minlength=self.vocab_size)
        tokens_K = counts_V.nonzero()[0]
        return Followers(tokens_K, counts_V[tokens_K])

    def find(self, run: Sequence[int]) -> range:
        """Ranks in the suffix array of the places where `run` stands with a token behind it."""
        wanted = np.array(run, ">u2").tobytes()

        def read(place: int) -> bytes:
            return self._bytes[2 * place : 2 * place + len(wanted)]

        low = bisect_left(self._order, wanted, key=read)
        high = bisect_right(self._order, wanted, lo=low, key=read)
        if low < high and self._order[low] + len(run) == len(self.ids_P):  # nothing follows; such a place sorts first
            low += 1
        return range(low, high)


class StoreScores(Scores):
    """Laws of a store: counts, and rows of V numbers only for those who read them.

    Args:
        known: what followed, row by row. paths: the texts behind which the rows stand, for the repetition penalty.
    """

    known: Sequence[Followers]
    paths: Sequence[Sequence[int]]
    store: Datastore
    sampling: Sampling

    def __init__(
        self, known: Sequence[Followers], paths: Sequence[Sequence[int]], store: Datastore, sampling: Sampling
    ) -> None:
        vars(self).update(known=known, paths=paths, store=store, sampling=sampling)  # the class it extends is frozen

    def _raw(self) -> Tensor:  # log counts, -inf for what never followed
        never_NV = torch.full((len(self.known), self.store.vocab_size), -torch.inf)
        for row_V, (tokens_K, counts_K) in zip(never_NV, self.known, strict=True):
            row_V[torch.from_numpy(tokens_K.astype(np.int64))] = torch.from_numpy(counts_K).float().log()
        return never_NV.to(self.store.device)

    def _p(self) -> Tensor:
        return distribution(self.raw_NV, self.sampling, self.paths)

    raw_NV = cached_property(_raw)
    p_NV = cached_property(_p)

    def options(self, row: int, count: int = 4) -> tuple[tuple[int, float], ...]:
        """See `Scores`; tokens that never followed are left out."""
        tokens_K, counts_K = self.known[row]
        best = np.argsort(-counts_K, kind="stable")[:count]
        shares = (counts_K[best] / counts_K.sum()).tolist()
        return tuple(zip(tokens_K[best].tolist(), (round(share, 6) for share in shares), strict=True))


class StoreSession:
    """A `CausalSession` that looks endings up. A row is one of them, a call all those of a score that are new."""

    def __init__(self, store: Datastore, prompt: Sequence[int], sampling: Sampling, meter: Meter) -> None:
        self.tokens: list[int] = list(prompt)
        self._store = store
        self._sampling = sampling
        self._meter = meter
        self._known: dict[tuple[int, ...], Followers] = {}  # by what was drafted behind the text

    def score(self, draft: Sequence[int] = (), parents: Sequence[int] | None = None) -> StoreScores:
        """See `CausalSession.score`."""
        paths: list[tuple[int, ...]] = [()]
        for i, token in enumerate(draft):
            paths.append((*paths[i if parents is None else parents[i] + 1], token))
        if new := [path for path in dict.fromkeys(paths) if path not in self._known]:
            with self._meter.call(len(new)):
                for path in new:
                    ending = [*self.tokens[-LONGEST:], *path][-LONGEST:]
                    self._known[path] = self._store.followers(ending)
        penalised = self._sampling.repetition_penalty != 1.0
        texts = [[*self.tokens, *path] for path in paths] if penalised else []
        return StoreScores([self._known[path] for path in paths], texts, self._store, self._sampling)

    def commit(self, tokens: Sequence[int]) -> None:
        """See `CausalSession.commit`."""
        self.tokens.extend(tokens)
        size, done = len(tokens), tuple(tokens)
        self._known = {path[size:]: found for path, found in self._known.items() if path[:size] == done}


class StoreModel:
    """A datastore as the catalog hands it out."""

    speaks: frozenset[type] = frozenset({CausalSession})
    context = 1 << 20  # no text is too long to look at its ending

    def __init__(self, model_id: str, store: Datastore, codec: TextCodec) -> None:
        assert store.vocab_size == codec.size, "the store holds tokens of its codec"
        self.id = model_id
        self.store = store
        self.codec = codec
        self.num_params = store.num_params

    def open(self, protocol: type, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> StoreSession:
        """A session on the prompt. Raises UserError if the prompt has tokens that the store does not know."""
        assert protocol in self.speaks, protocol
        size = self.store.vocab_size
        unknown = [token for token in prompt.tokens if not 0 <= token < size]
        if unknown or not prompt.tokens:
            raise UserError(
                f"{self.id} knows tokens 0 to {size - 1}, but the prompt holds {unknown[:1] or 'none at all'}."
            )
        return StoreSession(self.store, prompt.tokens, sampling, meter)


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
    """Write the texts, compressed. Their suffix array is not there: it takes three times the bytes, and a second."""
    with path.open("wb") as file:
        np.savez_compressed(file, ids_P=ids_P.astype(np.uint16), vocab_size=np.array(vocab_size))


def load_datastore(path: Path, device: torch.device | str = "cpu") -> Datastore:
    """The datastore in a file of `save_datastore`. Raises UserError if there is no such file."""
    if not path.is_file():
        raise UserError(f"There is no datastore at {path}: build it with python -m backend.train.smollm2_datastore.")
    with np.load(path, allow_pickle=False) as file:
        ids_P = file["ids_P"]
        return Datastore(ids_P, suffix_order(ids_P), int(file["vocab_size"]), device)
