"""Train the painters of maps: `python -m backend.train.portraits.scales --model NAME`.

`target` is house/portraits-scales, a block-causal model of all maps of a pyramid, and `small` the same with a sixth of
the weights, which may go on from its maps. `markov` sees the sum so far alone; `mask` gives it a branch that draws
masked cells of a map again, with everything else as it was: of the cells of every map an even random share is masked.
`flex-plain` has maps that are pictures, and trains on random lists of them, as does the smaller `flex-small`; `bands`
is `target` on maps of frequency bands. `flex` is `flex-plain` whose attributes also speak to every block, by one shared
map (adaLN); at first that map says nothing. `markov`, `flex-plain` and `bands` begin with the weights of `target`,
which knows the portraits already, `flex-small` with those of `small`, and `flex` with those of `flex-plain`.

Portraits and what is left open of their conditions are those of `raster`, drawn without end. The loss is the mean
cross-entropy of all tokens of all maps. `--device cpu` trains with two processes of one thread, bfloat16
products, for about as many minutes as MINUTES says on two free cores, as estimated from a few steps; `--device cuda`
trains longer on one GPU while 8 processes draw. Training resumes where it was. The optimiser is that of `raster`
(`loop`). The card is written from what was measured (`scales_measure`).

Letters: A attributes, K maps, N cells of a map, L cells of all maps, V codes, B portraits of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from backend.codecs.pyramid import UNKNOWN, shipped
from backend.codecs.scales import ScaleCodec
from backend.entries import guidance_of
from backend.errors import UserError
from backend.models.house.scales import Scales, ScalesConfig, logits_of, new_scales, read_scales, save_scales
from backend.train.portraits import script
from backend.train.portraits.loop import optimise
from backend.train.portraits.pyramid import measured
from backend.train.portraits.raster import ALL_OPEN, CODEC, NONE_OPEN, Draws
from backend.train.portraits.raster import RECIPES as RASTER
from backend.train.portraits.scales_measure import held_out, painted
from backend.train.smollm2_draft import Job, join_trainers
from backend.train.tales import TaleJob

HELD = 256  # portraits that losses are taken on
_base = ScalesConfig("area", dim=160, num_layers=4, num_heads=5, ffn_dim=400)
SIZES = {
    "target": _base,
    "small": replace(_base, dim=80, num_layers=2, num_heads=4, ffn_dim=200),
    "markov": replace(_base, markov=True),
    "mask": replace(_base, markov=True, redraws=2),
    "flex-plain": replace(_base, kind="flat"),
    "flex": replace(_base, kind="flat", adaln=True),
    "flex-small": replace(_base, kind="flat", dim=80, num_layers=2, num_heads=4, ffn_dim=200),
    "bands": replace(_base, kind="fft"),
}
LISTS = ("flex", "flex-plain", "flex-small")  # models that train on random lists of maps
# On CPUs.
STEPS = {
    **{"target": 1500, "small": 1000, "markov": 300, "mask": 250},
    **{"flex-plain": 400, "flex": 400, "flex-small": 700, "bands": 600},
}
MINUTES = {"target": 30, "small": 6, "markov": 6, "mask": 5, "flex-plain": 7, "flex": 7, "flex-small": 4, "bands": 11}
RECIPES = {
    device: {
        which: replace(each["target"], steps=steps * each["target"].steps // RASTER["cpu"]["target"].steps)
        for which, steps in STEPS.items()
    }
    for device, each in RASTER.items()
}
NAMES = {
    **{"target": "portraits-scales", "small": "portraits-scales-small", "markov": "portraits-markov"},
    **{"mask": "portraits-redraw", "flex": "portraits-flex", "flex-small": "portraits-flex-small"},
    **{"bands": "portraits-bands", "flex-plain": "portraits-flex-plain"},
}
# Of stored weights, where not 8: held-out losses move by less than 0.5 %.
BITS = {"flex": 6, "flex-plain": 6, "mask": 7, "bands": 7}
# Whose weights it begins with.
STARTS = {
    **{"markov": "target", "flex-plain": "target", "flex-small": "small", "bands": "target", "mask": "markov"},
    **{"flex": "flex-plain"},
}
WHAT = {
    "target": "Small model that paints described portraits of 16x16 pixels map by map, coarse to fine.",
    "small": "Smaller model of the maps of house/portraits-scales, which may paint the last of them.",
    "markov": "Model of the maps of house/portraits-scales that sees their sum alone and keeps nothing between calls.",
    "mask": "house/portraits-markov with a branch that draws masked cells of a map again.",
    "flex-plain": "Small model that paints described portraits map by map, each map the whole picture at its size.",
    "flex": "Small model that paints described portraits map by map, each map the whole picture at its size; what is "
    "asked also speaks to every block (shared adaLN).",
    "flex-small": "Smaller model of the maps of house/portraits-flex, which may paint the last of them.",
    "bands": "Small model that paints described portraits band by band, low frequencies first.",
}


class ScaleJob(TaleJob):
    """What every process of a run needs to know. model: one of NAMES. out: folder of the house models."""

    @property
    def name(self) -> str:
        """Of the model, as the catalog and its files know it."""
        return NAMES[self.model]

    @property
    def checkpoint(self) -> Path:
        """Where training is saved."""
        return self.data / f"checkpoint-{self.name}.pt"


class MapDraws(Draws):
    """The batches of `raster` as maps, and what of them is trained.

    Third comes, for a model whose maps may be left out, which are there, bool [K]; for a mask branch, which cells are
    masked, bool [B, L]; else nothing, [0].
    """

    def __init__(self, job: ScaleJob, rank: int, step: int) -> None:
        super().__init__(job.recipe, rank, step)
        self.model = job.model
        self.pyramid = shipped(SIZES[job.model].kind)

    def batch(self, at: int) -> tuple[Tensor, ...]:  # type: ignore[override]
        """The batch of a step."""
        conditions_BA, cells_BL = super().batch(at)
        canvas_BL = torch.from_numpy(self.pyramid.encode(CODEC.tokenizer.decode(cells_BL.numpy())))
        rng = np.random.default_rng([self.recipe.seed, self.rank, at, 2])
        if self.model in LISTS:
            return conditions_BA, canvas_BL, torch.from_numpy(some_maps(len(self.pyramid.sizes), rng))
        if self.model == "mask":
            return conditions_BA, canvas_BL, torch.from_numpy(self.masked(len(canvas_BL), rng))
        return conditions_BA, canvas_BL, torch.zeros(0, dtype=torch.bool)

    def masked(self, portraits: int, rng: np.random.Generator) -> Any:
        """Which cells are masked, bool [B, L]: of every map at least one, and else a share drawn evenly."""
        parts = []
        for start, end in zip(self.pyramid.starts, self.pyramid.starts[1:], strict=False):
            rank_BN = rng.random((portraits, end - start)).argsort(axis=1).argsort(axis=1)
            parts.append(rank_BN < np.ceil(rng.random((portraits, 1)) * (end - start)))
        return np.concatenate(parts, axis=1)

    def loaded(self) -> Iterator[tuple[Tensor, ...]]:  # type: ignore[override]
        """The same from the drawing processes of the recipe, in their order."""
        return iter(DataLoader(self, batch_size=None, num_workers=self.recipe.writers))


def some_maps(number: int, rng: np.random.Generator) -> Any:
    """Which maps are there, bool [K]: all in a third of the lists, else a random number of them; always the last."""
    there = np.ones(number, dtype=bool)
    if rng.random() > 1 / 3:
        gone = rng.permutation(number - 1)[: rng.integers(1, number)]
        there[gone] = False
    return there


def laws_of(model: Scales, conditions_BA: Tensor, canvas_BL: Tensor, plan: Sequence[int] | None = None) -> Tensor:
    """Float32 logits [B, M, V] of the cells of the planned maps, products in bfloat16."""
    with torch.autocast(canvas_BL.device.type, torch.bfloat16):
        return logits_of(model, conditions_BA, canvas_BL, plan).float()


def loss_of(model: Scales, conditions_BA: Tensor, canvas_BL: Tensor, extra: Tensor) -> Tensor:
    """Mean loss in nats a token that is trained. extra: see `MapDraws`."""
    if model.config.redraws:
        return redrawing_loss(model, conditions_BA, canvas_BL, extra)
    plan = extra.nonzero().flatten().tolist() or range(len(model.pyramid.sizes))
    starts = model.pyramid.starts
    told_BM = torch.cat([canvas_BL[:, starts[at] : starts[at + 1]] for at in plan], dim=1)
    return F.cross_entropy(laws_of(model, conditions_BA, canvas_BL, plan).flatten(0, 1), told_BM.flatten())


def redrawing_loss(model: Scales, conditions_BA: Tensor, canvas_BL: Tensor, masked_BL: Tensor) -> Tensor:
    """Mean loss in nats a masked cell, by the mask branch."""
    starts = model.pyramid.starts
    maps = model.totals(canvas_BL, range(len(model.pyramid.sizes)))[1:]  # of the first map's one cell nothing is told
    spans = [slice(starts[at], starts[at + 1]) for at, _ in maps]
    told = [canvas_BL.masked_fill(masked_BL, UNKNOWN)[:, span] for span in spans]
    with torch.autocast(canvas_BL.device.type, torch.bfloat16):
        features = model.redrawn(conditions_BA, maps, told)
        logits = [
            model.logits(part[masked_BL[:, span]], at, redrawn=True)
            for (at, _), part, span in zip(maps, features, spans, strict=True)
        ]
    wanted = [canvas_BL[:, span][masked_BL[:, span]] for span in spans]
    return F.cross_entropy(torch.cat(logits).float(), torch.cat(wanted))


def prepare(job: ScaleJob) -> Scales:
    """A model with the weights of the one that it starts from, if it starts from one (STARTS), else untrained.

    A mask branch does at first what its base does. Raises UserError if what it starts from is not trained yet.
    """
    torch.manual_seed(job.recipe.seed)
    config = SIZES[job.model]
    model = new_scales(config, shipped(config.kind))
    if job.model in STARTS:
        path = job.out / f"{NAMES[STARTS[job.model]]}.safetensors"
        if not path.is_file():
            raise UserError(
                f"There is no {path.name} in {job.out}; train it with: python -m backend.train.portraits.scales "
                f"--model {STARTS[job.model]}"
            )
        base = read_scales(path)
        if job.model == "mask":
            graft(model, base)
        else:
            adopt(model, base)
    return model.to(job.device)


def adopt(model: Scales, base: Scales) -> None:
    """Give a model the weights of a base, as far as it has the same; its last head is that of the base's last map."""
    own = model.state_dict()
    model.load_state_dict({name: weight for name, weight in base.state_dict().items() if name in own}, strict=False)
    model.heads[-1].load_state_dict(base.heads[-1].state_dict())


def graft(model: Scales, base: Scales) -> None:
    """Give a model with a mask branch the weights of a base, frozen, and its branch copies of the last of them."""
    model.load_state_dict(base.state_dict(), strict=False)
    for name, weight in model.named_parameters():
        weight.requires_grad_(name not in base.state_dict())
    last = base.blocks[len(base.blocks) - len(model.redraw_blocks) :]
    for own, copied in ((model.redraw_blocks, last), (model.redraw_norm, base.norm), (model.redraw_heads, base.heads)):
        own.load_state_dict(copied.state_dict())
    model.embed_told.load_state_dict(base.embed_colour.state_dict())


def train(job: ScaleJob, model: Scales, rank: int) -> None:
    """Train in place, together with the other trainers; resumes from the checkpoint, if there is one."""
    optimise(job, model, rank, lambda step: MapDraws(job, rank, step).loaded(), lambda *batch: loss_of(model, *batch))


def _train(rank: int, job: Job) -> None:
    """One training process."""
    assert isinstance(job, ScaleJob)
    join_trainers(rank, job)
    train(job, prepare(job), rank)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: train what is missing, measure, and save the model with its card."""
    parser = script.options("backend.train.portraits.scales", __doc__, RECIPES)
    parser.add_argument("--model", choices=sorted(SIZES), default="target")
    parser.add_argument("--pictures", type=int, default=64, help="that are painted to measure the model")
    args = script.asked(parser, argv)
    recipe = RECIPES[args.device][args.model]
    job = ScaleJob(replace(recipe, steps=args.steps or recipe.steps), args.device, args.data, args.model, args.out)
    model = prepare(job)
    script.train(_train, job, model)
    save(job, model, args.pictures)


def save(job: ScaleJob, model: Scales, pictures: int, held: int = HELD) -> None:
    """Write the model and its card, with everything measured."""
    path = job.out / f"{job.name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_scales(path, model, BITS.get(job.model, 8))
    model = read_scales(path, job.device)  # what ships is measured, in its rounded weights
    recipe, pyramid = job.recipe, model.pyramid
    card: dict[str, Any] = {
        "id": f"house/{job.name}",
        "what": WHAT[job.model],
        "license": script.LICENSE,
        "num_params": model.num_params,
        "config": asdict(model.config),
        "kind_of_maps": pyramid.kind,
        "reconstruction": measured(pyramid, held),
        "vocabulary": ScaleCodec(pyramid).vocabulary,
        "data": f"{script.DRAWN}.",
        "portraits": recipe.steps * recipe.batch * recipe.trainers,
        "recipe": script.told(recipe, job.device),
        "starts_from": f"house/{NAMES[STARTS[job.model]]}" if job.model in STARTS else None,
        "left_open": {"all": ALL_OPEN, "none": NONE_OPEN, "others": "a share drawn uniformly for every portrait"},
        "held_out": held_out(model, held),
        "about_held_out": "Fresh portraits of the same drawer, by map and in all: with all attributes named, with half "
        "of them left open, with nothing asked, and named ones with a pair of attributes that training never saw.",
        "painted": painted(model, job.out, pictures),
        "guidance": guidance_of(f"house/{job.name}"),
        "cannot": "Cells of one map are drawn each for itself, so maps may be ragged. Paints nothing but such "
        "portraits; what no attribute says, such as the shape of glasses, is chance.",
    }
    script.write_card(path, card, ("num_params", "held_out", "painted"))


if __name__ == "__main__":
    main()
