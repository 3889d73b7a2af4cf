"""Train house/forecaster and house/forecaster-8: `python -m backend.train.forecast.patches --model target|target-8`.

Windows of the series mix are cut at a random origin; the scale is taken from what lies before it. The loss is the
negative log density of the next patch, half that of the patches behind it, and the pinball loss of the quantile heads,
all on one trunk. Matrices of the trunk are trained with Muon (torch 2.9 or later), all else with AdamW, on one cosine;
what ships is a running average. Training resumes from its checkpoint. Their drafter is trained by `drafter`. The recipe
of house/forecaster took 53 minutes on one busy CPU thread; `--device cuda` trains wider batches for
longer. `--tiny` makes small models from made-up walks in seconds, for tests. `--measure` measures a trained model and
writes its card.

Letters: B windows of a batch, W steps of a window, N patches, P values of a patch, C features, H steps of a head.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backend.models.house.forecaster import (
    LEVELS,
    Forecaster,
    ForecasterConfig,
    Laws,
    read_forecaster,
    save_forecaster,
)
from backend.train.smollm2_corpus import ROOT

NAMES = {"target": "forecaster", "target-8": "forecaster-8"}
BOUND = 5.0  # innovations beyond it cost linearly in training, so that a spike does not widen every law
LARGEST = 10.0  # model units beyond it count as missing
INSIDE = 0.25  # weight of patches in front of the origin
LEAST = 8  # observed steps in front of an origin
HELD = 50  # every so many-th window is held out
SAVED_EVERY, SHOWN_EVERY = 200, 100  # steps
BITS = {"target-8": 6}  # of stored weights, where not 8
PLACES = 3  # of a window where the quantile heads are trained


@dataclass(frozen=True)
class Recipe:
    """How a model is trained. tokens: patches of a batch. ahead: patches behind the origin."""

    config: ForecasterConfig
    steps: int
    rate: float
    tokens: int = 3072
    ahead: int = 10
    average: float = 0.998
    seed: int = 1


_target = ForecasterConfig(16, 128, 4, 4, 344)
_eight = ForecasterConfig(8, 96, 4, 4, 256)
RECIPES = {
    "cpu": {
        "target": Recipe(_target, 5000, 2e-3),
        "target-8": Recipe(_eight, 1000, 2e-3, ahead=16),
    },
    "cuda": {
        "target": Recipe(_target, 20_000, 2e-3, tokens=24_576),
        "target-8": Recipe(_eight, 20_000, 2e-3, tokens=24_576, ahead=16),
    },
}
TINY = {
    "target": Recipe(ForecasterConfig(16, 32, 2, 2, 64), 60, 4e-3, 512, 4, 0.9),
    "target-8": Recipe(ForecasterConfig(8, 32, 2, 2, 64), 60, 4e-3, 512, 4, 0.9),
}


@dataclass(frozen=True)
class Job:
    """One training. windows_NW: raw values, NaN where missing. span_N: see `spans`."""

    model: str
    recipe: Recipe
    windows_NW: Any
    span_N: Any
    data: Path
    out: Path
    device: str = "cpu"

    @property
    def checkpoint(self) -> Path:
        """Where training stands."""
        return self.data / f"{NAMES[self.model]}.pt"

    @property
    def weights(self) -> Path:
        """What ships."""
        return self.out / f"{NAMES[self.model]}.safetensors"


# ------------------------------------------------------------------------------------------------------------- batches
def walks(count: int, steps: int = 768, seed: int = 0) -> Tensor:
    """Made-up series for tests: a walk and a season each. [count, steps] float32"""
    stream = torch.Generator().manual_seed(seed)
    walk_NW = torch.randn(count, steps, generator=stream).cumsum(1)
    turn_NW = torch.arange(steps) * (2 * math.pi / torch.randint(4, 25, (count, 1), generator=stream))
    size_N1, turned_N1 = 8 * torch.rand(count, 1, generator=stream), 7 * torch.rand(count, 1, generator=stream)
    return walk_NW + size_N1 * torch.sin(turn_NW + turned_N1)


def spans(windows_NW: Any) -> Any:
    """Steps from the first observed value to the end of every window, [N]: what short series are found by."""
    parts = np.array_split(windows_NW, max(1, len(windows_NW) // 4096))
    return np.concatenate([rows.shape[1] - np.isfinite(rows).argmax(1) for rows in parts])


def draw(job: Job, seed: tuple[int, ...], held: bool = False) -> tuple[Tensor, int]:
    """A batch of scaled patches [B, N, P], NaN where missing, and how many of them lie in front of the origin.

    All windows have one number of patches in front, small ones more often, as many real series are short; the first of
    these patches is filled from the right. held: draw from the windows that training leaves out.
    """
    stream, recipe = np.random.default_rng((job.recipe.seed, *seed)), job.recipe
    patch = recipe.config.patch
    front = int(np.exp(stream.uniform(math.log(2), math.log(recipe.config.context // patch + 1))))
    batch = max(1, recipe.tokens // (front + recipe.ahead))
    index_N = np.arange(len(job.windows_NW))
    long_N = job.span_N >= np.minimum(0.7 * (front + 2) * patch, 0.9 * job.span_N.max())
    rows = np.sort(stream.choice(index_N[long_N & ((index_N % HELD == 0) == held)], batch))
    raw_BW = torch.from_numpy(np.array(job.windows_NW[rows], dtype=np.float32))
    width = raw_BW.shape[1]
    first_B = width - torch.from_numpy(job.span_N[rows])
    share_2B, left_B = torch.from_numpy(stream.random((2, batch))), torch.from_numpy(stream.integers(0, patch, batch))
    length_B = front * patch - left_B
    low_B = first_B + torch.minimum(length_B, (0.4 + 0.3 * share_2B[0]) * (width - first_B)).long().clamp_min(LEAST)
    ahead_B = torch.from_numpy(stream.integers(1, recipe.ahead + 1, batch))
    high_B = torch.maximum(width - ahead_B * patch, low_B)
    origin_B = (low_B + (share_2B[1] * (high_B - low_B + 1)).long()).clamp_max(width)
    at_BT = origin_B[:, None] + torch.arange(-front * patch, recipe.ahead * patch)
    inside_BT = (at_BT >= (origin_B - length_B)[:, None]) & (at_BT >= 0) & (at_BT < width)
    y_BT = torch.where(inside_BT, raw_BW.gather(1, at_BT.clamp(0, width - 1)), torch.nan)
    return scaled(y_BT, front * patch).view(batch, -1, patch), front


def scaled(y_BT: Tensor, origin: int) -> Tensor:
    """Values in the units of `codecs.series_scale`, taken from the steps before the origin; NaN where that has none."""
    past_BT = y_BT[:, :origin]
    location_B1 = past_BT.nanmedian(1, keepdim=True).values
    spread_B1 = (past_BT - location_B1).abs().nanmean(1, keepdim=True)
    fine_B1 = (torch.isfinite(past_BT).sum(1, keepdim=True) >= LEAST) & (spread_B1 > 1e-5 * location_B1.abs())
    z_BT = torch.arcsinh((y_BT - location_B1) / spread_B1)
    return torch.where(fine_B1 & (z_BT.abs() < LARGEST), z_BT, torch.nan)


# -------------------------------------------------------------------------------------------------------------- losses
def loss_of(model: Forecaster, patches_BNP: Tensor, front: int, stream: np.random.Generator) -> Tensor:
    """The loss of a batch of `draw`."""
    h_BNC, base_BN = model(patches_BNP)
    return loss_behind(model, h_BNC, base_BN, patches_BNP, front, stream)


def loss_behind(
    model: Forecaster, h_BNC: Tensor, base_BN: Tensor, patches_BNP: Tensor, front: int, stream: np.random.Generator
) -> Tensor:
    """The same of a batch that the model has read."""
    laws = model.laws(h_BNC, base_BN)
    loss = torch.zeros((), device=h_BNC.device)
    for a in range(model.config.reach + 1):
        loss = loss + (0.5 if a else 1.0) / (max(1, model.config.reach) if a else 1) * density_loss(
            laws, patches_BNP, front, a
        )
    if model.quantiles:
        places = [front - 1, *stream.integers(0, patches_BNP.shape[1] - 1, PLACES - 1)]
        loss = loss + pinball_loss(model, h_BNC[:, places], base_BN[:, places], patches_BNP, places)
    return loss


def density_loss(laws: Laws, patches_BNP: Tensor, front: int, ahead: int) -> Tensor:
    """Negative log density in nats a value of the patches that lie `ahead` behind the next one."""
    truth_BNP = patches_BNP[:, 1 + ahead :]
    count = truth_BNP.shape[1]
    law = Laws(laws.mean_P[:, :count, ahead], laws.log_scale_P[:, :count, ahead], laws.rho[:, :count, ahead])
    cost_BNP = law.negative_log_density(truth_BNP, BOUND)
    weight_N = torch.where(torch.arange(count, device=cost_BNP.device) < front - 1 - ahead, INSIDE, 1.0)
    weight_BNP = weight_N[:, None] * torch.isfinite(cost_BNP)
    return (cost_BNP.nan_to_num() * weight_BNP).sum() / weight_BNP.sum().clamp_min(1.0)


def pinball_loss(
    model: Forecaster, h_BKC: Tensor, base_BK: Tensor, patches_BNP: Tensor, places: Sequence[int]
) -> Tensor:
    """Mean over heads, steps and levels of 2 |(y - q) (1{y <= q} - level)|, behind these places."""
    patch, most = model.config.patch, model.config.sizes[-1]
    wide_BNP = F.pad(patches_BNP, (0, 0, 0, most), value=torch.nan)
    truth_BKH = torch.stack([wide_BNP[:, k + 1 : k + 1 + most].flatten(1) for k in places], 1)
    level_Q1 = torch.tensor(LEVELS, device=h_BKC.device)[:, None]
    loss = torch.zeros((), device=h_BKC.device)
    for head, size in zip(model.quantiles, model.config.sizes, strict=True):
        y_BKH = truth_BKH[:, :, : size * patch]
        known_BKH = torch.isfinite(y_BKH)
        gap_BKQH = torch.where(known_BKH, y_BKH, 0.0)[:, :, None] - head(h_BKC, base_BK)
        cost_BKH = 2 * torch.maximum(level_Q1 * gap_BKQH, (level_Q1 - 1) * gap_BKQH).mean(2)
        loss = loss + (cost_BKH * known_BKH).sum() / known_BKH.sum().clamp_min(1)
    return loss / len(model.config.sizes)


# ------------------------------------------------------------------------------------------------------------ training
def train(job: Job, model: Forecaster) -> Forecaster:
    """Train from where the checkpoint stands; returns the running average. A batch depends on seed and step alone."""
    recipe, average = job.recipe, Forecaster(job.recipe.config).to(job.device)
    average.load_state_dict(model.state_dict())
    parts = parts_of(model, recipe)
    step = _resume(job, model, average, parts)
    began, first, shown = time.monotonic(), step, 0.0
    while step < recipe.steps:
        model.train()
        patches_BNP, front = draw(job, (0, step))
        cost = loss_of(model, patches_BNP.to(job.device), front, np.random.default_rng((recipe.seed, 2, step)))
        torch.autograd.backward(cost)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for part in parts:
            part.step()
        model.zero_grad(set_to_none=True)
        step += 1
        with torch.no_grad():
            keep = min(recipe.average, (1 + step) / (10 + step))
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - keep)
        shown += float(cost.detach()) / SHOWN_EVERY
        if step % SHOWN_EVERY == 0:
            speed = (time.monotonic() - began) / (step - first)
            print(f"step {step}/{recipe.steps} loss {shown:.4f} {speed:.3f} s a step", flush=True)
            shown = 0.0
        if step % SAVED_EVERY == 0 or step == recipe.steps:
            _save(job, step, model, average, parts)
    return average.eval()


def parts_of(model: Forecaster, recipe: Recipe) -> list[Any]:
    """Both optimisers and their schedules."""
    matrices = [w for name, w in model.named_parameters() if w.dim() == 2 and name.startswith("blocks.")]
    chosen = {id(w) for w in matrices}
    others = [w for w in model.parameters() if id(w) not in chosen]
    muon = torch.optim.Muon(matrices, lr=recipe.rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.AdamW(others, lr=recipe.rate, betas=(0.9, 0.98), weight_decay=0.01)
    warm = min(100, recipe.steps // 10 + 1)

    def share(step: int) -> float:
        return min(1.0, (step + 1) / warm) * (0.5 + 0.5 * math.cos(math.pi * min(1.0, step / recipe.steps)))

    return [muon, adam, *(torch.optim.lr_scheduler.LambdaLR(part, share) for part in (muon, adam))]


@torch.no_grad()
def held_out_loss(job: Job, model: Forecaster, batches: int = 8) -> float:
    """Nats a value of the next patch behind the origin, in windows that training leaves out."""
    total, count = 0.0, 0
    for i in range(batches):
        patches_BNP, front = draw(job, (3, i), held=True)
        patches_BNP = patches_BNP.to(job.device)
        h_BNC, base_BN = model(patches_BNP)
        law = model.laws(h_BNC[:, front - 1], base_BN[:, front - 1], 0)
        known = law.negative_log_density(patches_BNP[:, front, None], BOUND)
        known = known[torch.isfinite(known)]
        total, count = total + float(known.sum()), count + len(known)
    return total / count


def _save(job: Job, step: int, model: Forecaster, average: Forecaster, parts: list[Any]) -> None:
    scratch = job.checkpoint.with_suffix(".part")
    states = [part.state_dict() for part in parts]
    torch.save({"step": step, "model": model.state_dict(), "average": average.state_dict(), "parts": states}, scratch)
    scratch.rename(job.checkpoint)


def _resume(job: Job, model: Forecaster, average: Forecaster, parts: list[Any]) -> int:
    if not job.checkpoint.exists():
        return 0
    saved = torch.load(job.checkpoint, weights_only=True, map_location=job.device)
    model.load_state_dict(saved["model"])
    average.load_state_dict(saved["average"])
    for part, state in zip(parts, saved["parts"], strict=True):
        part.load_state_dict(state)
    return int(saved["step"])


# -------------------------------------------------------------------------------------------------------- command line
def build(job: Job) -> Forecaster:
    """Train what is missing and write the weights."""
    torch.manual_seed(job.recipe.seed)
    job.data.mkdir(parents=True, exist_ok=True)
    job.out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    model = train(job, Forecaster(job.recipe.config).to(job.device))
    save_forecaster(job.weights, model, BITS.get(job.model, 8))
    rounded = held_out_loss(job, read_forecaster(job.weights, job.device))
    print(f"held-out loss {held_out_loss(job, model):.4f}, rounded {rounded:.4f}, {time.monotonic() - began:.0f} s")
    return model


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: train what is missing, or measure what is trained."""
    parser = argparse.ArgumentParser(prog="python -m backend.train.forecast.patches", description=__doc__)
    parser.add_argument("--model", choices=sorted(NAMES), default="target")
    parser.add_argument("--device", choices=sorted(RECIPES), default="cpu")
    parser.add_argument("--data", type=Path, default=ROOT / "train-data" / "series", help="folder of windows")
    parser.add_argument("--out", type=Path, default=ROOT / "assets" / "house")
    parser.add_argument("--steps", type=int, help="of training, where not what the recipe says")
    parser.add_argument("--tiny", action="store_true", help="a small model of made-up walks, in seconds")
    parser.add_argument("--measure", action="store_true", help="measure the trained model and write its card")
    parser.add_argument("--series", type=int, default=12, help="cases of every held-out group that it is measured on")
    args = parser.parse_args(argv)
    if args.device == "cpu":
        torch.set_num_threads(1)
    recipe = (TINY if args.tiny else RECIPES[args.device])[args.model]
    recipe = replace(recipe, steps=args.steps or recipe.steps)
    if args.measure:
        from backend.train.forecast.patches_measure import write_card

        write_card(args.model, recipe, args.data, args.out, args.device, args.series)
        return
    if args.tiny:
        windows_NW: Any = walks(512).numpy()
    else:
        from backend.train.forecast.mix import windows

        windows_NW = windows(args.data)
    build(Job(args.model, recipe, windows_NW, spans(windows_NW), args.data, args.out, args.device))


if __name__ == "__main__":
    main()
