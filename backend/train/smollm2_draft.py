"""Train `house/smollm2-draft`, the small model that drafts for SmolLM2-135M: `python -m backend.train.smollm2_draft`.

SmolLM2 writes the data itself (`smollm2_text`), and the draft learns SmolLM2's own odds at every position, cut to the
8,192 tokens that it writes most. Embeddings start as a projection of SmolLM2's onto their main directions.

`--device cpu` (bfloat16 products) takes about 45 minutes of writing and 45 minutes of training on two busy cores;
`--device cuda` writes 15 times the data and trains longer on one GPU. Writing and training both resume where they were.
Matrices are trained with Muon (torch 2.9 or later), embeddings and norms with AdamW.
The loss is the divergence from SmolLM2's odds with everything outside the draft's vocabulary and its 32 best tokens
gathered into one remainder. The card holds what was measured on conversations whose user's turn was not trained on.

Letters: M judged positions of a batch, K tokens of the draft's vocabulary, J = 32 odds kept, C features.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from backend.models.house.draft import input_rows, save_draft
from backend.models.house.llama import Llama, LlamaConfig
from backend.models.local import load_llama, load_smollm2
from backend.train.smollm2_text import ASKED, GIVEN, GREEDY, SAMPLED, write_shards

ROOT = Path(__file__).resolve().parents[2]
VOCAB, SHARED = 8192, 256  # tokens the draft predicts, and embedding rows shared by all others
WEIGHTS = {GIVEN: 0.3, ASKED: 0.6, GREEDY: 1.0, SAMPLED: 0.7}  # of a position, by who wrote the token behind it
GAMMA = 6  # depths measured


@dataclass(frozen=True)
class Recipe:
    """How much to write and how long to train.

    Args:
        tokens: positions SmolLM2 writes. writers: processes that write. batch: conversations each writes at once.
        trainers: processes that train. steps: of the optimiser. batch_tokens: most positions of a trainer's batch.
        rate: peak learning rate.
    """

    tokens: int
    writers: int
    batch: int
    trainers: int
    steps: int
    batch_tokens: int
    rate: float
    seed: int = 1


RECIPES = {
    "cpu": Recipe(tokens=650_000, writers=2, batch=40, trainers=2, steps=2000, batch_tokens=2048, rate=2.5e-3),
    "cuda": Recipe(tokens=10_000_000, writers=1, batch=512, trainers=1, steps=12_000, batch_tokens=16_384, rate=2e-3),
}


@dataclass(frozen=True)
class Corpus:
    """All conversations of the shards, one behind the other.

    Args:
        ids, roles, top_ids, top_logp: as `smollm2_text.write_shards` stores them, odds at a position are of the next.
        bounds: first position of each conversation, and the end. held: which of them were held out.
    """

    ids: np.ndarray
    roles: np.ndarray
    top_ids: np.ndarray
    top_logp: np.ndarray
    bounds: np.ndarray
    held: np.ndarray


def read_corpus(folder: Path, tokenizer: Tokenizer) -> Corpus:
    """Read every shard; about one conversation in 24 is held out, chosen by its user's turn.

    Conversations that ask one of the bench's own prompts (assets/prompts.jsonl) are held out too.
    """
    bench = ROOT / "assets" / "prompts.jsonl"
    asked = {json.loads(line)["prompt"].strip() for line in bench.read_text().splitlines()} if bench.exists() else set()
    shards = [dict(np.load(path)) for path in sorted(folder.glob("*/[0-9]*.npz"))]
    offsets = np.cumsum([0, *(len(shard["ids"]) for shard in shards)])
    bounds = np.concatenate([*(s["starts"] + o for s, o in zip(shards, offsets, strict=False)), offsets[-1:]])
    joined = {name: np.concatenate([s[name] for s in shards]) for name in ("ids", "roles", "top_ids", "top_logp")}
    held = np.zeros(len(bounds) - 1, bool)
    for i, (start, end) in enumerate(pairwise(bounds)):
        parts = tokenizer.decode(joined["ids"][start:end].tolist(), skip_special_tokens=False).split("<|im_start|>")
        turn = parts[2].removeprefix("user\n").removesuffix("<|im_end|>\n").strip()
        held[i] = turn in asked or hashlib.sha256(turn.encode()).digest()[0] % 24 == 0
    return Corpus(bounds=bounds, held=held, **joined)


def choose_vocabulary(corpus: Corpus) -> Tensor:
    """Ids [K] of the tokens that the draft predicts, ascending: control tokens, and the most frequent ones written."""
    counts_V = np.bincount(corpus.ids[corpus.roles != GIVEN], minlength=1 << 16).astype(np.float64)
    counts_V -= np.arange(len(counts_V)) * 1e-9  # ties go to the lower id, the more common token
    counts_V[:17] = np.inf
    return torch.from_numpy(np.sort(np.argsort(-counts_V)[:VOCAB]))


def new_draft(target_VC: Tensor, ids_K: Tensor) -> Llama:
    """An untrained draft whose embeddings are the target's rows projected onto their main directions."""
    config = LlamaConfig(
        vocab_size=len(ids_K), dim=256, num_layers=3, num_heads=8, num_kv_heads=4, head_dim=32, ffn_dim=768,
        context=8192, rope_theta=10_000.0, extra_inputs=SHARED,
    )  # fmt: skip
    model = Llama(config)
    rows_VC = target_VC.float()
    own_KC = rows_VC[ids_K]
    mean_C = own_KC.mean(0)
    directions = torch.linalg.svd(own_KC - mean_C, full_matrices=False).Vh[: config.dim]
    small_KC = (own_KC - mean_C) @ directions.T
    for name, weight in model.named_parameters():
        if weight.dim() == 2:
            scale = 0.5 / math.sqrt(2 * config.num_layers) if name.endswith(("out.weight", "down.weight")) else 0.5
            torch.nn.init.normal_(weight, std=scale * weight.shape[1] ** -0.5)
    with torch.no_grad():
        model.embed.weight[: len(ids_K)] = small_KC * (0.06 / small_KC.std())
        model.embed.weight[len(ids_K) :].normal_(std=0.02)
    return model


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

    def endless(self, talks: np.ndarray, rng: np.random.Generator, rank: int, trainers: int) -> Iterator[Batch]:
        """Epoch after epoch, this trainer's share of the batches; all trainers share one order."""
        while True:
            groups = self.groups(talks, rng)
            for group in groups[rank : len(groups) // trainers * trainers : trainers]:
                yield self.collate(group)

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


def distil_loss(logits_MK: Tensor, batch: Batch) -> Tensor:
    """Mean divergence (nats, up to the target's entropy) between SmolLM2's odds and the draft's.

    The J best tokens of SmolLM2 that the draft has are compared one by one; all else is one remainder.
    """
    known_MJ = batch.target_MJ >= 0
    p_MJ = batch.p_MJ * known_MJ
    total_M1 = torch.logsumexp(logits_MK, dim=-1, keepdim=True)
    logq_MJ = logits_MK.gather(1, batch.target_MJ.clamp(min=0)) - total_M1
    rest_p_M = (1 - p_MJ.sum(-1)).clamp(min=0)
    rest_q_M = (1 - (logq_MJ.exp() * known_MJ).sum(-1)).clamp(min=1e-4)
    loss_M = -(p_MJ * logq_MJ).sum(-1) - rest_p_M * rest_q_M.log()
    return (loss_M * batch.weight_M).sum() / batch.weight_M.sum()


def logits_at(model: Llama, batch: Batch) -> Tensor:
    """Float32 logits [M, K] of the judged positions, products in bfloat16."""
    with torch.autocast(batch.rows_BT.device.type, torch.bfloat16):
        features_MC = model.features(batch.rows_BT).flatten(0, 1)[batch.at_M]
        return F.linear(features_MC, model.head_weight()).float()


def train(recipe: Recipe, model: Llama, batches: Batches, checkpoint: Path, rank: int) -> None:
    """Train in place, together with the other trainers; resumes from the checkpoint, written every 100 steps.

    The learning rate rises for 100 steps, stays, and falls to zero over the last third.
    """
    matrices = [w for name, w in model.named_parameters() if w.dim() == 2 and not name.startswith("embed")]
    others = [w for name, w in model.named_parameters() if w.dim() != 2 or name.startswith("embed")]
    muon = torch.optim.Muon(matrices, lr=recipe.rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.AdamW(others, lr=recipe.rate, betas=(0.9, 0.95), weight_decay=0.0)
    total = recipe.steps

    def share(step: int) -> float:
        return min(1.0, (step + 1) / 100, 3 * (total - step) / total)

    parts: list[Any] = [muon, adam, *(torch.optim.lr_scheduler.LambdaLR(part, share) for part in (muon, adam))]
    step = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True, map_location=batches.device)
        step = saved["step"]
        model.load_state_dict(saved["model"])
        for part, state in zip(parts, saved["parts"], strict=True):
            part.load_state_dict(state)
    began, first, losses = time.monotonic(), step, []
    talks = np.flatnonzero(~batches.corpus.held)
    source = batches.endless(talks, np.random.default_rng([recipe.seed, step]), rank, recipe.trainers)
    while step < total:
        step += 1
        batch = next(source)
        loss = distil_loss(logits_at(model, batch), batch)
        torch.autograd.backward(loss)
        _average_gradients(model, recipe.trainers)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for part in parts:
            part.step()
        model.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if rank == 0 and step % 20 == 0:
            speed = (time.monotonic() - began) / (step - first)
            print(f"step {step}/{total} loss {np.mean(losses[-50:]):.4f} {speed:.2f} s a step", flush=True)
        if rank == 0 and (step % 100 == 0 or step == total):
            states = [part.state_dict() for part in parts]
            scratch = checkpoint.with_suffix(".part")
            torch.save({"step": step, "model": model.state_dict(), "parts": states}, scratch)
            scratch.rename(checkpoint)


def _average_gradients(model: Llama, trainers: int) -> None:
    """Make every trainer's gradients their mean, so that all take the same step."""
    if trainers == 1:
        return
    gradients = [w.grad for w in model.parameters() if w.grad is not None]
    joined = torch.cat([g.flatten() for g in gradients])
    torch.distributed.all_reduce(joined)
    means = torch.split(joined / trainers, [g.numel() for g in gradients])
    for gradient, mean in zip(gradients, means, strict=True):
        gradient.copy_(mean.view_as(gradient))


@torch.inference_mode()
def evaluate(model: Llama, batches: Batches, talks: np.ndarray) -> dict[str, object]:
    """Measure the draft on held-out conversations.

    Returns alpha (greedy drafts kept / judged) in all and per depth when GAMMA tokens are drafted before each call,
    the mean acceptance length of that, and the overlap sum(min(p, q)) at temperature 1 (a lower bound: the target's
    tail outside its 32 best tokens counts as missed).
    """
    reached, kept = np.zeros(GAMMA), np.zeros(GAMMA)
    calls = slots = agreed = judged = 0
    overlaps: list[Tensor] = []
    for talk in talks:
        batch = batches.collate([talk])
        start = batches.corpus.bounds[talk]
        roles_M = batches.corpus.roles[start + batch.at_M.numpy(force=True) + 1]
        q_MK = logits_at(model, batch).softmax(-1)
        q_MJ = q_MK.gather(1, batch.target_MJ.clamp(min=0)) * (batch.target_MJ >= 0)
        overlap_M = torch.minimum(batch.p_MJ, q_MJ).sum(-1).numpy(force=True)
        overlaps.append(torch.from_numpy(overlap_M[roles_M == SAMPLED]))
        agree_M = (q_MK.argmax(-1) == batch.target_MJ[:, 0]).numpy(force=True)[roles_M == GREEDY]
        agreed, judged, at = agreed + int(agree_M.sum()), judged + len(agree_M), 0
        while at < len(agree_M):
            depth = 0
            while depth < GAMMA and at + depth < len(agree_M):
                reached[depth] += 1
                if not agree_M[at + depth]:
                    break
                kept[depth] += 1
                depth += 1
            at += depth + 1
            slots, calls = slots + depth + 1, calls + 1
    return {
        "conversations": len(talks),
        "greedy_positions": judged,
        "alpha": round(float(kept.sum() / reached.sum()), 4),
        "alpha_per_depth": [round(float(x), 4) for x in kept / np.maximum(reached, 1)],
        "agreement_at_any_position": round(agreed / max(judged, 1), 4),
        "mean_acceptance_length_gamma6": round(slots / max(calls, 1), 3),
        "overlap_temperature_1": round(float(torch.cat(overlaps).mean()), 4),
    }


@dataclass(frozen=True)
class Job:
    """What every process of a run needs to know."""

    recipe: Recipe
    device: str
    data: Path

    @property
    def checkpoint(self) -> Path:
        """Where training is saved."""
        return self.data / "checkpoint.pt"


def _write(rank: int, job: Job) -> None:
    """One writing process."""
    source = load_smollm2()
    model = load_llama(source, torch.bfloat16, job.device)
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    recipe, folder = job.recipe, job.data / str(rank)
    write_shards(model, tokenizer, folder, recipe.tokens // recipe.writers, 1_000_000 * (rank + 1), recipe.batch)


def _train(rank: int, job: Job) -> None:
    """One training process; several average their gradients at every step."""
    if job.recipe.trainers > 1:
        meet = f"file://{job.data.resolve()}/trainers-{os.getppid()}"
        torch.distributed.init_process_group("gloo", meet, rank=rank, world_size=job.recipe.trainers)
    batches, model, _ = prepare(job)
    train(job.recipe, model, batches, job.checkpoint, rank)


def _run(work: Callable[[int, Job], None], processes: int, job: Job) -> None:
    """Run `work` in several processes and wait. Raises RuntimeError if one fails; what is on disk stays.

    On CPUs each process has one thread: unlike one process with several, they do not wait for each other at every
    operator when other programs use the cores too.
    """
    context = get_context("spawn")
    running = [context.Process(target=_start, args=(work, rank, job)) for rank in range(processes)]
    for process in running:
        process.start()
    for process in running:
        process.join()
    if any(process.exitcode for process in running):
        raise RuntimeError("a process failed; run the same command again to go on from what is saved")


def _start(work: Callable[[int, Job], None], rank: int, job: Job) -> None:
    if job.device == "cpu":
        torch.set_num_threads(1)
    work(rank, job)


def prepare(job: Job) -> tuple[Batches, Llama, Tensor]:
    """The written corpus as batches, an untrained draft, and the ids of its vocabulary [K]."""
    source = load_smollm2()
    target_VC = load_file(source / "model.safetensors")["model.embed_tokens.weight"].float()
    corpus = read_corpus(job.data, Tokenizer.from_file(str(source / "tokenizer.json")))
    ids_K = choose_vocabulary(corpus)
    torch.manual_seed(job.recipe.seed)
    model = new_draft(target_VC, ids_K).to(job.device)
    return Batches(corpus, ids_K, len(target_VC), job.recipe.batch_tokens, torch.device(job.device)), model, ids_K


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: write what is missing, train, measure, and save the draft with its card."""
    parser = argparse.ArgumentParser(prog="python -m backend.train.smollm2_draft", description=__doc__)
    parser.add_argument("--device", choices=sorted(RECIPES), default="cpu")
    parser.add_argument("--data", type=Path, default=ROOT / "train-data" / "smollm2-text")
    parser.add_argument("--out", type=Path, default=ROOT / "assets" / "house" / "smollm2-draft.safetensors")
    args = parser.parse_args(argv)
    job = Job(RECIPES[args.device], args.device, args.data)
    _run(_write, job.recipe.writers, job)
    _run(_train, job.recipe.trainers, job)

    batches, model, ids_K = prepare(job)
    model.load_state_dict(torch.load(job.checkpoint, weights_only=True, map_location=args.device)["model"])
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_draft(args.out, model, ids_K, len(batches.rows_V))
    corpus, written = batches.corpus, batches.corpus.roles != GIVEN
    card = {
        "id": "house/smollm2-draft",
        "what": "Draft model for SmolLM2-135M-Instruct: predicts its next token over a trimmed vocabulary.",
        "license": "Apache-2.0",
        "num_params": model.num_params,
        "config": asdict(model.config),
        "vocabulary_covers": round(float(np.isin(corpus.ids[written], ids_K.numpy()).mean()), 4),
        "data": "Conversations written by SmolLM2-135M-Instruct itself (Apache-2.0); half of the users' turns from a "
        "grammar of our own, half written by the model. No other text.",
        "data_positions": len(corpus.ids),
        "conversations": int((~corpus.held).sum()),
        "recipe": {"device": args.device, **asdict(job.recipe)},
        "held_out": evaluate(model, batches, np.flatnonzero(corpus.held)),
        "torch": str(torch.__version__),
    }
    args.out.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")
    print(json.dumps(card["held_out"], indent=2))


if __name__ == "__main__":
    main()
