"""Train EAGLE's layer on the raster painter, house/portraits-eagle: `python -m backend.train.portraits.eagle`.

Li et al. 2024 (2401.15077): one layer reads a code together with the hidden state that it was read from, and predicts
the next hidden state, which the painter's own head turns into a law. It learns the painter's odds and its states on
portraits and conditions of `raster`, and is trained on its own predictions, PLACES places in a row (the training-time
test of EAGLE-3, 2503.01840). It begins as the best linear guess of the next state.

`--device cpu` trains with two processes of one thread; `--device cuda` trains longer, on one GPU. Training resumes
where it was. The optimiser is that of `raster` (`loop`). The card is written from what was measured.

Letters: A attributes, L slots of the canvas, V codes, B portraits of a batch, C features, K places ahead, R ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from backend.chance import Ask, Seeded
from backend.meter import Meter
from backend.models.guided import Guided
from backend.models.house.heads import EagleLayer, HeadsConfig, Words, read_heads, save_heads
from backend.models.house.llama import Llama
from backend.models.house.raster import features_of
from backend.models.house.raster_heads import RasterEagle, places_of, words_of
from backend.models.raster import guided
from backend.models.raster_heads import PainterHeads
from backend.protocols import CausalSession, HeadsSession, Prompt
from backend.registry import find
from backend.train.portraits import script
from backend.train.portraits.loop import optimise
from backend.train.portraits.raster import (
    ALL_OPEN,
    CODEC,
    LAYOUT,
    NONE_OPEN,
    Draws,
    RasterJob,
    draw_batch,
    read_painter,
)
from backend.train.portraits.raster import (
    RECIPES as RASTER,
)
from backend.train.portraits.raster_measure import fresh, in_parts, painter
from backend.train.smollm2_draft import Job, join_trainers
from backend.train.smollm2_heads import least_squares
from backend.train.smollm2_heads_states import HeadBatch, eagle_states
from backend.train.tales import TaleJob
from backend.types import Sampling

NAME = "portraits-eagle"
REACH = 8  # places that it is asked for
PLACES = 3  # in a row that it is trained on
FEATURE_LOSS = 1.0  # weight of the loss on predicted states
RANKS = 10  # of guesses, whose odds are told
FITTED = 64  # portraits that the first linear guess is fitted to
HELD = 128  # portraits that losses are taken on
GUIDANCE = (1.0, 2.0)  # convention A
CONFIG = HeadsConfig(
    kind="eagle", vocab_size=LAYOUT.num_codes, target_vocab=LAYOUT.num_codes, dim=160, reach=REACH, num_heads=5,
    num_kv_heads=5, head_dim=32, ffn_dim=320, context=LAYOUT.length,
)  # fmt: skip
RECIPES = {
    device: replace(each["target"], batch=each["target"].batch // 2, steps=each["target"].steps * 5 // 12, rate=2e-3)
    for device, each in RASTER.items()
}


@dataclass(frozen=True)
class EagleJob(TaleJob):
    """What every process of a run needs to know. out: folder of the house models, the painter among them."""

    @property
    def name(self) -> str:
        """Of the model, as the catalog and its files know it."""
        return NAME


@dataclass(frozen=True)
class Base:
    """The painter, frozen, and what the layer reads of it. place_LC: see `places_of`."""

    painter: Llama
    words: Words
    place_LC: Tensor

    @classmethod
    def of(cls, painter: Llama) -> Base:
        """Of a painter that is not packed."""
        painter = painter.requires_grad_(False)
        return cls(painter, words_of(painter, LAYOUT), places_of(painter, LAYOUT))


def base_of(job: EagleJob) -> Base:
    """The painter on the device. Raises UserError where it is not trained yet."""
    return Base.of(read_painter(RasterJob(job.recipe, job.device, job.data, "target", job.out), "target"))


# ------------------------------------------------------------------------------------------------------------ training
@torch.no_grad()
def states_before(base: Base, conditions_BA: Tensor, canvas_BL: Tensor) -> Tensor:
    """Hidden states [B, L, C] that the codes are read from, float32, products in bfloat16."""
    with torch.autocast(canvas_BL.device.type, torch.bfloat16):
        return features_of(base.painter, LAYOUT, conditions_BA, canvas_BL).float()


def guessed(heads: EagleLayer, base: Base, canvas_BL: Tensor, feature_BLC: Tensor, places: int) -> list[Tensor]:
    """States [B, L, C] for each place: at slot s, what is guessed to follow it, drafted so many slots before."""
    every_BL = torch.ones_like(canvas_BL)
    nothing = every_BL[..., None]
    batch = HeadBatch(
        canvas_BL, feature_BLC, every_BL.bool(), nothing, nothing, every_BL, nothing, every_BL, every_BL
    )  # all slots are judged, by ourselves
    embed_BLC = base.words.embed_VC[canvas_BL] + base.place_LC
    with torch.autocast(canvas_BL.device.type, torch.bfloat16):
        return [state.float() for state in eagle_states(heads, base.words, batch, places, embed_BLC)]


def loss_of(heads: EagleLayer, base: Base, conditions_BA: Tensor, canvas_BL: Tensor) -> Tensor:
    """Cross-entropy to the painter's law and distance to its states, all places, weights falling by a tenth a place."""
    feature_BLC = states_before(base, conditions_BA, canvas_BL)
    p_BLV = F.linear(feature_BLC[:, 1:], base.words.head_KC).softmax(-1)
    losses = []
    for k, state_BLC in enumerate(guessed(heads, base, canvas_BL, feature_BLC, PLACES)):
        told_BNC = state_BLC[:, k:-1]  # before slot k nothing was drafted so early
        logq_BNV = F.log_softmax(F.linear(told_BNC, base.words.head_KC), dim=-1)
        miss_BNC = (told_BNC - feature_BLC[:, k + 1 :]) / heads.feature_C
        law = -(p_BLV[:, k:] * logq_BNV).sum(-1).mean()
        losses.append(0.9**k * (law + FEATURE_LOSS * F.smooth_l1_loss(miss_BNC, torch.zeros_like(miss_BNC))))
    return torch.stack(losses).sum()


def begun(job: EagleJob, base: Base) -> EagleLayer:
    """An untrained layer that says what the best linear guess of the next state says."""
    torch.manual_seed(job.recipe.seed)
    device = next(base.painter.parameters()).device
    conditions_BA, canvas_BL = (x.to(device) for x in fresh(draw_batch, FITTED, half_open=True))
    feature_BLC = states_before(base, conditions_BA, canvas_BL)
    embed_BLC = base.words.embed_VC[canvas_BL] + base.place_LC
    heads = EagleLayer(CONFIG, *(x.flatten(0, 1).square().mean(0).sqrt() for x in (feature_BLC, embed_BLC))).to(device)
    with torch.no_grad():
        for linear in (heads.layer.out, heads.layer.down):
            linear.weight.zero_()
        x_BNI = torch.cat((embed_BLC / heads.embed_C, feature_BLC / heads.feature_C), dim=-1)[:, :-1]
        next_BNC = feature_BLC[:, 1:] / heads.feature_C
        heads.fuse.weight.copy_(least_squares(x_BNI.flatten(0, 1), next_BNC.flatten(0, 1)))
    return heads


def train(job: EagleJob, heads: EagleLayer, base: Base, rank: int) -> None:
    """Train in place, together with the other trainers; resumes from the checkpoint, if there is one."""
    optimise(
        job,
        heads,
        rank,
        lambda step: Draws(job.recipe, rank, step).loaded(),
        lambda *batch: loss_of(heads, base, *batch),
    )


def _train(rank: int, job: Job) -> None:
    """One training process."""
    assert isinstance(job, EagleJob)
    join_trainers(rank, job)
    base = base_of(job)
    train(job, begun(job, base), base, rank)


# ------------------------------------------------------------------------------------------------------------ measures
@torch.inference_mode()
def held_out(heads: EagleLayer, base: Base, portraits: int) -> tuple[float, list[list[float]]]:
    """The loss on fresh portraits, and [k][r]: how often the guess of rank r for place k was what the painter drew.

    Half of the attributes are open. A place's guess has the true codes in front of it, as a draft that was right so far
    has; what the painter draws is the portrait's code.
    """
    conditions_BA, canvas_BL = fresh(draw_batch, portraits, half_open=True)
    device, losses, ranks = next(base.painter.parameters()).device, [], [list[Tensor]() for _ in range(REACH)]
    for part in in_parts(conditions_BA, canvas_BL):
        asked_BA, told_BL = (x.to(device) for x in part)
        losses.append(float(loss_of(heads, base, asked_BA, told_BL)) * len(told_BL))
        states = guessed(heads, base, told_BL, states_before(base, asked_BA, told_BL), REACH)
        for k, state_BLC in enumerate(states):
            logits_BNV = F.linear(state_BLC[:, k:-1], base.words.head_KC)
            own_BN1 = logits_BNV.gather(-1, told_BL[:, k + 1 :, None])
            ranks[k].append((logits_BNV > own_BN1).sum(-1).flatten().cpu())
    every = [torch.cat(parts) for parts in ranks]
    odds = [[round(float((rank_N == r).float().mean()), 4) for r in range(RANKS)] for rank_N in every]
    return sum(losses) / portraits, odds


def drafted(heads: EagleLayer, odds: list[list[float]], base: Base, pictures: int) -> dict[str, Any]:
    """What the strategy `eagle` paints a target call, by guidance and temperature."""
    plain = painter(base.painter.cpu(), "portraits")
    packed = RasterEagle(heads.cpu(), base.painter.cpu(), LAYOUT, torch.float32)
    model = PainterHeads(f"house/{NAME}", packed, odds, CODEC, heads.num_params)
    conditions_BA, _ = fresh(draw_batch, pictures, half_open=True)
    told: dict[str, Any] = {"pictures": pictures, "knobs": find("eagle").settle({})}
    for scale in GUIDANCE:
        target = plain if scale == 1 else guided(plain, scale)
        assert scale == 1 or isinstance(target.backbone, Guided)
        for temperature in (1.0, 0.0):
            pixels, meters = 0, (Meter(), Meter())
            for seed, asked_A in enumerate(conditions_BA.tolist()):
                prompt, sampling = Prompt((), {"conditions": asked_A}), Sampling(temperature)
                sessions = (
                    target.open(CausalSession, prompt, sampling, meters[0], target.context),
                    model.open(HeadsSession, prompt, sampling, meters[1], target.context),
                )
                for _ in find("eagle").run(*sessions, Ask(target.context, Seeded(seed))):
                    pass
                pixels += len(sessions[0].tokens)
            told[f"cfg_{scale:g}_temperature_{temperature:g}"] = {
                "mean_acceptance_length": round(pixels / meters[0].calls, 3),
                "target_calls_a_picture": round(meters[0].calls / pictures, 1),
                "draft_calls_a_picture": round(meters[1].calls / pictures, 1),
            }
    return told


def save(job: EagleJob, heads: EagleLayer, base: Base, pictures: int, held: int = HELD) -> None:
    """Write the layer and its card, with everything measured."""
    path = job.out / f"{NAME}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    before, odds = held_out(heads, base, held)
    save_heads(path, heads, base.words.ids_K, odds, bits=6)
    shipped, _, _ = read_heads(path, job.device)  # what ships is measured, in its rounded weights
    assert isinstance(shipped, EagleLayer)
    loss, found = held_out(shipped, base, held)
    recipe = job.recipe
    card: dict[str, Any] = {
        "id": f"house/{NAME}",
        "what": "EAGLE's layer on the hidden states of house/portraits: it guesses the next codes through the "
        "painter's own embedding and head, which are not in the file.",
        "license": "Apache-2.0; the drawings its painter has learned from are CC0 1.0 (Pixel Art by DiceBear).",
        "num_params": shipped.num_params,
        "config": asdict(shipped.config),
        "vocabulary": CODEC.vocabulary,
        "data": f"{script.DRAWN}, with the hidden states and laws that house/portraits has on them.",
        "portraits": recipe.steps * recipe.batch * recipe.trainers,
        "recipe": script.told(recipe, job.device) | {"places_in_a_row": PLACES},
        "left_open": {"all": ALL_OPEN, "none": NONE_OPEN, "others": "a share drawn uniformly for every portrait"},
        "held_out": {
            "portraits": held,
            "loss": round(loss, 4),
            "loss_before_weights_of_six_bits": round(before, 4),
            "agreement_per_place": [row[0] for row in found],
        },
        "odds": odds,
        "painted": drafted(shipped, odds, base, pictures),
        "about": "Held-out figures have the true codes in front of each guess and half of the attributes open. The "
        "layer continues the states of what is asked for, and knows nothing of guidance.",
    }
    script.write_card(path, card, ("num_params", "held_out", "painted"))


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: train what is missing, measure, and save the layer with its card."""
    parser = script.options("backend.train.portraits.eagle", __doc__, RECIPES)
    parser.add_argument("--pictures", type=int, default=24, help="that are painted to measure the layer")
    args = script.asked(parser, argv)
    recipe = RECIPES[args.device]
    job = EagleJob(replace(recipe, steps=args.steps or recipe.steps), args.device, args.data, "eagle", args.out)
    base = base_of(job)
    heads = begun(job, base)
    script.train(_train, job, heads)
    save(job, heads, base, args.pictures)


if __name__ == "__main__":
    main()
