"""Train the point processes house/events and house/events-draft: `python -m backend.train.forecast.events`.

    python -m backend.train.forecast.events --model target [--device cuda]
    python -m backend.train.forecast.events --model draft
    python -m backend.train.forecast.events --model target --measure

The data are our own: Hawkes processes with random parameters, simulated by thinning (`backend.series.hawkes`), another
one for every sequence, so that the model learns to read a process off its history. The target learns the next event by
maximum likelihood. The draft learns from the target: on the same prefixes it maximises the likelihood of events drawn
from the target's law. The cpu recipes take about 11 and 4 minutes on a core; `--tiny` trains a small model in seconds.
Measures itself and writes its card at the end.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backend import events
from backend.events import Events
from backend.models.house.events import EventConfig, EventNet, read_events
from backend.protocols import EventLaw
from backend.series.hawkes import random_processes, simulate
from backend.train.forecast.events_measure import Pool, measure
from backend.train.smollm2_corpus import ROOT

SHORTEST, LONGEST = 16, 96  # events of a history, from which the unit of time is taken
BURN = 64  # first events that no window holds: simulation begins with an empty past
SAVED_EVERY, SHOWN_EVERY, WARM = 100, 50, 50  # steps
CONFIGS = {
    "target": EventConfig(dim=64, num_layers=6, num_heads=4, ffn_dim=160, parts=12),
    "draft": EventConfig(dim=40, num_layers=1, num_heads=4, ffn_dim=96, parts=6),
}
SMALL = {
    "target": EventConfig(dim=16, num_layers=2, num_heads=2, ffn_dim=32, parts=4, window=16),
    "draft": EventConfig(dim=16, num_layers=1, num_heads=2, ffn_dim=16, parts=3, window=16),
}
NAMES = {"target": "events", "draft": "events-draft"}


@dataclass(frozen=True)
class Recipe:
    """How a model is trained. pool: processes simulated. draws: events drawn from the target at every prefix."""

    steps: int
    batch: int
    rate: float
    pool: int
    length: int = 192
    average: float = 0.995
    draws: int = 2
    seed: int = 1


RECIPES = {
    ("target", "cpu"): Recipe(1500, 24, 3e-3, 6000),
    ("draft", "cpu"): Recipe(1100, 24, 4e-3, 6000),
    ("target", "cuda"): Recipe(8000, 256, 3e-3, 60_000, average=0.999),
    ("draft", "cuda"): Recipe(5000, 256, 4e-3, 60_000, average=0.999),
}
TINY = Recipe(20, 8, 5e-3, 64, 64, 0.9)


@dataclass(frozen=True)
class Job:
    """One training. tiny: whether it is for tests."""

    role: str
    recipe: Recipe
    config: EventConfig
    data: Path
    out: Path
    device: str
    tiny: bool

    @property
    def name(self) -> str:
        """Of the model's files."""
        return NAMES[self.role]

    @property
    def weights(self) -> Path:
        """What ships."""
        return self.out / f"{self.name}.safetensors"


@dataclass(frozen=True)
class Batch:
    """Windows of events: gaps in units of the mean gap of a history [B, T], the first NaN; which are to be foretold."""

    gaps_BT: Tensor
    kinds_BT: Tensor
    num_kinds_B: Tensor
    wanted_BT: Tensor

    @property
    def next(self) -> Events:
        """The events [B, T - 1] behind all but the last."""
        return Events(self.gaps_BT[:, 1:], self.kinds_BT[:, 1:])

    def mean(self, cost_BT: Tensor) -> Tensor:
        """Mean over the events that are to be foretold. cost_BT: of the events of `next`."""
        wanted_BT = self.wanted_BT[:, 1:]
        return (cost_BT * wanted_BT).sum() / wanted_BT.sum()


# --------------------------------------------------------------------------------------------------------------- data
def pool_of(job: Job) -> Pool:
    """Simulated processes to train on, kept on disk between runs."""
    count, length = job.recipe.pool, BURN + 2 * job.recipe.length
    path = job.data / f"events-pool-{count}-{length}-{job.recipe.seed}.npz"
    if path.exists():
        with np.load(path) as held:
            return Pool(None, held["gaps"], held["kinds"].astype(np.int64), held["sizes"])
    stream = np.random.default_rng([job.recipe.seed, 0])
    processes, sizes_B = random_processes(count, job.config.kinds, stream)
    gaps_BN, kinds_BN = simulate(processes, length, stream)
    path.parent.mkdir(parents=True, exist_ok=True)
    gaps_BN = gaps_BN.astype(np.float32)
    fresh = path.with_suffix(".new.npz")
    np.savez(fresh, gaps=gaps_BN, kinds=kinds_BN.astype(np.int8), sizes=sizes_B)
    fresh.replace(path)
    return Pool(None, gaps_BN, kinds_BN, sizes_B)


def draw(pool: Pool, recipe: Recipe, seed: Sequence[int], device: str) -> Batch:
    """Windows at random, their kinds renumbered at random, each in the unit of time of a history of random length."""
    stream = np.random.default_rng(list(seed))
    rows_B = stream.integers(0, len(pool.gaps_BN), recipe.batch)
    start_B = stream.integers(BURN, pool.gaps_BN.shape[1] - recipe.length + 1, recipe.batch)
    at_BT = start_B[:, None] + np.arange(recipe.length)
    gaps_BT = pool.gaps_BN[rows_B[:, None], at_BT].astype(np.float64)
    kinds_BT, size_B = pool.kinds_BN[rows_B[:, None], at_BT], pool.sizes_B[rows_B]
    named_BV = np.stack([np.r_[stream.permutation(n), np.arange(n, pool.most)] for n in size_B])
    longest = min(LONGEST, recipe.length // 2)
    history_B = np.exp(stream.uniform(np.log(SHORTEST), np.log(longest + 1), recipe.batch)).astype(np.int64)
    in_history_BT = (np.arange(recipe.length) < history_B[:, None]) & (np.arange(recipe.length) > 0)
    unit_B = (gaps_BT * in_history_BT).sum(1) / in_history_BT.sum(1)
    gaps_BT = gaps_BT / unit_B[:, None]
    gaps_BT[:, 0] = np.nan
    return Batch(
        torch.from_numpy(gaps_BT.astype(np.float32)).to(device),
        torch.from_numpy(np.take_along_axis(named_BV, kinds_BT, 1)).to(device),
        torch.from_numpy(size_B).to(device),
        torch.from_numpy(np.arange(recipe.length) >= history_B[:, None]).to(device),
    )


# ----------------------------------------------------------------------------------------------------------- training
def loss_of(model: EventNet, batch: Batch, teacher: EventNet | None, recipe: Recipe) -> Tensor:
    """Nats per event: of what came next, or of what the teacher would have drawn there."""
    law = model(batch.gaps_BT, batch.kinds_BT, batch.num_kinds_B)[:, :-1]
    if teacher is None:
        return batch.mean(-events.log_density(law, floored(batch.next)))
    with torch.no_grad():
        told: EventLaw = teacher(batch.gaps_BT, batch.kinds_BT, batch.num_kinds_B)[:, :-1]
        drawn = [
            events.placed(told, torch.randn(*told.mean_NM.shape[:-1], events.NOISES, device=told.mean_NM.device))
            for _ in range(recipe.draws)
        ]
    costs = [-events.log_density(law, Events(event.gap_N.float(), event.kind_N)) for event in drawn]
    return batch.mean(torch.stack(costs).mean(0))


def floored(event: Events) -> Events:
    """Events with gaps that have a logarithm in float32."""
    return Events(event.gap_N.clamp_min(1e-7), event.kind_N)


def train(job: Job, teacher: EventNet | None) -> EventNet:
    """Train; returns the running average of the weights. Resumes from the checkpoint."""
    recipe, total = job.recipe, job.recipe.steps
    pool = pool_of(job)
    torch.manual_seed(recipe.seed)
    model = EventNet(job.config).to(job.device)
    average = copy.deepcopy(model).requires_grad_(False)
    wide = [w for w in model.parameters() if w.dim() >= 2]
    narrow = [w for w in model.parameters() if w.dim() < 2]
    groups = [{"params": wide, "weight_decay": 0.01}, {"params": narrow, "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=recipe.rate, betas=(0.9, 0.98))
    rate = torch.optim.lr_scheduler.LambdaLR(
        adam, lambda s: min(1.0, (s + 1) / WARM) * (0.5 + 0.5 * math.cos(math.pi * min(1.0, s / total)))
    )
    parts: tuple[Any, ...] = (model, average, adam, rate)
    checkpoint = job.data / f"{job.name}{'-tiny' if job.tiny else ''}.pt"
    step, losses, began = 0, [], time.monotonic()
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True, map_location=job.device)
        step = saved["step"]
        for part, state in zip(parts, saved["parts"], strict=True):
            part.load_state_dict(state)
    first = step
    while step < total:
        step += 1
        torch.manual_seed(recipe.seed + step)
        batch = draw(pool, recipe, (recipe.seed, step), job.device)
        loss = loss_of(model, batch, teacher, recipe)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        rate.step()
        model.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
        keep = min(recipe.average, step / (step + 10))
        with torch.no_grad():
            for mean, now in zip(average.parameters(), model.parameters(), strict=True):
                mean.lerp_(now, 1 - keep)
        if step % SHOWN_EVERY == 0 or step == total:
            speed = (time.monotonic() - began) / (step - first)
            print(f"step {step}/{total} loss {np.mean(losses[-SHOWN_EVERY:]):.4f} {speed:.3f} s a step", flush=True)
        if step % SAVED_EVERY == 0 or step == total:
            torch.save({"step": step, "parts": [part.state_dict() for part in parts]}, checkpoint.with_suffix(".new"))
            checkpoint.with_suffix(".new").replace(checkpoint)
    return average.eval()


def asked(argv: Sequence[str] | None) -> tuple[Job, bool]:
    """The job that the command line describes, and whether it is only measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=sorted(NAMES), default="target")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--data", type=Path, default=ROOT / "train-data" / "series", help="folder of checkpoints")
    parser.add_argument("--out", type=Path, default=ROOT / "assets" / "house")
    parser.add_argument("--steps", type=int, help="of training, where not what the recipe says")
    parser.add_argument("--tiny", action="store_true", help="a small model, in seconds")
    parser.add_argument("--measure", action="store_true", help="measure the weights of --out again, and train nothing")
    args = parser.parse_args(argv)
    recipe = TINY if args.tiny else RECIPES[args.model, args.device]
    recipe = replace(recipe, steps=args.steps or recipe.steps)
    config = (SMALL if args.tiny else CONFIGS)[args.model]
    if args.device == "cpu":
        torch.set_num_threads(1)
    return Job(args.model, recipe, config, args.data, args.out, args.device, args.tiny), args.measure


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    job, only_measure = asked(argv)
    teacher = read_events(job.out / f"{NAMES['target']}.safetensors", job.device) if job.role == "draft" else None
    model = read_events(job.weights, job.device) if only_measure else train(job, teacher)
    measure(job, model, teacher, keep=only_measure)


if __name__ == "__main__":
    main()
