"""Train house/portraits-weak, guidance learned into a small net: `python -m backend.train.portraits.reflect`.

After CoRe^2, Shao et al. 2025 (2503.09662): the net reads the last hidden state of house/portraits given the conditions
and learns what the painter says under guidance (`models/house/reflected.py`). Where the paper collects states along
guided samples, ours are taken along drawn portraits, of which there are as many as one likes, and the loss is
KL(guided || net) at temperature 1; the paper's mean square would spend itself on codes that are never drawn.

`--device cpu` trains with one process of one thread for about 3 minutes on a free core, as estimated from a few steps,
and measures for 2 more; `--device cuda` trains longer. Nothing is saved on the way. The card tells KL, accuracy and
house distance beside those of house/portraits, plain and guided.

Letters: A attributes, L slots of the canvas, V codes, B portraits of a batch, C features.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from backend.models.house.llama import Llama
from backend.models.house.own import read_own
from backend.models.house.raster import features_of
from backend.models.house.reflected import Reflection, read_reflection, save_reflection
from backend.models.raster import RasterModel, guided, refined, reflected
from backend.train.portraits import script
from backend.train.portraits.judged import judged, seen
from backend.train.portraits.raster import CODEC, LAYOUT, draw_batch, left_open
from backend.train.portraits.raster_measure import fresh, in_parts, paint, painter
from backend.train.smollm2_corpus import ROOT

NAME = "portraits-weak"
SCALE = 3.0  # of the guidance that is learned, convention A
OMEGAS = (1.5,)  # of the refined mode, in the card
WIDTH = 640  # of the net's hidden layer
HELD = 128  # portraits that the KL is taken on
STREAM = 3  # of the random numbers of batches, beside those of `raster`


@dataclass(frozen=True)
class Recipe:
    """batch: portraits a step. steps: of the optimiser. rate: peak learning rate."""

    batch: int
    steps: int
    rate: float
    seed: int = 1


_cpu = Recipe(batch=16, steps=150, rate=2e-3)
RECIPES = {"cpu": _cpu, "cuda": replace(_cpu, batch=256, steps=2000)}


def batches(recipe: Recipe) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless conditions [B, A], partly open, and canvases [B, L]."""
    for at in count():
        rng = np.random.default_rng([recipe.seed, at, STREAM])
        rows_BA, canvas_BL = draw_batch(recipe.batch, rng)
        yield torch.from_numpy(left_open(rows_BA.numpy(), rng)), canvas_BL


@torch.no_grad()
def collect(painter: Llama, scale: float, conditions_BA: Tensor, canvas_BL: Tensor) -> tuple[Tensor, Tensor]:
    """Features given the conditions [B, L, C], and the guided logits [B, L, V]."""
    both_BA = torch.cat((conditions_BA, torch.zeros_like(conditions_BA)))
    with torch.autocast(canvas_BL.device.type, torch.bfloat16):
        features_BLC = features_of(painter, LAYOUT, both_BA, canvas_BL.repeat(2, 1)).float()
    asked_BLC, open_BLC = features_BLC.chunk(2)
    asked_BLV, open_BLV = (F.linear(x, painter.head_weight()) for x in (asked_BLC, open_BLC))
    return asked_BLC, torch.lerp(open_BLV, asked_BLV, scale)


def apart(painter: Llama, reflection: Reflection, features_BLC: Tensor, guided_BLV: Tensor) -> Tensor:
    """KL(guided || net) of every slot, [B, L] nats."""
    said_BLV = F.linear(features_BLC + reflection(features_BLC), painter.head_weight()).log_softmax(-1)
    true_BLV = guided_BLV.log_softmax(-1)
    return (true_BLV.exp() * (true_BLV - said_BLV)).sum(-1)


def train(painter: Llama, reflection: Reflection, recipe: Recipe) -> None:
    """Train the net in place."""
    device = reflection.inner.weight.device
    adam = torch.optim.AdamW(reflection.parameters(), lr=recipe.rate, weight_decay=0.01)
    rate = torch.optim.lr_scheduler.LambdaLR(
        adam, lambda step: min(1.0, (step + 1) / 20) * (0.5 + 0.5 * math.cos(math.pi * min(1.0, step / recipe.steps)))
    )
    for step, batch in zip(range(1, recipe.steps + 1), batches(recipe), strict=False):
        pairs = collect(painter, reflection.scale, *(part.to(device) for part in batch))
        loss = apart(painter, reflection, *pairs).mean()
        torch.autograd.backward(loss)
        adam.step()
        rate.step()
        adam.zero_grad(set_to_none=True)
        if step % 25 == 0:
            print(f"step {step}/{recipe.steps} KL {loss.item():.5f} nats a pixel", flush=True)


# ------------------------------------------------------------------------------------------------------------ measures
@torch.inference_mode()
def held_out(painter: Llama, reflection: Reflection, portraits: int) -> dict[str, Any]:
    """Mean KL(guided || net) a pixel on fresh portraits with half of the attributes open, and that of the plain law."""
    plain = Reflection(reflection.inner.in_features, 1, reflection.scale).to(reflection.inner.weight.device)
    parts: dict[str, list[Tensor]] = {"net": [], "plain": []}
    for batch in in_parts(*fresh(draw_batch, portraits, half_open=True)):
        pairs = collect(painter, reflection.scale, *(part.to(plain.inner.weight.device) for part in batch))
        for name, net in (("net", reflection), ("plain", plain)):
            parts[name].append(apart(painter, net, *pairs))
    means = {name: torch.cat(kl).mean(0) for name, kl in parts.items()}
    rows = means["net"].view(LAYOUT.grid).mean(1)
    return {
        "portraits": portraits,
        "kl_guided_net_nats_per_pixel": round(float(means["net"].mean()), 5),
        "kl_guided_plain_nats_per_pixel": round(float(means["plain"].mean()), 5),
        "kl_guided_net_by_row": [round(float(kl), 5) for kl in rows],
    }


def painted(painter_net: Llama, reflection: Reflection, folder: Path, pictures: int) -> dict[str, Any]:
    """What is painted at temperature 1 plain, guided, by the net alone and refined; empty without a judge."""
    plain = painter(painter_net.cpu(), "portraits")
    weak = reflected(plain, reflection.cpu(), f"house/{NAME}")
    models: dict[str, RasterModel] = {"portraits": plain, f"portraits@cfg={SCALE:g}": guided(plain, SCALE)}
    models |= {NAME: weak} | {f"{NAME}@refine={omega:g}": refined(weak, omega) for omega in OMEGAS}

    def canvas(model: RasterModel, conditions_A: list[int], seed: int) -> Any:
        return seen(CODEC.tokenizer, paint(model, torch.tensor(conditions_A), seed))

    ways = ((name, lambda asked, seed, model=model: canvas(model, asked, seed)) for name, model in models.items())
    return judged(ways, folder, pictures)


def save(
    out: Path, painter: Llama, reflection: Reflection, recipe: Recipe, device: str, pictures: int, held: int = HELD
) -> None:
    """Write the net and its card, with everything measured."""
    path = out / f"{NAME}.safetensors"
    save_reflection(path, reflection)
    shipped = read_reflection(path, device)  # what ships is measured, in its rounded weights
    card: dict[str, Any] = {
        "id": f"house/{NAME}",
        "what": f"house/portraits as if under guidance of scale {SCALE:g}, by a small net in place of a second "
        "sequence.",
        "license": script.LICENSE,
        "num_params": painter.num_params + sum(weight.numel() for weight in shipped.parameters()),
        "num_params_of_the_net": sum(weight.numel() for weight in shipped.parameters()),
        "vocabulary": CODEC.vocabulary,
        "data": "States of house/portraits on portraits of backend.codecs.portraits, drawn while training, never with "
        "a held-out pair of attributes.",
        "portraits": recipe.steps * recipe.batch,
        "recipe": {"batch": recipe.batch, "steps": recipe.steps, "rate": recipe.rate, "seed": recipe.seed}
        | {"device": device, "scale": SCALE, "width": WIDTH},
        "held_out": held_out(painter, shipped, held),
        "painted": painted(painter, shipped, out, pictures),
        "cannot": "Stands for one scale of guidance only.",
    }
    script.write_card(path, card, ("held_out", "painted"))


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: train, measure, and save the net with its card."""
    parser = argparse.ArgumentParser(prog="python -m backend.train.portraits.reflect", description=__doc__)
    parser.add_argument("--device", choices=sorted(RECIPES), default="cpu")
    parser.add_argument("--out", type=Path, default=ROOT / "assets" / "house")
    parser.add_argument("--steps", type=int, help="of training, where not what the recipe says")
    parser.add_argument("--pictures", type=int, default=64, help="painted in each way to measure the model")
    args = parser.parse_args(argv)
    if args.device == "cpu":
        torch.set_num_threads(1)
    recipe = RECIPES[args.device]
    recipe = replace(recipe, steps=args.steps or recipe.steps)
    torch.manual_seed(recipe.seed)
    painter = read_own(args.out / "portraits.safetensors", args.device)
    assert isinstance(painter, Llama)
    painter.requires_grad_(False)
    reflection = Reflection(painter.config.dim, WIDTH, SCALE).to(args.device)
    train(painter, reflection, recipe)
    save(args.out, painter, reflection, recipe, args.device, args.pictures)


if __name__ == "__main__":
    main()
