"""What draft heads of SmolLM2 are worth: the ranks of the true tokens among their guesses, and steps saved by trees.

Everything is measured with the true text in front of each guess, which is what a draft that was right so far has.
Letters: R places ahead, N slots of an answer, B conversations, A slots at the end of a batch, K tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from backend.models.house.heads import Heads, Words
from backend.models.local import load_llama, load_smollm2
from backend.train.smollm2_heads_states import FeatureBatches, HeadBatch, loss_of, states_of
from backend.train.smollm2_measure import Answer, bench_answers
from backend.train.smollm2_text import GREEDY
from backend.trees import likeliest_ranks

RANKS = 10  # ranks of guesses that are measured
NODES = 16  # of the trees that are measured


@torch.inference_mode()
def ranks_of(heads: Heads, words: Words, small_V: Tensor, batch: HeadBatch) -> Tensor:
    """[R, B, A]: rank of the token behind slot a among the guesses of place k, drafted k slots before; RANKS: worse."""
    out = []
    target_BA = small_V.to(batch.next_BA.device)[batch.next_BA]
    with torch.autocast(batch.ids_BT.device.type, torch.bfloat16):
        states = states_of(heads, words, batch, heads.config.reach)
    for state_BAC in states:
        with torch.autocast(batch.ids_BT.device.type, torch.bfloat16):
            logits_BAK = F.linear(state_BAC, words.head_KC).float()
        own_BA1 = logits_BAK.gather(-1, target_BA.clamp(min=0)[..., None])
        rank_BA = (logits_BAK > own_BA1).sum(-1).clamp(max=RANKS)
        out.append(torch.where(target_BA < 0, RANKS, rank_BA))
    return torch.stack(out)


def rank_rows(heads: Heads, words: Words, batches: FeatureBatches, batch: HeadBatch) -> list[np.ndarray]:
    """[R, N] for each greedy answer: row k, slot n holds the rank in place k of the token that place drafts from n."""
    ranks_RBA = ranks_of(heads, words, batches.small_V, batch)
    out = []
    for b in range(ranks_RBA.shape[1]):
        slots = torch.nonzero(batch.written_BA[b] == GREEDY)[1:, 0]  # the first token comes with the prompt's call
        if len(slots) == 0:
            continue
        ranks_RN = ranks_RBA[:, b, slots[0] :].numpy(force=True)
        rows = [np.pad(rank_N[k:], (0, k), constant_values=-1) for k, rank_N in enumerate(ranks_RN)]
        out.append(np.stack(rows)[:, : len(slots)])
    return out


def odds_of(rows: Sequence[np.ndarray]) -> list[list[float]]:
    """[k][r]: how often the guess of rank r for place k was right, the tokens before it being the true ones."""
    joined_RN = np.concatenate(rows, axis=1)
    known = [rank_N[rank_N >= 0] for rank_N in joined_RN]
    return [[round(float((rank_N == r).mean()), 4) for r in range(RANKS)] for rank_N in known]


def acceptance(rows: Sequence[np.ndarray], odds: Sequence[Sequence[float]]) -> dict[str, Any]:
    """New slots a call of greedy decoding with a chain, and with the fixed tree of NODES nodes that suits `odds`."""
    reach = len(odds)
    trees = {
        "chain": {(0,) * (k + 1) for k in range(reach)},
        f"tree{NODES}": set(likeliest_ranks(odds, NODES, reach)),
    }
    found = {}
    for name, tree in trees.items():
        slots = calls = 0
        for rank_RN in rows:
            at = 0
            while at < rank_RN.shape[1]:
                path: tuple[int, ...] = ()
                while len(path) < reach and (*path, int(rank_RN[len(path), at])) in tree:
                    path = (*path, int(rank_RN[len(path), at]))
                step = min(len(path) + 1, rank_RN.shape[1] - at)
                at, slots, calls = at + step, slots + step, calls + 1
        found[f"mean_acceptance_length_{name}"] = round(slots / calls, 3)
    top = [round(float((r[r >= 0] == 0).mean()), 4) for r in np.concatenate(rows, axis=1)]
    return {"greedy_slots": sum(r.shape[1] for r in rows), "agreement_per_place": top, **found}


@torch.inference_mode()
def on_held_out(heads: Heads, words: Words, batches: FeatureBatches) -> tuple[float, list[np.ndarray]]:
    """Mean loss on held-out conversations, and `rank_rows` of their greedy answers."""
    torch.manual_seed(0)
    losses, rows = [], []
    for group in batches.groups(np.flatnonzero(batches.corpus.held), np.random.default_rng(0)):
        batch = batches.collate(group)
        losses.append(float(loss_of(heads, words, batch)))
        rows += rank_rows(heads, words, batches, batch)
    return float(np.mean(losses)), rows


@torch.inference_mode()
def bench_texts(source: Path, device: str) -> list[tuple[Answer, tuple[Any, ...]]]:
    """SmolLM2's greedy answers to the bench's prompts, with hidden states, as `FeatureBatches.align` takes them."""
    target = load_llama(source, torch.float32, device)
    out = []
    for answer in bench_answers(target, Tokenizer.from_file(str(source / "tokenizer.json"))):
        ids_N = torch.tensor([*answer.ids, *answer.tokens], device=device)
        slots_N = torch.arange(len(ids_N), device=device)
        _, hidden_NC = target.forward_rows(ids_N, slots_N, target.open_cache(len(ids_N)), last=1)
        roles = np.array([0] * len(answer.ids) + [GREEDY] * len(answer.tokens))
        nothing = (torch.zeros(len(ids_N), 1, dtype=torch.long), torch.full((len(ids_N), 1), -torch.inf))
        out.append((answer, (ids_N.cpu(), hidden_NC.cpu(), *nothing, roles)))
    return out


def on_bench_prompts(
    heads: Heads, words: Words, batches: FeatureBatches, odds: Sequence[Sequence[float]], device: str
) -> dict[str, Any]:
    """`acceptance` on the answers to the bench's prompts, all and by kind."""
    kinds: dict[str, list[np.ndarray]] = {}
    for answer, text in bench_texts(load_smollm2(), device):
        kinds.setdefault(answer.kind, []).extend(rank_rows(heads, words, batches, batches.align([text])))
    name = f"mean_acceptance_length_tree{NODES}"
    per_kind = {kind: acceptance(rows, odds)[name] for kind, rows in kinds.items()}
    every = [row for rows in kinds.values() for row in rows]
    return {**acceptance(every, odds), "tree_per_kind": per_kind}
