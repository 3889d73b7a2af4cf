"""Maths of filling a canvas in any order: how many slots a call fills, which ones, and with what.

Letters: N slots asked for, L canvas, V vocabulary. A token is drawn with the noise of its slot, so that strategies
which fill the same slot from the same law agree on it. Entropies are in nats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from backend.chance import Ask, Chance
from backend.errors import UserError
from backend.protocols import ScaleSession
from backend.sampling import shorten
from backend.types import Fate, Mark

Curve = Literal["cosine", "linear", "square", "root"]
Size = tuple[int, int]


# ---------------------------------------------------------------------------------------------------------- schedules
def masked_share(curve: Curve, progress: float) -> float:
    """The share of slots that is still masked when `progress` of the calls are done: 1 at 0, 0 at 1, falling.

    Chang et al. 2022 (2202.04200), section 3.3: concave curves (cosine, square) fill little at first.
    """
    if progress >= 1.0:
        return 0.0
    return {
        "cosine": math.cos(math.pi / 2 * progress),
        "linear": 1.0 - progress,
        "square": 1.0 - progress**2,
        "root": 1.0 - math.sqrt(progress),
    }[curve]


def remaining(total: int, calls: int, curve: Curve) -> list[int]:
    """Slots that are open after each call: falls by at least one a call and ends at 0, so it may be shorter.

    With `calls` 0, or calls >= total on a curve that is not convex, every call fills one slot.
    """
    if calls == 0:
        return list(range(total - 1, -1, -1))
    out: list[int] = []
    before = total
    for i in range(1, calls + 1):
        if not before:
            break
        planned = math.floor(total * masked_share(curve, i / calls) + 1e-9)  # 100 * (1 - 0.93) is 7 slots, not 6
        before = 0 if i == calls else min(max(planned, 1), before - 1)
        out.append(before)
    return out


def spread(sizes: Sequence[Size], count: int) -> list[Size]:
    """`count` of the sizes, evenly over their list, the first and the last among them; of one, the last; all for 0.

    Raises UserError where there are not as many.
    """
    if count > len(sizes):
        raise UserError(
            f"{count} scales were asked for, but the model has {len(sizes)} sizes; ask for 1 to {len(sizes)}, "
            "or for 0 to use all."
        )
    if count == 1:
        return [sizes[-1]]
    last = len(sizes) - 1
    return [sizes[math.floor(i * last / (count - 1) + 0.5)] for i in range(count)] if count else list(sizes)


# ------------------------------------------------------------------------------------------------------------- orders
def open_slots(canvas_L: Sequence[int], most: int) -> list[int]:
    """The unknown slots (-1), at most `most` of them, in the order of the canvas."""
    return [slot for slot, token in enumerate(canvas_L) if token < 0][:most]


def choose(log_weights: Sequence[float], count: int, temperature: float, chance: Chance) -> list[int]:
    """Indices of the `count` largest of log_weight + temperature x Gumbel noise, largest first; ties by index.

    The noise is never drawn: its top-k has the law of draws without replacement from softmax(log_weights /
    temperature), which are made one after the other. Where all are chosen nothing is random.
    """
    left = sorted(range(len(log_weights)), key=lambda i: (-log_weights[i], i))
    if temperature <= 0.0 or count >= len(left):
        return left[:count]
    out: list[int] = []
    for _ in range(count):
        heat_N = torch.tensor([log_weights[i] / temperature for i in left], dtype=torch.float64)
        out.append(left.pop(chance.pick(torch.softmax(heat_N, dim=0))))
    return out


def shuffle(slots: Sequence[int], chance: Chance) -> list[int]:
    """The slots in an even random order."""
    left, out = list(slots), []
    while len(left) > 1:
        out.append(left.pop(chance.pick(torch.full((len(left),), 1.0 / len(left), dtype=torch.float64))))
    return out + left


def bounded(h_N: Sequence[float], bound: float) -> list[int]:
    """Indices of the slots of least entropy that may be drawn together: sum of entropies - largest <= bound, or one.

    Ben-Hamu et al. 2025 (2505.24857): what independent draws ignore, the total correlation of the slots, is at most
    that sum. With bound 0 these are the slots that are certain and one more, whose draws lose nothing.
    """
    order = sorted(range(len(h_N)), key=lambda i: (h_N[i], i))
    total, count = 0.0, 0
    for i in order:
        if count and total > bound:  # sorted: the largest of the set is the new one, the others add up to `total`
            break
        total, count = total + h_N[i], count + 1
    return order[:count]


def halton(grid: Size) -> list[int]:
    """All cells of a grid of (height, width) in the order in which a Halton sequence first hits them.

    Besnier et al. 2025 (2503.17076): bases 2 and 3, so that neighbours are far apart in the order.
    """
    height, width = grid
    out: dict[int, None] = {}
    i = 1
    while len(out) < height * width:
        out[int(_radical_inverse(i, 2) * height) * width + int(_radical_inverse(i, 3) * width)] = None
        i += 1
    return list(out)


def _radical_inverse(number: int, base: int) -> float:
    """The digits of the number mirrored behind the point, in [0, 1)."""
    value, digit = 0.0, 1.0
    while number:
        digit /= base
        number, rest = divmod(number, base)
        value += rest * digit
    return value


# ------------------------------------------------------------------------------------------------------------- tokens
def entropies(p_NV: Tensor) -> list[float]:
    """The entropy of every row, in nats."""
    return [float(h) for h in torch.special.entr(p_NV).sum(dim=-1).tolist()]


def mean_entropy(p_NV: Tensor) -> dict[str, float]:
    """`Step.measure` of a step whose slots had these laws: their mean entropy."""
    return {"entropy": shorten(sum(entropies(p_NV)) / max(len(p_NV), 1))}


def draw(p_NV: Tensor, noises: Sequence[int], chance: Chance) -> list[int]:
    """A token for every row, by the noise of the slot that stands beside it."""
    return chance.picks(p_NV, noises)


def chances(p_NV: Tensor, tokens: Sequence[int]) -> list[float]:
    """The probability of the token drawn from every row."""
    return [float(p) for p in p_NV[range(len(tokens)), list(tokens)].tolist()]


def filled(slots: Sequence[int], tokens: Sequence[int], p_NV: Tensor, fate: Fate = Fate.BONUS) -> tuple[Mark, ...]:
    """Marks of slots with the tokens drawn for them from the rows of p."""
    drawn = zip(slots, tokens, chances(p_NV, tokens), strict=True)
    return tuple(Mark(slot, token, fate, shorten(p)) for slot, token, p in drawn)


def fill(canvas_L: list[int], slots: Sequence[int], p_LV: Tensor, ask: Ask) -> tuple[Mark, ...]:
    """Draw the tokens of these slots from their laws, each for itself, and write them on the canvas."""
    p_NV = p_LV[list(slots)].to("cpu")
    tokens = ask.take(draw(p_NV, slots, ask.chance))
    for slot, token in zip(slots, tokens, strict=True):
        canvas_L[slot] = token
    return filled(slots, tokens, p_NV)


# ------------------------------------------------------------------------------------------------------------- scales
def next_slots(session: ScaleSession, left: int) -> range:
    """The slots of the scale that is being written; none where all are done or the budget cannot hold it.

    The canvas of a scale model is all its maps one behind the other, coarse to fine, each row by row.
    """
    if session.at == len(session.sizes):
        return range(0)
    areas = [height * width for height, width in session.sizes[: session.at + 1]]
    return range(sum(areas[:-1]), sum(areas)) if areas[-1] <= left else range(0)


def kept_until(sizes: Sequence[Size], entry: int, left: int) -> list[int]:
    """Where the slots end that each call of a student keeps: one call for all, or two with an entry scale, from 1.

    What the budget cannot hold is left out scale by scale; a second call that would keep nothing is not made. Raises
    UserError for an entry with no scale before it, or none behind.
    """
    if entry == 1 or entry > len(sizes):
        raise UserError(
            f"A second call from scale {entry} on was asked for, but the model has {len(sizes)} scales, of which the "
            f"first must be kept; ask for 2 to {len(sizes)}, or for 0 to make one call."
        )
    ends = [sum(height * width for height, width in sizes[:at]) for at in range(len(sizes) + 1)]
    last = max(end for end in ends if end <= left)
    first = ends[entry - 1] if entry else 0
    return sorted({stop for stop in (first, last) if 0 < stop <= last})


def scale_figures(session: ScaleSession) -> dict[str, float]:
    """Figures of a step that writes the current scale: its number from 1, how many there are, and its size."""
    height, width = session.sizes[session.at]
    numbers = {"scale": session.at + 1, "scales": len(session.sizes), "height": height, "width": width}
    return {name: float(number) for name, number in numbers.items()}


def check_same_sizes(first: ScaleSession, second: ScaleSession) -> None:
    """Raise UserError where two models do not write the same maps."""
    if list(first.sizes) != list(second.sizes):
        ours, theirs = (", ".join(f"{h}x{w}" for h, w in s.sizes) for s in (first, second))
        raise UserError(
            f"The two models write different scales ({ours} against {theirs}), so one cannot go on from the other; "
            "pick two with the same tokenizer."
        )
