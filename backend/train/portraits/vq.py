"""Train the tokenizer of a further style: `python -m backend.train.portraits.vq --style thumbs`.

Pictures of 64 pixels become 16x16 codes of 512. The encoder's numbers are moved to the nearest code, and gradients
pass by that as if nothing had been moved; codes are a learned linear map of fixed random ones (SimVQ, 2411.02038), so
that all of them move together and none dies out. Pixels near an edge weigh more: eyes and mouths are few.

`--device cpu` trains for about 10 minutes on one free core, as estimated from the sizes; `--device cuda` trains longer.
Needs the renders of `renders`. Resumes where it was. What ships is measured: `backend.codecs.vq` reads the file back,
in numpy, and its reconstructions are compared with fresh pictures and with held-out pairs.

Letters: B pictures, h, w the grid, P numbers of a cell, C channels, V codes, D numbers of a code.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backend.codecs.atlas import FOLDER, Pixels
from backend.codecs.styles import STYLES
from backend.codecs.vq import CELL, LearnedTokenizer, file_of, in_cells
from backend.models.house.portrait_judge import accuracy, judge_of
from backend.train.portraits import renders
from backend.train.portraits.adam import descend
from backend.train.smollm2_corpus import ROOT

COMMIT = 0.25  # weight of the encoder's distance to its codes
EDGE, RISE = 6.0, 0.05  # how much more a pixel weighs whose surroundings differ by more than RISE
WINDOW = 8  # pixels a side of a window of the likeness


@dataclass(frozen=True)
class Recipe:
    """batch: pictures a step. steps: of the optimiser. rate: peak learning rate. channels, codes, width: C, V and D."""

    batch: int
    steps: int
    rate: float
    channels: int = 64
    codes: int = 512
    width: int = 16
    seed: int = 3


_cpu = Recipe(batch=24, steps=6000, rate=2e-3)
RECIPES = {"cpu": _cpu, "cuda": replace(_cpu, batch=128, steps=30_000)}


class Net(nn.Module):
    """Two convolutions of three cells, the second added to what it reads, and a linear map; numpy runs it, too."""

    def __init__(self, read: int, channels: int, out: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(read, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.last = nn.Conv2d(channels, out, 1)

    def forward(self, x_BChw: Tensor) -> Tensor:
        """[B, out, h, w]."""
        x_BChw = F.gelu(self.first(x_BChw), approximate="tanh")
        out: Tensor = self.last(x_BChw + F.gelu(self.second(x_BChw), approximate="tanh"))
        return out


class Quantised(nn.Module):
    """Encoder, codes and decoder."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.encoder = Net(3 * CELL**2, recipe.channels, recipe.width)
        self.decoder = Net(recipe.width, recipe.channels, 3 * CELL**2)
        self.register_buffer("fixed_VD", torch.randn(recipe.codes, recipe.width))
        self.turn = nn.Linear(recipe.width, recipe.width, bias=False)
        nn.init.orthogonal_(self.turn.weight)

    def codes(self) -> Tensor:
        """All codes."""
        out: Tensor = self.turn(self.fixed_VD)
        return out

    def forward(self, cells_BPhw: Tensor) -> tuple[Tensor, Tensor]:
        """What is drawn, [B, P, h, w], and the mean squared distance of the encoder to its codes, both ways."""
        z_BDhw, codes_VD = self.encoder(cells_BPhw), self.codes()
        flat_ND = z_BDhw.permute(0, 2, 3, 1).flatten(0, 2)
        token_N = ((codes_VD**2).sum(1) - 2 * flat_ND @ codes_VD.T).argmin(1)
        code_ND = codes_VD[token_N]
        apart = F.mse_loss(code_ND, flat_ND.detach()) + COMMIT * F.mse_loss(flat_ND, code_ND.detach())
        passed_ND = flat_ND + (code_ND - flat_ND).detach()
        batch, _, height, width = z_BDhw.shape
        return self.decoder(passed_ND.view(batch, height, width, -1).permute(0, 3, 1, 2)), apart


def batches(style: str, folder: Path, recipe: Recipe, step: int) -> Iterator[tuple[Tensor]]:
    """Endless batches from this step on: cells [B, P, h, w]."""
    for at in count(step):
        pixels, _ = renders.draw(style, folder, recipe.batch, np.random.default_rng([recipe.seed, at]))
        yield (torch.from_numpy(in_cells(pixels)).permute(0, 3, 1, 2),)


def weights_of(cells_BPhw: Tensor) -> Tensor:
    """How much each number counts, 1 on the whole: more where a channel is unlike the mean of the 3x3 around it."""
    batch, _, height, width = cells_BPhw.shape
    parts = cells_BPhw.view(batch, CELL, CELL, 3, height, width).permute(0, 3, 4, 1, 5, 2)
    image_BCHW = parts.reshape(batch, 3, height * CELL, width * CELL)
    around = F.avg_pool2d(F.pad(image_BCHW, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    edge_B1HW = ((image_BCHW - around).abs().amax(1, keepdim=True) > RISE).float()
    weight_B1HW = 1 + EDGE * edge_B1HW
    weight_B1HW = weight_B1HW / weight_B1HW.mean()
    back = weight_B1HW.expand(-1, 3, -1, -1).reshape(batch, 3, height, CELL, width, CELL).permute(0, 3, 5, 1, 2, 4)
    return back.reshape(cells_BPhw.shape)


def loss_of(model: Quantised, cells_BPhw: Tensor) -> Tensor:
    """Weighed absolute and squared error of what is drawn, and the distance to the codes."""
    drawn_BPhw, apart = model(cells_BPhw)
    wrong, weight = drawn_BPhw - cells_BPhw, weights_of(cells_BPhw)
    loss: Tensor = ((wrong.abs() + wrong**2) * weight).mean() + apart
    return loss


# --------------------------------------------------------------------------------------------------------------- file
def save(path: Path, model: Quantised, side: int) -> None:
    """Write the weights that `LearnedTokenizer` reads: matrices [in, out] in bytes, a step a column."""
    parts: dict[str, Any] = {"side": np.asarray(side)}
    matrices = {"codes": model.codes()}
    for name, net in (("encoder", model.encoder), ("decoder", model.decoder)):
        for part, layer in (("first", net.first), ("second", net.second), ("last", net.last)):
            weight = layer.weight.permute(2, 3, 1, 0).reshape(-1, layer.weight.shape[0])  # cells row by row, then C
            matrices[f"{name}.{part}"] = weight
            assert layer.bias is not None
            parts[f"{name}.{part}_bias"] = layer.bias.detach().cpu().half().numpy()
    for name, matrix in matrices.items():
        weight = matrix.detach().float().cpu()
        step = (weight.abs().amax(0, keepdim=True) / 127).clamp_min(1e-12).half()
        parts[name] = (weight / step.float()).round().clamp(-127, 127).to(torch.int8).numpy()
        parts[f"{name}.step"] = step.numpy()
    np.savez_compressed(path, **parts)


# ----------------------------------------------------------------------------------------------------------- measures
def psnr(pixels: Pixels, others: Pixels) -> float:
    """Peak signal over noise in decibels, over all pixels."""
    squared = float(((pixels.astype(np.float64) - others) ** 2).mean())
    return 10 * float(np.log10(255**2 / max(squared, 1e-12)))


def likeness(pixels: Pixels, others: Pixels) -> float:
    """Structural similarity (Wang et al. 2004) of the mean of the channels, in windows of 8x8 that do not overlap.

    Not the published measure to the digit, whose windows are Gaussian and overlap.
    """
    parts = []
    for picture in (pixels, others):
        grey = picture.astype(np.float64).mean(axis=-1)
        batch, height, width = grey.shape
        cut = grey.reshape(batch, height // WINDOW, WINDOW, width // WINDOW, WINDOW).swapaxes(2, 3)
        parts.append(cut.reshape(-1, WINDOW * WINDOW))
    a, b = parts
    mean_a, mean_b = a.mean(1), b.mean(1)
    var_a, var_b, both = a.var(1), b.var(1), (a * b).mean(1) - mean_a * mean_b
    small, least = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    top = (2 * mean_a * mean_b + small) * (2 * both + least)
    return float((top / ((mean_a**2 + mean_b**2 + small) * (var_a + var_b + least))).mean())


def measured(tokenizer: LearnedTokenizer, style: str, folder: Path, judge_folder: Path, held: int) -> dict[str, Any]:
    """What the card tells of a tokenizer: errors, codes in use, and what a judge reads off before and after."""
    told: dict[str, Any] = {}
    judge = judge_of(style, judge_folder)
    for part in ("fresh", "held_out"):
        whole, rows_BA = renders.read(style, folder, part)
        pixels, rows_BA = np.asarray(whole[:held]), rows_BA[:held]
        tokens = tokenizer.encode(pixels)
        drawn = tokenizer.decode(tokens)
        found = {
            "pictures": len(pixels),
            "psnr_db": round(psnr(pixels, drawn), 2),
            "likeness": round(likeness(pixels, drawn), 4),
            "codes_in_use": len(np.unique(tokens)),
            "perplexity_of_codes": round(_perplexity(tokens, tokenizer.vocab_size), 1),
        }
        if judge is not None:
            before, after = (judge.attributes(seen) for seen in (pixels, drawn))
            found |= {
                "judge_right_before": round(accuracy(judge, pixels, rows_BA)["all"], 4),
                "judge_right_after": round(accuracy(judge, drawn, rows_BA)["all"], 4),
                "judge_reads_the_same": round(float((before == after).mean()), 4),
            }
        told["fresh" if part == "fresh" else "held_out_pairs"] = found
    return told


def _perplexity(tokens: Any, codes: int) -> float:
    share = np.bincount(tokens.ravel(), minlength=codes) / tokens.size
    return float(np.exp(-(share[share > 0] * np.log(share[share > 0])).sum()))


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: train what is missing, measure, and save the tokenizer with its card."""
    parser = argparse.ArgumentParser(prog="python -m backend.train.portraits.vq", description=__doc__)
    parser.add_argument("--style", choices=sorted(name for name in STYLES if STYLES[name].package), default="thumbs")
    parser.add_argument("--device", choices=sorted(RECIPES), default="cpu")
    parser.add_argument("--data", type=Path, default=ROOT / "train-data" / "portraits", help="renders and checkpoints")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the tokenizer and its card")
    parser.add_argument("--judge", type=Path, default=ROOT / "assets" / "house", help="folder of the style's judge")
    parser.add_argument("--steps", type=int, help="of training, where not what the recipe says")
    parser.add_argument("--held", type=int, default=500, help="pictures of each kind that are measured")
    args = parser.parse_args(argv)
    if args.device == "cpu":
        torch.set_num_threads(1)
    recipe = RECIPES[args.device]
    recipe = replace(recipe, steps=args.steps or recipe.steps)
    renders.read(args.style, args.data)  # an error now rather than in the first step
    torch.manual_seed(recipe.seed)
    model = Quantised(recipe).to(args.device)
    descend(
        model,
        recipe,
        args.data / f"checkpoint-{args.style}-vq.pt",
        lambda step: batches(args.style, args.data, recipe, step),
        lambda cells_BPhw: loss_of(model, cells_BPhw),
    )
    path = file_of(args.style, args.out)
    args.out.mkdir(parents=True, exist_ok=True)
    save(path, model, STYLES[args.style].side)
    tokenizer = LearnedTokenizer(path)  # what ships is measured, in its rounded weights
    told = measured(tokenizer, args.style, args.data, args.judge, args.held)
    card = {
        "id": f"{args.style}-vq",
        "what": f"Tokenizer of pictures of the style {args.style}: 64x64 pixels as 16x16 codes.",
        "license": "Apache-2.0; the drawings it has learned from are CC0 1.0 (Thumbs by DiceBear).",
        "num_params": sum(weight.numel() for weight in model.parameters()),
        "recipe": {"device": args.device, **asdict(recipe)},
        "fingerprint": tokenizer.fingerprint,
        "measured": told,
        "about_measured": "Renders that it has not seen; of the held-out ones each has a pair of attributes that "
        "training never saw. The likeness is a structural similarity in windows of 8x8 pixels.",
        "torch": str(torch.__version__),
    }
    path.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(told, indent=2))


if __name__ == "__main__":
    main()
