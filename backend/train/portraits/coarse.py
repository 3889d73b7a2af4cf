"""Train house/portraits-coarse, groups first and colours then: `python -m backend.train.portraits.coarse`.

Guo et al. 2025 (2503.16194). The palette falls into GROUPS groups (`house.coarse`). The first net goes on from
house/portraits and learns the groups of portraits, pixel by pixel; a row of its new embedding begins as the mean of its
codes' rows. The second goes on from the first and last layer of house/portraits-masked, each with the widest half of
its feed-forward net, and learns the codes given their groups: of one portrait in two nothing else is known, of the
others a random share of codes, too; of some, cells behind a random one are masked, as where only a part was painted.
Portraits and what is left open of their conditions are those of `raster`.

`--device cpu` trains with two processes of one thread: 4.5 minutes for the first net and 3 for the second on two cores
that others used little; `--device cuda` trains longer. `--net` trains one of them; the model is written when both are
there. Training resumes where it was. The optimiser is that of `raster` (`loop`). The card is written from what was
measured.

Letters: A attributes, L slots of the canvas, V codes, M groups, B portraits of a batch, N cells, C features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from backend.codecs.palette import PaletteTokenizer
from backend.entries import guidance_of
from backend.models.house.coarse import (
    CoarseNets,
    grouped,
    medoids,
    painter_layout,
    read_as,
    read_coarse,
    refiner_config,
    save_coarse,
    within,
)
from backend.models.house.llama import Llama
from backend.models.house.masked import features_of, logits_of
from backend.models.house.raster import logits_of as raster_logits
from backend.train.portraits import script
from backend.train.portraits.coarse_measure import held_out, painted
from backend.train.portraits.loop import optimise
from backend.train.portraits.masked import NAME as MASKED
from backend.train.portraits.masked import read_masked
from backend.train.portraits.raster import (
    ALL_OPEN,
    CODEC,
    LAYOUT,
    NONE_OPEN,
    SIZES,
    Draws,
    RasterJob,
    draw_batch,
    read_painter,
)
from backend.train.portraits.raster import RECIPES as RASTER
from backend.train.smollm2_draft import Job, in_processes, join_trainers
from backend.train.tales import TaleJob

NAME = "portraits-coarse"
GROUPS = 16
COLOURS_VD = PaletteTokenizer().colours_VC
GROUP_V = torch.from_numpy(grouped(COLOURS_VD, GROUPS))
COARSE = painter_layout(LAYOUT, GROUPS)
NETS = ("groups", "codes")
LAYERS = (0, -1)  # of the masked painter, that the second net begins with
PAINTER = replace(SIZES["target"], vocab_size=GROUPS)
REFINER = refiner_config(LAYOUT, GROUPS, dim=160, num_layers=len(LAYERS), num_heads=5, ffn_dim=216)
HELD = 256  # portraits that losses are taken on
KNOWN, CUT = 0.5, 0.15  # shares of the portraits of which some codes are known, and whose last cells are masked
RECIPES = {
    device: {"groups": replace(each["target"], steps=each["target"].steps // 3, rate=1.5e-3)}
    | {"codes": replace(each["target"], steps=each["target"].steps * 3 // 8, rate=1.5e-3)}
    for device, each in RASTER.items()
}


@dataclass(frozen=True)
class CoarseJob(TaleJob):
    """What every process of a run needs to know. model: which of NETS. out: folder of the house models."""

    @property
    def name(self) -> str:
        """Of the model, as the catalog and its files know it."""
        return NAME

    @property
    def checkpoint(self) -> Path:
        """Where training is saved."""
        return self.data / f"checkpoint-coarse-{self.model}.pt"


# --------------------------------------------------------------------------------------------------------------- draws
class CoarseDraws(Draws):
    """The batches of `raster`: conditions, canvases, and of what the second net reads the groups and the codes."""

    def batches(self) -> Iterator[tuple[Tensor, ...]]:
        """Conditions [B, A], canvases, groups and known codes [B, L], -1 where unknown."""
        drawn = iter(DataLoader(self, batch_size=None, num_workers=self.recipe.writers))
        for at, (conditions_BA, canvas_BL) in enumerate(drawn, start=self.step):
            rng = np.random.default_rng([self.recipe.seed, self.rank, at, 5])
            yield conditions_BA, canvas_BL, *told(canvas_BL, rng)


def told(canvas_BL: Tensor, rng: np.random.Generator, share: float | None = None) -> tuple[Tensor, Tensor]:
    """Groups and known codes, [B, L] each, -1 where unknown. share: of the codes that are known, instead of chance."""
    count, length = canvas_BL.shape
    known_B1 = np.where(rng.random((count, 1)) < KNOWN, rng.random((count, 1)), 0.0) if share is None else share
    known_BL = torch.from_numpy(rng.random((count, length)) < known_B1)
    cut_B1 = np.where(rng.random((count, 1)) < CUT, rng.integers(1, length, (count, 1)), length)
    gone_BL = torch.from_numpy(np.arange(length)[None] >= (cut_B1 if share is None else length))
    groups_BL = GROUP_V[canvas_BL].masked_fill(gone_BL, -1)
    return groups_BL, canvas_BL.masked_fill(~known_BL | gone_BL, -1)


# -------------------------------------------------------------------------------------------------------------- losses
def group_laws(painter: Llama, conditions_BA: Tensor, groups_BL: Tensor) -> Tensor:
    """Float32 logits [B, L, M] of every cell's group given those before it, products in bfloat16."""
    with torch.autocast(groups_BL.device.type, torch.bfloat16):
        return raster_logits(painter, COARSE, conditions_BA, groups_BL).float()


def group_loss(painter: Llama, conditions_BA: Tensor, canvas_BL: Tensor, *_: Tensor) -> Tensor:
    """Mean loss of groups in nats a cell."""
    groups_BL = GROUP_V.to(canvas_BL.device)[canvas_BL]
    return F.cross_entropy(group_laws(painter, conditions_BA, groups_BL).flatten(0, 1), groups_BL.flatten())


def code_laws(refiner: Llama, conditions_BA: Tensor, groups_BL: Tensor, known_BL: Tensor) -> Tensor:
    """Float32 logits [N, V] of every cell that is known by its group alone, cut to it; products in bfloat16."""
    asked_BL = asked_cells(groups_BL, known_BL)
    with torch.autocast(groups_BL.device.type, torch.bfloat16):
        features_BLC = features_of(refiner, LAYOUT, conditions_BA, read_as(LAYOUT, groups_BL, known_BL))
        raw_NV = logits_of(refiner, features_BLC[asked_BL]).float()
    return within(raw_NV, groups_BL[asked_BL], GROUP_V.to(groups_BL.device))


def asked_cells(groups_BL: Tensor, known_BL: Tensor) -> Tensor:
    """Which cells are known by their groups alone."""
    return (groups_BL >= 0) & (known_BL < 0)


def code_loss(refiner: Llama, conditions_BA: Tensor, canvas_BL: Tensor, groups_BL: Tensor, known_BL: Tensor) -> Tensor:
    """Mean loss in nats of these cells."""
    raw_NV = code_laws(refiner, conditions_BA, groups_BL, known_BL)
    return F.cross_entropy(raw_NV, canvas_BL[asked_cells(groups_BL, known_BL)])


LAWS = (group_laws, code_laws)


# ------------------------------------------------------------------------------------------------------------ training
def begun(job: CoarseJob) -> Llama:
    """The net as training begins. Raises UserError if the model that it goes on from is not trained yet."""
    torch.manual_seed(job.recipe.seed)
    if job.model == "groups":
        return painter_from(read_painter(RasterJob(job.recipe, "cpu", job.data, "target", job.out), "target")).to(
            job.device
        )
    return refiner_from(read_masked(job.out / f"{MASKED}.safetensors", "cpu")).to(job.device)


def of_groups(embed_RC: Tensor) -> Tensor:
    """For every group the mean of its codes' rows of an embedding, [M, C]."""
    return torch.stack([embed_RC[: len(GROUP_V)][group == GROUP_V].mean(dim=0) for group in range(GROUPS)])


@torch.no_grad()
def painter_from(whole: Llama) -> Llama:
    """A painter of groups that begins with the weights of a painter of codes."""
    state = whole.state_dict()
    embed_RC = state["embed.weight"]
    painter = Llama(replace(whole.config, vocab_size=GROUPS))
    painter.load_state_dict(state | {"embed.weight": torch.cat((of_groups(embed_RC), embed_RC[len(GROUP_V) :]))})
    return painter


@torch.no_grad()
def refiner_from(whole: Llama) -> Llama:
    """A refiner that begins with some of the layers of a masked painter, each with its most used feed-forward units.

    A unit is used by as much as the norms of what it reads and of what it writes multiply to.
    """
    state, config = whole.state_dict(), whole.config
    refiner = Llama(replace(REFINER, dim=config.dim, num_heads=config.num_heads, num_kv_heads=config.num_kv_heads,
                            head_dim=config.head_dim, ffn_dim=min(REFINER.ffn_dim, config.ffn_dim)))  # fmt: skip
    out = {"embed.weight": torch.cat((state["embed.weight"], of_groups(state["embed.weight"])))}
    out["norm.weight"] = state["norm.weight"]
    for i, layer in enumerate(LAYERS):
        theirs, ours = f"blocks.{layer % config.num_layers}.", f"blocks.{i}."
        out |= {ours + name.removeprefix(theirs): w for name, w in state.items() if name.startswith(theirs)}
        gate_FC, up_FC = state[f"{theirs}gate_up.weight"].chunk(2)
        down_CF = state[f"{theirs}down.weight"]
        used_F = gate_FC.norm(dim=1) * up_FC.norm(dim=1) * down_CF.norm(dim=0)
        kept_K = used_F.topk(refiner.config.ffn_dim).indices.sort().values
        out[f"{ours}gate_up.weight"] = torch.cat((gate_FC[kept_K], up_FC[kept_K]))
        out[f"{ours}down.weight"] = down_CF[:, kept_K]
    refiner.load_state_dict(out)
    return refiner


def train(job: CoarseJob, net: Llama, rank: int) -> None:
    """Train in place, together with the other trainers; resumes from the checkpoint, if there is one."""
    loss = group_loss if job.model == "groups" else code_loss
    optimise(
        job,
        net,
        rank,
        lambda step: CoarseDraws(job.recipe, rank, step).batches(),
        lambda *batch: loss(net, *batch),
    )


def _train(rank: int, job: Job) -> None:
    """One training process."""
    assert isinstance(job, CoarseJob)
    join_trainers(rank, job)
    train(job, begun(job), rank)


# ---------------------------------------------------------------------------------------------------------------- card
def save(jobs: Sequence[CoarseJob], nets: CoarseNets, pictures: int, held: int = HELD) -> None:
    """Write the model and its card, with everything measured."""
    job = jobs[0]
    path = job.out / f"{NAME}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    before = held_out(nets, draw_batch, LAWS, held)
    save_coarse(path, nets)
    nets = read_coarse(path, job.device)  # what ships is measured, in its rounded weights
    counts = torch.bincount(GROUP_V).tolist()
    card: dict[str, Any] = {
        "id": f"house/{NAME}",
        "what": "Paints described portraits of 16x16 pixels twice: groups of alike colours pixel by pixel, then the "
        "colours of all pixels in one call.",
        "license": script.LICENSE,
        "num_params": nets.num_params,
        "num_params_by_net": {"groups": nets.painter.num_params, "codes": nets.refiner.num_params},
        "config": {"groups": asdict(nets.painter.config), "codes": asdict(nets.refiner.config)},
        "groups": {
            "count": GROUPS,
            "codes_in_each": counts,
            "medoids": [CODEC.piece(code) for code in medoids(COLOURS_VD, nets.group_V)],
            "about": "k-means over the palette in CIELAB; a group is shown as its medoid.",
        },
        "vocabulary": CODEC.vocabulary,
        "data": f"{script.DRAWN}.",
        "portraits": {each.model: each.recipe.steps * each.recipe.batch * each.recipe.trainers for each in jobs},
        "recipe": {
            each.model: script.told(each.recipe, each.device) | {"starts_from": f"house/{start}"}
            for each, start in zip(jobs, ("portraits", MASKED), strict=True)
        },
        "left_open": {"all": ALL_OPEN, "none": NONE_OPEN, "others": "a share drawn uniformly for every portrait"},
        "held_out": held_out(nets, draw_batch, LAWS, held),
        "held_out_before_weights_of_six_bits": before,
        "about_held_out": "Fresh portraits of the same drawer: with all attributes named, with half of them left open, "
        "with nothing asked, and named ones with a pair of attributes that training never saw. Nats of a group given "
        "the groups before it, of a code given all groups, and of both together; and the mean entropies of these laws.",
        "painted": painted(nets, NAME, job.out, pictures),
        "guidance": guidance_of(f"house/{NAME}"),
        "cannot": "Colours of one call are drawn each for itself: where a prompt leaves a colour open and a group "
        "holds several that would do, they mix, unless it is refined in several rounds or at a low temperature.",
    }
    script.write_card(path, card, ("num_params", "held_out", "painted"))


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: train what is missing, measure, and save the model with its card."""
    parser = script.options("backend.train.portraits.coarse", __doc__, RECIPES)
    parser.add_argument("--net", choices=("both", *NETS), default="both", help="which is trained now")
    parser.add_argument("--pictures", type=int, default=48, help="painted in each way to measure the model")
    args = script.asked(parser, argv)
    jobs, nets = [], []
    for name in NETS:
        recipe = RECIPES[args.device][name]
        job = CoarseJob(replace(recipe, steps=args.steps or recipe.steps), args.device, args.data, name, args.out)
        if args.net in ("both", name):
            in_processes(_train, job.recipe.trainers, job)
        if not job.checkpoint.exists():
            print(f"The net of {name} is not trained yet; train it with --net {name}.")
            return
        net = begun(job)
        net.load_state_dict(torch.load(job.checkpoint, weights_only=True, map_location=args.device)["model"])
        jobs.append(job)
        nets.append(net)
    save(jobs, CoarseNets(nets[0], nets[1], tuple(GROUP_V.tolist())), args.pictures)


if __name__ == "__main__":
    main()
