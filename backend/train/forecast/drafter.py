"""Train the drafter house/forecaster-draft: `python -m backend.train.forecast.drafter`, once the target is trained.

A `PatchCell` learns to carry on the features of house/forecaster. It starts from those behind every place, reads the
patches that follow, and at each of them its law is held against the target's; at a smaller weight it does the same from
features of its own, through whole windows. Most windows are continued by the target's own samples, for that is what a
drafter reads. The loss is log(1 + KL(target || draft)), the logarithm because a patch that is a few nats off is refused
either way; the chance of refusal itself, by samples of the target, was tried and did not raise the acceptance.
Maps of the cell are trained with Muon, all else with AdamW, on one cosine; what ships is a running average. Training
resumes from its checkpoint. The recipe took 19 minutes on a busy CPU thread. `--tiny` makes a small model from made-up
walks in seconds, for tests. `--measure` measures a trained model and writes its card.

Letters: B windows of a batch, N patches, F of them from the one in front of the origin on, P values of a patch,
C features, W patches that are read together.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from backend.errors import UserError
from backend.gaussian import echoed
from backend.models.house.forecaster import Forecaster, Laws, last_known, read_forecaster
from backend.models.house.forecaster_cell import CellConfig, PatchCell, read_cell, save_cell, wider, windows_of
from backend.models.house.forecaster_rows import Frozen
from backend.train.forecast import patches
from backend.train.forecast.patches import LARGEST, draw, spans, walks
from backend.train.smollm2_corpus import ROOT

NAME = "forecaster-draft"
AHEAD = 16  # patches behind the origin: drafts of long horizons stand behind as many
DEPTH = 5  # patches that are read from features of the target before the next ones come
ALONE, OFTEN = 0.5, 4  # weight of windows that are read from features of our own, and every so many-th step
INSIDE = 0.25  # weight of patches in front of the origin there
OWN_LAWS = 4  # every so many-th batch is not continued by the target
SAVED_EVERY, SHOWN_EVERY = 500, 100  # steps


@dataclass(frozen=True)
class Recipe:
    """How the drafter is trained. tokens: patches of a batch. pool: batches that it learns from."""

    hidden: int = 192
    steps: int = 6000
    rate: float = 3e-3
    tokens: int = 1536
    pool: int = 500
    average: float = 0.998
    seed: int = 1


RECIPES = {"cpu": Recipe(), "cuda": Recipe(steps=20_000, tokens=12_288)}
TINY = Recipe(hidden=16, steps=24, tokens=128, pool=4, average=0.8)


@dataclass(frozen=True)
class Lesson:
    """A batch as the target reads it: windows [B, N, P], its laws behind every patch, features from front - 1 on."""

    patches_BNP: Tensor
    front: int
    p: Laws
    hidden_BFC: Tensor


# ------------------------------------------------------------------------------------------------------------- batches
@torch.no_grad()
def lessons(job: patches.Job, target: Forecaster, count: int, held: bool = False) -> list[Lesson]:
    """Batches with the target's laws, most of them continued by the target. held: of windows that are left out."""
    net, out = Frozen(target), []
    stream = torch.Generator().manual_seed(job.recipe.seed)
    for i in range(count):
        patches_BNP, front = draw(job, (3 if held else 1, i), held)
        patches_BNP = patches_BNP.to(job.device)
        if i % OWN_LAWS:
            patches_BNP = continued(net, patches_BNP, front, stream)
        h_BNC, base_BN = target(patches_BNP)
        p = at(target.laws(h_BNC, base_BN, 0), (..., 0))
        out.append(Lesson(patches_BNP, front, p, h_BNC[:, front - 1 :].half()))
    return out


def at(laws: Laws, index: Any) -> Laws:
    """Some of the laws, by all but the last dimension of their means."""
    patches_too = (*index, slice(None)) if isinstance(index, tuple) else index
    return Laws(laws.mean_P[patches_too], laws.log_scale_P[patches_too], laws.rho[index])


def still(laws: Laws) -> Laws:
    """The same, without gradients."""
    return Laws(laws.mean_P.detach(), laws.log_scale_P.detach(), laws.rho.detach())


@torch.no_grad()
def continued(net: Frozen, patches_BNP: Tensor, front: int, stream: torch.Generator) -> Tensor:
    """The windows with the target's own samples behind the origin, as a drafter will read them."""
    out_BNP = patches_BNP.clone()
    batch, count, patch = out_BNP.shape
    at_BN = torch.arange(count, device=out_BNP.device).expand(batch, -1)
    cache, done = net.cache(batch, count), 0
    for n in range(front, count):
        fresh_BT = at_BN[:, done:n]
        hidden_BC = net.run(net.windows(out_BNP, fresh_BT), fresh_BT, cache)[:, -1]
        law = at(net.laws(hidden_BC, last_known(out_BNP[:, n - 1]), 0), (..., 0))
        drawn_BP = torch.randn(batch, patch, generator=stream).to(law.mean_P)
        out_BNP[:, n] = law.mean_P + echoed(law.log_scale_P.exp() * drawn_BP, law.rho)
        done = n
    return torch.where(out_BNP.abs() < LARGEST, out_BNP, torch.nan)


# -------------------------------------------------------------------------------------------------------------- losses
def carried_on(model: PatchCell, lesson: Lesson, depth: int) -> Iterator[tuple[Laws, int]]:
    """The drafter's laws behind 1, 2, ... `depth` patches that it read from features of the target, all places at once.

    Each with the index in the window of the patch that was read last at the first place; the law is of the next one.
    """
    first = lesson.front - 1
    window_BNWP, base_BN = windows_of(lesson.patches_BNP, model.config.window), last_known(lesson.patches_BNP)
    h_BFC = lesson.hidden_BFC.float()
    law = model.law(h_BFC, base_BN[:, first:])
    for step in range(1, depth + 1):
        read = slice(first + step, None)
        h_BFC, law = h_BFC[:, :-1], at(law, (slice(None), slice(None, -1)))
        h_BFC = model(h_BFC, law, window_BNWP[:, read], base_BN[:, read])
        law = model.law(h_BFC, base_BN[:, read])
        yield law, first + step


def alone(model: PatchCell, lesson: Lesson) -> Laws:
    """The drafter's laws [B, N] behind every patch of the windows, from features of its own."""
    window_BNWP, base_BN = windows_of(lesson.patches_BNP, model.config.window), last_known(lesson.patches_BNP)
    h_BC = model.start.expand(len(base_BN), -1)
    law, out = model.law(h_BC, torch.zeros_like(base_BN[:, 0])), []
    for n in range(base_BN.shape[1]):
        h_BC = model(h_BC, law, window_BNWP[:, n], base_BN[:, n])
        law = model.law(h_BC, base_BN[:, n])
        out.append(law)
    return Laws(*(torch.stack(x, 1) for x in zip(*((q.mean_P, q.log_scale_P, q.rho) for q in out), strict=True)))


def loss_of(model: PatchCell, lesson: Lesson, own: bool, pull: float = 0.0) -> Tensor:
    """The loss of a batch: the mean of log(1 + KL(target || draft)) behind patches that have a value.

    own: whether they are read from features of our own, too. pull: weight of 1 - exp(-KL), which pulls the target's
    law to the draft where they are near already; where they are far apart it is hardly moved.
    """

    def cost(q: Laws, first: int, inside: float) -> tuple[Tensor, Tensor]:
        p = at(lesson.p, (slice(None), slice(first, None)))
        known_BN = torch.isfinite(lesson.patches_BNP[:, first:]).any(-1)
        place_N = torch.arange(first, first + known_BN.shape[1], device=known_BN.device)
        weight_BN = known_BN * torch.where(place_N < lesson.front - 1, inside, 1.0)
        apart_BN = torch.log1p(still(p).divergence(q))
        if pull:
            apart_BN = apart_BN - pull * torch.expm1(-p.divergence(still(q)))
        return (apart_BN * weight_BN).sum(), weight_BN.sum()

    found = [cost(q, first, 1.0) for q, first in carried_on(model, lesson, DEPTH)]
    heard = torch.stack([x for x, _ in found]).sum() / torch.stack([n for _, n in found]).sum().clamp_min(1.0)
    if not own:
        return heard
    ours, weight = cost(alone(model, lesson), 0, INSIDE)
    return heard + ALONE * ours / weight.clamp_min(1.0)


@torch.no_grad()
def accepted(model: PatchCell, given: Sequence[Lesson], depth: int = 8, seed: int = 0) -> list[float]:
    """Chance that a patch is accepted, by place in the draft: mean of min(1, p / q) over samples of q, all places."""
    stream, found = torch.Generator().manual_seed(seed), [list[Tensor]() for _ in range(depth)]
    for lesson in given:
        for k, (q, first) in enumerate(carried_on(model, lesson, depth)):
            p = at(lesson.p, (slice(None), slice(first, None)))
            x_P = q.mean_P + echoed(
                q.log_scale_P.exp() * torch.randn(q.mean_P.shape, generator=stream).to(q.mean_P), q.rho
            )
            ratio = q.negative_log_density(x_P).sum(-1) - p.negative_log_density(x_P).sum(-1)
            known = torch.isfinite(lesson.patches_BNP[:, first:]).all(-1)
            found[k].append(ratio[known].clamp_max(0.0).exp())
    return [round(float(torch.cat(x).mean()), 4) for x in found]


# ------------------------------------------------------------------------------------------------------------ training
def train(recipe: Recipe, model: PatchCell, given: Sequence[Lesson], checkpoint: Path) -> PatchCell:
    """Train from where the checkpoint stands; returns the running average."""
    average = PatchCell(model.config).to(model.start.device)
    average.load_state_dict(model.state_dict())
    parts, step = parts_of(model, recipe), 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True, map_location=model.start.device)
        for part, state in zip((model, average, *parts), saved["states"], strict=True):
            part.load_state_dict(state)
        step = int(saved["step"])
    began, first, shown = time.monotonic(), step, 0.0
    while step < recipe.steps:
        lesson = given[int(np.random.default_rng((recipe.seed, 2, step)).integers(len(given)))]
        cost = loss_of(model, lesson, step % OFTEN == 0)
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
            scratch = checkpoint.with_suffix(".part")
            torch.save({"step": step, "states": [x.state_dict() for x in (model, average, *parts)]}, scratch)
            scratch.rename(checkpoint)
    return average.eval()


def parts_of(model: PatchCell, recipe: Recipe) -> list[Any]:
    """Both optimisers and their schedules."""
    matrices = [model.up.weight, model.down.weight, model.head_up.weight]
    chosen = {id(w) for w in matrices}
    others = [w for w in model.parameters() if id(w) not in chosen]
    muon = torch.optim.Muon(matrices, lr=recipe.rate, weight_decay=0.02, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.AdamW(others, lr=recipe.rate, betas=(0.9, 0.98), weight_decay=0.01)
    warm = min(50, recipe.steps // 10 + 1)

    def share(step: int) -> float:
        return min(1.0, (step + 1) / warm) * (0.5 + 0.5 * math.cos(math.pi * min(1.0, step / recipe.steps)))

    return [muon, adam, *(torch.optim.lr_scheduler.LambdaLR(part, share) for part in (muon, adam))]


# -------------------------------------------------------------------------------------------------------- command line
def job_of(recipe: Recipe, target: Forecaster, windows_NW: Any, data: Path, out: Path, device: str) -> patches.Job:
    """Where windows come from."""
    drawn = patches.Recipe(target.config, recipe.steps, recipe.rate, recipe.tokens, AHEAD, seed=recipe.seed)
    return patches.Job("target", drawn, windows_NW, spans(windows_NW), data, out, device)


def build(recipe: Recipe, windows_NW: Any, data: Path, out: Path, device: str, begin: Path | None = None) -> PatchCell:
    """Train what is missing and write the weights. begin: folder of a drafter to go on from, widened where needed."""
    torch.manual_seed(recipe.seed)
    path = out / "forecaster.safetensors"
    if not path.exists():
        raise UserError(f"There is no {path.name} in {out}; train it first, with backend.train.forecast.patches.")
    target = read_forecaster(path, device)
    job = job_of(recipe, target, windows_NW, data, out, device)
    if begin is not None:
        model = wider(read_cell(begin / f"{NAME}.safetensors", device), recipe.hidden)
    else:
        config = target.config
        model = PatchCell(
            CellConfig(config.patch, config.dim, recipe.hidden, len(target.law.up.weight), config.context)
        ).to(device)
        model.begin_with(target)
    data.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    given = lessons(job, target, recipe.pool)
    print(f"{len(given)} batches read by the target, {time.monotonic() - began:.0f} s", flush=True)
    model = train(recipe, model, given, data / "drafter.pt")
    save_cell(out / f"{NAME}.safetensors", model)
    print(f"{time.monotonic() - began:.0f} s, accepted in training windows by place: {accepted(model, given[-4:])}")
    return model


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: train what is missing, or measure what is trained."""
    parser = argparse.ArgumentParser(prog="python -m backend.train.forecast.drafter", description=__doc__)
    parser.add_argument("--device", choices=sorted(RECIPES), default="cpu")
    parser.add_argument("--data", type=Path, default=ROOT / "train-data" / "series", help="folder of windows")
    parser.add_argument("--out", type=Path, default=ROOT / "assets" / "house")
    parser.add_argument("--steps", type=int, help="of training, where not what the recipe says")
    parser.add_argument("--begin", type=Path, help="folder of a drafter to go on from; none if left out")
    parser.add_argument("--hidden", type=int, help="width of its hidden layer, where not what the recipe says")
    parser.add_argument("--rate", type=float, help="of learning, where not what the recipe says")
    parser.add_argument("--tiny", action="store_true", help="a small model of made-up walks, in seconds")
    parser.add_argument("--measure", action="store_true", help="measure the trained model and write its card")
    parser.add_argument("--series", type=int, default=12, help="cases of every held-out group that it is measured on")
    args = parser.parse_args(argv)
    if args.device == "cpu":
        torch.set_num_threads(1)
    recipe = TINY if args.tiny else RECIPES[args.device]
    recipe = replace(recipe, steps=args.steps or recipe.steps, hidden=args.hidden or recipe.hidden)
    recipe = replace(recipe, rate=args.rate or recipe.rate)
    if args.tiny:
        windows_NW: Any = walks(512).numpy()
    else:
        from backend.train.forecast.mix import windows

        windows_NW = windows(args.data)
    if args.measure:
        from backend.train.forecast.drafter_measure import write_card

        write_card(recipe, windows_NW, args.data, args.out, args.device, args.series)
        return
    build(recipe, windows_NW, args.data, args.out, args.device, args.begin)


if __name__ == "__main__":
    main()
