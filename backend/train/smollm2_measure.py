"""What a draft of SmolLM2 is worth: how often the target agrees, on held-out conversations and the bench's prompts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from backend.models.house.draft import Draft
from backend.models.house.llama import Llama
from backend.train.smollm2_corpus import Batch, Batches, bench_prompts
from backend.train.smollm2_text import ASSISTANT, END, GREEDY, SAMPLED, USER

GAMMA = 6  # depths measured


def logits_at(model: Llama, batch: Batch) -> Tensor:
    """Float32 logits [M, K] of the judged positions, products in bfloat16."""
    with torch.autocast(batch.rows_BT.device.type, torch.bfloat16):
        features_MC = model.features(batch.rows_BT).flatten(0, 1)[batch.at_M]
        return F.linear(features_MC, model.head_weight()).float()


def acceptance(runs: Sequence[np.ndarray], gamma: int = GAMMA) -> dict[str, Any]:
    """Measures of greedy speculative decoding with gamma tokens drafted before each call.

    runs: for each text, whether the draft's best token is the target's, slot by slot. Returns alpha (kept / judged) in
    all and per depth, the share of all slots where they agree, and the mean number of new slots a call.
    """
    reached, kept = np.zeros(gamma), np.zeros(gamma)
    calls = slots = 0
    for agree_N in runs:
        at = 0
        while at < len(agree_N):
            ahead = agree_N[at : at + gamma]
            depth = len(ahead) if ahead.all() else int(ahead.argmin())
            reached[: min(depth + 1, len(ahead))] += 1
            kept[:depth] += 1
            at, slots, calls = at + depth + 1, slots + min(depth + 1, len(agree_N) - at), calls + 1
    agree = np.concatenate(runs)
    return {
        "greedy_slots": len(agree),
        "agreement": round(float(agree.mean()), 4),
        "alpha": round(float(kept.sum() / reached.sum()), 4),
        "alpha_per_depth": [round(float(x), 4) for x in kept / np.maximum(reached, 1)],
        f"mean_acceptance_length_gamma{gamma}": round(slots / calls, 3),
    }


@torch.inference_mode()
def on_held_out(model: Llama, batches: Batches, talks: np.ndarray) -> dict[str, Any]:
    """Measures on held-out conversations: `acceptance` where the answer is greedy, and where it was sampled the overlap
    sum(min(p, q)) at temperature 1 (a lower bound: the target's tail outside its 32 best tokens counts as missed)."""
    runs: list[np.ndarray] = []
    overlaps: list[np.ndarray] = []
    for talk in talks:
        batch = batches.collate([talk])
        roles_M = batches.corpus.roles[batches.corpus.bounds[talk] + batch.at_M.numpy(force=True) + 1]
        q_MK = logits_at(model, batch).softmax(-1)
        q_MJ = q_MK.gather(1, batch.target_MJ.clamp(min=0)) * (batch.target_MJ >= 0)
        overlaps.append(torch.minimum(batch.p_MJ, q_MJ).sum(-1).numpy(force=True)[roles_M == SAMPLED])
        runs.append((q_MK.argmax(-1) == batch.target_MJ[:, 0]).numpy(force=True)[roles_M == GREEDY])
    overlap = round(float(np.concatenate(overlaps).mean()), 4)
    return {"conversations": len(talks), **acceptance(runs), "overlap_temperature_1": overlap}


@torch.inference_mode()
def held_out_loss(
    model: Llama, batches: Batches, judge: Callable[[Llama, Batch], Tensor], most: int
) -> tuple[float, int]:
    """Mean training loss `judge` on the first `most` held-out conversations, and the positions these have.

    Random choices in `judge` are the same every time, so that models can be compared.
    """
    torch.manual_seed(0)
    total = weight = 0.0
    positions = 0
    for group in batches.groups(np.flatnonzero(batches.corpus.held)[:most], np.random.default_rng(0)):
        batch = batches.collate(group)
        counts = float(batch.weight_M.sum())
        total, weight = total + counts * float(judge(model, batch)), weight + counts
        positions += len(batch.at_M)
    return total / weight, positions


def moved_by_rounding(before: float, after: float, positions: int, bits: float | Mapping[str, float]) -> dict[str, Any]:
    """What rounding the weights did to a held-out loss in nats, over the same positions before and after.

    bits: of a weight in the file, or of each kind of matrix.
    """
    share = round(after / before - 1, 5)
    return {"bits": bits, "positions": positions, "before": round(before, 5), "after": round(after, 5), "share": share}


@dataclass(frozen=True)
class Answer:
    """SmolLM2's greedy answer to one of the bench's prompts. ids: of the prompt in the chat template; tokens: of it."""

    kind: str
    ids: list[int]
    tokens: list[int]


def bench_answers(target: Llama, tokenizer: Tokenizer, new_tokens: int = 64) -> list[Answer]:
    """The answers to all of the bench's prompts."""
    asked = [(prompt["kind"], tokenizer.encode(USER + prompt["prompt"] + ASSISTANT).ids) for prompt in bench_prompts()]
    return [Answer(kind, ids, _greedy(target, ids, new_tokens)) for kind, ids in asked]


def on_bench_prompts(draft: Draft, answers: Sequence[Answer]) -> dict[str, Any]:
    """Measures of `acceptance` on SmolLM2's greedy answers to the bench's prompts, and the agreement for each kind."""
    runs: dict[str, list[np.ndarray]] = {}
    for answer in answers:
        text_N = torch.tensor([*answer.ids, *answer.tokens], device=draft.device)
        slots_N = torch.arange(len(text_N), device=draft.device)
        cache = draft.open_cache(len(text_N))
        logits_KV, _ = draft.forward_rows(text_N, slots_N, cache, last=len(answer.tokens) + 1)
        agree_K = draft.ids_K[logits_KV[:-1].argmax(-1)] == text_N[len(answer.ids) :]
        runs.setdefault(answer.kind, []).append(agree_K.numpy(force=True))
    kinds = {kind: round(float(np.concatenate(those).mean()), 4) for kind, those in runs.items()}
    return {**acceptance([run for those in runs.values() for run in those]), "agreement_per_kind": kinds}


def _greedy(target: Llama, ids: Sequence[int], new_tokens: int) -> list[int]:
    """The target's answer at temperature 0, its end token included."""
    cache = target.open_cache(len(ids) + new_tokens)
    rows_N = torch.tensor(ids, device=target.device)
    answer: list[int] = []
    while len(answer) < new_tokens and answer[-1:] != [END]:
        slots_N = torch.arange(cache.length, cache.length + len(rows_N), device=target.device)
        logits_1V, _ = target.forward_rows(rows_N, slots_N, cache, last=1)
        answer.append(int(logits_1V.argmax()))
        rows_N = torch.tensor(answer[-1:], device=target.device)
    return answer
