"""Train house/series-diffusion, the model of windows of series: `python -m backend.train.forecast.diffusion`.

A window is cut at random out of one of `mix`, 48 to 256 known steps long, and scaled by a part of it at its front, as a
context is when it is forecast; then noise of a random level is added and the net tells the noise. Nothing says where
the context ends: the model knows windows, not forecasts (Kollovieh et al. 2023, 2307.11494). The season that the net
is told is the clearest repetition of the training window; at times it is told none, or one that is not there.

`--device cpu` trains with two processes of one thread, bfloat16 products, about 4 minutes on two free cores; `--device
cuda` trains longer on one GPU. It resumes where it was; the optimiser is that of `portraits.loop`. `--measure` adds to
the card what the trained model forecasts (`diffusion_measure`).

Letters: N training windows, B windows of a batch, L steps of a window.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backend.codecs.dates import Floats, repetition
from backend.models.house.series_diffusion import (
    DiffusionConfig,
    SeriesDiffusion,
    read_series_diffusion,
    save_series_diffusion,
)
from backend.train.forecast.mix import windows
from backend.train.portraits.loop import optimise
from backend.train.smollm2_corpus import ROOT
from backend.train.smollm2_draft import Job, Recipe, in_processes, join_trainers
from backend.train.tales import TaleJob

NAME = "series-diffusion"
LENGTHS = {48: 0.06, 64: 0.06, 96: 0.1, 128: 0.15, 192: 0.18, 256: 0.45}  # steps of a batch's windows, and how often
SHORTEST = 8  # steps behind the part that gives the scale; at most half of the window
FARTHEST = 8.0  # model units: windows that go beyond are left out
UNTOLD, WRONG = 0.1, 0.3  # windows whose season is not told; of those without one, how many are told one
COMMON = (4, 7, 12, 24, 52)  # seasons that are suggested wrongly
UNSEEN = 1000  # windows at the end of the mix that are never trained on

# of a Recipe, `batch_tokens` is what a trainer's batch holds
_cpu = Recipe(tokens=0, writers=0, batch=0, trainers=2, steps=1300, batch_tokens=8192, rate=1.5e-3)
RECIPES = {"cpu": _cpu, "cuda": replace(_cpu, trainers=1, steps=20_000, batch_tokens=131_072)}


class DiffusionJob(TaleJob):
    """What every process of a run needs to know. out: folder of the house models."""

    @property
    def checkpoint(self) -> Path:
        """Where training is saved."""
        return self.data / "checkpoint-diffusion.pt"

    @property
    def name(self) -> str:
        """Of the model, as the catalog and its files know it."""
        return NAME


# ------------------------------------------------------------------------------------------------------------- batches
def seasons_of(folder: Path) -> NDArray[np.int64]:
    """Steps of the clearest repetition of every training window, 1 where there is none: found once, then read. [N]"""
    path, source_NW = folder / "diffusion-seasons.npy", windows(folder)
    if not path.exists() or len(np.load(path)) != len(source_NW):
        found = [repetition(y_W[np.isfinite(y_W).argmax() :].astype(np.float64)) for y_W in source_NW]
        np.save(path, np.array(found, dtype=np.int64))
    return np.asarray(np.load(path))


class Windows:
    """Endless batches of one trainer from a step on: windows [B, L] in model units, which steps count, noise [B, L],
    the level of the noise, from 1, and the season of each [B]."""

    def __init__(self, folder: Path, recipe: Recipe, rank: int, unseen: bool = False) -> None:
        every_NW, season_N = windows(folder), seasons_of(folder)
        part = slice(len(every_NW) - UNSEEN, None) if unseen else slice(0, len(every_NW) - UNSEEN)
        self.source_NW, self.season_N = every_NW[part], season_N[part]
        self.first_N = np.isfinite(self.source_NW).argmax(axis=1)
        self.recipe, self.rank, self.levels = recipe, rank, DiffusionConfig().noise_levels

    def batches(self, step: int) -> Iterator[tuple[Tensor, ...]]:
        """The batches behind this many steps."""
        while True:
            rng = np.random.default_rng([self.recipe.seed, self.rank, step, 7])
            yield self.batch(rng, int(rng.choice(list(LENGTHS), p=list(LENGTHS.values()))))
            step += 1

    def batch(self, rng: np.random.Generator, length: int) -> tuple[Tensor, ...]:
        """The batch that this generator gives, of windows of this length."""
        rows = self.recipe.batch_tokens // length
        fits = np.nonzero(self.source_NW.shape[1] - self.first_N >= length)[0]
        kept: list[Floats] = []
        picked: list[NDArray[np.int64]] = []
        while sum(map(len, kept)) < rows:
            at_B = rng.choice(fits, rows)
            start_B = rng.integers(self.first_N[at_B], self.source_NW.shape[1] - length + 1)
            y_BL = np.stack([self.source_NW[i, s : s + length] for i, s in zip(at_B, start_B, strict=True)])
            z_BL, good_B = in_model_units(y_BL.astype(np.float64), int(rng.integers(SHORTEST, length // 2 + 1)))
            kept.append(z_BL[good_B])
            picked.append(at_B[good_B])
        z_BL = np.concatenate(kept)[:rows] * rng.choice([-1.0, 1.0], (rows, 1))
        season_B = self.season_N[np.concatenate(picked)[:rows]]
        wrong_B = (season_B == 1) & (rng.random(rows) < WRONG)
        season_B = np.where(wrong_B, rng.choice(COMMON, rows), season_B)
        season_B = np.where(rng.random(rows) < UNTOLD, 1, season_B)
        level_B = 1 + rng.permutation(np.arange(rows) * self.levels // rows + rng.integers(self.levels)) % self.levels
        noise_BL = rng.standard_normal((rows, length), dtype=np.float32)
        counted_BL = np.isfinite(z_BL)
        parts = (without_gaps(z_BL).astype(np.float32), counted_BL, noise_BL, level_B, season_B)
        return tuple(torch.from_numpy(part) for part in parts)


def in_model_units(y_BL: Floats, ahead: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Windows [B, L] by the scale of all but their last `ahead` steps, and which of them have one [B]."""
    given_BL = y_BL[:, :-ahead]
    known_B = np.isfinite(given_BL).sum(axis=1) >= given_BL.shape[1] // 2
    given_BL = np.where(known_B[:, None], given_BL, 0.0)
    middle_B1 = np.nanmedian(given_BL, axis=1, keepdims=True)
    spread_B1 = np.nanmean(np.abs(given_BL - middle_B1), axis=1, keepdims=True)
    good_B = known_B & (spread_B1 > 1e-6 * np.nanmax(np.abs(given_BL), axis=1, keepdims=True))[:, 0]
    z_BL = np.arcsinh((y_BL - middle_B1) / np.where(good_B[:, None], spread_B1, 1.0))
    return z_BL, good_B & (np.nanmax(np.abs(z_BL), axis=1, initial=0.0, where=np.isfinite(z_BL)) < FARTHEST)


def without_gaps(z_BL: Floats) -> Floats:
    """Missing steps hold the value before them, those in front the first one."""
    known_BL = np.isfinite(z_BL)
    at_BL = np.maximum.accumulate(np.where(known_BL, np.arange(z_BL.shape[1]), -1), axis=1)
    at_BL = np.where(at_BL < 0, known_BL.argmax(axis=1)[:, None], at_BL)
    return np.take_along_axis(z_BL, at_BL, axis=1)


# ------------------------------------------------------------------------------------------------------------- training
def errors(net: SeriesDiffusion, batch: Sequence[Tensor], halves: bool = True) -> tuple[Tensor, Tensor]:
    """Squared errors of the noise [B, L], and where they count [B, L]. halves: whether products are in bfloat16."""
    z_BL, counted_BL, noise_BL, level_B, season_B = batch
    levels = net.config.noise_levels
    alpha_T = torch.tensor([net.schedule.alpha(i / levels) for i in range(levels + 1)])
    alpha_B = alpha_T.to(z_BL)[level_B]
    sigma_B = (1 - alpha_B.double().square()).sqrt().float()
    x_BL = alpha_B[:, None] * z_BL + sigma_B[:, None] * noise_BL
    with torch.autocast(z_BL.device.type, torch.bfloat16, enabled=halves):
        told_BL = net(x_BL, alpha_B, sigma_B, season_B.tolist())
    return (told_BL - noise_BL).square(), counted_BL


def loss_of(net: SeriesDiffusion, *batch: Tensor) -> Tensor:
    """Mean squared error of the noise where the window is known."""
    error_BL, counted_BL = errors(net, batch)
    loss = (error_BL * counted_BL).sum() / counted_BL.sum()
    if not math.isfinite(float(loss.detach())):
        raise RuntimeError("the loss is no number any more; train again with a lower rate, without the checkpoint")
    return loss


def prepare(job: DiffusionJob) -> SeriesDiffusion:
    """An untrained net."""
    torch.manual_seed(job.recipe.seed)
    return SeriesDiffusion(DiffusionConfig()).to(job.device)


def _train(rank: int, job: Job) -> None:
    """One training process."""
    assert isinstance(job, DiffusionJob)
    join_trainers(rank, job)
    net = prepare(job)
    source = Windows(job.data, job.recipe, rank)
    optimise(job, net, rank, source.batches, lambda *batch: loss_of(net, *batch))


# ---------------------------------------------------------------------------------------------------------------- files
@torch.inference_mode()
def noise_loss(net: SeriesDiffusion, job: DiffusionJob, batches: int = 12) -> dict[str, Any]:
    """Mean squared error of the noise on windows of 256 steps that were never trained on, by tenth of the levels."""
    source = Windows(job.data, replace(job.recipe, batch_tokens=100 * 256), 0, unseen=True)
    wrong_T, count_T = torch.zeros(net.config.noise_levels + 1), torch.zeros(net.config.noise_levels + 1)
    for i in range(batches):
        batch = source.batch(np.random.default_rng([5, i]), 256)
        error_BL, counted_BL = errors(net, [part.to(job.device) for part in batch], halves=False)
        wrong_T.index_add_(0, batch[3], (error_BL * counted_BL).sum(1).cpu())
        count_T.index_add_(0, batch[3], counted_BL.sum(1).float().cpu())
    tenth = net.config.noise_levels // 10
    by = [slice(1 + tenth * i, 1 + tenth * (i + 1)) for i in range(10)]
    return {
        "windows": 100 * batches,
        "mean": round(float(wrong_T.sum() / count_T.sum()), 4),
        "by_level": {f"{s.start}-{s.stop - 1}": round(float(wrong_T[s].sum() / count_T[s].sum()), 4) for s in by},
    }


def save(job: DiffusionJob, net: SeriesDiffusion) -> None:
    """Write the model and its card, without what is measured by forecasting."""
    path = job.out / f"{job.name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    trained = noise_loss(net, job)
    save_series_diffusion(path, net)
    card: dict[str, Any] = {
        "id": f"house/{job.name}",
        "what": "Unconditional diffusion model of windows of series; forecasts by guidance, in-painting or refinement.",
        "license": "Apache-2.0; data as its source says.",
        "num_params": net.num_params,
        "config": asdict(net.config),
        "data": "Windows of backend.train.forecast.mix; see there for its sources and for what is held out.",
        "recipe": {name: getattr(job.recipe, name) for name in ("trainers", "batch_tokens", "steps", "rate", "seed")}
        | {"device": job.device, "lengths": list(LENGTHS)},
        "noise_loss_of_unseen_windows": noise_loss(read_series_diffusion(path, job.device), job),
        "bits": 8,
        "noise_loss_before_rounding": trained["mean"],
        "cannot": "Was never told where a context ends, so a forecast follows its context only as far as a sampler "
        "makes it. Sees at most 256 steps, past and future together, one series, no dates.",
        "torch": str(torch.__version__),
    }
    path.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")
    print(json.dumps(card, indent=2))


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: train and save the model, or measure a saved one."""
    parser = argparse.ArgumentParser(prog="python -m backend.train.forecast.diffusion", description=__doc__)
    parser.add_argument("--device", choices=sorted(RECIPES), default="cpu")
    parser.add_argument("--data", type=Path, default=ROOT / "train-data" / "series", help="of windows and checkpoints")
    parser.add_argument("--out", type=Path, default=ROOT / "assets" / "house")
    parser.add_argument("--steps", type=int, help="of training, where not what the recipe says")
    parser.add_argument("--measure", action="store_true", help="do not train: measure what is saved, for its card")
    parser.add_argument("--series", type=int, default=2, help="of every held-out group that are forecast to measure")
    args = parser.parse_args(argv)
    if args.device == "cpu":
        torch.set_num_threads(1)  # as in the processes that train
    recipe = RECIPES[args.device]
    job = DiffusionJob(replace(recipe, steps=args.steps or recipe.steps), args.device, args.data, "", args.out)
    if args.measure:
        from backend.train.forecast.diffusion_measure import measure

        measure(job.out / f"{job.name}.json", args.data, args.series)
        return
    seasons_of(job.data)
    in_processes(_train, job.recipe.trainers, job)
    net = prepare(job)
    net.load_state_dict(torch.load(job.checkpoint, weights_only=True, map_location=args.device)["model"])
    save(job, net.eval())


if __name__ == "__main__":
    main()
