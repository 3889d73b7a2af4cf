"""What strategies of forecasting share: paths under way, their marks, and what sweeps carry on.

A forecast is a canvas of rows (sample paths, or quantile levels) by H steps; slot = row * H + step, and a mark holds
the values of its slot and the ones behind it.

Shape letters: S paths, R rows of a call, N patches of a path, K drafted patches, P values of a patch, H horizon.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from backend.chance import Ask
from backend.errors import UserError
from backend.gaussian import distance, echoed, overlap
from backend.protocols import BandSession, EchoLaw, FeatureSession, HearingSession, PatchLaw, PathSession
from backend.sampling import shorten
from backend.types import Fate, Mark

LEVELS = (0.05, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 0.95)  # of bands made from a law
Rule = Literal["fit_below", "overshoot", "smallest"]
POWERS = torch.tensor([float(f"1e{i}") for i in range(18)], dtype=torch.float64)


class Paths:
    """S paths of one forecast while they are written: what each holds, its noise, and its marks.

    Noise belongs to a place, not to a call: strategies that draw from the same law at a place draw the same values.
    A place's noise is used once; after a rejection the correction brings its own.
    """

    def __init__(self, target: PathSession, ask: Ask, paths: int) -> None:
        """Fork the target. Both count in its model's units."""
        target.fork(paths)
        self.horizon, self.patch = ask.left, target.patch
        self.patches = -(-self.horizon // self.patch)  # N
        self.noise_SNP = ask.chance.noise((paths, self.patches, self.patch)).double()
        self.written_SNP = torch.zeros(paths, self.patches, self.patch, dtype=torch.float64)
        self.lengths = [0] * paths
        self._ask = ask

    @property
    def open(self) -> list[int]:
        """Paths that are not written to the end."""
        return [row for row, length in enumerate(self.lengths) if length < self.patches]

    def noise(self, rows: Sequence[int], count: int) -> Tensor:
        """Noise [R, count, P] of the next places of these paths; behind the horizon that of the last place."""
        at_RK = self._at(rows, count).clamp_max(self.patches - 1)
        return self.noise_SNP[torch.tensor(rows)[:, None], at_RK]

    def tails(self, series_T: Tensor, rows: Sequence[int], length: int) -> Tensor:
        """The last `length` values of these paths, reaching back into the series (no shorter than that). [R, length]"""
        past_ST = series_T[-length:].cpu().double().expand(len(self.lengths), -1)
        whole_ST = torch.cat((past_ST, self.written_SNP.flatten(1)), 1)
        start_R1 = torch.tensor([self.lengths[row] * self.patch for row in rows])[:, None]
        return whole_ST[torch.tensor(rows)[:, None], start_R1 + torch.arange(length)]

    def add(
        self,
        rows: Sequence[int],
        patches_RKP: Tensor,
        counts: Sequence[int],
        fates: Sequence[Fate],
        told: Sequence[Sequence[Sequence[float]]] | None = None,
    ) -> list[Mark]:
        """Write the first counts[r] patches of each row, as far as the horizon goes; their marks.

        fates: of the last patch of each row; those before it were KEPT. told: `shortened` values, where known.
        """
        values_RKP = patches_RKP.detach().cpu().double()
        told_RK = shortened(values_RKP) if told is None else told
        starts = [self.lengths[row] for row in rows]
        rooms = [min(count, self.patches - start) for count, start in zip(counts, starts, strict=True)]
        r_N, k_N = (torch.arange(values_RKP.shape[1]) < torch.tensor(rooms)[:, None]).nonzero(as_tuple=True)
        self.written_SNP[torch.tensor(rows)[r_N], torch.tensor(starts)[r_N] + k_N] = values_RKP[r_N, k_N]
        marks = []
        for r, (row, count, last) in enumerate(zip(rows, counts, fates, strict=True)):
            self.lengths[row] += rooms[r]
            marks += [
                self.mark(row, starts[r] + k, told_RK[r][k], last if k == count - 1 else Fate.KEPT)
                for k in range(rooms[r])
            ]
        done = min(self.lengths) * self.patch
        progress(self._ask, min(done, self.horizon) - (self.horizon - self._ask.left))
        return marks

    def mark(self, row: int, index: int, values: Sequence[float], fate: Fate) -> Mark:
        """The mark of a patch, cut at the horizon."""
        start = index * self.patch
        return Mark(row * self.horizon + start, None, fate, values=tuple(values[: self.horizon - start]))

    def refused(
        self, rows: Sequence[int], told: Sequence[Sequence[Sequence[float]]], counts: Sequence[int], drafted: int
    ) -> list[Mark]:
        """Marks of drafted patches that were not kept, made before `add`: the first is rejected, others are unread.

        told: of each row, the `shortened` values of its first `drafted` patches, or more.
        """
        return [
            self.mark(row, self.lengths[row] + k, told[r][k], Fate.REJECTED if k == counts[r] else Fate.UNREAD)
            for r, row in enumerate(rows)
            for k in range(counts[r], min(drafted, self.patches - self.lengths[row]))
        ]

    def _at(self, rows: Sequence[int], count: int) -> Tensor:
        return torch.tensor([self.lengths[row] for row in rows])[:, None] + torch.arange(count)


def finish(
    target: PathSession, paths: Paths, rows: Sequence[int], x_RKP: Tensor, counts: Sequence[int], last_RP: Tensor
) -> tuple[tuple[Mark, ...], Tensor, list[int]]:
    """Commit kept drafts and the patch behind them to the target.

    Returns marks, patches [R, K + 1, P] and how many of each row were committed, for the drafter to do the same.

    counts: drafts that each row keeps. Patches behind the horizon are committed nowhere.
    """
    kept_RKP, drafted = torch.cat((x_RKP, last_RP[:, None]), 1), x_RKP.shape[1]
    told = shortened(kept_RKP)  # drafts, and the patch that each row ends with
    at = torch.tensor(counts, device=kept_RKP.device)
    kept_RKP[torch.arange(len(rows), device=at.device), at] = last_RP
    fates = [Fate.FIXED if n < drafted else Fate.BONUS for n in counts]
    room = [min(n + 1, paths.patches - paths.lengths[row]) for row, n in zip(rows, counts, strict=True)]
    marks = paths.refused(rows, told, counts, drafted)
    ended = [[*row[:n], row[-1]] for row, n in zip(told, counts, strict=True)]
    marks += paths.add(rows, kept_RKP, [n + 1 for n in counts], fates, ended)
    target.commit(kept_RKP, room, rows)
    return tuple(marks), kept_RKP, room


def shortened(values: Tensor) -> list[Any]:
    """Values as nested lists, to six significant digits as `shorten` gives them, all at once."""
    x = values.detach().cpu().double()
    places = (5 - x.abs().clamp_min(1e-12).log10().floor()).nan_to_num(0.0, 0.0, 0.0).clamp(-16, 17).long()
    up, down = POWERS[places.clamp_min(0)], POWERS[(-places).clamp_min(0)]
    out: list[Any] = ((x * up / down).round() * down / up).tolist()
    return out


def listener(target: PathSession, draft: PathSession) -> Callable[[Sequence[int]], None]:
    """Lets a drafter that can hear know what the target thought of these rows; nothing where it cannot.

    To be called when both have committed the same.
    """
    if isinstance(draft, HearingSession) and isinstance(target, FeatureSession):
        hear, features = draft.hear, target.features
        return lambda rows: hear(*features(rows), rows)
    return lambda rows: None


def progress(ask: Ask, steps: int) -> None:
    """Tell the ask that all rows have this many more steps."""
    if steps > 0:
        ask.take(range(steps))


def band_marks(
    quantiles_LH: Tensor, start: int, horizon: int, fate: Fate = Fate.BONUS, fixed_from: int | None = None
) -> tuple[Mark, ...]:
    """Marks of curves [L, h] that begin at step `start`: row = level, or path. From `fixed_from` on they are FIXED."""
    cut = quantiles_LH[:, : horizon - start].detach().cpu().tolist()
    at = len(cut[0]) if fixed_from is None else fixed_from
    parts = [(0, at, fate), (at, len(cut[0]), Fate.FIXED)]
    return tuple(
        Mark(row * horizon + start + low, None, kind, values=tuple(shorten(x) for x in values[low:high]))
        for row, values in enumerate(cut)
        for low, high, kind in parts
        if high > low
    )


def refused_curve(x_KP: Tensor, start: int, horizon: int, row: int) -> tuple[Mark, ...]:
    """Marks of drafted patches of one curve that begin at step `start`: the first is rejected, others are unread."""
    patch = x_KP.shape[-1]
    return tuple(
        Mark(
            row * horizon + start + k * patch,
            None,
            Fate.UNREAD if k else Fate.REJECTED,
            values=tuple(shorten(x) for x in x_P.tolist()[: horizon - start - k * patch]),
        )
        for k, x_P in enumerate(x_KP.detach().cpu())
    )


def acceptance(ratio_RK: Tensor, p: PatchLaw, q: PatchLaw) -> dict[str, float]:
    """Figures of drafted patches by place k = 1, 2, ...: `chance k`, the mean chance to be accepted if all before were;
    `bell k`, the mean of 2 Phi(-D / 2), which it is where both laws have one covariance; `distance k`, the mean D.

    ratio_RK: log p / q of the drafts, see `judge`. p, q: laws [R, K] of the target and of the drafter.
    """
    if not ratio_RK.shape[1]:
        return {}
    distance_RK = distance(p, q)
    chance_K = ratio_RK.clamp_max(0.0).exp().mean(0)
    named = {"chance": chance_K, "bell": overlap(distance_RK).mean(0), "distance": distance_RK.mean(0)}
    return {f"{name} {k + 1}": shorten(x) for name, x_K in named.items() for k, x in enumerate(x_K)}


def level_figures(levels: Sequence[float]) -> dict[str, float]:
    """Figures that say which quantile each row of a band is: "level 0", "level 1", ... Sample paths have none."""
    return {f"level {i}": level for i, level in enumerate(levels)}


def carried(fresh_SNP: Tensor, before_SNP: Tensor, carry: float) -> Tensor:
    """A sweep that carries the change of every patch on to the later ones, as an AR(1) with this coefficient would.

    With carry 1 it is a sweep over increments, with 0 over values. One step of Newton's method with a guessed and fixed
    Jacobian: the better the guess, the fewer sweeps; where they end does not depend on it.

    Args:
        fresh_SNP: patches read off the guesses `before_SNP`, which stood at the same places.

    Returns:
        The next guesses. They are the fresh patches, to the last bit, as far as the guesses before them were right.
    """
    count, patch = fresh_SNP.shape[1:]
    at_N, step_P = torch.arange(count), torch.arange(1, patch + 1, dtype=fresh_SNP.dtype)
    gap_NN = at_N[:, None] - 1 - at_N
    power_NN = torch.where(gap_NN >= 0, float(carry) ** (patch * gap_NN.clamp_min(0)).to(fresh_SNP.dtype), 0.0)
    moved_SN = (fresh_SNP[..., -1] - before_SNP[..., -1]) @ power_NN.T
    return fresh_SNP + moved_SN[..., None] * float(carry) ** step_P


def echo(y_T: Tensor) -> float:
    """Lag-1 autocorrelation of a series without gaps: what is left of a change one step later, at least 0."""
    away_T = y_T - y_T.mean()
    return max(0.0, float((away_T[1:] * away_T[:-1]).sum() / away_T.square().sum().clamp_min(1e-300)))


def filled(series_CT: Tensor) -> Tensor:
    """The first channel with gaps filled by the value before them, those in front by the first value. [T] float64"""
    y_T = series_CT[0].detach().cpu().double()
    known_T = torch.isfinite(y_T)
    at_T = torch.where(known_T, torch.arange(len(y_T)), -1).cummax(0).values
    return y_T[torch.where(at_T < 0, int(known_T.long().argmax()), at_T)]


def past_windows(series_T: Tensor, length: int, answer: int) -> Tensor:
    """Stretches [N, length] of a series without gaps whose question, all but the last `answer` values, lies in front of
    the question that the end of the series asks. Row n begins at step n.
    """
    asked = length - answer
    count = len(series_T) - max(2 * asked, length) + 1
    return series_T.unfold(0, length, 1)[:count] if count > 0 else series_T.new_empty(0, length)


def shape_distances(windows_NX: Tensor, series_T: Tensor, answer: int) -> Tensor:
    """How far the question of each window is from the end of the series, each from its mean in its deviations. [N]"""
    asked = windows_NX.shape[1] - answer
    if not len(windows_NX):  # such as those of a series that is shorter than a question
        return series_T.new_empty(0)
    shapes_NX = torch.cat((windows_NX[:, :asked], series_T[None, -asked:]))
    away_NX = shapes_NX - shapes_NX.mean(1, keepdim=True)
    shapes_NX = away_NX / away_NX.square().mean(1, keepdim=True).sqrt().clamp_min(1e-12)
    return (shapes_NX[:-1] - shapes_NX[-1]).square().mean(1).sqrt()


def first_windows(order_N: Tensor, count: int, length: int, answer: int) -> list[int]:
    """The first `count` windows of an order that begin at least `answer` steps from each other, the best one last.

    Raises UserError where there are fewer.
    """
    out: list[int] = []
    for i in order_N.tolist():
        if len(out) < count and all(abs(i - j) >= answer for j in out):
            out.append(i)
    if len(out) < count:
        raise UserError(
            f"{count} examples of {length} steps were asked for, but the series has room for {len(out)} in front of "
            f"its last {length - answer} steps; take fewer, or a longer series."
        )
    return out[::-1]


def widths(law: PatchLaw) -> Tensor:
    """Standard deviation of every value of a patch: norms of the rows of its factor. [..., P]"""
    if isinstance(law, EchoLaw):
        return echoed(law.scale_NP.square(), law.rho_N.square()).sqrt()
    return law.tril_NPP.square().sum(-1).sqrt()


# -------------------------------------------------------------------------------------------------------------- bands
def head_for(target: BandSession, horizon: int) -> int:
    """The smallest head that covers the horizon in one call. Raises UserError where none does."""
    for size in target.sizes:
        if size >= horizon:
            return size
    raise UserError(
        f"One call of this model reaches {target.sizes[-1]} steps, but the horizon is {horizon}; "
        f"shorten it, or pick rolled_direct."
    )


def schedule(horizon: int, sizes: Sequence[int], rule: Rule) -> list[int]:
    """Head sizes, call by call, until they cover the horizon.

    fit_below: the largest head that does not go beyond what is left (Shi et al. 2024, 2409.16040, Time-MoE), the
    smallest where none fits. overshoot: the smallest head that covers what is left, the largest where none does; what
    lies beyond is cut. smallest: always the smallest head.
    """
    out, left = [], horizon
    while left > 0:
        fitting = [size for size in sizes if size <= left]
        covering = [size for size in sizes if size >= left]
        if rule == "smallest":
            out.append(sizes[0])
        elif rule == "overshoot":
            out.append(covering[0] if covering else sizes[-1])
        else:
            out.append(fitting[-1] if fitting else sizes[0])
        left -= out[-1]
    return out


def middle(levels: Sequence[float]) -> int:
    """Index of the level next to the median."""
    return min(range(len(levels)), key=lambda i: abs(levels[i] - 0.5))


def masses(levels: Sequence[float]) -> Tensor:
    """The probability that each level stands for: up to half way to its neighbours. [L], sums to 1."""
    level_L = torch.tensor(levels, dtype=torch.float64)
    edges = torch.cat((torch.zeros(1), (level_L[1:] + level_L[:-1]) / 2, torch.ones(1)))
    return edges.diff()


def pooled(quantiles_LMH: Tensor, levels: Sequence[float]) -> Tensor:
    """Quantiles [L, H] of the mixture of L bands, band l weighing as much as its level stands for.

    A value of band l at level m weighs mass(l) mass(m); quantiles are read off at the middles of weights.
    """
    weight_LM = masses(levels)[:, None] * masses(levels)
    value_HK = quantiles_LMH.detach().cpu().double().flatten(0, 1).T
    sorted_HK, order_HK = value_HK.sort(1)
    weight_HK = weight_LM.flatten()[order_HK]
    middle_HK = weight_HK.cumsum(1) - weight_HK / 2
    level_HL = torch.tensor(levels, dtype=torch.float64).expand(len(sorted_HK), -1).contiguous()
    at_HL = torch.searchsorted(middle_HK, level_HL).clamp(1, middle_HK.shape[1] - 1)
    low, high = (x_HK.gather(1, at_HL - 1) for x_HK in (middle_HK, sorted_HK))
    step, rise = middle_HK.gather(1, at_HL) - low, sorted_HK.gather(1, at_HL) - high
    return (high + rise * ((level_HL - low) / step).clamp(0.0, 1.0)).T


def quantile_at(quantiles_LH: Tensor, levels: Sequence[float], u_SH: Tensor) -> Tensor:
    """The values at probabilities u: straight lines between levels, exponential tails that continue the outer slopes.

    Ending at the outer quantiles instead would put atoms there, and narrow every band that is rolled on. [S, H]
    """
    q_LH = quantiles_LH.detach().cpu().double().sort(0).values
    level_L = torch.tensor(levels, dtype=torch.float64)
    at_SH = torch.searchsorted(level_L, u_SH.contiguous()).clamp(1, len(level_L) - 1)
    low_SH, high_SH = q_LH.gather(0, at_SH - 1), q_LH.gather(0, at_SH)
    share_SH = (u_SH - level_L[at_SH - 1]) / (level_L[at_SH] - level_L[at_SH - 1])
    inside_SH = low_SH + share_SH * (high_SH - low_SH)
    slope_H, rise_H = (q_LH[1] - q_LH[0]) / (level_L[1] - level_L[0]), (q_LH[-1] - q_LH[-2]) / level_L[-2:].diff()
    under_SH = q_LH[0] + slope_H * level_L[0] * (u_SH / level_L[0]).clamp(1e-300, 1.0).log()
    over_SH = q_LH[-1] - rise_H * (1 - level_L[-1]) * ((1 - u_SH) / (1 - level_L[-1])).clamp(1e-300, 1.0).log()
    return torch.where(u_SH < level_L[0], under_SH, torch.where(u_SH > level_L[-1], over_SH, inside_SH))
