"""Train masked painters: `python -m backend.train.portraits.masked --style pixel|thumbs --size s|m`.

They are house/portraits-masked, or house/thumbs-masked, or one of these with -m behind it and four million weights.
Pictures and what is left open of their conditions are those of `raster`. Of every picture a random share of the cells
is masked, cos(pi/2 u) with u even in [0, 1) (Chang et al. 2022, 2202.04200), which are then told from the rest: the
loss is the cross-entropy of masked cells.

`--device cpu` trains with two processes of one thread, bfloat16 products: 13 minutes on two cores that others used
too; `--device cuda` trains longer on one GPU while 8 processes draw. Training resumes where it was. The optimiser is
that of `raster` (`loop`). The card is written from what was measured.

Letters: A attributes, L slots of the canvas, V codes, B portraits of a batch, M masked cells, C features.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from backend.chance import Ask, Seeded
from backend.entries import guidance_of
from backend.errors import UserError
from backend.meter import Meter
from backend.models.house.llama import Llama, LlamaConfig
from backend.models.house.masked import Mural, config_of, features_of, logits_of, mask_of
from backend.models.house.own import read_own, save_own
from backend.models.house.raster import Layout
from backend.models.masked import MaskedModel, guided
from backend.protocols import MaskedSession, Prompt
from backend.registry import find
from backend.train.portraits import script
from backend.train.portraits.judged import judged, seen
from backend.train.portraits.loop import optimise
from backend.train.portraits.raster import ALL_OPEN, LAYOUT, NONE_OPEN, Draws
from backend.train.portraits.raster import RECIPES as RASTER
from backend.train.portraits.raster_measure import fresh
from backend.train.portraits.subjects import PIXELS, PainterJob, Subject, add_options, chosen
from backend.train.smollm2_draft import Job, join_trainers
from backend.train.tales import new_model
from backend.types import Sampling

NAME = "portraits-masked"
RECIPES = {device: replace(each["target"], steps=each["target"].steps * 2 // 3) for device, each in RASTER.items()}
CONFIG = config_of(LAYOUT, **PIXELS.shape("s"))  # of pixel portraits
HELD = 256  # portraits that losses are taken on
AT_ONCE = 32  # portraits a forward
RATIOS = (0.25, 0.5, 0.75, 1.0)  # masked shares that losses are told at
SCALES = (1.0, 2.0, 3.0)  # of guidance, convention A
STEPS = 12  # calls a picture


class MaskedJob(PainterJob):
    """What every process of a run needs to know. model: "masked"."""

    @property
    def config(self) -> LlamaConfig:
        """Sizes of the net."""
        if self.subject is PIXELS and self.size == "s":
            return CONFIG
        return config_of(self.subject.layout, **self.subject.shape(self.size))


def masked_cells(portraits: int, rng: np.random.Generator, share: float | None = None) -> Tensor:
    """Which cells are masked, [B, L]: of each portrait a share, or cos(pi/2 u) of them, one at least, anywhere."""
    share_B = np.cos(math.pi / 2 * rng.random(portraits)) if share is None else np.full(portraits, share)
    count_B1 = np.maximum(np.ceil(share_B * LAYOUT.length - 1e-9), 1)[:, None]
    order_BL = rng.random((portraits, LAYOUT.length)).argsort(axis=1).argsort(axis=1)
    return torch.from_numpy(order_BL < count_B1)


class MaskedDraws(Draws):
    """The batches of `raster`, and which of their cells are masked."""

    def batches(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Conditions, canvases, masks; from the drawing processes of the recipe, in their order."""
        drawn = iter(DataLoader(self, batch_size=None, num_workers=self.recipe.writers))
        for at, (conditions_BA, canvas_BL) in enumerate(drawn, start=self.step):
            rng = np.random.default_rng([self.recipe.seed, self.rank, at, 1])
            yield conditions_BA, canvas_BL, masked_cells(len(canvas_BL), rng)


def nats_of(
    model: Llama, conditions_BA: Tensor, canvas_BL: Tensor, masked_BL: Tensor, layout: Layout = LAYOUT
) -> Tensor:
    """The loss of every masked cell, [M] nats; products in bfloat16."""
    read_BL = canvas_BL.masked_fill(masked_BL, mask_of(layout))
    with torch.autocast(canvas_BL.device.type, torch.bfloat16):
        features_BLC = features_of(model, layout, conditions_BA, read_BL)
        logits_MV = logits_of(model, features_BLC[masked_BL]).float()
    return F.cross_entropy(logits_MV, canvas_BL[masked_BL], reduction="none")


def train(job: MaskedJob, model: Llama, rank: int) -> None:
    """Train in place, together with the other trainers; resumes from the checkpoint, if there is one."""
    subject = job.subject
    optimise(
        job,
        model,
        rank,
        lambda step: MaskedDraws(job.recipe, rank, step, subject).batches(),
        lambda asked_BA, canvas_BL, masked_BL: nats_of(model, asked_BA, canvas_BL, masked_BL, subject.layout).mean(),
    )


def prepare(job: MaskedJob) -> Llama:
    """An untrained model."""
    torch.manual_seed(job.recipe.seed)
    model = new_model(job.config).to(job.device)
    assert isinstance(model, Llama)
    return model


def _train(rank: int, job: Job) -> None:
    """One training process."""
    assert isinstance(job, MaskedJob)
    join_trainers(rank, job)
    train(job, prepare(job), rank)


# ------------------------------------------------------------------------------------------------------------ measures
@torch.inference_mode()
def held_out(model: Llama, portraits: int, subject: Subject = PIXELS) -> dict[str, Any]:
    """Mean nats a masked cell on fresh portraits, by what of them is named and by the masked share."""
    named_BA, canvas_BL = fresh(subject.draw, portraits)
    half_BA, _ = fresh(subject.draw, portraits, half_open=True)
    paired_BA, other_BL = fresh(subject.draw, portraits, "held_out")
    kinds = {
        "named": (named_BA, canvas_BL),
        "half_open": (half_BA, canvas_BL),
        "open": (torch.zeros_like(named_BA), canvas_BL),
        "held_out_pairs": (paired_BA, other_BL),
    }
    told = {}
    for name, (conditions_BA, told_BL) in kinds.items():
        told[f"nats_per_masked_cell_{name}"] = {
            f"{share:g}": round(_mean_nats(model, subject.layout, (conditions_BA, told_BL), share), 4)
            for share in RATIOS
        }
    return {"portraits": portraits, **told}


def _mean_nats(model: Llama, layout: Layout, told: tuple[Tensor, Tensor], share: float) -> float:
    device, portraits = next(model.parameters()).device, len(told[0])
    masked_BL = masked_cells(portraits, np.random.default_rng([portraits, round(100 * share)]), share)
    batches = zip(*(torch.split(part, AT_ONCE) for part in (*told, masked_BL)), strict=True)
    total = 0.0
    for batch in batches:
        conditions_BA, canvas_BL, gone_BL = (part.to(device) for part in batch)
        total += float(nats_of(model, conditions_BA, canvas_BL, gone_BL, layout).sum())
    return total / int(masked_BL.sum())


def painted(net: Llama, folder: Path, pictures: int, subject: Subject = PIXELS) -> dict[str, Any]:
    """What it paints with `confidence`, by guidance, as the judge in the folder sees it; empty where there is none."""
    packed = net.cpu().pack(torch.float32)
    plain = MaskedModel(NAME, Mural(packed, subject.layout), subject.codec, packed.num_params)

    def paint(model: MaskedModel, conditions_A: list[int], seed: int) -> Any:
        prompt = Prompt((), {"conditions": conditions_A})
        session = model.open(MaskedSession, prompt, Sampling(1.0), Meter(), model.context)
        frames = [s.frame for s in find("confidence").run(session, Ask(model.context, Seeded(seed)), **knobs)]
        return seen(subject.codec.tokenizer, list(frames[-1] or ()))

    knobs = find("confidence").settle({"steps": STEPS})
    models = {f"cfg_{scale:g}": plain if scale == 1 else guided(plain, scale) for scale in SCALES}
    ways = ((name, lambda asked, seed, model=model: paint(model, asked, seed)) for name, model in models.items())
    told = judged(ways, folder, pictures, subject)
    if not told:
        return {}
    best = max(models, key=lambda name: told[name]["accuracy"].get("all", 0.0))  # the weakest guidance of equals
    how = {"strategy": "confidence", "knobs": knobs, "sampling_temperature": 1.0}
    return {**how, **told, "best": f"@{best.replace('_', '=')}"}


def save(job: MaskedJob, model: Llama, pictures: int, held: int = HELD) -> None:
    """Write the model and its card, with everything measured."""
    path = job.out / f"{job.name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_own(path, model, bits=6)
    model = read_masked(path, job.device)  # what ships is measured, in its rounded weights
    recipe, subject, side = job.recipe, job.subject, job.subject.about.side
    card: dict[str, Any] = {
        "id": f"house/{job.name}",
        "what": f"Bidirectional model that paints {subject.pictures}, {side}x{side} pixels as 16x16 codes, in any "
        "order.",
        "license": subject.license,
        "num_params": model.num_params,
        "config": asdict(model.config),
        "layout": asdict(subject.layout),
        "vocabulary": subject.codec.vocabulary,
        "data": f"{subject.drawn}.",
        "portraits": recipe.steps * recipe.batch * recipe.trainers,
        "recipe": script.told(recipe, job.device) | {"masked_share": "cos(pi/2 u), u even in [0, 1)"},
        "left_open": {"all": ALL_OPEN, "none": NONE_OPEN, "others": "a share drawn uniformly for every portrait"},
        "held_out": held_out(model, held, subject),
        "about_held_out": "Fresh pictures of the same drawer, by the share of cells that is masked: with all "
        "attributes named, with half of them left open, with nothing asked, and named ones with a pair of attributes "
        "that training never saw.",
        "painted": painted(model, job.out, pictures, subject),
        "guidance": guidance_of(f"house/{job.name}"),
        "cannot": "Cells of one call are drawn each for itself, so few calls give ragged pictures. Paints nothing but "
        "such pictures; what no attribute says, such as the shape of glasses, is chance.",
    }
    script.write_card(path, card, ("num_params", "held_out", "painted"))


def read_masked(path: Path, device: str) -> Llama:
    """The trained model. Raises UserError where there is none."""
    if not path.is_file():
        raise UserError(f"There is no {path.name} in {path.parent}; train it with: python -m {__name__}")
    model = read_own(path, device)
    assert isinstance(model, Llama)
    return model


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: train what is missing, measure, and save the model with its card."""
    parser = script.options("backend.train.portraits.masked", __doc__, RECIPES)
    add_options(parser)
    parser.add_argument("--pictures", type=int, default=64, help="that are painted to measure the model")
    args = script.asked(parser, argv)
    recipe = replace(RECIPES[args.device], steps=args.steps or RECIPES[args.device].steps)
    job = MaskedJob(recipe, args.device, args.data, "masked", args.out, **chosen(args))
    model = prepare(job)
    script.train(_train, job, model)
    save(job, model, args.pictures)


if __name__ == "__main__":
    main()
