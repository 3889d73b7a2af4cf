"""Train the models of short stories, house/tales*: `python -m backend.train.tales --model tales|draft|block|twin`.

SmolLM2 writes the stories (`tales_text`), and those among its older conversations (`smollm2_text`) are read too. A
tokenizer is learned from them, and four models from both: `tales` writes stories, `draft` is distilled from it and
drafts for it, `block` is a block transformer, and `twin` a plain model whose held-out loss is about that of `block`,
for comparison. `--device cuda` writes ten times as much as `--device cpu` and trains longer, for one GPU. Writing and
training resume where they were. Matrices are trained with Muon (torch 2.9 or later), embeddings and norms with AdamW;
the learning rate follows a cosine.

Letters: B stories of a batch, T tokens of the longest, V vocabulary.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from backend.codecs.text import read_tokenizer
from backend.models.house.llama import Llama, LlamaConfig
from backend.models.house.own import read_own, save_own
from backend.models.house.two_level import TwoLevel, TwoLevelConfig
from backend.models.local import load_llama, load_smollm2
from backend.train.smollm2_corpus import ROOT
from backend.train.smollm2_draft import Job, Recipe, in_processes, join_trainers
from backend.train.smollm2_measure import moved_by_rounding
from backend.train.tales_measure import agreement, held_out_loss, what_it_writes
from backend.train.tales_text import (
    VOCAB,
    copy_stories,
    learn_tokenizer,
    read_stories,
    save_codec,
    write_stories,
    written,
)

ASSETS = ROOT / "assets" / "house"
CONTEXT = 512  # tokens a model may be given
LONGEST = 336  # tokens of a story that are trained on
GONE = -100  # no target
SAVED_EVERY = 50  # steps
BITS = {"tales": 4.5, "block": 5, "twin": 5, "draft": 5}  # of a weight: the held-out loss moves by less than 0.5 %

_cpu = Recipe(tokens=250_000, writers=2, batch=64, trainers=2, steps=600, batch_tokens=1024, rate=2.5e-3)
_cuda = replace(_cpu, tokens=4_000_000, writers=1, batch=512, trainers=1, steps=6000, batch_tokens=8192)
RECIPES = {
    device: {"tales": every, "block": every, "twin": every, "draft": replace(every, steps=every.steps * 2 // 3)}
    for device, every in (("cpu", _cpu), ("cuda", _cuda))
}
SIZES: dict[str, LlamaConfig | TwoLevelConfig] = {
    "tales": LlamaConfig(VOCAB, 256, 4, 8, 4, 32, 576, CONTEXT),
    "draft": LlamaConfig(VOCAB, 128, 1, 4, 2, 32, 320, CONTEXT),
    "block": TwoLevelConfig(VOCAB, 192, 2, 6, 512, CONTEXT),
    "twin": LlamaConfig(VOCAB, 160, 2, 5, 5, 32, 432, CONTEXT),
}
WHAT = {
    "tales": "Small language model that continues short stories.",
    "draft": "Draft model for house/tales, distilled from it.",
    "block": "Block transformer that continues short stories: one global step a block of 4 tokens, 4 local ones.",
    "twin": "Plain language model of short stories whose held-out loss is about that of house/tales-block.",
}


@dataclass(frozen=True)
class TaleJob(Job):
    """What every process of a run needs to know. model: which of the four. out: folder of the house models."""

    model: str
    out: Path

    @property
    def checkpoint(self) -> Path:
        """Where training is saved."""
        return self.data / f"checkpoint-{self.model}.pt"

    @property
    def name(self) -> str:
        """Of the model, as the catalog and its files know it."""
        return "tales" if self.model == "tales" else f"tales-{self.model}"


def new_model(config: LlamaConfig | TwoLevelConfig) -> Llama | TwoLevel:
    """An untrained model of these sizes."""
    model = Llama(config) if isinstance(config, LlamaConfig) else TwoLevel(config)
    for name, weight in model.named_parameters():
        if "embed" in name:
            torch.nn.init.normal_(weight, std=0.04)
        elif weight.dim() == 2:
            scale = 0.5 / math.sqrt(2 * config.num_layers) if name.endswith(("out.weight", "down.weight")) else 0.5
            torch.nn.init.normal_(weight, std=scale * weight.shape[1] ** -0.5)
    return model


class Shelf:
    """The stories as tokens.

    Args:
        tokenizer: theirs. told: token ids of the stories to train on. held: of those to measure on.
    """

    def __init__(self, tokenizer: Tokenizer, told: Sequence[Sequence[int]], held: Sequence[Sequence[int]]) -> None:
        self.tokenizer, self.told, self.held = tokenizer, told, held

    def batches(self, recipe: Recipe, rank: int, step: int) -> Iterator[Tensor]:
        """Endless batches ids_BT of one trainer from this step on, stories of like length together; GONE at the end."""
        at, epoch = step * recipe.trainers + rank, 0
        while True:
            rng = np.random.default_rng([recipe.seed, epoch])
            lengths = np.array([len(story) for story in self.told]) + rng.uniform(0, 24, len(self.told))
            groups: list[list[int]] = [[]]
            for i in np.argsort(lengths).tolist():
                if (len(groups[-1]) + 1) * len(self.told[i]) > recipe.batch_tokens:
                    groups.append([])
                groups[-1].append(i)
            order = rng.permutation(len(groups))
            while at < len(order):
                yield padded([self.told[i] for i in groups[order[at]]])
                at += recipe.trainers
            at, epoch = at - len(order), epoch + 1


def padded(stories: Sequence[Sequence[int]]) -> Tensor:
    """Stories as one tensor [B, T], T a multiple of 4, GONE behind their ends."""
    length = -(-max(map(len, stories)) // 4) * 4
    return torch.tensor([[*story, *[GONE] * (length - len(story))] for story in stories])


def laws_of(model: Llama | TwoLevel, ids_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Float32 logits [M, V] of all tokens but the first ones, and these tokens [M]."""
    with torch.autocast(ids_BT.device.type, torch.bfloat16):
        logits_BTV = model(ids_BT.clamp(min=0))
    logits_BTV = logits_BTV[:, 1:] if isinstance(model, TwoLevel) else logits_BTV[:, :-1]
    known = ids_BT[:, 1:] != GONE
    return logits_BTV[known].float(), ids_BT[:, 1:][known]


def loss_of(model: Llama | TwoLevel, ids_BT: Tensor, teacher: Llama | None) -> Tensor:
    """Mean loss in nats a token; with a teacher, half of it against the teacher's law."""
    logits_MV, target_M = laws_of(model, ids_BT)
    loss = F.cross_entropy(logits_MV, target_M)
    if teacher is None:
        return loss
    with torch.no_grad():
        p_MV = laws_of(teacher, ids_BT)[0].softmax(-1)
    return (loss - (p_MV * F.log_softmax(logits_MV, dim=-1)).sum(-1).mean()) / 2


def train(job: TaleJob, model: Llama | TwoLevel, shelf: Shelf, teacher: Llama | None, rank: int) -> None:
    """Train in place, together with the other trainers; resumes from the checkpoint, if there is one."""
    recipe, total = job.recipe, job.recipe.steps
    matrices = [w for name, w in model.named_parameters() if w.dim() == 2 and "embed" not in name]
    others = [w for name, w in model.named_parameters() if w.dim() != 2 or "embed" in name]
    muon = torch.optim.Muon(matrices, lr=recipe.rate, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.AdamW(others, lr=recipe.rate, betas=(0.9, 0.95), weight_decay=0.0)

    def share(step: int) -> float:
        return min(1.0, (step + 1) / 30) * (0.5 + 0.5 * math.cos(math.pi * min(1.0, step / total)))

    parts: list[Any] = [muon, adam, *(torch.optim.lr_scheduler.LambdaLR(part, share) for part in (muon, adam))]
    step = 0
    if job.checkpoint.exists():
        saved = torch.load(job.checkpoint, weights_only=True, map_location=job.device)
        step = saved["step"]
        model.load_state_dict(saved["model"])
        for part, state in zip(parts, saved["parts"], strict=True):
            part.load_state_dict(state)
    began, first, losses = time.monotonic(), step, []
    source = shelf.batches(recipe, rank, step)
    while step < total:
        step += 1
        loss = loss_of(model, next(source).to(job.device), teacher)
        torch.autograd.backward(loss)
        average_gradients(model, recipe.trainers)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for part in parts:
            part.step()
        model.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if rank == 0 and step % 50 == 0:
            speed = (time.monotonic() - began) / (step - first)
            print(f"step {step}/{total} loss {np.mean(losses[-50:]):.4f} {speed:.2f} s a step", flush=True)
        if rank == 0 and (step % SAVED_EVERY == 0 or step == total):
            save_checkpoint(job, step, model, parts)
        if rank == 0 and step % 300 == 0:
            print(f"held out {held_out_loss(model, shelf, laws_of)['nats_per_token']:.4f}", flush=True)


def save_checkpoint(job: TaleJob, step: int, model: nn.Module, parts: Sequence[Any]) -> None:
    """Write where training stands, by a temporary name."""
    scratch = job.checkpoint.with_suffix(".part")
    states = [part.state_dict() for part in parts]
    torch.save({"step": step, "model": model.state_dict(), "parts": states}, scratch)
    scratch.rename(job.checkpoint)


def average_gradients(model: nn.Module, trainers: int) -> None:
    """Make every trainer's gradients their mean, so that all take the same step; weights that it did not use have 0."""
    if trainers == 1:
        return
    trained = [w for w in model.parameters() if w.requires_grad]
    for weight in trained:
        weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
    gradients = [w.grad for w in trained if w.grad is not None]
    joined = torch.cat([g.flatten() for g in gradients])
    torch.distributed.all_reduce(joined)
    for gradient, mean in zip(gradients, torch.split(joined / trainers, [g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def prepare(job: TaleJob) -> tuple[Shelf, Llama | TwoLevel, Llama | None]:
    """The stories as tokens, an untrained model, and its teacher where it has one. Learns the tokenizer if need be."""
    stories = read_stories(job.data)
    path = job.data / "tokenizer.json"
    if not path.exists():
        learn_tokenizer(stories).save(str(path))
    tokenizer = Tokenizer.from_file(str(path))

    def tokens(held: bool) -> list[list[int]]:
        chosen = [story for story in stories if story.held == held]
        coded = tokenizer.encode_batch([story.text for story in chosen])
        return [[*c.ids, *[0] * s.ended][:LONGEST] for c, s in zip(coded, chosen, strict=True)]

    torch.manual_seed(job.recipe.seed)
    model = new_model(SIZES[job.model]).to(job.device)
    teacher = read_own(job.out / "tales.safetensors", job.device) if job.model == "draft" else None
    assert teacher is None or isinstance(teacher, Llama)
    return Shelf(tokenizer, tokens(held=False), tokens(held=True)), model, teacher


def _write(rank: int, job: Job) -> None:
    """One writing process."""
    if written(job.data / str(rank)) >= job.recipe.tokens // job.recipe.writers:
        return
    source = load_smollm2()
    smollm2 = load_llama(source, torch.bfloat16, job.device)
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    recipe, seed = job.recipe, 1_000_000 * (job.recipe.seed + rank)
    write_stories(smollm2, tokenizer, job.data / str(rank), recipe.tokens // recipe.writers, seed, recipe.batch)


def _train(rank: int, job: Job) -> None:
    """One training process."""
    assert isinstance(job, TaleJob)
    join_trainers(rank, job)
    shelf, model, teacher = prepare(job)
    train(job, model, shelf, teacher, rank)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: write and train what is missing, measure, and save the model with its card."""
    parser = argparse.ArgumentParser(prog="python -m backend.train.tales", description=__doc__)
    parser.add_argument("--model", choices=sorted(SIZES), default="tales")
    parser.add_argument("--device", choices=sorted(RECIPES), default="cpu")
    parser.add_argument("--data", type=Path, default=ROOT / "train-data" / "tales")
    parser.add_argument("--before", type=Path, default=ROOT / "train-data" / "smollm2-text", help="conversations")
    parser.add_argument("--out", type=Path, default=ASSETS)
    parser.add_argument("--tokens", type=int, help="that SmolLM2 writes, where not what the recipe says")
    parser.add_argument("--steps", type=int, help="of training, where not what the recipe says")
    args = parser.parse_args(argv)
    if args.device == "cpu":
        torch.set_num_threads(1)  # as in the processes that train
    recipe = RECIPES[args.device][args.model]
    recipe = replace(recipe, tokens=args.tokens or recipe.tokens, steps=args.steps or recipe.steps)
    job = TaleJob(recipe, args.device, args.data, args.model, args.out)
    if not (job.data / "before").exists():
        copy_stories(args.before, read_tokenizer(ASSETS / "smollm2-codec"), job.data / "before")
    in_processes(_write, job.recipe.writers, job)
    prepare(job)  # one process learns the tokenizer
    in_processes(_train, job.recipe.trainers, job)
    shelf, model, _ = prepare(job)
    model.load_state_dict(torch.load(job.checkpoint, weights_only=True, map_location=args.device)["model"])
    save(job, shelf, model)


def save(job: TaleJob, shelf: Shelf, model: Llama | TwoLevel) -> None:
    """Write the model, the tokenizer's folder and the card, with everything measured."""
    path = job.out / f"{job.name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    before = held_out_loss(model, shelf, laws_of)["nats_per_token"]
    save_own(path, model, BITS[job.model])
    save_codec(shelf.tokenizer, job.out / "tales-codec")
    model = read_own(path, job.device)  # what ships is measured, in its rounded weights
    after = held_out_loss(model, shelf, laws_of)
    card: dict[str, Any] = {
        "id": f"house/{job.name}",
        "what": WHAT[job.model],
        "license": "Apache-2.0",
        "num_params": model.num_params,
        "config": asdict(model.config),
        "data": "Short stories written by SmolLM2-135M-Instruct (Apache-2.0) for instructions of a grammar of our own, "
        "which also writes the first words of half of them and begins the last paragraph of most. No other text.",
        "stories": len(shelf.told),
        "tokens": sum(map(len, shelf.told)),
        "recipe": {"device": job.device, **asdict(job.recipe)},
        "held_out": after,
        "loss_moved_by_rounding": moved_by_rounding(before, after["nats_per_token"], after["tokens"], BITS[job.model]),
        "about_held_out": "Stories for other instructions of the same grammar, by the same writer, so flattering.",
        "can": "Continues the beginning of a short story in simple English, and often brings it to an end.",
        "cannot": "Does not chat, follow instructions or know facts; sentences often do not follow from each other, "
        "some words are made up, names and plots drift.",
        "writes": what_it_writes(model, shelf),
        "torch": str(torch.__version__),
    }
    if job.model == "draft":
        for target in ("tales", "tales-block"):
            if (job.out / f"{target}.safetensors").exists():
                other = read_own(job.out / f"{target}.safetensors", job.device)
                card[f"beside_{target}"] = agreement(model, other, shelf, laws_of)
    path.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")
    print(json.dumps({name: card[name] for name in ("num_params", "held_out", "writes")}, indent=2))


if __name__ == "__main__":
    main()
