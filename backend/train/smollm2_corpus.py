"""The written conversations as training batches, and synthetic ones in which the answer copies from the question.

Letters: B conversations, T slots, M judged positions of a batch, J odds kept a position, K tokens of the draft's
vocabulary, V of SmolLM2's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from backend.models.house.draft import input_rows
from backend.train.smollm2_prompts import is_held_out
from backend.train.smollm2_text import ASKED, ASSISTANT, GIVEN, GREEDY, SAMPLED, USER

ROOT = Path(__file__).resolve().parents[2]
VOCAB, SHARED = 8192, 256  # tokens the draft predicts, and embedding rows shared by all others
WEIGHTS = {GIVEN: 0.3, ASKED: 0.6, GREEDY: 1.0, SAMPLED: 0.7}  # of a position, by who wrote the token behind it


def bench_prompts() -> list[dict[str, str]]:
    """The bench's own prompts (kind and prompt), which are never trained on."""
    path = ROOT / "assets" / "prompts.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@dataclass(frozen=True)
class Corpus:
    """All conversations of the shards, one behind the other.

    Args:
        ids, roles, top_ids, top_logp: as `smollm2_text.write_shards` stores them, odds at a position are of the next.
        bounds: first position of each conversation, and the end. held: which of them were held out.
        before, between: tokens of the template in front of the user's turn, and between it and the answer.
    """

    ids: np.ndarray
    roles: np.ndarray
    top_ids: np.ndarray
    top_logp: np.ndarray
    bounds: np.ndarray
    held: np.ndarray
    before: tuple[int, ...]
    between: tuple[int, ...]


def read_corpus(folder: Path, tokenizer: Tokenizer) -> Corpus:
    """Read every shard; about one conversation in 24 is held out, chosen by its user's turn.

    Conversations that ask one of the bench's own prompts (assets/prompts.jsonl) are held out too.
    """
    asked = {prompt["prompt"].strip() for prompt in bench_prompts()}
    shards = [dict(np.load(path)) for path in sorted(folder.glob("*/[0-9]*.npz"))]
    offsets = np.cumsum([0, *(len(shard["ids"]) for shard in shards)])
    bounds = np.concatenate([*(s["starts"] + o for s, o in zip(shards, offsets, strict=False)), offsets[-1:]])
    joined = {name: np.concatenate([s[name] for s in shards]) for name in ("ids", "roles", "top_ids", "top_logp")}
    held = np.zeros(len(bounds) - 1, bool)
    for i, (start, end) in enumerate(pairwise(bounds)):
        parts = tokenizer.decode(joined["ids"][start:end].tolist(), skip_special_tokens=False).split("<|im_start|>")
        turn = parts[2].removeprefix("user\n").removesuffix("<|im_end|>\n").strip()
        held[i] = turn in asked or is_held_out(turn)
    asking, answering = (tuple(tokenizer.encode(text).ids) for text in (USER, ASSISTANT))
    return Corpus(bounds=bounds, held=held, before=asking, between=answering, **joined)


def choose_vocabulary(corpus: Corpus) -> Tensor:
    """Ids [K] of the tokens that the draft predicts, ascending: control tokens, and the most frequent ones written."""
    counts_V = np.bincount(corpus.ids[corpus.roles != GIVEN], minlength=1 << 16).astype(np.float64)
    counts_V -= np.arange(len(counts_V)) * 1e-9  # ties go to the lower id, the more common token
    counts_V[:17] = np.inf
    return torch.from_numpy(np.sort(np.argsort(-counts_V)[:VOCAB]))


@dataclass(frozen=True)
class Batch:
    """Conversations padded to one length.

    Args:
        rows_BT: embedding rows. at_M: judged positions in the flattened batch. weight_M: what each counts.
        target_MJ: SmolLM2's best next tokens in the draft's vocabulary (-1: outside). p_MJ: their odds.
    """

    rows_BT: Tensor
    at_M: Tensor
    target_MJ: Tensor
    p_MJ: Tensor
    weight_M: Tensor


class Batches:
    """Cuts a corpus into batches of about `batch_tokens` positions, conversations of like length together."""

    def __init__(
        self, corpus: Corpus, ids_K: Tensor, target_vocab: int, batch_tokens: int, device: torch.device
    ) -> None:
        self.corpus, self.batch_tokens, self.device = corpus, batch_tokens, device
        self.rows_V = input_rows(ids_K, target_vocab, SHARED)
        self.small_V = torch.full((target_vocab,), -1).index_copy_(0, ids_K, torch.arange(len(ids_K)))
        self.ids_K = ids_K.numpy()
        self.weight_R = torch.tensor([WEIGHTS[role] for role in sorted(WEIGHTS)])

    def groups(self, talks: np.ndarray, rng: np.random.Generator) -> list[list[int]]:
        """Every conversation of `talks` (indices) once, in batches of random order."""
        lengths = np.diff(self.corpus.bounds)
        groups = []
        for chunk in np.array_split(rng.permutation(talks), max(1, len(talks) // 1024)):
            group: list[int] = []
            for talk in chunk[np.argsort(lengths[chunk], kind="stable")]:
                if group and (len(group) + 1) * lengths[talk] > self.batch_tokens:
                    groups.append(group)
                    group = []
                group.append(int(talk))
            groups.append(group)
        return [groups[i] for i in rng.permutation(len(groups))]

    def endless(
        self, talks: np.ndarray, rng: np.random.Generator, rank: int, trainers: int, copying: float
    ) -> Iterator[Batch]:
        """Epoch after epoch, this trainer's share of the batches, copying ones between them.

        All trainers share one order of the epoch; `copying` is the share of batches that teach nothing but copying.
        """
        own = np.random.default_rng([rank, int(rng.integers(1 << 30))])
        while True:
            groups = self.groups(talks, rng)
            for group in groups[rank : len(groups) // trainers * trainers : trainers]:
                yield self.collate(group)
                if own.random() < copying:
                    yield self.copying(talks, own)

    def collate(self, talks: Sequence[int]) -> Batch:
        """One batch of the given conversations."""
        c = self.corpus
        spans = [slice(c.bounds[t], c.bounds[t + 1]) for t in talks]
        width = max(s.stop - s.start for s in spans)
        rows_BT = torch.zeros(len(talks), width, dtype=torch.long)
        at, index = [], []
        for b, span in enumerate(spans):
            rows_BT[b, : span.stop - span.start] = self.rows_V[torch.from_numpy(c.ids[span].astype(np.int64))]
            known = np.flatnonzero(np.isfinite(c.top_logp[span, 0]))
            at.append(known + b * width)
            index.append(known + span.start)
        picked = np.concatenate(index)
        role_M = torch.from_numpy(c.roles[picked + 1].astype(np.int64))
        return Batch(
            *(
                x.to(self.device)
                for x in (
                    rows_BT,
                    torch.from_numpy(np.concatenate(at)),
                    self.small_V[torch.from_numpy(c.top_ids[picked].astype(np.int64))],
                    torch.from_numpy(c.top_logp[picked].astype(np.float32)).exp(),
                    self.weight_R[role_M],
                )
            )
        )

    def copying(self, talks: np.ndarray, rng: np.random.Generator) -> Batch:
        """Conversations whose answer is pieces of the question, itself a piece of text with every fourth token random.

        Nothing but copying predicts such an answer; a piece is judged from its third token on.
        """
        c, count = self.corpus, max(1, self.batch_tokens // 224)
        rows_BT = torch.zeros(count, 224, dtype=torch.long)
        at, target = [], []
        for b in range(count):
            start, end = c.bounds[(talk := rng.choice(talks)) : talk + 2]
            asked = c.ids[start + len(c.before) : end][:100].astype(np.int64)
            noisy = rng.random(len(asked)) < 0.25
            asked[noisy] = self.ids_K[rng.integers(17, len(self.ids_K), noisy.sum())]
            ids = [*c.before, *asked, *c.between]
            while len(ids) < 180:
                first = int(rng.integers(0, max(1, len(asked) - 10)))
                piece = asked[first : first + int(rng.integers(10, 40))]
                at.append(b * 224 + len(ids) + np.arange(1, len(piece) - 1))
                target.append(piece[2:])
                ids.extend(piece)
            rows_BT[b, : len(ids)] = self.rows_V[torch.tensor(ids)]
        target_M1 = self.small_V[torch.from_numpy(np.concatenate(target))][:, None]
        ones_M = torch.ones(len(target_M1))
        parts = (rows_BT, torch.from_numpy(np.concatenate(at)), target_M1, ones_M[:, None], ones_M)
        return Batch(*(part.to(self.device) for part in parts))
