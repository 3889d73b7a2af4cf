"""Train the models of series as tokens: `python -m backend.train.forecast.tokens --model target|draft|masked`.

`target` is house/series-tokens, `draft` is house/series-tokens-draft, distilled from it, and `masked` is
house/series-masked. A row is cut at random out of a window of `mix`; its scale is taken from what is given of it alone,
as when it is forecast, so the loss is that of the other steps: the future of a random origin, which for the masked
model may have gaps before it. What is given is told by the causal models too, behind its first steps and at a lower
weight, for the scale knows of it. The loss is the cross-entropy, a tenth of it on the two bins beside the right one.

The first heads begin by looking a few steps back, or a season (`look_back`): without it, models this small need far
longer to learn that seasons repeat, and their paths lose the phase and run away.

`--device cpu` trains with one process of one thread, bfloat16 products; `--device cuda` trains longer on one GPU.
Training resumes where it was. Matrices are trained with Muon (torch 2.9 or later), embeddings and norms with AdamW; the
learning rate follows a cosine. `--measure` adds to the card of a trained model what it does on held-out series.

Letters: B rows of a batch, L steps of a row, T of them given, V tokens, M judged steps of a batch, C features.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from backend.codecs.bins import BINS, CONTEXT, MISSING, REACH, SIZE, WIDTH, Ints, tokens_of
from backend.codecs.dates import Floats
from backend.codecs.series import LEAST_VALUES
from backend.codecs.series_tokens import SeriesTokens
from backend.errors import UserError
from backend.models.house import rounded, strip
from backend.models.house.llama import Block, Llama, LlamaConfig
from backend.models.house.own import read_own, save_own
from backend.train.forecast.mix import windows
from backend.train.portraits.loop import optimise
from backend.train.smollm2_corpus import ROOT
from backend.train.smollm2_draft import Job, Recipe, in_processes, join_trainers
from backend.train.tales import GONE, TaleJob, new_model

HORIZON = 64  # steps that most rows go on behind their origin
LONGEST = 192  # and that the others do
SHORTEST = 32  # steps that are given at least, of long windows
LEAST_GIVEN = 12  # and of short ones, which have fewer than SHORT known steps
SHORT, SHORT_SHARE = 160, 0.3  # and this share of the batches
SMOOTH = 0.1  # of the loss, on the bins beside the right one
SETTLED = 16  # first steps of what is given that are not told
GIVEN = 0.3  # weight of the others in the loss, where a step of the future has 1
LAGS = {  # steps that the first layers' heads look back: seasons, less the one ahead where the next step is told
    False: ((1, 2, 3, 6), (11, 23, 51, 167)),
    True: ((-1, 1, 12, 24), (12, 24, 52, 168)),  # of the masked model, which looks ahead, too
}
ALIKE, SHARP, FAINT = 0.4, 5.0, 0.3  # a feature that all tokens share, how sharply those heads look, other weights
MOVED = 0.005  # most of the loss that rounding the weights may add
CHECKED = 16  # batches on which that is measured

# of a Recipe, `batch_tokens` is what a trainer's batch holds
_cpu = Recipe(tokens=0, writers=0, batch=0, trainers=1, steps=1900, batch_tokens=5120, rate=2.5e-3)
_cuda = replace(_cpu, steps=8000, batch_tokens=65_536)
RECIPES = {
    device: {
        "target": every,
        "draft": replace(every, steps=every.steps * 8 // 19),
        "masked": replace(every, steps=every.steps * 20 // 19),
    }
    for device, every in (("cpu", _cpu), ("cuda", _cuda))
}


def _sizes(dim: int, num_layers: int, ffn_dim: int, extra_inputs: int = 0) -> LlamaConfig:
    heads = dim // 32
    return LlamaConfig(
        SIZE, dim, num_layers, heads, heads, 32, ffn_dim, CONTEXT + LONGEST, 1000.0, extra_inputs=extra_inputs
    )


SIZES = {"target": _sizes(128, 4, 320), "draft": _sizes(64, 2, 192), "masked": _sizes(128, 4, 320, extra_inputs=1)}
NAMES = {"target": "series-tokens", "draft": "series-tokens-draft", "masked": "series-masked"}
WHAT = {
    "target": "Small causal model that continues series as text: one token, a bin of values, a step.",
    "draft": "Draft model for house/series-tokens, distilled from it.",
    "masked": "Small bidirectional model that fills steps of series in any order: the future, and gaps of the past.",
}


class TokenJob(TaleJob):
    """What every process of a run needs to know. out: folder of the house models."""

    @property
    def checkpoint(self) -> Path:
        """Where training is saved."""
        return self.data / f"checkpoint-tokens-{self.model}.pt"

    @property
    def name(self) -> str:
        """Of the model, as the catalog and its files know it."""
        return NAMES[self.model]


# ------------------------------------------------------------------------------------------------------------- batches
class Rows:
    """Endless batches of one trainer from a step on: what is read [B, L], what is to be told of it, and its weight.

    The second is GONE where nothing is: where a value is missing, or a step is given to a masked model, or is among the
    first ones given to a causal one. A batch is of long windows or of short ones; a window that is shorter than the
    batch has missing steps behind it, and its origin lies earlier.
    """

    def __init__(self, source_NW: np.ndarray[Any, Any], recipe: Recipe, rank: int, masked: bool) -> None:
        self.source_NW, self.recipe, self.rank, self.masked = source_NW, recipe, rank, masked
        self.first_N = np.isfinite(source_NW).argmax(axis=1)  # nothing is known of a window before it
        short_N = self.first_N >= source_NW.shape[1] - SHORT
        self.groups = {True: np.flatnonzero(short_N), False: np.flatnonzero(~short_N)}

    def batches(self, step: int) -> Iterator[tuple[Tensor, ...]]:
        """The batches behind this many steps."""
        while True:
            rng = np.random.default_rng([self.recipe.seed, self.rank, step])
            yield self.batch(rng)
            step += 1

    def batch(self, rng: np.random.Generator) -> tuple[Tensor, ...]:
        """The batch that this generator gives."""
        short = bool(rng.random() < SHORT_SHARE)
        given, ahead = (SHORT - HORIZON // 2, HORIZON // 2) if short else _lengths(rng, self.masked)
        rows = max(self.recipe.batch_tokens // (given + ahead), 1)
        kept: list[tuple[Ints, Bools]] = []
        while sum(len(ids_BL) for ids_BL, _ in kept) < rows:
            y_BL, open_BL = self._cut(rng.choice(self.groups[short], rows + rows // 4), given, ahead, rng)
            if self.masked:
                open_BL = with_gaps(open_BL, rng)
            ids_BL, good_B = as_tokens(y_BL, open_BL)
            kept.append((ids_BL[good_B], open_BL[good_B]))
        ids_BL, open_BL = (np.concatenate(parts)[:rows] for parts in zip(*kept, strict=True))
        if self.masked:
            gone_BL = open_BL & (ids_BL == MISSING)  # a filled step is never missing
            open_BL = still_masked(open_BL & ~gone_BL, rng) | gone_BL
        told_BL = open_BL if self.masked else open_BL | (np.arange(open_BL.shape[1]) >= SETTLED)
        goal_BL = np.where(told_BL & (ids_BL != MISSING), ids_BL, GONE)
        read_BL = np.where(open_BL, SIZE, ids_BL) if self.masked else ids_BL
        weight_BL = np.where(open_BL, 1.0, GIVEN).astype(np.float32)
        return torch.from_numpy(read_BL), torch.from_numpy(goal_BL), torch.from_numpy(weight_BL)

    def _cut(self, chosen_B: Ints, given: int, ahead: int, rng: np.random.Generator) -> tuple[Floats, Bools]:
        """A part of each of these windows [B, L], and which steps are the future of its origin."""
        length, width = given + ahead, self.source_NW.shape[1]
        y_BL, origin_B1 = np.full((len(chosen_B), length), np.nan), np.full((len(chosen_B), 1), given)
        for b, i in enumerate(chosen_B):
            first = int(self.first_N[i])
            known = width - first
            if known >= length:
                start = int(rng.integers(first, width - length + 1))
                y_BL[b] = self.source_NW[i, start : start + length]
            else:
                y_BL[b, :known] = self.source_NW[i, first:]
                latest = min(given, known - 4)
                origin_B1[b] = rng.integers(max(LEAST_GIVEN, min(latest, known - ahead)), latest + 1)
        return y_BL, np.arange(length) >= origin_B1


Bools = np.ndarray[Any, np.dtype[np.bool_]]


def _lengths(rng: np.random.Generator, masked: bool) -> tuple[int, int]:
    """Steps in front of the origin and behind it, in batches of long windows."""
    given = CONTEXT if rng.random() < 0.4 else int(rng.integers(SHORTEST, CONTEXT + 1))
    if masked:
        return given, int(rng.integers(8, HORIZON + 1) if rng.random() < 0.6 else rng.integers(HORIZON, LONGEST + 1))
    return given, HORIZON if rng.random() < 0.3 else LONGEST


def with_gaps(open_BL: Bools, rng: np.random.Generator) -> Bools:
    """What is open: of every second row runs of steps are, anywhere in it; its future may be given then."""
    rows, length = open_BL.shape
    run = int(rng.choice([1, 4, 16, 48]))
    share_B1 = rng.random((rows, 1)) * 0.7
    gone_BL: Bools = (rng.random((rows, length // run + 2)) < share_B1).repeat(run, axis=1)
    gone_BL = gone_BL[:, rng.integers(run) :][:, :length].copy()
    kind_B1 = rng.random((rows, 1))
    gone_BL |= open_BL & (kind_B1 < 0.75)
    gone_BL[kind_B1[:, 0] < 0.5] = open_BL[kind_B1[:, 0] < 0.5]
    return gone_BL


def still_masked(open_BL: Bools, rng: np.random.Generator) -> Bools:
    """What is masked of it: a share from 0.1 to 1 of every row, its last steps or any of them, but one at least."""
    rows, _ = open_BL.shape
    count_B1 = open_BL.sum(axis=1, keepdims=True)
    most_B1 = np.maximum(np.ceil(count_B1 * rng.uniform(0.1, 1.0, (rows, 1))), 1)
    order_BL = np.where(rng.random((rows, 1)) < 0.5, np.arange(open_BL.shape[1])[::-1], rng.random(open_BL.shape))
    rank_BL = np.where(open_BL, order_BL, np.inf).argsort(axis=1).argsort(axis=1)
    out_BL: Bools = open_BL & (rank_BL < most_B1)
    return out_BL


def as_tokens(y_BL: Floats, open_BL: Bools) -> tuple[Ints, Bools]:
    """Tokens [B, L] by the scale of what is given, and which rows have one [B].

    What is not given may lie beyond the bins: the outermost ones stand for it.
    """
    given_BL = np.where(open_BL, np.nan, y_BL)
    known_B = np.isfinite(given_BL).sum(axis=1) >= LEAST_VALUES
    given_BL[~known_B] = 0.0
    middle_B1 = np.nanmedian(given_BL, axis=1, keepdims=True)
    spread_B1 = np.nanmean(np.abs(given_BL - middle_B1), axis=1, keepdims=True)
    good_B = known_B & (spread_B1 > 1e-6 * np.nanmax(np.abs(given_BL), axis=1, keepdims=True))[:, 0]
    good_B &= (np.isfinite(y_BL) & open_BL).any(axis=1)
    z_BL = np.arcsinh((y_BL - middle_B1) / np.where(good_B[:, None], spread_B1, 1.0))
    return tokens_of(z_BL.clip(-REACH, REACH)), good_B


# --------------------------------------------------------------------------------------------------------------- losses
def logits_at(model: Llama, read_BL: Tensor, goal_BL: Tensor) -> tuple[Tensor, Tensor]:
    """Float32 logits [M, BINS] of the steps that are to be told, and what is right there [M]; products in bfloat16."""
    with torch.autocast(read_BL.device.type, torch.bfloat16):
        if model.config.extra_inputs:
            features_BLC = strip.features_of(model, read_BL)
        else:
            features_BLC, goal_BL = model.features(read_BL[:, :-1]), goal_BL[:, 1:]
        asked_BL = goal_BL != GONE
        logits_MV = F.linear(features_BLC[asked_BL], model.head_weight()[:BINS])
    return logits_MV.float(), goal_BL[asked_BL]


def smoothed(logits_MV: Tensor, goal_M: Tensor) -> Tensor:
    """Cross-entropies [M] in nats, SMOOTH of it on the bins beside the right one; at an end both are the one inside."""
    logs_MV = F.log_softmax(logits_MV, dim=-1)
    around_M3 = goal_M[:, None] + torch.tensor([0, -1, 1], device=goal_M.device)
    around_M3 = torch.where((around_M3 < 0) | (around_M3 >= BINS), 2 * goal_M[:, None] - around_M3, around_M3)
    share_3 = torch.tensor([1 - SMOOTH, SMOOTH / 2, SMOOTH / 2], device=goal_M.device)
    loss_M: Tensor = -(logs_MV.gather(1, around_M3) @ share_3)
    return loss_M


def loss_of(model: Llama, read_BL: Tensor, goal_BL: Tensor, weight_BL: Tensor, teacher: Llama | None) -> Tensor:
    """Weighted mean loss in nats a step; with a teacher, half of it is the divergence from the teacher's law."""
    logits_MV, goal_M = logits_at(model, read_BL, goal_BL)
    loss_M = smoothed(logits_MV, goal_M)
    if teacher is not None:
        with torch.no_grad():
            p_MV: Tensor = logits_at(teacher, read_BL, goal_BL)[0].softmax(-1)
        apart_M = -torch.special.entr(p_MV).sum(-1) - (p_MV * F.log_softmax(logits_MV, dim=-1)).sum(-1)
        loss_M = (loss_M + apart_M) / 2
    first = 0 if model.config.extra_inputs else 1
    weight_M = weight_BL[:, first:][goal_BL[:, first:] != GONE]
    loss: Tensor = (loss_M * weight_M).sum() / weight_M.sum()
    return loss


def prepare(job: TokenJob) -> tuple[Llama, Llama | None]:
    """An untrained model whose bins resemble their neighbours, and its teacher where it has one."""
    torch.manual_seed(job.recipe.seed)
    model = new_model(SIZES[job.model])
    assert isinstance(model, Llama)
    bins_B1 = torch.arange(BINS)[:, None] * WIDTH
    waves_C = torch.exp(torch.empty(model.config.dim).uniform_(math.log(0.5), math.log(60.0)))  # radians a model unit
    with torch.no_grad():
        model.embed.weight[:BINS] = 0.04 * math.sqrt(2) * torch.cos(bins_B1 * waves_C + 6.3 * torch.rand_like(waves_C))
    look_back(model)
    return model.to(job.device), read_tokens(job, "target") if job.model == "draft" else None


@torch.no_grad()
def look_back(model: Llama) -> None:
    """Make the heads of an untrained model's first layers look LAGS steps back, whatever the tokens are.

    All tokens share one feature, ALIKE; a head's query of it is its key of it, turned by as many positions.
    """
    speed_P, width, masked = model.speed_P, model.config.head_dim, bool(model.config.extra_inputs)
    model.embed.weight[:, 0] = ALIKE
    for block, lags, shared in zip(
        model.blocks, LAGS[masked], (8.0, 4.0), strict=False
    ):  # the feature, behind the norm
        assert isinstance(block, Block)
        size = math.sqrt(SHARP * math.sqrt(width)) / shared
        for head, lag in enumerate(lags[: model.config.num_heads]):
            for first, steps in ((head, -lag), (model.config.num_heads + head, 0)):  # the query, then the key
                rows_DC = block.qkv.weight[first * width : (first + 1) * width]
                rows_DC *= FAINT
                turned_P = torch.polar(torch.full_like(speed_P, size), steps * speed_P)
                rows_DC[:, 0] = torch.view_as_real(turned_P).flatten()


def read_tokens(job: TokenJob, which: str) -> Llama:
    """A model that is trained already. Raises UserError where it is not."""
    path = job.out / f"{NAMES[which]}.safetensors"
    if not path.is_file():
        raise UserError(
            f"There is no {path.name} in {job.out}; train it with: python -m backend.train.forecast.tokens "
            f"--model {which}"
        )
    model = read_own(path, job.device)
    assert isinstance(model, Llama)
    return model


def _train(rank: int, job: Job) -> None:
    """One training process."""
    assert isinstance(job, TokenJob)
    join_trainers(rank, job)
    model, teacher = prepare(job)
    rows = Rows(windows(job.data), job.recipe, rank, job.model == "masked")

    def loss(read_BL: Tensor, goal_BL: Tensor, weight_BL: Tensor) -> Tensor:
        return loss_of(model, read_BL, goal_BL, weight_BL, teacher)

    optimise(job, model, rank, rows.batches, loss)


# ---------------------------------------------------------------------------------------------------------------- files
@torch.inference_mode()
def nats(model: Llama, job: TokenJob) -> float:
    """Mean cross-entropy a step of the future, in nats, of fresh rows that are always the same; not smoothed."""
    rows = Rows(windows(job.data), replace(job.recipe, batch_tokens=5120), 0, job.model == "masked")
    told = [rows.batch(np.random.default_rng([1_000_000, i])) for i in range(CHECKED)]
    future = [(read_BL, torch.where(weight_BL == 1, goal_BL, GONE)) for read_BL, goal_BL, weight_BL in told]
    asked = [logits_at(model, *(part.to(job.device) for part in batch)) for batch in future]
    return float(torch.stack([F.cross_entropy(logits_MV, goal_M) for logits_MV, goal_M in asked]).mean())


def save(job: TokenJob, model: Llama) -> None:
    """Write the model, in as few bits as move its loss by less than MOVED, and its card, without what is measured."""
    path = job.out / f"{job.name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    before = nats(model, job)
    moved = {bits: nats(_rounded(model, bits), job) / before - 1 for bits in (6, 8)}
    bits = 6 if moved[6] < MOVED else 8
    save_own(path, model, bits)
    card: dict[str, Any] = {
        "id": f"house/{job.name}",
        "what": WHAT[job.model],
        "license": "Apache-2.0; data as its source says.",
        "num_params": model.num_params,
        "config": asdict(model.config),
        "vocabulary": SeriesTokens().vocabulary,
        "data": "Windows of backend.train.forecast.mix; see there for its sources and for what is held out.",
        "recipe": {name: getattr(job.recipe, name) for name in ("trainers", "batch_tokens", "steps", "rate", "seed")}
        | {"device": job.device, "smoothing": SMOOTH, "given": [LEAST_GIVEN, CONTEXT], "ahead": LONGEST},
        "nats_per_step_of_the_mix": round(before, 4),
        "bits": bits,
        "loss_moved_by_rounding": {f"{bits} bits": round(by, 5) for bits, by in moved.items()},
        "cannot": "Sees one series and nothing else, no dates and no other series. Values are bins 2.4 % of a spread "
        "wide or more, and what lies beyond 256 spreads of its context is told as if it were there.",
        "torch": str(torch.__version__),
    }
    path.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")
    print(json.dumps(card, indent=2))


def _rounded(model: Llama, bits: int) -> Llama:
    """The model that a file of so many bits holds."""
    state = {name: weight.detach().float() for name, weight in model.state_dict().items()}
    out = Llama(model.config).to(model.device)
    out.load_state_dict(rounded.from_bytes(rounded.in_bits(state, bits)))
    return out


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: train and save a model, or measure a saved one."""
    parser = argparse.ArgumentParser(prog="python -m backend.train.forecast.tokens", description=__doc__)
    parser.add_argument("--model", choices=sorted(SIZES), default="target")
    parser.add_argument("--device", choices=sorted(RECIPES), default="cpu")
    parser.add_argument("--data", type=Path, default=ROOT / "train-data" / "series", help="of windows and checkpoints")
    parser.add_argument("--out", type=Path, default=ROOT / "assets" / "house")
    parser.add_argument("--steps", type=int, help="of training, where not what the recipe says")
    parser.add_argument("--measure", action="store_true", help="do not train: measure what is saved, for its card")
    parser.add_argument("--series", type=int, default=4, help="most cases of a held-out group that are forecast")
    args = parser.parse_args(argv)
    if args.device == "cpu":
        torch.set_num_threads(1)  # as in the processes that train
    recipe = RECIPES[args.device][args.model]
    job = TokenJob(replace(recipe, steps=args.steps or recipe.steps), args.device, args.data, args.model, args.out)
    if args.measure:
        from backend.train.forecast.tokens_measure import measure

        measure(job.out / f"{job.name}.safetensors", args.series, job.data)
        return
    model, _ = prepare(job)
    in_processes(_train, job.recipe.trainers, job)
    model.load_state_dict(torch.load(job.checkpoint, weights_only=True, map_location=args.device)["model"])
    save(job, model)


if __name__ == "__main__":
    main()
