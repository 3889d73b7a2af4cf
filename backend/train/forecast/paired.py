"""Train the forecaster and its drafter on, together: `python -m backend.train.forecast.paired`, once both are trained.

How often a drafted patch is accepted is a matter of both: much of what a drafter misses is how a law wobbles from patch
to patch, and most of that says nothing of the series. So the forecaster goes on learning what it is for (the losses of
`patches`, on the same windows), and both are pulled to where their laws agree: log(1 + KL(target || draft)) behind
patches that the drafter reads, on real windows and on some that the forecaster continued. The drafter's own windows
are trained as in `drafter`. What ships are running averages, of both; training resumes from its checkpoint. The recipe
takes about half an hour on a CPU thread. Cards are written by `patches --measure` and `drafter --measure`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from backend.models.house.forecaster import Forecaster, read_forecaster, save_forecaster
from backend.models.house.forecaster_cell import PatchCell, read_cell, save_cell
from backend.models.house.forecaster_rows import Frozen
from backend.train.forecast import drafter, patches
from backend.train.forecast.drafter import Lesson, accepted, at, continued, lessons
from backend.train.forecast.patches_measure import THEN
from backend.train.smollm2_corpus import ROOT

SAVED_EVERY, SHOWN_EVERY = 200, 100  # steps
CONTINUED = 4  # every so many-th batch is one that the forecaster continued


@dataclass(frozen=True)
class Recipe:
    """How both go on. rate: of the forecaster's matrices; cell_rate: of the drafter. weight: of agreement, a value.

    tokens: patches of a batch. pool: batches that the forecaster continued before it began.
    """

    steps: int = 3000
    rate: float = 6e-4
    cell_rate: float = 2e-3
    weight: float = 1.0
    pull: float = 1.0
    tokens: int = 2048
    pool: int = 100
    average: float = 0.996
    seed: int = 5


RECIPES = {"cpu": Recipe(), "cuda": Recipe(steps=10_000, tokens=12_288)}
TINY = Recipe(steps=12, tokens=128, pool=2, average=0.8)


@dataclass(frozen=True)
class Pair:
    """Both, their running averages, and where windows come from."""

    job: patches.Job
    recipe: Recipe
    target: Forecaster
    cell: PatchCell

    @property
    def checkpoint(self) -> Path:
        """Where training stands."""
        return self.job.data / "paired.pt"


def loss_of(pair: Pair, patches_BNP: Tensor, front: int, step: int, real: bool) -> tuple[Tensor, Tensor]:
    """What the forecaster is for, in nats a value, 0 where windows are not real; and how far both are from agreeing."""
    target, config = pair.target, pair.target.config
    h_BNC, base_BN = target(patches_BNP)
    stream = np.random.default_rng((pair.recipe.seed, 2, step))
    asked = patches.loss_behind(target, h_BNC, base_BN, patches_BNP, front, stream) if real else h_BNC.new_zeros(())
    p = at(target.laws(h_BNC, base_BN, 0), (..., 0))
    lesson = Lesson(patches_BNP, front, p, h_BNC[:, front - 1 :])
    agreed = drafter.loss_of(pair.cell, lesson, step % drafter.OFTEN == 0, pair.recipe.pull)
    return asked, pair.recipe.weight / config.patch * agreed


def train(pair: Pair) -> tuple[Forecaster, PatchCell]:
    """Train from where the checkpoint stands; returns running averages. A batch depends on seed and step alone."""
    recipe, target, cell = pair.recipe, pair.target, pair.cell
    given = pool(pair)
    ours = (Forecaster(target.config), PatchCell(cell.config))
    averages = tuple(model.to(pair.job.device) for model in ours)
    for average, model in zip(averages, (target, cell), strict=True):
        average.load_state_dict(model.state_dict())
    parts = parts_of(pair)
    step = _resume(pair, averages, parts)
    began, first, shown = time.monotonic(), step, np.zeros(2)
    while step < recipe.steps:
        target.train()
        real = step % CONTINUED != 0
        patches_BNP, front = patches.draw(pair.job, (4, step)) if real else given[(step // CONTINUED) % len(given)]
        asked, agreed = loss_of(pair, patches_BNP.to(pair.job.device), front, step, real)
        torch.autograd.backward(asked + agreed)
        for model in (target, cell):
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for part in parts:
            part.step()
        step += 1
        with torch.no_grad():
            keep = min(recipe.average, (1 + step) / (10 + step))
            for average, model in zip(averages, (target, cell), strict=True):
                model.zero_grad(set_to_none=True)
                torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - keep)
        shown += np.array([float(asked.detach()) / (1 - 1 / CONTINUED), float(agreed.detach())]) / SHOWN_EVERY
        if step % SHOWN_EVERY == 0:
            speed = (time.monotonic() - began) / (step - first)
            print(
                f"step {step}/{recipe.steps} loss {shown[0]:.4f} apart {shown[1]:.4f} {speed:.3f} s a step", flush=True
            )
            shown[:] = 0.0
        if step % SAVED_EVERY == 0 or step == recipe.steps:
            states = [x.state_dict() for x in (target, cell, *averages, *parts)]
            scratch = pair.checkpoint.with_suffix(".part")
            torch.save({"step": step, "states": states}, scratch)
            scratch.rename(pair.checkpoint)
    return averages[0].eval(), averages[1].eval()  # type: ignore[return-value]


@torch.no_grad()
def pool(pair: Pair) -> list[tuple[Tensor, int]]:
    """Windows that the forecaster continued, as it was in the beginning, and their patches in front of the origin."""
    net, out = Frozen(pair.target), []
    stream = torch.Generator().manual_seed(pair.recipe.seed)
    for i in range(pair.recipe.pool):
        patches_BNP, front = patches.draw(pair.job, (5, i))
        out.append((continued(net, patches_BNP.to(pair.job.device), front, stream), front))
    return out


def parts_of(pair: Pair) -> list[Any]:
    """Optimisers of both and their schedules."""
    recipe = pair.recipe
    trunk = patches.parts_of(pair.target, replace(pair.job.recipe, rate=recipe.rate, steps=recipe.steps))
    return trunk + drafter.parts_of(pair.cell, drafter.Recipe(rate=recipe.cell_rate, steps=recipe.steps))


def _resume(pair: Pair, averages: Sequence[nn.Module], parts: Sequence[Any]) -> int:
    if not pair.checkpoint.exists():
        return 0
    saved = torch.load(pair.checkpoint, weights_only=True, map_location=pair.job.device)
    for part, state in zip((pair.target, pair.cell, *averages, *parts), saved["states"], strict=True):
        part.load_state_dict(state)
    return int(saved["step"])


def told(pair: Pair, target: Forecaster, cell: PatchCell) -> str:
    """Held-out loss of a forecaster, and how often it accepts by place in the draft."""
    held = lessons(pair.job, target, 4, held=True)
    return f"held-out loss {patches.held_out_loss(pair.job, target):.4f}, accepted by place {accepted(cell, held)}"


def note(before: Path, card: Path, recipe: dict[str, Any]) -> None:
    """Write the card of a model that was trained on: as it was, with this training behind those before it."""
    told = json.loads(before.read_text(encoding="utf-8")) if before.is_file() else {}
    told[THEN] = [*told.get(THEN, []), recipe]
    card.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: train both on and write their weights."""
    parser = argparse.ArgumentParser(prog="python -m backend.train.forecast.paired", description=__doc__)
    parser.add_argument("--device", choices=sorted(RECIPES), default="cpu")
    parser.add_argument("--data", type=Path, default=ROOT / "train-data" / "series", help="folder of windows")
    parser.add_argument("--begin", type=Path, default=ROOT / "assets" / "house", help="folder of weights to begin with")
    parser.add_argument("--out", type=Path, default=ROOT / "assets" / "house")
    parser.add_argument("--steps", type=int, help="of training, where not what the recipe says")
    parser.add_argument("--weight", type=float, help="of agreement, where not what the recipe says")
    parser.add_argument("--pull", type=float, help="of the forecaster's laws to the drafter's, as well")
    parser.add_argument("--seed", type=int, help="of windows: another one for every further training")
    parser.add_argument("--tiny", action="store_true", help="small models on made-up walks, in seconds")
    args = parser.parse_args(argv)
    if args.device == "cpu":
        torch.set_num_threads(1)
    recipe = TINY if args.tiny else RECIPES[args.device]
    recipe = replace(recipe, steps=args.steps or recipe.steps, weight=args.weight or recipe.weight)
    recipe = replace(recipe, pull=recipe.pull if args.pull is None else args.pull)
    recipe = replace(recipe, seed=recipe.seed if args.seed is None else args.seed)
    if args.tiny:
        windows_NW: Any = patches.walks(512).numpy()
    else:
        from backend.train.forecast.mix import windows

        windows_NW = windows(args.data)
    target = read_forecaster(args.begin / "forecaster.safetensors", args.device)
    cell = read_cell(args.begin / f"{drafter.NAME}.safetensors", args.device)
    drawn = patches.Recipe(target.config, recipe.steps, recipe.rate, recipe.tokens, seed=recipe.seed)
    job = patches.Job("target", drawn, windows_NW, patches.spans(windows_NW), args.data, args.out, args.device)
    pair = Pair(job, recipe, target, cell)
    print(told(pair, target.eval(), cell), flush=True)
    target, cell = train(pair)
    args.out.mkdir(parents=True, exist_ok=True)
    save_forecaster(args.out / "forecaster.safetensors", target)
    save_cell(args.out / f"{drafter.NAME}.safetensors", cell)
    for name in ("forecaster", drafter.NAME):
        note(args.begin / f"{name}.json", args.out / f"{name}.json", asdict(recipe) | {"device": args.device})
    shipped = read_forecaster(args.out / "forecaster.safetensors", args.device)
    print(told(pair, shipped, read_cell(args.out / f"{drafter.NAME}.safetensors", args.device)))


if __name__ == "__main__":
    main()
