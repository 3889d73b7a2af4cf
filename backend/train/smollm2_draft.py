"""Train `house/smollm2-draft`, the small model that drafts for SmolLM2-135M: `python -m backend.train.smollm2_draft`.

SmolLM2 writes the data itself (`smollm2_text`), and the draft learns SmolLM2's own odds at every position, cut to the
8,192 tokens that it writes most. Embeddings start as a projection of SmolLM2's onto their main directions.
`--device cpu` (bfloat16 products) made the weights that ship: 140 minutes of writing and 45 of training on two busy
cores; the first third of the text has longer answers and fewer users' turns by the model than `smollm2_text` writes
now. `--device cuda` writes five times as much, trains longer, and teaches copying too, for one GPU. Writing and
training resume where they were. Matrices are trained with Muon (torch 2.9 or later), embeddings and norms with AdamW.

The loss is the divergence from SmolLM2's odds with everything outside the draft's vocabulary and its 32 best tokens
gathered into one remainder. The card holds what was measured on conversations whose user's turn was not trained on,
and on the bench's prompts.

Letters: M judged positions of a batch, K tokens of the draft's vocabulary, J = 32 odds kept, C features.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from backend.models.house.draft import load_draft, read_draft, save_draft
from backend.models.house.llama import Llama, LlamaConfig
from backend.models.local import load_llama, load_smollm2
from backend.train.smollm2_corpus import ROOT, SHARED, Batch, Batches, choose_vocabulary, read_corpus
from backend.train.smollm2_measure import (
    bench_answers,
    held_out_loss,
    logits_at,
    moved_by_rounding,
    on_bench_prompts,
    on_held_out,
)
from backend.train.smollm2_text import GIVEN, write_shards

LEAST = 1e-4  # of the remainder's odds
BITS = {"embedding": 7, "layers": 5.5}  # of a weight in the file: the held-out loss moves by less than 0.5 %
COMPARED = 40  # held-out conversations on which rounded weights are compared with the trained ones


@dataclass(frozen=True)
class Recipe:
    """How much to write and how long to train.

    Args:
        tokens: positions SmolLM2 writes. writers: processes that write. batch: conversations each writes at once.
        trainers: processes that train. steps: of the optimiser. batch_tokens: most positions of a trainer's batch.
        rate: peak learning rate. copying: share of the batches that teach nothing but copying.
    """

    tokens: int
    writers: int
    batch: int
    trainers: int
    steps: int
    batch_tokens: int
    rate: float
    copying: float = 0.0
    seed: int = 1


RECIPES = {
    "cpu": Recipe(tokens=2_000_000, writers=2, batch=64, trainers=2, steps=2600, batch_tokens=2048, rate=2.5e-3),
    "cuda": Recipe(
        tokens=10_000_000,
        writers=1,
        batch=512,
        trainers=1,
        steps=12_000,
        batch_tokens=16_384,
        rate=2e-3,
        copying=0.15,
    ),
}


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


def distil_loss(logits_MK: Tensor, batch: Batch) -> Tensor:
    """Mean divergence (nats, up to the target's entropy) between SmolLM2's odds and the draft's.

    The J best tokens of SmolLM2 that the draft has are compared one by one; all else is one remainder.
    """
    known_MJ = batch.target_MJ >= 0
    p_MJ = batch.p_MJ * known_MJ
    total_M1 = torch.logsumexp(logits_MK, dim=-1, keepdim=True)
    logq_MJ = logits_MK.gather(1, batch.target_MJ.clamp(min=0)) - total_M1
    rest_p_M = (1 - p_MJ.sum(-1)).clamp(min=0)
    rest_q_M = (1 - (logq_MJ.exp() * known_MJ).sum(-1)).clamp(min=LEAST)
    loss_M = -(p_MJ * logq_MJ).sum(-1) - rest_p_M * rest_q_M.log()
    return (loss_M * batch.weight_M).sum() / batch.weight_M.sum()


def loss_of(model: Llama, batch: Batch) -> Tensor:
    """`distil_loss` of the model on a batch."""
    return distil_loss(logits_at(model, batch), batch)


def train(
    recipe: Recipe,
    model: Llama,
    batches: Batches,
    checkpoint: Path,
    rank: int = 0,
    judge: Callable[[Llama, Batch], Tensor] = loss_of,
) -> None:
    """Train in place, together with the other trainers; resumes from the checkpoint, written every 100 steps.

    The learning rate rises for 100 steps, stays, and falls to zero over the last third. judge: the loss of a batch.
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
    rng = np.random.default_rng([recipe.seed, step])
    source = batches.endless(talks, rng, rank, recipe.trainers, recipe.copying)
    while step < total:
        step += 1
        batch = next(source)
        loss = judge(model, batch)
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


def write_text(rank: int, job: Job) -> None:
    """One writing process."""
    source = load_smollm2()
    model = load_llama(source, torch.bfloat16, job.device)
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    recipe, folder = job.recipe, job.data / str(rank)
    seed = 1_000_000 * (recipe.seed + rank)
    write_shards(model, tokenizer, folder, recipe.tokens // recipe.writers, seed, recipe.batch)


def _train(rank: int, job: Job) -> None:
    """One training process."""
    join_trainers(rank, job)
    batches, model = prepare(job)
    train(job.recipe, model, batches, job.checkpoint, rank)


def join_trainers(rank: int, job: Job) -> None:
    """Meet the other trainers, where there are several: they average their gradients at every step."""
    if job.recipe.trainers > 1:
        meet = f"file://{job.data.resolve()}/trainers-{os.getppid()}"
        torch.distributed.init_process_group("gloo", meet, rank=rank, world_size=job.recipe.trainers)


def in_processes(work: Callable[[int, Job], None], processes: int, job: Job) -> None:
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


def prepare(job: Job) -> tuple[Batches, Llama]:
    """The written corpus as batches, and an untrained draft."""
    source = load_smollm2()
    target_VC = load_file(source / "model.safetensors")["model.embed_tokens.weight"].float()
    corpus = read_corpus(job.data, Tokenizer.from_file(str(source / "tokenizer.json")))
    torch.manual_seed(job.recipe.seed)
    ids_K = choose_vocabulary(corpus)
    model = new_draft(target_VC, ids_K)
    device = torch.device(job.device)
    return Batches(corpus, ids_K, len(target_VC), job.recipe.batch_tokens, device), model.to(device)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: write and train what is missing, measure, and save the draft with its card."""
    parser = argparse.ArgumentParser(prog="python -m backend.train.smollm2_draft", description=__doc__)
    parser.add_argument("--device", choices=sorted(RECIPES), default="cpu")
    parser.add_argument("--data", type=Path, default=ROOT / "train-data" / "smollm2-text")
    parser.add_argument("--out", type=Path, default=ROOT / "assets" / "house" / "smollm2-draft.safetensors")
    args = parser.parse_args(argv)
    job = Job(RECIPES[args.device], args.device, args.data)
    in_processes(write_text, job.recipe.writers, job)
    in_processes(_train, job.recipe.trainers, job)
    batches, model = prepare(job)
    model.load_state_dict(torch.load(job.checkpoint, weights_only=True, map_location=args.device)["model"])
    save(args.out, batches, model, job)


def save(out: Path, batches: Batches, model: Llama, job: Job) -> None:
    """Write the draft and its card, with everything measured."""
    out.parent.mkdir(parents=True, exist_ok=True)
    corpus, written = batches.corpus, batches.corpus.roles != GIVEN
    before, positions = held_out_loss(model, batches, loss_of, COMPARED)
    ids_K = torch.from_numpy(batches.ids_K)
    save_draft(out, model, ids_K, len(batches.rows_V), 0, BITS["layers"], BITS["embedding"])
    model = read_draft(out, job.device).model  # what ships is measured, in its rounded weights
    after, _ = held_out_loss(model, batches, loss_of, COMPARED)
    source = load_smollm2()
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    draft = load_draft(out, torch.float32, job.device, in_bytes=job.device == "cpu")
    target = load_llama(source, torch.float32, job.device)
    card = {
        "id": "house/smollm2-draft",
        "what": "Draft model for SmolLM2-135M-Instruct: predicts its next token over a trimmed vocabulary.",
        "license": "Apache-2.0",
        "num_params": model.num_params,
        "config": asdict(model.config),
        "vocabulary_covers": round(float(np.isin(corpus.ids[written], batches.ids_K).mean()), 4),
        "data": "Conversations written by SmolLM2-135M-Instruct itself (Apache-2.0), the users' turns by the model or "
        "by a grammar of our own. No other text.",
        "data_positions": len(corpus.ids),
        "conversations": int((~corpus.held).sum()),
        "recipe": {"device": job.device, **asdict(job.recipe)},
        "held_out": on_held_out(model, batches, np.flatnonzero(corpus.held)),
        "loss_moved_by_rounding": moved_by_rounding(before, after, positions, BITS),
        "about_held_out": "Other user's turns than in training, but of the same grammar and writer, so flattering; the "
        "bench's prompts were written apart and never trained on.",
        "bench_prompts": on_bench_prompts(draft, bench_answers(target, tokenizer)),
        "torch": str(torch.__version__),
    }
    out.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")
    print(json.dumps({name: card[name] for name in ("held_out", "bench_prompts")}, indent=2))


if __name__ == "__main__":
    main()
