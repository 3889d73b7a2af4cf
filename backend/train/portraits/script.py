"""What the scripts of the portraits' models share: their options, their training processes, and the file of a card."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from backend.train.smollm2_corpus import ROOT
from backend.train.smollm2_draft import Job, Recipe, in_processes
from backend.train.tales import TaleJob

LICENSE = "Apache-2.0; the drawings it has learned from are CC0 1.0 (Pixel Art by DiceBear)."
DRAWN = "Portraits of backend.codecs.portraits, drawn while training, never with a held-out pair of attributes"


def options(module: str, about: str | None, devices: Iterable[str]) -> argparse.ArgumentParser:
    """The options of every script; more can be added. module: what `python -m` runs."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=about)
    parser.add_argument("--device", choices=sorted(devices), default="cpu")
    parser.add_argument("--data", type=Path, default=ROOT / "train-data" / "portraits", help="folder of checkpoints")
    parser.add_argument("--out", type=Path, default=ROOT / "assets" / "house")
    parser.add_argument("--steps", type=int, help="of training, where not what the recipe says")
    return parser


def asked(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """What the command line says; the folder of checkpoints is there then.

    On CPUs this process computes with one thread, as those that train.
    """
    args = parser.parse_args(argv)
    if args.device == "cpu":
        torch.set_num_threads(1)
    args.data.mkdir(parents=True, exist_ok=True)
    return args


def train(work: Callable[[int, Job], None], job: TaleJob, model: nn.Module) -> None:
    """Train in the processes of the recipe, and give the model the weights of their checkpoint.

    work: of one process, given its rank. Raises RuntimeError if one fails; what is on disk stays.
    """
    in_processes(work, job.recipe.trainers, job)
    model.load_state_dict(torch.load(job.checkpoint, weights_only=True, map_location=job.device)["model"])


def told(recipe: Recipe, device: str) -> dict[str, Any]:
    """A recipe as cards have it."""
    return {name: getattr(recipe, name) for name in ("trainers", "batch", "steps", "rate", "seed")} | {"device": device}


def write_card(weights: Path, card: Mapping[str, Any], shown: Iterable[str]) -> None:
    """Write a card beside its weights, with the version of torch, and print some of it."""
    text = json.dumps({**card, "torch": str(torch.__version__)}, indent=2)
    weights.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
    print(json.dumps({name: card[name] for name in shown}, indent=2))
