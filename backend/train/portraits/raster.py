"""Train painters: `python -m backend.train.portraits.raster --model target|draft --style pixel|thumbs --size s|m`.

`target` is house/portraits, or house/thumbs, or one of these with -m behind it and four million weights; `draft` is
distilled from it. Pixel portraits are drawn without end while training goes on (`draw_many`), and none comes twice but
by chance; of another style the renders of `renders` are shown, mirrored where that can be: 20,000, or as many as were
asked for with --count, which long training needs. No picture has a held-out pair of attributes. Of their conditions a
random part is left open: all in one picture of ten, none in three of ten, else a share drawn for each picture; so a
prompt may leave open what it likes, and guidance has a law with nothing asked.

`--device cpu` trains with two processes of one thread, bfloat16 products: 14 minutes for the target and 5 for the draft
on two cores that others used too; `--device cuda`, which `--size m` is for, trains longer on one GPU while 8 processes
draw. Training resumes where it was. Matrices are trained with Muon (torch 2.9 or later), embeddings and norms with
AdamW; the learning rate follows a cosine. The card is written from what was measured (`raster_measure`).

Letters: A attributes, L slots of the canvas, V codes, B portraits of a batch.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from backend.codecs.atlas import Ints
from backend.entries import guidance_of
from backend.errors import UserError
from backend.models.house.llama import Llama, LlamaConfig
from backend.models.house.own import read_own, save_own
from backend.models.house.raster import Layout, logits_of
from backend.train.portraits.loop import optimise
from backend.train.portraits.raster_measure import agreement, fresh, held_out, nats, painted
from backend.train.portraits.subjects import PIXELS, PainterJob, Subject, add_options, chosen
from backend.train.smollm2_corpus import ROOT
from backend.train.smollm2_draft import Job, Recipe, in_processes, join_trainers
from backend.train.tales import new_model

ALL_OPEN, NONE_OPEN = 0.1, 0.3  # shares of the portraits
HELD = 500  # portraits that measures are taken on
CODEC, LAYOUT, draw_batch = PIXELS.codec, PIXELS.layout, PIXELS.draw

# of a Recipe, `batch` is portraits of a trainer's batch, and `writers` processes that draw for it (0: it does itself)
_cpu = Recipe(tokens=0, writers=0, batch=16, trainers=2, steps=1200, batch_tokens=16 * LAYOUT.context, rate=2.5e-3)
_cuda = replace(_cpu, writers=8, batch=512, trainers=1, steps=6000, batch_tokens=512 * LAYOUT.context)
RECIPES = {
    device: {"target": every, "draft": replace(every, steps=every.steps * 5 // 7)}
    for device, every in (("cpu", _cpu), ("cuda", _cuda))
}
SIZES = {  # of pixel portraits
    "target": LAYOUT.config(**PIXELS.shape("s")),
    "draft": LAYOUT.config(**PIXELS.shape("draft")),
}


class RasterJob(PainterJob):
    """What every process of a run needs to know. model: "target" or "draft"."""

    @property
    def config(self) -> LlamaConfig:
        """Sizes of the net."""
        if self.subject is PIXELS and self.size == "s":
            return SIZES[self.model]
        return self.subject.layout.config(**self.subject.shape("draft" if self.model == "draft" else self.size))

    def command(self, model: str) -> str:
        """What trains a model of the same style and size."""
        return f"python -m backend.train.portraits.raster --model {model}{self.told}"

    @property
    def what(self) -> str:
        """What the card says first."""
        if self.model == "draft":
            return f"Draft model for house/{self.name_of('target')}, distilled from it."
        side = self.subject.about.side
        return f"Causal model that paints {self.subject.pictures}, {side}x{side} pixels as 16x16 codes, row by row."


def left_open(rows_BA: Ints, rng: np.random.Generator) -> Ints:
    """The conditions with a random part of them 0, as training sees them."""
    kind_B1, share_B1 = rng.random((len(rows_BA), 1)), rng.random((len(rows_BA), 1))
    gone_BA = rng.random(rows_BA.shape) < share_B1
    gone_BA = (gone_BA & (kind_B1 >= NONE_OPEN)) | (kind_B1 >= 1 - ALL_OPEN)
    return np.where(gone_BA, 0, rows_BA)


class Draws(IterableDataset[tuple[Tensor, Tensor]]):
    """Endless batches of one trainer, conditions and canvases, from this step on; the same however they are drawn."""

    def __init__(self, recipe: Recipe, rank: int, step: int, subject: Subject = PIXELS) -> None:
        self.recipe, self.rank, self.step, self.subject = recipe, rank, step, subject

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        worker = get_worker_info()
        first, apart = (worker.id, worker.num_workers) if worker else (0, 1)
        for at in count(self.step + first, apart):
            yield self.batch(at)

    def batch(self, at: int) -> tuple[Tensor, Tensor]:
        """The batch of a step."""
        rng = np.random.default_rng([self.recipe.seed, self.rank, at])
        rows_BA, canvas_BL = self.subject.batch(self.recipe.batch, rng)
        return torch.from_numpy(left_open(rows_BA.numpy(), rng)), canvas_BL

    def loaded(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The same from the drawing processes of the recipe, in their order."""
        return iter(DataLoader(self, batch_size=None, num_workers=self.recipe.writers))


def laws_of(model: Llama, conditions_BA: Tensor, canvas_BL: Tensor, layout: Layout = LAYOUT) -> Tensor:
    """Float32 logits [B, L, V], products in bfloat16."""
    with torch.autocast(canvas_BL.device.type, torch.bfloat16):
        return logits_of(model, layout, conditions_BA, canvas_BL).float()


def loss_of(
    model: Llama, conditions_BA: Tensor, canvas_BL: Tensor, teacher: Llama | None, layout: Layout = LAYOUT
) -> Tensor:
    """Mean loss in nats a code; with a teacher, half of it against the teacher's law."""
    logits_BLV = laws_of(model, conditions_BA, canvas_BL, layout)
    loss = F.cross_entropy(logits_BLV.flatten(0, 1), canvas_BL.flatten())
    if teacher is None:
        return loss
    with torch.no_grad():
        p_BLV = laws_of(teacher, conditions_BA, canvas_BL, layout).softmax(-1)
    return (loss - (p_BLV * F.log_softmax(logits_BLV, dim=-1)).sum(-1).mean()) / 2


def train(job: RasterJob, model: Llama, teacher: Llama | None, rank: int) -> None:
    """Train in place, together with the other trainers; resumes from the checkpoint, if there is one."""
    subject = job.subject
    optimise(
        job,
        model,
        rank,
        lambda step: Draws(job.recipe, rank, step, subject).loaded(),
        lambda conditions_BA, canvas_BL: loss_of(model, conditions_BA, canvas_BL, teacher, subject.layout),
    )


def prepare(job: RasterJob) -> tuple[Llama, Llama | None]:
    """An untrained model, and its teacher where it has one. Raises UserError if the teacher is not trained yet."""
    torch.manual_seed(job.recipe.seed)
    model = new_model(job.config).to(job.device)
    assert isinstance(model, Llama)
    return model, read_painter(job, "target") if job.model == "draft" else None


def read_painter(job: RasterJob, which: str) -> Llama:
    """A painter that is trained already. Raises UserError where it is not."""
    path = job.out / f"{job.name_of(which)}.safetensors"
    if not path.is_file():
        raise UserError(f"There is no {path.name} in {job.out}; train it with: {job.command(which)}")
    model = read_own(path, job.device)
    assert isinstance(model, Llama)
    return model


def _train(rank: int, job: Job) -> None:
    """One training process."""
    assert isinstance(job, RasterJob)
    join_trainers(rank, job)
    model, teacher = prepare(job)
    train(job, model, teacher, rank)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: train what is missing, measure, and save the model with its card."""
    parser = argparse.ArgumentParser(prog="python -m backend.train.portraits.raster", description=__doc__)
    parser.add_argument("--model", choices=sorted(SIZES), default="target")
    parser.add_argument("--device", choices=sorted(RECIPES), default="cpu")
    parser.add_argument("--data", type=Path, default=ROOT / "train-data" / "portraits", help="folder of checkpoints")
    parser.add_argument("--out", type=Path, default=ROOT / "assets" / "house")
    parser.add_argument("--steps", type=int, help="of training, where not what the recipe says")
    add_options(parser)
    parser.add_argument("--pictures", type=int, default=32, help="that are painted to measure the model")
    args = parser.parse_args(argv)
    if args.device == "cpu":
        torch.set_num_threads(1)  # as in the processes that train
    recipe = RECIPES[args.device][args.model]
    recipe = replace(recipe, steps=args.steps or recipe.steps)
    job = RasterJob(recipe, args.device, args.data, args.model, args.out, **chosen(args))
    job.data.mkdir(parents=True, exist_ok=True)
    model, _ = prepare(job)
    in_processes(_train, job.recipe.trainers, job)
    model.load_state_dict(torch.load(job.checkpoint, weights_only=True, map_location=args.device)["model"])
    save(job, model, args.pictures)


def save(job: RasterJob, model: Llama, pictures: int, held: int = HELD) -> None:
    """Write the model and its card, with everything measured."""
    path = job.out / f"{job.name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    subject, laws = job.subject, partial(laws_of, layout=job.subject.layout)
    before = nats(model, laws, *fresh(subject.draw, held))
    save_own(path, model, bits=6 if job.model == "target" else 8)
    model = read_painter(job, job.model)  # what ships is measured, in its rounded weights
    recipe = job.recipe
    card: dict[str, Any] = {
        "id": f"house/{job.name}",
        "what": job.what,
        "license": subject.license,
        "num_params": model.num_params,
        "config": asdict(model.config),
        "layout": asdict(subject.layout),
        "vocabulary": subject.codec.vocabulary,
        "data": f"{subject.drawn}.",
        "portraits": recipe.steps * recipe.batch * recipe.trainers,
        "recipe": {name: getattr(recipe, name) for name in ("trainers", "batch", "steps", "rate", "seed")}
        | {"device": job.device},
        "left_open": {"all": ALL_OPEN, "none": NONE_OPEN, "others": "a share drawn uniformly for every portrait"},
        "held_out": held_out(model, laws, subject.draw, held),
        "nats_per_pixel_named_before_weights_of_one_byte": before,
        "about_held_out": "Fresh pictures of the same drawer: with all attributes named, with half of them left open, "
        "with nothing asked, and named ones with a pair of attributes that training never saw.",
        "guidance": guidance_of(f"house/{job.name}"),
        "cannot": "Paints nothing but such pictures; what no attribute says, such as the shape of glasses, is chance.",
        "torch": str(torch.__version__),
    }
    if job.model == "draft":
        card["beside_portraits"] = agreement(model, read_painter(job, "target"), laws, subject, held, pictures)
    else:
        card["painted"] = painted(model, subject, job.out, pictures)
    path.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")
    shown = ("num_params", "held_out", "beside_portraits", "painted")
    print(json.dumps({name: card[name] for name in shown if name in card}, indent=2))


if __name__ == "__main__":
    main()
