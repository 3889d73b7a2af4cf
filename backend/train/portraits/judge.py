"""Train the judge of portraits, which measures what others paint: `python -m backend.train.portraits.judge`.

It learns to read the attributes off portraits that are drawn while it trains, none of them with a held-out pair, and
pixels are rounded to the palette as those of painted portraits are. Some have a few pixels of another portrait's in
their place, so that it can be asked about pictures that are not perfect. `--device cpu` trains with one process, for
about 5 minutes on two free cores, as estimated from the sizes; `--device cuda` trains longer. Resumes where it was.

`--name portrait-verifier --seed 2 --worst 0.4` trains house/portrait-verifier instead, which decoding asks about
pictures that are not finished: another judge than the one that measures, and used to many wrong pixels.

The card tells how often it is right on fresh portraits and on held-out pairs, attribute by attribute, and the house
distance of two sets of fresh portraits, which is what a perfect painter would reach with as many pictures.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from backend.codecs.atlas import Ints, Pixels
from backend.codecs.palette import PaletteTokenizer
from backend.codecs.portraits import Which, draw_many
from backend.models.house.portrait_judge import PortraitJudge, accuracy, fd_house, read_judge, save_judge
from backend.train.portraits import script

SPOILT = 0.5  # share of the portraits with wrong pixels
WORST = 0.05  # most of a portrait's pixels that are wrong, where nothing else is asked for
SAVED_EVERY = 100  # steps
PALETTE = PaletteTokenizer()
WHAT = {
    "portrait-judge": "Reads the 13 attributes off a portrait of 16x16 pixels: a small convolutional net.",
    "portrait-verifier": "Tells decoding what asked-for attributes a portrait of 16x16 pixels shows, finished or not; "
    "never used to measure it.",
}
BITS = {"portrait-judge": 8, "portrait-verifier": 6}  # of its weights; what that costs was measured
HELD, SET = 4000, 2000  # fresh portraits measured, and in each of the two sets whose distance is told


@dataclass(frozen=True)
class Recipe:
    """batch: portraits a step. steps: of the optimiser. rate: peak learning rate. worst: see `spoil`."""

    batch: int
    steps: int
    rate: float
    seed: int = 1
    worst: float = WORST


_cpu = Recipe(batch=128, steps=3000, rate=1e-3)
RECIPES = {"cpu": _cpu, "cuda": replace(_cpu, batch=512, steps=12_000)}


def as_painted(count: int, rng: np.random.Generator, which: Which = "seen") -> tuple[Pixels, Ints]:
    """Portraits [B, 16, 16, 3] in the colours of the palette, and their codes [B, A]."""
    pixels, rows = draw_many(count, rng, which=which)
    return PALETTE.decode(PALETTE.encode(pixels)), rows


def spoil(pixels: Pixels, rng: np.random.Generator, worst: float = WORST) -> Pixels:
    """The same with some pixels of half of the pictures, a share of up to `worst`, taken from the picture before."""
    share_B11 = rng.random((len(pixels), 1, 1)) * worst * (rng.random((len(pixels), 1, 1)) < SPOILT)
    wrong_BHW = rng.random(pixels.shape[:3]) < share_B11
    return np.where(wrong_BHW[..., None], np.roll(pixels, 1, axis=0), pixels)


def batches(recipe: Recipe, step: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches from this step on: pictures, and values [B, A] counted from 0."""
    for at in count(step):
        rng = np.random.default_rng([recipe.seed, at])
        pixels, rows = as_painted(recipe.batch, rng)
        yield torch.from_numpy(spoil(pixels, rng, recipe.worst)), torch.from_numpy(rows - 1)


def loss_of(judge: PortraitJudge, pixels_BHWC: Tensor, values_BA: Tensor) -> Tensor:
    """Mean loss in nats an attribute."""
    logits = judge(pixels_BHWC)
    return torch.stack([F.cross_entropy(x, v) for x, v in zip(logits, values_BA.unbind(1), strict=True)]).mean()


def train(judge: PortraitJudge, recipe: Recipe, checkpoint: Path) -> None:
    """Train in place; resumes from the checkpoint, if there is one."""
    device, total = judge.values.weight.device, recipe.steps
    adam = torch.optim.AdamW(judge.parameters(), lr=recipe.rate, weight_decay=0.01)
    rate = torch.optim.lr_scheduler.LambdaLR(
        adam, lambda step: min(1.0, (step + 1) / 30) * (0.5 + 0.5 * math.cos(math.pi * min(1.0, step / total)))
    )
    step = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True, map_location=device)
        step = saved["step"]
        for part, name in ((judge, "judge"), (adam, "adam"), (rate, "rate")):
            part.load_state_dict(saved[name])
    source = batches(recipe, step)
    while step < total:
        step += 1
        pixels_BHWC, values_BA = (part.to(device) for part in next(source))
        loss = loss_of(judge, pixels_BHWC, values_BA)
        torch.autograd.backward(loss)
        adam.step()
        rate.step()
        adam.zero_grad(set_to_none=True)
        if step % 50 == 0:
            print(f"step {step}/{total} loss {loss.item():.4f}", flush=True)
        if step % SAVED_EVERY == 0 or step == total:
            scratch = checkpoint.with_suffix(".part")
            parts = {"judge": judge.state_dict(), "adam": adam.state_dict(), "rate": rate.state_dict()}
            torch.save({"step": step, **parts}, scratch)
            scratch.rename(checkpoint)


def measured(judge: PortraitJudge, held: int, each: int, worst: float = WORST) -> dict[str, Any]:
    """What the card tells of a judge. worst: another share of wrong pixels that it is asked about."""
    told: dict[str, Any] = {"portraits": held}
    for name, which in (("fresh", "seen"), ("held_out_pairs", "held_out")):
        pixels, rows = as_painted(held, np.random.default_rng([20_000_000, which == "seen"]), which)  # type: ignore[arg-type]
        told[f"accuracy_{name}"] = {key: round(value, 4) for key, value in accuracy(judge, pixels, rows).items()}
    pixels, rows = as_painted(held, np.random.default_rng([20_000_001]))
    for share in dict.fromkeys((WORST, worst)):
        spoilt = spoil(pixels, np.random.default_rng([20_000_002]), share)
        name = "accuracy_spoilt" if share == WORST else f"accuracy_spoilt_by_up_to_{share:g}"
        told[name] = round(accuracy(judge, spoilt, rows)["all"], 4)
    sets = [as_painted(each, np.random.default_rng([20_000_003, i]))[0] for i in (0, 1)]
    told["fd_house_of_two_fresh_sets"] = round(fd_house(*(judge.features_of(pixels) for pixels in sets)), 5)
    told["pictures_in_a_set"] = each
    return told


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: train what is missing, measure, and save the judge with its card."""
    parser = script.options("backend.train.portraits.judge", __doc__, RECIPES)
    parser.add_argument("--name", choices=sorted(WHAT), default="portrait-judge", help="of the model that is written")
    parser.add_argument("--seed", type=int, default=Recipe.seed, help="of the first weights and of the portraits")
    parser.add_argument("--worst", type=float, default=WORST, help="most of a portrait's pixels that are wrong")
    args = parser.parse_args(argv)
    recipe = RECIPES[args.device]
    recipe = replace(recipe, steps=args.steps or recipe.steps, seed=args.seed, worst=args.worst)
    args.data.mkdir(parents=True, exist_ok=True)
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    judge = PortraitJudge().to(args.device)
    train(judge, recipe, args.data / f"checkpoint-{args.name.removeprefix('portrait-')}.pt")
    save(args.out / f"{args.name}.safetensors", judge, recipe, args.device)


def save(path: Path, judge: PortraitJudge, recipe: Recipe, device: str, held: int = HELD, each: int = SET) -> None:
    """Write the judge and its card, with everything measured."""
    save_judge(path, judge, BITS[path.stem])
    judge = read_judge(path, device)  # what ships is measured, in its rounded weights
    card = {
        "id": f"house/{path.stem}",
        "what": WHAT[path.stem],
        "license": script.LICENSE,
        "num_params": sum(weight.numel() for weight in judge.parameters()),
        "widths": list(judge.widths),
        "data": f"{script.DRAWN}; of {SPOILT:.0%} up to {recipe.worst:.0%} of the pixels are another portrait's.",
        "recipe": {"device": device, **asdict(recipe)},
        "bits": BITS[path.stem],
        "measured": measured(judge, held, each, recipe.worst),
        "about_measured": "Portraits of the same drawer, which the judge has not seen. The house distance of two sets "
        "of them is the least that a painter can be expected to reach with as many pictures; it is no FID.",
    }
    script.write_card(path, card, ("num_params", "measured"))


if __name__ == "__main__":
    main()
