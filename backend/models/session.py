"""The causal session: a chain or a tree scored in one call, nothing ever computed twice, rollback for free.

Every evaluated token is a node of a trie that hangs from the committed text: (parent slot, token) -> cache slot. A
score runs only the nodes that are new; a commit keeps the cache rows of the accepted path and forgets the others.
The same session serves our own forward and transformers', both behind `Backbone`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from backend.errors import UserError
from backend.meter import Meter
from backend.protocols import Scores
from backend.sampling import distribution
from backend.types import Sampling

SCRATCH = 256  # cache rows for guesses, beside those for committed tokens; the widest window needs 225


def check_numbers(raw_NV: Tensor, model_id: str) -> None:
    """Raises UserError where a row of a model's logits makes no law: NaN, infinity, or nothing above minus infinity."""
    if not all(map(math.isfinite, raw_NV.amax(dim=-1).tolist())):
        raise UserError(
            f"{model_id} returned numbers that are no probabilities (NaN or infinity); pick another model or precision."
        )


class Cache(Protocol):
    """Key and value rows of one sequence, addressed by slot."""

    length: int

    def truncate(self, length: int) -> None:
        """Forget the rows behind `length`."""
        ...

    def keep(self, slots: Sequence[int]) -> None:
        """Make the rows of these slots (ascending) rows 0, 1, ... and forget the others."""
        ...


class Backbone(Protocol):
    """Weights that can be run on rows of one sequence. With an attribute `ids_K`, logits are of these tokens only."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def context(self) -> int: ...

    @property
    def device(self) -> torch.device: ...

    def open_cache(self, capacity: int) -> Any: ...

    def forward_rows(
        self,
        ids_N: Tensor,
        positions_N: Tensor,
        cache: Any,
        visible_NS: Tensor | None = None,
        last: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Append N rows to the cache; float logits of the `last` rows (all if None), and hidden states of all.

        visible_NS: bool, which of the S = cache.length + N slots a row may look at; None means a causal chain.
        """
        ...


class _Rows:
    """Logits, laws and hidden states of evaluated slots, one behind the other in memory, so that a chain is a view.

    Rows already handed out are never written again: what grows beyond its memory moves to new memory.
    """

    def __init__(self) -> None:
        self.count = 0
        self.held: tuple[Tensor, ...] = ()  # raw_MV, p_MV, hidden_MC, with room for more rows than `count`

    def extend(self, raw_KV: Tensor, p_KV: Tensor, hidden_KC: Tensor, spread: tuple[Tensor, int] | None = None) -> None:
        """Append rows to the three tensors.

        spread: ids, V: the columns of raw_KV and p_KV are these tokens only; laws are kept over all V.
        """
        start, self.count = self.count, self.count + len(raw_KV)
        fresh = (raw_KV, p_KV, hidden_KC)
        if start == 0 and spread is None:
            self.held = fresh
            return
        if self.count > len(self.held[0] if self.held else ()):
            widths = (raw_KV.shape[1], spread[1] if spread else p_KV.shape[1], hidden_KC.shape[1])
            wider = tuple(x.new_empty(max(8, 2 * self.count), w) for x, w in zip(fresh, widths, strict=True))
            for new, old in zip(wider, self.held, strict=False):
                new[:start] = old[:start]
            self.held = wider
        raw_MV, p_MV, hidden_MC = (held[start : self.count] for held in self.held)
        raw_MV.copy_(raw_KV)
        hidden_MC.copy_(hidden_KC)
        if spread is None:
            p_MV.copy_(p_KV)
        else:
            p_MV.zero_().scatter_(1, spread[0].expand_as(p_KV), p_KV)

    def keep(self, row: int | None) -> None:
        """Forget all rows but one, or all."""
        self.held = () if row is None else tuple(x[row : row + 1] for x in self.held)
        self.count = len(self.held[:1])


class TrieSession:
    """A `CausalSession` over a backbone."""

    def __init__(
        self,
        backbone: Backbone,
        model_id: str,
        vocab_size: int,
        prompt: Sequence[int],
        sampling: Sampling,
        meter: Meter,
        room: int,
    ) -> None:
        """Open the session; the prompt is run with the first score.

        Args:
            model_id: for messages. vocab_size: V of the laws; logits behind it belong to no token and are cut off.
            room: most tokens that will be committed.
        """
        self.tokens: list[int] = list(prompt)
        self._backbone = backbone
        self._id = model_id
        self._vocab_size = vocab_size
        self._sampling = sampling
        self._meter = meter
        self._cache: Cache = backbone.open_cache(min(len(prompt) + room, backbone.context) + SCRATCH)
        self._ready = 0  # committed tokens whose rows are in the cache, at slots 0.._ready-1
        self._nodes: dict[tuple[int, int], int] = {}  # (slot of the parent, token) -> slot
        self._depths: dict[int, int] = {}  # slot of a node -> its position
        self._parents: dict[int, int] = {}  # slot of a node -> slot of its parent
        self._row_at: dict[int, int] = {}  # slot -> its row in `_rows`
        self._rows = _Rows()
        ids_K = getattr(backbone, "ids_K", None)
        self._spread = None if ids_K is None else (ids_K, vocab_size)
        self._passed_MC: Tensor | None = None  # hidden states of committed tokens run in front of the root

    @property
    def _root(self) -> int:
        """Slot of the last committed token."""
        return len(self.tokens) - 1

    @torch.inference_mode()
    def score(self, draft: Sequence[int] = (), parents: Sequence[int] | None = None) -> Scores:
        """See `CausalSession.score`. Raises UserError if the model returns numbers that are no probabilities."""
        slots, new = self._place(draft, parents)
        if new or self._ready <= self._root:
            self._run(new)
        rows = [self._row_at[slot] for slot in slots]
        if rows == list(range(rows[0], rows[0] + len(rows))):
            pick: slice | list[int] = slice(rows[0], rows[0] + len(rows))  # a view: no copy of V numbers a row
        else:
            pick = rows
        raw_MV, p_MV, hidden_MC = self._rows.held
        return Scores(p_MV[pick], raw_MV[pick], hidden_MC[pick], self._passed_MC, self._spread and self._spread[0])

    def commit(self, tokens: Sequence[int]) -> None:
        """See `CausalSession.commit`."""
        path, slot = [], self._root
        if self._ready > self._root:
            for token in tokens:
                if (slot, token) not in self._nodes:
                    break
                slot = self._nodes[slot, token]
                path.append(slot)
        first = self._ready
        if path == list(range(first, first + len(path))):
            self._cache.truncate(first + len(path))
        else:
            self._cache.keep([*range(first), *path])
        self.tokens.extend(tokens)
        self._ready = first + len(path)
        row = self._row_at.get(slot) if self._ready > self._root else None
        self._forget(row)

    def _forget(self, row: int | None) -> None:
        """Drop all nodes; keep the law of `row`, which is the new root's."""
        self._passed_MC = None
        self._nodes.clear()
        self._depths.clear()
        self._parents.clear()
        self._row_at.clear()
        self._rows.keep(row)
        if row is not None:
            self._row_at[self._root] = 0

    def _place(self, draft: Sequence[int], parents: Sequence[int] | None) -> tuple[list[int], list[tuple[int, int]]]:
        """Slots of root and draft, and the (parent slot, token) of every node that has to be run."""
        slots = [self._root]
        new: list[tuple[int, int]] = []
        free = max(self._cache.length, len(self.tokens))
        for i, token in enumerate(draft):
            at = slots[i] if parents is None else slots[parents[i] + 1]
            if (at, token) not in self._nodes:
                slot = free + len(new)
                self._nodes[at, token] = slot
                self._parents[slot], self._depths[slot] = at, self._depths.get(at, self._root) + 1
                new.append((at, token))
            slots.append(self._nodes[at, token])
        return slots, new

    def _run(self, new: list[tuple[int, int]]) -> None:
        """Run committed tokens that are not in the cache yet, and the new nodes, in one call."""
        start, pending = self._cache.length, self.tokens[self._ready :]
        ids = [*pending, *(token for _, token in new)]
        first = start + len(pending)
        positions = [*range(self._ready, len(self.tokens)), *(self._depths[first + i] for i in range(len(new)))]
        end = self._backbone.context - 1  # guesses behind the end of the context are never committed
        device = self._backbone.device
        with self._meter.call(len(ids)):
            raw_KV, hidden_NC = self._backbone.forward_rows(
                torch.tensor(ids, device=device),
                torch.tensor([min(p, end) for p in positions], device=device),
                self._cache,
                self._visible(start, len(pending), new),
                last=len(new) + bool(pending),
            )
        raw_KV, hidden_KC = raw_KV[:, : self._vocab_size], hidden_NC[len(hidden_NC) - len(raw_KV) :]
        if len(pending) > 1:
            self._passed_MC = hidden_NC[: len(pending) - 1]
        self._ready = len(self.tokens)
        slots = [*([self._root] if pending else []), *range(first, first + len(new))]
        self._remember(slots, raw_KV, hidden_KC)

    def _remember(self, slots: Sequence[int], raw_KV: Tensor, hidden_KC: Tensor) -> None:
        self._row_at.update({slot: self._rows.count + i for i, slot in enumerate(slots)})
        self._rows.extend(raw_KV, self._laws(raw_KV, self._seen(slots)), hidden_KC, self._spread)

    def _laws(self, raw_KV: Tensor, seen: Sequence[Sequence[int]]) -> Tensor:
        """p_KV of logits after texts that hold the tokens `seen`. Raises UserError where they are no numbers."""
        if seen and self._spread:
            rank = {token: i for i, token in enumerate(self._spread[0].tolist())}
            seen = [[rank[token] for token in tokens if token in rank] for tokens in seen]
        check_numbers(raw_KV, self._id)
        return distribution(raw_KV, self._sampling, seen)

    def _visible(self, start: int, num_pending: int, new: list[tuple[int, int]]) -> Tensor | None:
        """The mask of the rows to run, or None where they are a chain that sees everything before it."""
        first = start + num_pending
        chain = all(parent == first + i - 1 for i, (parent, _) in enumerate(new))
        if chain and start == self._ready:
            return None
        if chain and not num_pending and new and self._is_line(new[0][0], start):
            return None
        visible_NS = torch.zeros(num_pending + len(new), first + len(new), dtype=torch.bool)
        visible_NS[:, : self._ready] = True
        visible_NS[:num_pending, start:first] = torch.ones(num_pending, num_pending, dtype=torch.bool).tril()
        visible_NS[num_pending:, start:first] = True
        for i in range(len(new)):
            slot = first + i
            while slot in self._parents:
                visible_NS[num_pending + i, slot] = True
                slot = self._parents[slot]
        return visible_NS.to(self._backbone.device)

    def _is_line(self, slot: int, start: int) -> bool:
        """Whether the cache holds nothing but the text and the path down to `slot`."""
        while slot in self._parents and slot == start - 1:
            slot, start = self._parents[slot], start - 1
        return slot == self._root and start == self._ready

    def _seen(self, slots: Sequence[int]) -> list[list[int]]:
        """Tokens that the repetition penalty of each row looks at."""
        if self._sampling.repetition_penalty == 1.0:
            return []
        token_at = {slot: token for (_, token), slot in self._nodes.items()}
        out = []
        for slot in slots:
            path = []
            while slot in self._parents:
                path.append(token_at[slot])
                slot = self._parents[slot]
            out.append([*self.tokens, *path])
        return out
