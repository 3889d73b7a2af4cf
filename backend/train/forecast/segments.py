"""Train house/series-segments, two linear maps about our frozen model of stories: `python -m
backend.train.forecast.segments`.

One batch in three has no example in front of its series, the others one or two: windows of the same series' past,
chosen by shape in every other batch and by chance in the rest, each in the scale of its own question. The loss is the
error of the last segment, squared up to one deviation of the window and linear beyond, and a quarter of that of the
segments before it. The recipe takes 4 minutes on two CPU cores; `--tiny` trains about a small random trunk in seconds.
Measures itself and writes its card at the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from backend.errors import UserError
from backend.models.house.llama import Llama, LlamaConfig
from backend.models.house.segments import Segments, SegmentsConfig, read_segments, save_segments
from backend.models.series_segments import TRUNK, SegmentsModel, read_trunk
from backend.train.forecast.points import (
    LARGEST,
    Job,
    Recipe,
    asked,
    curve,
    held_losses,
    held_values,
    huber,
    measured,
    trained,
    write_card,
)
from backend.train.smollm2_corpus import ROOT
from backend.unrolling import shape_distances

NAME = "series-segments"
_sizes = SegmentsConfig()
PAST = 20 * _sizes.segment
RECIPES = {
    "cpu": Recipe(4000, 64, 3e-3, PAST, _sizes.segment),
    "cuda": Recipe(8000, 512, 3e-3, PAST, _sizes.segment, 0.999),
}
TINY_SIZES = SegmentsConfig(8, 2, 2)
TINY = Recipe(20, 12, 4e-3, 64, 8, 0.9)
TINY_TRUNK = LlamaConfig(16, 16, 1, 2, 2, 8, 24, 64)
WHAT = "Two linear maps that pass segments of a series through house/tales, which stays as it is."


def in_scale(y_BT: Tensor, known_BT: Tensor, asked_length: int) -> Tensor:
    """In deviations from the mean of what is known among the first `asked_length` values."""
    share_BT = known_BT[:, :asked_length] / known_BT[:, :asked_length].sum(1, keepdim=True).clamp_min(1)
    location_B1 = (y_BT[:, :asked_length] * share_BT).sum(1, keepdim=True)
    square_B1 = ((y_BT[:, :asked_length] - location_B1).square() * share_BT).sum(1, keepdim=True)
    return (y_BT - location_B1) / square_B1.sqrt().clamp_min(1e-3)


def shown_windows(past_BT: Tensor, config: SegmentsConfig, count: int, stream: np.random.Generator | None) -> Tensor:
    """Examples [B, count, X] in front of the last question of each past; the nearest in shape where no stream draws."""
    length, answer = config.example * config.segment, config.segment
    question = length - answer
    room = past_BT.shape[1] - 2 * question + 1
    out = []
    for past_T in past_BT:
        if stream is None:
            order = shape_distances(past_T.unfold(0, length, 1)[:room], past_T, answer).argsort().tolist()
        else:
            order = stream.permutation(room).tolist()
        at = [order[0]]
        for i in order:
            if len(at) < count and all(abs(i - j) >= answer for j in at):
                at.append(i)
        out.append(torch.stack([past_T[i : i + length] for i in at[::-1]]))
    return torch.stack(out)


def errors(model: Segments, y_BT: Tensor, count: int, stream: np.random.Generator | None) -> tuple[Tensor, Tensor]:
    """The error inside the series and that of its next segment, behind `count` examples."""
    config = model.config
    segment, lookback = config.segment, config.lookback * config.segment
    past = y_BT.shape[1] - segment
    needed = min(past, lookback + 2 * config.example * segment) if count else 4
    y_BT = y_BT[torch.isfinite(y_BT[:, :past]).sum(1) >= needed]
    value_BT, known_BT = held_values(y_BT)
    own_BT, own_known_BT = value_BT[:, past - lookback :], known_BT[:, past - lookback :]
    own_BT = in_scale(own_BT, own_known_BT, lookback)
    read_BT = own_BT[:, :-segment].clamp(-2 * LARGEST, 2 * LARGEST)
    seen_BT = own_known_BT[:, :-segment].to(own_BT.dtype)
    if count and len(y_BT):
        shown_BEX = shown_windows(value_BT[:, past - needed : past], config, count, stream)
        flat_NX = shown_BEX.flatten(0, 1)
        scaled_NX = in_scale(flat_NX, torch.ones_like(flat_NX), flat_NX.shape[1] - segment).clamp(
            -2 * LARGEST, 2 * LARGEST
        )
        shown_BT = scaled_NX.reshape(len(y_BT), -1)
        read_BT, seen_BT = torch.cat((shown_BT, read_BT), 1), torch.cat((torch.ones_like(shown_BT), seen_BT), 1)
    shown = count * config.example
    tokens_BNP, seen_BNP = (x_BT.reshape(len(y_BT), -1, segment) for x_BT in (read_BT, seen_BT))
    found_BNP = model(tokens_BNP, seen_BNP, shown)[:, shown:]
    near_BT = own_known_BT & (own_BT.abs() <= LARGEST)
    wanted_BNP = torch.where(near_BT, own_BT, torch.nan)[:, segment:].reshape(len(y_BT), -1, segment)
    return huber(found_BNP[:, :-1], wanted_BNP[:, :-1]), huber(found_BNP[:, -1:], wanted_BNP[:, -1:])


def loss_of(model: nn.Module, y_BT: Tensor, stream: np.random.Generator) -> Tensor:
    """The loss of a batch with none, one or two examples."""
    assert isinstance(model, Segments)
    count = int(stream.integers(0, 3))
    inside, behind = errors(model, y_BT, count, stream if stream.random() < 0.5 else None)
    return 0.25 * inside + behind


def build(job: Job, config: SegmentsConfig, trunk: Llama) -> SegmentsModel:
    """Train, or go on, and write the weights."""
    weights = trained(job, lambda: Segments(config, trunk), loss_of, save_segments)
    return SegmentsModel(f"house/{job.name}", read_segments(weights, trunk.cpu()))


def examples_measured(model: SegmentsModel, cases: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Held-out errors with no, one and two examples, chosen both ways, over cases with room for two."""

    def forecast(case: Any, **knobs: Any) -> list[float] | None:
        try:
            curve(model, "segment_autoregressive", case.past_T, case.season, 1, examples=2)
            return curve(model, "segment_autoregressive", case.past_T, case.season, len(case.truth_H), **knobs)
        except UserError:  # too short for two examples: in no column
            return None

    ways: dict[str, dict[str, Any]] = {"0": {"examples": 0}}
    for count in (1, 2):
        ways |= {f"{count} {choice}": {"examples": count, "choice": choice} for choice in ("similar", "random")}
    return {name: measured(cases, partial(forecast, **knobs), 30) for name, knobs in ways.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    job = asked(__doc__ or "", NAME, RECIPES, TINY, argv)
    if job.recipe.past != PAST:
        trunk = Llama(TINY_TRUNK).requires_grad_(False)
        print(f"{build(job, TINY_SIZES, trunk).net.num_params} weights of {job.name}")
        return
    model = build(job, _sizes, read_trunk(ROOT / "assets" / "house" / TRUNK, job.device))
    print(f"{model.net.num_params} weights about {model.net.trunk.num_params} frozen ones", flush=True)
    from backend.train.forecast.held_out import groups

    cases = groups(job.data)
    counts = (0, 1, 2)
    found = held_losses(job, lambda y_BT: [errors(model.net, y_BT, count, None)[1] for count in counts], 6)
    losses = {f"{count} examples": loss for count, loss in zip(counts, found, strict=True)}
    told = {
        "trained_params": model.net.num_params,
        "held_out_loss": losses,
        "held_out": measured(
            cases,
            lambda c: curve(model, "segment_autoregressive", c.past_T, c.season, len(c.truth_H), examples=0),
        ),
        "about_held_out": "MASE of segment_autoregressive without examples beside that of seasonal naive, up to 80 "
        "cases of a group. It has no law: a point forecast. The trunk knows stories and no series.",
        "with_examples": examples_measured(model, cases),
        "about_with_examples": "The same by number and choice of examples, up to 30 cases of a group, those alone that "
        "have room for two examples.",
    }
    write_card(job, model.num_params, _sizes, WHAT, told)


if __name__ == "__main__":
    main()
