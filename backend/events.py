"""The maths of events in continuous time: laws drawn from, guesses accepted and corrected exactly, paths under way.

p is the target's law, q the drafter's. An event is judged as a whole, by the joint density of its time and its kind:
judged one after the other, time and kind together survive less often. Randomness comes from `Chance.noise` alone, three
numbers an event: which part of the mixture, when, which kind.

Shape letters: N anything, R rows (paths), K drafted events, M parts of a mixture, V kinds, S paths.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from backend.chance import Ask, Chance
from backend.gaussian import MOST_TRIES, WIDEST, uniform
from backend.protocols import EventLaw, EventSession
from backend.sampling import shorten
from backend.types import Fate, Mark

NOISES = 3  # numbers that place an event
DIGITS = 10  # of a time in a mark: gaps are differences of times


@dataclass(frozen=True)
class Events:
    """Events of any leading shape: gaps (times since the one before) and kinds."""

    gap_N: Tensor
    kind_N: Tensor

    def __getitem__(self, at: object) -> Events:
        """Some of the events."""
        return Events(self.gap_N[at], self.kind_N[at])  # type: ignore[index]

    @classmethod
    def none(cls, rows: int) -> Events:
        """No events, for so many rows."""
        return cls(torch.zeros(rows, 0, dtype=torch.float64), torch.zeros(rows, 0, dtype=torch.long))

    def then(self, event: Events) -> Events:
        """These [R, K] with one more [R] behind each row."""
        gaps = torch.cat((self.gap_N, event.gap_N[:, None]), 1)
        return Events(gaps, torch.cat((self.kind_N, event.kind_N[:, None]), 1))


def stacked(laws: Sequence[EventLaw]) -> EventLaw:
    """Laws [R, ...] one behind the other along a new dimension 1."""
    names = ("log_weight_NM", "mean_NM", "spread_NM", "log_kind_NMV")
    return EventLaw(*(torch.stack([getattr(law, name) for law in laws], 1) for name in names))


# --------------------------------------------------------------------------------------------------------------- laws
def tempered(law: EventLaw, temperature: float) -> EventLaw:
    """Weights and kinds to the power 1 / temperature, spreads times it; at 0 a point at the likeliest part's median."""
    if temperature == 1.0:
        return law
    if temperature == 0.0:
        weight, kind = (_one_hot(x) for x in (law.log_weight_NM, law.log_kind_NMV))
        return EventLaw(weight, law.mean_NM, torch.zeros_like(law.spread_NM), kind)
    weight, kind = (torch.log_softmax(x / temperature, -1) for x in (law.log_weight_NM, law.log_kind_NMV))
    return EventLaw(weight, law.mean_NM, law.spread_NM * temperature, kind)


def placed(law: EventLaw, noise_N3: Tensor) -> Events:
    """The event at standard normal noise: numbers for the part of the mixture, the time in it, and the kind."""
    share_N3 = 0.5 * torch.erfc(-noise_N3.double() / math.sqrt(2.0))
    part_N1 = _inverse(law.log_weight_NM, share_N3[..., 0])[..., None]
    mean_N, spread_N = (x.gather(-1, part_N1)[..., 0] for x in (law.mean_NM, law.spread_NM))
    kinds = law.log_kind_NMV.shape[-1]
    log_kind_NV = law.log_kind_NMV.gather(-2, part_N1[..., None].expand(*part_N1.shape, kinds))[..., 0, :]
    gap_N = torch.exp(mean_N + spread_N * noise_N3[..., 1].double())
    return Events(gap_N, _inverse(log_kind_NV, share_N3[..., 2]))


def log_density(law: EventLaw, event: Events) -> Tensor:
    """log p(t, k) with every constant. Not for point masses. [...]"""
    return torch.logsumexp(_parts(law, event.gap_N) + _of_kind(law, event.kind_N), -1)


def log_time_density(law: EventLaw, gap_N: Tensor) -> Tensor:
    """log p(t), whatever the kind. Not for point masses. [...]"""
    return torch.logsumexp(_parts(law, gap_N), -1)


def elapsed(law: EventLaw, gap_N: Tensor) -> Tensor:
    """P(the next event comes within the gap). [...]

    Over the gaps of a path these are uniform numbers if and only if the law is right: time rescaling (Brown et al.
    2002) says the same of -log(1 - them), which are Exp(1). Point masses: 0, 1/2 at the point, 1.
    """
    z_NM = _standard(law, gap_N)
    return (law.log_weight_NM.exp() * 0.5 * torch.erfc(-z_NM / math.sqrt(2.0))).sum(-1)


def log_ratio(p: EventLaw, q: EventLaw, event: Events) -> Tensor:
    """log p(t, k) / q(t, k); of point masses 0 where both put all on this event, else minus infinity."""
    return _ratio(p, q, event, log_density(p, event), log_density(q, event))


def apart(p: EventLaw, q: EventLaw, event: Events) -> Tensor:
    """The chance that time and then kind are both accepted, judged one after the other: never above the joint one."""
    time_N = log_time_density(p, event.gap_N) - log_time_density(q, event.gap_N)
    both_N = log_density(p, event) - log_density(q, event)
    chance_N = time_N.clamp_max(0.0).exp() * (both_N - time_N).clamp_max(0.0).exp()
    point_N = _is_point(p) | _is_point(q)
    return torch.where(point_N, log_ratio(p, q, event).exp(), chance_N)


# ------------------------------------------------------------------------------------------------------------ judging
def accept(p: EventLaw, q: EventLaw, drafts: Events, chance: Chance) -> list[int]:
    """How many drafted events each row keeps: each with chance min(1, p / q), up to the first no.

    Args:
        p: laws [R, K + 1]. q: laws [R, K] that the drafts [R, K] were drawn from.
    """
    rows, drafted = drafts.gap_N.shape
    if not drafted:
        return [0] * rows
    yes_RK = uniform((rows, drafted), chance).log() < log_ratio(p[:, :drafted], q, drafts)
    return [int(n) for n in yes_RK.long().cumprod(1).sum(1)]


def correct(p: EventLaw, q: EventLaw, chance: Chance) -> Events:
    """The events [R] that take the place of rejected ones, so that kept and corrected ones together have law p.

    Drawn from p until one is kept with chance 1 - min(1, q / p), without a call. Never from p itself: that pulls the
    output towards q.
    """
    out = placed(p, torch.zeros(*p.mean_NM.shape[:-1], NOISES))
    gap_R, kind_R = out.gap_N.clone(), out.kind_N.clone()
    left = (~_is_point(p)).nonzero()[:, 0]
    tries, width = 0, 2
    while len(left):
        shape = (len(left), max(1, min(width, WIDEST // len(left))))
        many_p, many_q = (_repeated(law[left], shape[1]) for law in (p, q))
        y = placed(many_p, chance.noise((*shape, NOISES)))
        give_RT = uniform(shape, chance).log() >= log_ratio(many_q, many_p, y).clamp_max(0.0)
        tries, width = tries + shape[1], 2 * width
        if tries >= MOST_TRIES:  # nothing is left of p but rounding
            give_RT[:, -1] = True
        done_R, first_R = give_RT.any(1), give_RT.long().argmax(1)
        gap_R[left[done_R]] = y.gap_N[done_R, first_R[done_R]]
        kind_R[left[done_R]] = y.kind_N[done_R, first_R[done_R]]
        left = left[~done_R]
    return Events(gap_R, kind_R)


def judge(p: EventLaw, q: EventLaw, drafts: Events, noise_RK3: Tensor, chance: Chance) -> tuple[list[int], Events]:
    """How many drafted events each row keeps, and the event [R] behind them: corrected, or drawn if all were kept.

    Args:
        p: laws [R, K + 1]. q: laws [R, K]. noise_RK3: noise [R, K + 1, 3] of the places, read behind kept drafts only.
    """
    counts = accept(p, q, drafts, chance)
    rows, drafted = drafts.gap_N.shape
    at, every = torch.tensor(counts), torch.arange(rows)
    last = placed(p[every, at], noise_RK3[every, at])
    no = (at < drafted).nonzero()[:, 0]
    if len(no):
        fixed = correct(p[no, at[no]], q[no, at[no]], chance)
        last.gap_N[no], last.kind_N[no] = fixed.gap_N, fixed.kind_N
    return counts, last


def acceptance(p: EventLaw, q: EventLaw, drafts: Events) -> dict[str, float]:
    """Figures of drafted events by place k = 1, 2, ...: `chance k`, the mean chance to be accepted if all before were;
    `apart k`, what it would be if the time were judged first and then the kind.
    """
    drafted = drafts.gap_N.shape[1]
    if not drafted:
        return {}
    chance_K = log_ratio(p[:, :drafted], q, drafts).clamp_max(0.0).exp().mean(0)
    named = {"chance": chance_K, "apart": apart(p[:, :drafted], q, drafts).mean(0)}
    return {f"{name} {k + 1}": shorten(x) for name, x_K in named.items() for k, x in enumerate(x_K.tolist())}


# -------------------------------------------------------------------------------------------------------------- paths
class EventPaths:
    """S paths of events while they are written: where each stands in time, its noise, and its marks.

    slot = path * budget + number of the event, a mark holds its kind as token and the time since the end of the history
    as value. Noise belongs to a place, not to a call; a place's noise is used once, for a correction brings its own.
    """

    def __init__(self, target: EventSession, ask: Ask, paths: int) -> None:
        """Fork the target. Both count in its model's units."""
        target.fork(paths)
        self.budget = ask.left
        self.until = target.until
        self.lengths = [0] * paths
        self.now_S = torch.zeros(paths, dtype=torch.float64)
        self._ended = [False] * paths
        self._noise_SN3 = ask.chance.noise((paths, self.budget + 1, NOISES))
        self._ask = ask

    @property
    def open(self) -> list[int]:
        """Paths that have reached neither the end of time nor the most events they may have."""
        return [s for s, n in enumerate(self.lengths) if n < self.budget and not self._ended[s]]

    def room(self, rows: Sequence[int]) -> int:
        """The most events that one of these paths may still get."""
        return max(self.budget - self.lengths[row] for row in rows)

    def noise(self, rows: Sequence[int], count: int) -> Tensor:
        """Noise [R, count, 3] of the next places of these paths; behind the last place that of the last one."""
        at_RK = torch.tensor([self.lengths[row] for row in rows])[:, None] + torch.arange(count)
        return self._noise_SN3[torch.tensor(rows)[:, None], at_RK.clamp_max(self.budget)]

    def all_over(self, rows: Sequence[int], drafts: Events) -> bool:
        """Whether the drafts [R, K] of every row go beyond the end of time."""
        return bool((self.now_S[rows] + drafts.gap_N.sum(1) > self.until).all())

    def add(
        self, rows: Sequence[int], drafts: Events, counts: Sequence[int], last: Events
    ) -> tuple[tuple[Mark, ...], Events, list[int]]:
        """Write the first counts[r] drafts of each row and the event behind them, as far as time and budget go.

        Returns marks, events [R, K + 1], and how many of each row belong to its path, for the sessions to commit. The
        first event after the end of time ends a path and is not part of it, nor is anything drafted behind it.
        """
        drafted = drafts.gap_N.shape[1]
        every, at = torch.arange(len(rows)), torch.tensor(counts)
        events = drafts.then(last)
        events.gap_N[every, at], events.kind_N[every, at] = last.gap_N, last.kind_N
        now_R1 = self.now_S[rows][:, None]
        times, guesses = (now_R1 + x.gap_N.cumsum(1) for x in (events, drafts))
        told = zip(rows, counts, times.tolist(), events.kind_N.tolist(), strict=True)
        drawn = zip(guesses.tolist(), drafts.kind_N.tolist(), strict=True)
        marks: list[Mark] = []
        kept = []
        for (row, count, time, kind), (guess, guessed) in zip(told, drawn, strict=True):
            inside = sum(t <= self.until for t in time[: count + 1])  # gaps are positive: times ascend
            size = min(inside, self.budget - self.lengths[row])
            for k in range(min(drafted, self.budget - self.lengths[row])):
                fate = Fate.KEPT if k < min(count, size) else Fate.REJECTED if k == count <= size else Fate.UNREAD
                marks.append(self._mark(row, k, guess[k], guessed[k], fate))
            if size > count:
                fate = Fate.FIXED if count < drafted else Fate.BONUS
                marks.append(self._mark(row, count, time[count], kind[count], fate))
            self.lengths[row] += size
            self._ended[row] = inside <= count
            self.now_S[row] = time[size - 1] if size else self.now_S[row]
            kept.append(size)
        if not self.open:
            self._ask.take(range(self._ask.left))
        return tuple(marks), events, kept

    def _mark(self, row: int, k: int, time: float, kind: int, fate: Fate) -> Mark:
        """The mark of event k behind those that the path has."""
        slot = row * self.budget + self.lengths[row] + k
        return Mark(slot, kind, fate, values=(float(f"{time:.{DIGITS}g}"),))


# --------------------------------------------------------------------------------------------------------------- parts
def _one_hot(log_p_NV: Tensor) -> Tensor:
    """All on the first of the largest, as logarithms."""
    out_NV = torch.full_like(log_p_NV, -torch.inf)
    return out_NV.scatter(-1, log_p_NV.argmax(-1, keepdim=True), 0.0)


def _inverse(log_p_NV: Tensor, share_N: Tensor) -> Tensor:
    """The first place where the distribution function exceeds the share, never one of probability 0. [...]"""
    cdf_NV = log_p_NV.exp().cumsum(-1)
    at_N = (cdf_NV <= share_N[..., None] * cdf_NV[..., -1:]).sum(-1)
    last_N = (log_p_NV > -torch.inf).long().mul(torch.arange(1, log_p_NV.shape[-1] + 1)).amax(-1) - 1
    return torch.minimum(at_N, last_N)  # rounding can put a share on the very edge


def _standard(law: EventLaw, gap_N: Tensor) -> Tensor:
    """Where the gap stands in each part, in its spreads: [..., M]; of a point mass -inf, 0 or inf."""
    away_NM = gap_N.log()[..., None] - law.mean_NM
    return torch.where(away_NM == 0, 0.0, away_NM / law.spread_NM)


def _parts(law: EventLaw, gap_N: Tensor) -> Tensor:
    """log of weight times density of the time, for each part. [..., M]"""
    constant = law.spread_NM.log() + 0.5 * math.log(2 * math.pi) + gap_N.log()[..., None]
    return law.log_weight_NM - 0.5 * _standard(law, gap_N).square() - constant


def _of_kind(law: EventLaw, kind_N: Tensor) -> Tensor:
    """log of every part's probability of this kind. [..., M]"""
    at = kind_N[..., None, None].expand(*law.mean_NM.shape, 1)
    return law.log_kind_NMV.gather(-1, at)[..., 0]


def _is_point(law: EventLaw) -> Tensor:
    return (law.spread_NM == 0).all(-1)


def _ratio(p: EventLaw, q: EventLaw, event: Events, log_p_N: Tensor, log_q_N: Tensor) -> Tensor:
    point_p, point_q = _is_point(p), _is_point(q)
    if not bool((point_p | point_q).any()):
        return log_p_N - log_q_N
    at_p = placed(p, torch.zeros(*p.mean_NM.shape[:-1], NOISES))
    same_N = point_p & point_q & (at_p.gap_N == event.gap_N) & (at_p.kind_N == event.kind_N)
    ratio_N = torch.where(point_p | point_q, torch.full_like(log_p_N, -torch.inf), log_p_N - log_q_N)
    return torch.where(same_N, 0.0, ratio_N)


def _repeated(law: EventLaw, times: int) -> EventLaw:
    """Laws [R] as [R, times]."""
    parts = (law.log_weight_NM, law.mean_NM, law.spread_NM, law.log_kind_NMV)
    return EventLaw(*(x[:, None].expand(len(x), times, *x.shape[1:]) for x in parts))
