"""A block transformer: a global model reads blocks of tokens, a local one writes the next block token by token.

The global model reads one vector a block, its tokens' short embeddings side by side; what it makes of all blocks up to
one is the context of the next. The local model begins with two vectors made from that context and sees, besides them,
the tokens of its own block only. Blocks are counted from the start of the text, so a prompt may end inside one: the
local model goes on behind the tokens that are there, and no text is padded.

Letters: B batch, T time (whole blocks), K blocks, W tokens of a block, C features, E = C / W features of a short
embedding, V vocabulary, Z vectors of a context, S = B * K; N rows of a call, G global rows, M local rows of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backend.models.house.layers import LinearMap, pack_linear, rotary_turns, wide
from backend.models.house.llama import Llama, LlamaConfig

PREFIX = 2  # Z
START = -1  # stands for the slot before the first, whose context every text begins with


@dataclass(frozen=True, slots=True)
class TwoLevelConfig:
    """Sizes.

    Args:
        dim: C of both levels, a multiple of `length`. num_layers: of each level. length: W, tokens of a block.
        context: most tokens of a text.
    """

    vocab_size: int
    dim: int
    num_layers: int
    num_heads: int
    ffn_dim: int
    context: int
    length: int = 4

    def level(self, vocab_size: int, context: int) -> LlamaConfig:
        """One of the two levels as a Llama."""
        width = self.dim // self.num_heads
        return LlamaConfig(
            vocab_size, self.dim, self.num_layers, self.num_heads, self.num_heads, width, self.ffn_dim, context
        )


class TwoLevel(nn.Module):
    """A block transformer to train; `pack` makes what decodes."""

    def __init__(self, config: TwoLevelConfig) -> None:
        super().__init__()
        self.config = config
        self.short_embed = nn.Embedding(config.vocab_size, config.dim // config.length)
        self.globe = Llama(config.level(1, config.context // config.length + 1))  # its one token begins every text
        self.between = nn.Linear(config.dim, PREFIX * config.dim, bias=False)
        self.local = Llama(config.level(config.vocab_size, PREFIX + config.length))

    @property
    def num_params(self) -> int:
        """Number of weights, a tied head counted once."""
        return sum(p.numel() for p in self.parameters())

    def forward(self, ids_BT: Tensor) -> Tensor:
        """Logits [B, T, V], differentiable: row t is the law of token t itself, given the tokens before it."""
        blocks_BKW = ids_BT.view(len(ids_BT), -1, self.config.length)
        read_BKC = self.short_embed(blocks_BKW).flatten(2)
        start_B1C = self.globe.embed.weight.expand(len(ids_BT), 1, -1)
        context_BKC = _features(self.globe, torch.cat((start_B1C, read_BKC[:, :-1]), dim=1))
        prefix_SZC = self.between(context_BKC).unflatten(-1, (PREFIX, -1)).flatten(0, 1)
        written_SWC = self.local.embed(blocks_BKW[..., :-1]).flatten(0, 1)
        told_SWC = _features(self.local, torch.cat((prefix_SZC.to(written_SWC.dtype), written_SWC), dim=1))
        return F.linear(told_SWC[:, PREFIX - 1 :], self.local.head_weight()).view(*ids_BT.shape, -1)

    def pack(self, dtype: torch.dtype) -> TwoLevelDecoder:
        """A frozen copy whose products run in dtype, laid out for its device; sessions share it."""
        between = pack_linear(self.between.weight, None, dtype)
        short_VE = self.short_embed.weight.detach().to(dtype)
        return TwoLevelDecoder(
            self.config, self.globe.pack(dtype), self.local.pack(dtype), between, short_VE, self.num_params
        )


def _features(level: Llama, h_BTC: Tensor) -> Tensor:
    """What the head of one level reads, [B, T, C], from vectors in the place of tokens."""
    turn_T1P = rotary_turns(torch.arange(h_BTC.shape[1], device=h_BTC.device), level.speed_P, wide(h_BTC.dtype))
    for block in level.blocks:
        h_BTC = block(h_BTC, turn_T1P)
    out_BTC: Tensor = level.norm(h_BTC)
    return out_BTC


class TwoLevelCache:
    """What a text left behind in both levels. Its slots are tokens, as a causal session counts them.

    A whole block has a row in the global cache and its context's Z rows in the local one, both found by the slot of
    its last token; the other tokens have one row in the local cache. What no later token can see is dropped from the
    local cache when guesses are settled.
    """

    def __init__(self, decoder: TwoLevelDecoder, capacity: int) -> None:
        self.tokens: list[int] = []
        self.globe = decoder.globe.open_cache(capacity + 1)
        self.local = decoder.local.open_cache(PREFIX * capacity + PREFIX)
        self.ends: dict[int, int] = {}  # slot of a block's last token -> its global row
        self.rows: dict[int, int] = {}  # slot -> its local row; of a block's last token, the first row of the context
        self._width = decoder.config.length

    @property
    def length(self) -> int:
        """Slots in use."""
        return len(self.tokens)

    def truncate(self, length: int) -> None:
        """Forget the slots from `length` on; those before are one text from now on."""
        self.keep(range(length))

    def keep(self, slots: Sequence[int]) -> None:
        """Make these slots (ascending, one text) slots 0, 1, ... and forget the others."""
        whole = len(slots) // self._width * self._width
        if START in self.ends:
            ends = slots[self._width - 1 : whole : self._width]
            self.globe.keep([0, *(self.ends[slot] for slot in ends)])
            context = slots[whole - 1] if whole else START
            first = self.rows[context]
            self.local.keep([*range(first, first + PREFIX), *(self.rows[slot] for slot in slots[whole:])])
            self.ends = {START: 0} | {(i + 1) * self._width - 1: i + 1 for i in range(len(ends))}
            self.rows = {whole + i: PREFIX + i for i in range(len(slots) - whole)} | {whole - 1: 0}
        self.tokens = [self.tokens[slot] for slot in slots]


class TwoLevelDecoder:
    """The frozen block transformer, with the interface of a `Llama` over single tokens.

    Args:
        globe, local: both levels, packed. between: contexts to the local model's first vectors, [G, C] -> [G, Z * C].
        short_VE: short embeddings of the tokens.
    """

    def __init__(
        self,
        config: TwoLevelConfig,
        globe: Llama,
        local: Llama,
        between: LinearMap,
        short_VE: Tensor,
        num_params: int,
    ) -> None:
        self.config, self.num_params = config, num_params
        self.globe, self.local, self.between, self.short_VE = globe, local, between, short_VE
        self.vocab_size, self.context = config.vocab_size, config.context
        self.device, self.dtype = local.device, local.dtype
        self.row_bytes = 2 * config.num_layers * config.dim * local.dtype.itemsize  # keys and values, either level
        self.twin_row_bytes = 0  # of a token in a plain model of about the same loss; 0 where none is known

    def open_cache(self, capacity: int) -> TwoLevelCache:
        """An empty cache for one sequence of at most `capacity` tokens and guesses."""
        return TwoLevelCache(self, capacity)

    def block_vectors(self, tokens: Sequence[int]) -> Tensor:
        """What the global model reads of whole blocks, [G, C]."""
        ids_N = torch.tensor(tokens, dtype=torch.long, device=self.device)
        ids_GW = ids_N.view(len(tokens) // self.config.length, self.config.length)
        return self.short_VE[ids_GW].flatten(1).to(wide(self.dtype))

    def prefixes(self, context_GC: Tensor) -> Tensor:
        """The local model's first vectors of each context, [G, Z, C]."""
        return self.between(context_GC.to(self.dtype)).to(wide(self.dtype)).view(len(context_GC), PREFIX, -1)

    @torch.inference_mode()
    def forward_rows(
        self,
        ids_N: Tensor,
        positions_N: Tensor,
        cache: TwoLevelCache,
        visible_NS: Tensor | None = None,
        last: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Append N tokens of one text, or of a tree of guesses; see `Llama.forward_rows`. Positions are not needed."""
        start = cache.length
        cache.tokens.extend(ids_N.tolist())
        if visible_NS is None:
            paths: list[Sequence[int]] = [range(slot + 1) for slot in range(start, cache.length)]
        else:
            paths = [[slot for slot, seen in enumerate(row) if seen] for row in visible_NS.tolist()]
        if START not in cache.ends:
            paths.insert(0, ())
        prefix_GZC = self._read_blocks(cache, paths, visible_NS is None)
        return self._write_tokens(cache, paths, prefix_GZC, len(ids_N) if last is None else last)

    def _read_blocks(self, cache: TwoLevelCache, paths: Sequence[Sequence[int]], chain: bool) -> Tensor | None:
        """The global call over blocks that end here: the first vectors of their contexts, or None. A path of nothing:
        what every text begins with."""
        width = self.config.length
        fresh = [path for path in paths if len(path) % width == 0]
        if not fresh:
            return None
        first = cache.globe.length
        read_GC = self.block_vectors([cache.tokens[slot] for path in fresh for slot in path[-width:]])
        if not fresh[0]:
            begin_1C = self.globe.embeddings(torch.zeros(1, dtype=torch.long, device=self.device))
            read_GC = torch.cat((begin_1C, read_GC))
        cache.ends |= {path[-1] if path else START: first + g for g, path in enumerate(fresh)}
        seen = [[0, *(cache.ends[slot] for slot in path[width - 1 :: width])] for path in fresh]
        visible_GS = None if chain else self._mask(seen, first + len(fresh))
        places_G = torch.tensor([len(rows) - 1 for rows in seen], device=self.device)
        _, context_GC = self.globe.forward_rows(read_GC, places_G, cache.globe, visible_GS, last=1)
        return self.prefixes(context_GC)

    def _write_tokens(
        self, cache: TwoLevelCache, paths: Sequence[Sequence[int]], prefix_GZC: Tensor | None, last: int
    ) -> tuple[Tensor, Tensor]:
        """The local call: a token's law is read behind it, or behind the context where it completes its block."""
        width, first = self.config.length, cache.local.length
        parts: list[Tensor] = []
        seen: list[list[int]] = []
        places: list[int] = []
        reads: list[int] = []  # local row that each of the N laws is read from, counted from `first`
        contexts = iter(()) if prefix_GZC is None else iter(prefix_GZC)
        for path in paths:
            depth, at = len(path) % width, first + len(seen)
            cache.rows[path[-1] if path else START] = at
            if depth == 0:
                parts.append(next(contexts))
                seen.extend([*range(at, at + z + 1)] for z in range(PREFIX))
                places.extend(range(PREFIX))
            else:
                begin = cache.rows[path[-depth - 1] if len(path) > depth else START]
                before = [cache.rows[slot] for slot in path[-depth:]]
                parts.append(self.local.embeddings(torch.tensor([cache.tokens[path[-1]]], device=self.device)))
                seen.append([*range(begin, begin + PREFIX), *before])
                places.append(PREFIX - 1 + depth)
            if path:
                reads.append(len(seen) - 1)
        alone = len(seen) == 1 and len(seen[0]) == first + 1
        visible_MS = None if alone else self._mask(seen, first + len(seen))
        places_M = torch.tensor(places, device=self.device)
        lead = reads[-last]
        logits_KV, hidden_MC = self.local.forward_rows(
            torch.cat(parts), places_M, cache.local, visible_MS, last=len(seen) - lead
        )
        return logits_KV[[row - lead for row in reads[-last:]]], hidden_MC[reads]

    def _mask(self, seen: Sequence[Sequence[int]], slots: int) -> Tensor:
        """Bool, which of the slots each row may look at."""
        visible = torch.zeros(len(seen), slots, dtype=torch.bool)
        for row, at in enumerate(seen):
            visible[row, list(at)] = True
        return visible.to(self.device)
