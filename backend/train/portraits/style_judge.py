"""Train the judge of a further style, which measures what others paint: `... style_judge --style thumbs`.

It learns to read the attributes off the renders of `renders`, some pixels of which are another picture's, as the judge
of pixel portraits does (`judge`). `--device cpu` trains for about 5 minutes on one free core, as estimated from the
sizes. Resumes where it was. The card tells how often it is right on fresh renders and on held-out pairs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backend.codecs.styles import STYLES
from backend.models.house.portrait_judge import PortraitJudge, accuracy, fd_house, judge_name, read_judge, save_judge
from backend.train.portraits import renders
from backend.train.portraits.adam import descend
from backend.train.portraits.judge import Recipe, loss_of, spoil
from backend.train.smollm2_corpus import ROOT

WIDTHS = (32, 48, 48, 48)
BITS = 6
_cpu = Recipe(batch=64, steps=2500, rate=2e-3, seed=6)
RECIPES = {"cpu": _cpu, "cuda": replace(_cpu, batch=256, steps=10_000)}


def batches(style: str, folder: Path, recipe: Recipe, step: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches from this step on: pictures, and values [B, A] counted from 0."""
    for at in count(step):
        rng = np.random.default_rng([recipe.seed, at])
        pixels, rows_BA = renders.draw(style, folder, recipe.batch, rng)
        yield torch.from_numpy(spoil(pixels, rng, recipe.worst)), torch.from_numpy(rows_BA - 1)


def measured(judge: PortraitJudge, folder: Path) -> dict[str, Any]:
    """Shares of attributes that it reads as they are, and the distance of two halves of the fresh renders."""
    told: dict[str, Any] = {}
    for part in ("fresh", "held_out"):
        pixels, rows_BA = renders.read(judge.style, folder, part)
        found = accuracy(judge, np.asarray(pixels), rows_BA)
        told[f"accuracy_{part}"] = {"pictures": len(rows_BA), **{name: round(v, 4) for name, v in found.items()}}
    halves = np.array_split(judge.features_of(np.asarray(renders.read(judge.style, folder, "fresh")[0])), 2)
    return told | {"fd_house_of_two_fresh_halves": round(fd_house(*halves), 5)}


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: train what is missing, measure, and save the judge with its card."""
    parser = argparse.ArgumentParser(prog="python -m backend.train.portraits.style_judge", description=__doc__)
    parser.add_argument("--style", choices=sorted(name for name in STYLES if STYLES[name].package), default="thumbs")
    parser.add_argument("--device", choices=sorted(RECIPES), default="cpu")
    parser.add_argument("--data", type=Path, default=ROOT / "train-data" / "portraits", help="renders and checkpoints")
    parser.add_argument("--out", type=Path, default=ROOT / "assets" / "house")
    parser.add_argument("--steps", type=int, help="of training, where not what the recipe says")
    args = parser.parse_args(argv)
    if args.device == "cpu":
        torch.set_num_threads(1)
    recipe = replace(RECIPES[args.device], steps=args.steps or RECIPES[args.device].steps)
    renders.read(args.style, args.data)  # an error now rather than in the first step
    torch.manual_seed(recipe.seed)
    judge = PortraitJudge(WIDTHS, args.style).to(args.device)
    descend(
        judge,
        recipe,
        args.data / f"checkpoint-{args.style}-judge.pt",
        lambda step: batches(args.style, args.data, recipe, step),
        lambda pixels_BHWC, values_BA: loss_of(judge, pixels_BHWC, values_BA),
    )
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"{judge_name(args.style)}.safetensors"
    save_judge(path, judge, BITS)
    judge = read_judge(path, args.device)  # what ships is measured, in its rounded weights
    card = {
        "id": f"house/{path.stem}",
        "what": f"Reads the attributes off a picture of the style {args.style}: a small convolutional net.",
        "license": "Apache-2.0; the drawings it has learned from are CC0 1.0 (Thumbs by DiceBear).",
        "num_params": sum(weight.numel() for weight in judge.parameters()),
        "widths": list(judge.widths),
        "recipe": {"device": args.device, **asdict(recipe)},
        "measured": measured(judge, args.data),
        "torch": str(torch.__version__),
    }
    path.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(card["measured"], indent=2))


if __name__ == "__main__":
    main()
