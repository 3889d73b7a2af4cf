"""Train house/portraits-free, a painter that needs no guidance: `python -m backend.train.portraits.contrast`.

Condition contrastive alignment, Chen et al. 2024 (2410.09347): house/portraits goes on learning, beside itself as it
was, which is the reference. With g(x, c) = log pi(x | c) - log pi_ref(x | c), sums over all cells, the loss is
(-log s(beta g(x, c)) - lambda log s(-beta g(x, c'))) / max(lambda, 1), s the logistic function: a portrait x becomes
likelier given what describes it and less likely given what does not. c' names the same attributes as c with the values
of the next portrait of the batch; where these are no others, such as with nothing named, the pair counts as a positive
one of weight 1. A prompt then costs one sequence a call, where guidance costs two.

`--device cpu` trains with two processes of one thread, about 3 minutes on two free cores as estimated from a few steps,
and 2 more to measure; `--device cuda` trains on one GPU. Training resumes where it was. Matrices are trained with Muon,
embeddings and norms with AdamW (`loop`). The card tells accuracy and house distance beside those of house/portraits,
plain and guided.

Letters: A attributes, L slots of the canvas, B portraits of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from backend.entries import guidance_of
from backend.models.house.llama import Llama
from backend.models.house.own import read_own, save_own
from backend.models.raster import RasterModel, guided
from backend.train.portraits import script
from backend.train.portraits.judged import judged, seen
from backend.train.portraits.loop import optimise
from backend.train.portraits.raster import CODEC, RasterJob, draw_batch, laws_of, left_open, read_painter
from backend.train.portraits.raster_measure import held_out, paint, painter
from backend.train.smollm2_draft import Job, Recipe, join_trainers
from backend.train.tales import TaleJob

NAME = "portraits-free"
SCALES = (2.0, 3.0)  # of the guidance that it is measured beside
HELD = 256  # portraits that losses are taken on
STREAM = 2  # of the random numbers of batches, beside those of `raster`

_cpu = Recipe(tokens=0, writers=0, batch=8, trainers=2, steps=100, batch_tokens=0, rate=2e-4)
RECIPES = {"cpu": _cpu, "cuda": replace(_cpu, batch=128, trainers=1, steps=400)}


@dataclass(frozen=True)
class ContrastJob(TaleJob):
    """What every process of a run needs to know. out: folder of the house models. beta, lam: of the loss."""

    beta: float = 0.02
    lam: float = 10.0

    @property
    def name(self) -> str:
        """Of the model, as the catalog and its files know it."""
        return NAME


def others(rows_BA: Tensor, conditions_BA: Tensor) -> Tensor:
    """c': of every portrait the attributes that its conditions name, with the values of the next one. [B, A]"""
    return rows_BA.roll(-1, 0) * (conditions_BA > 0)


def batches(recipe: Recipe, rank: int, step: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Endless conditions, other conditions and canvases of one trainer from this step on."""
    for at in count(step):
        rng = np.random.default_rng([recipe.seed, rank, at, STREAM])
        rows_BA, canvas_BL = draw_batch(recipe.batch, rng)
        conditions_BA = torch.from_numpy(left_open(rows_BA.numpy(), rng))
        yield conditions_BA, others(rows_BA, conditions_BA), canvas_BL


def log_chances(model: Llama, conditions_BA: Tensor, canvas_BL: Tensor) -> Tensor:
    """log p(canvas | conditions) in nats, [B], differentiable."""
    logits_BLV = laws_of(model, conditions_BA, canvas_BL)
    return -F.cross_entropy(logits_BLV.flatten(0, 1), canvas_BL.flatten(), reduction="none").view_as(canvas_BL).sum(1)


def loss_of(
    model: Llama,
    reference: Llama,
    beta: float,
    lam: float,
    conditions_BA: Tensor,
    others_BA: Tensor,
    canvas_BL: Tensor,
) -> Tensor:
    """The mean loss of a batch, see above; (1 + lambda) ln 2 / max(lambda, 1) while the model is its reference."""
    asked_BA, twice_BL = torch.cat((conditions_BA, others_BA)), canvas_BL.repeat(2, 1)
    with torch.no_grad():
        before_B = log_chances(reference, asked_BA, twice_BL)
    gains_B = beta * (log_chances(model, asked_BA, twice_BL) - before_B)
    right_B, wrong_B = gains_B.chunk(2)
    same_B = (conditions_BA == others_BA).all(1)
    against_B = torch.where(same_B, -F.logsigmoid(wrong_B), -lam * F.logsigmoid(-wrong_B))
    loss: Tensor = (against_B - F.logsigmoid(right_B)).mean() / max(lam, 1.0)
    return loss


def train(job: ContrastJob, model: Llama, reference: Llama, rank: int) -> None:
    """Train in place, together with the other trainers; resumes from the checkpoint, if there is one."""
    optimise(
        job,
        model,
        rank,
        lambda step: batches(job.recipe, rank, step),
        lambda *batch: loss_of(model, reference, job.beta, job.lam, *batch),
    )


def prepare(job: ContrastJob) -> tuple[Llama, Llama]:
    """The painter, to be trained and as reference. Raises UserError where there is none."""
    of = RasterJob(job.recipe, job.device, job.data, "target", job.out)
    return read_painter(of, "target"), read_painter(of, "target").requires_grad_(False)


def _train(rank: int, job: Job) -> None:
    """One training process."""
    assert isinstance(job, ContrastJob)
    join_trainers(rank, job)
    train(job, *prepare(job), rank)


# ------------------------------------------------------------------------------------------------------------ measures
def painted(model: Llama, reference: Llama, folder: Path, pictures: int) -> dict[str, Any]:
    """What both paint at temperature 1, the reference under guidance too; empty where the folder has no judge."""
    plain = painter(reference.cpu(), "portraits")
    models: dict[str, RasterModel] = {"portraits": plain}
    models |= {f"portraits@cfg={scale:g}": guided(plain, scale) for scale in SCALES}
    models[NAME] = painter(model.cpu(), NAME)

    def canvas(model: RasterModel, conditions_A: list[int], seed: int) -> Any:
        return seen(CODEC.tokenizer, paint(model, torch.tensor(conditions_A), seed))

    ways = ((name, lambda asked, seed, model=model: canvas(model, asked, seed)) for name, model in models.items())
    return judged(ways, folder, pictures)


def save(job: ContrastJob, model: Llama, reference: Llama, pictures: int, held: int = HELD) -> None:
    """Write the model and its card, with everything measured."""
    path = job.out / f"{NAME}.safetensors"
    save_own(path, model, bits=6)
    shipped = read_own(path, job.device)  # what ships is measured, in its rounded weights
    assert isinstance(shipped, Llama)
    recipe = job.recipe
    card: dict[str, Any] = {
        "id": f"house/{NAME}",
        "what": "house/portraits after condition contrastive alignment: follows its prompt without guidance.",
        "license": script.LICENSE,
        "num_params": shipped.num_params,
        "config": asdict(shipped.config),
        "vocabulary": CODEC.vocabulary,
        "data": f"{script.DRAWN}, each with its own description and with that of another one.",
        "portraits": recipe.steps * recipe.batch * recipe.trainers,
        "recipe": script.told(recipe, job.device)
        | {"beta": job.beta, "lambda": job.lam, "starts_from": "house/portraits"},
        "held_out": held_out(shipped, laws_of, draw_batch, held),
        "held_out_of_the_reference": held_out(reference, laws_of, draw_batch, held),
        "painted": painted(shipped, reference, job.out, pictures),
        "guidance": guidance_of(f"house/{NAME}"),
        "cannot": "Guidance makes little sense on top of it. Its law is no longer that of the portraits: held-out "
        "losses are worse than the reference's where the training went far.",
    }
    script.write_card(path, card, ("held_out", "held_out_of_the_reference", "painted"))


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: train what is missing, measure, and save the model with its card."""
    parser = script.options("backend.train.portraits.contrast", __doc__, RECIPES)
    parser.add_argument("--rate", type=float, help="of learning, where not what the recipe says")
    parser.add_argument("--beta", type=float, default=ContrastJob.beta, help="how fast a gain counts as enough")
    parser.add_argument("--lam", type=float, default=ContrastJob.lam, help="weight of what does not fit")
    parser.add_argument("--pictures", type=int, default=64, help="painted in each way to measure the model")
    args = script.asked(parser, argv)
    recipe = RECIPES[args.device]
    recipe = replace(recipe, steps=args.steps or recipe.steps, rate=args.rate or recipe.rate)
    job = ContrastJob(recipe, args.device, args.data, "free", args.out, args.beta, args.lam)
    model, reference = prepare(job)
    script.train(_train, job, model)
    save(job, model, reference, args.pictures)


if __name__ == "__main__":
    main()
