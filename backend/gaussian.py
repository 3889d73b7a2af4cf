"""The maths of judging guesses that are numbers: normal laws of patches, accepted and corrected exactly.

p is the target's law, q the drafter's, x the draft, as in `backend.sampling`; a patch is judged as a whole, for its
coordinates judged one by one survive together less often. Randomness comes from `Chance.noise` alone: a uniform number
is the normal distribution function of one, exact to 2^-24.

Shape letters: R rows (paths), K drafted patches, P values of a patch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from backend.chance import Chance
from backend.protocols import EchoLaw, PatchLaw

MOST_TRIES = 1 << 20  # of thinning; a correction that needs more is 4e-7 likely at worst
WIDEST = 1 << 16  # draws of thinning made at once
FIRST_TRIES = 8  # draws of thinning that a row begins with: most are done by then


class Verdict(NamedTuple):
    """What became of drafts: see `judge`. ratio_RK: log p / q of every drafted patch."""

    counts: list[int]
    last_RP: Tensor
    ratio_RK: Tensor


def stacked(laws: Sequence[PatchLaw]) -> PatchLaw:
    """Laws [R, ...] one behind the other along a new dimension 1."""
    mean_NP = torch.stack([q.mean_NP for q in laws], 1)
    echoes = [q for q in laws if isinstance(q, EchoLaw)]
    if len(echoes) == len(laws):
        return EchoLaw(mean_NP, torch.stack([q.scale_NP for q in echoes], 1), torch.stack([q.rho_N for q in echoes], 1))
    return PatchLaw(mean_NP, torch.stack([q.tril_NPP for q in laws], 1))


def replaced(law: PatchLaw, rows_R: Tensor, by: PatchLaw) -> PatchLaw:
    """The laws with those of some rows replaced, by laws of the same kind."""
    mean_NP = law.mean_NP.index_copy(0, rows_R, by.mean_NP)
    if isinstance(law, EchoLaw) and isinstance(by, EchoLaw):
        scale_NP, rho_N = law.scale_NP.index_copy(0, rows_R, by.scale_NP), law.rho_N.index_copy(0, rows_R, by.rho_N)
        return EchoLaw(mean_NP, scale_NP, rho_N)
    return PatchLaw(mean_NP, law.tril_NPP.index_copy(0, rows_R, by.tril_NPP))


def uniform(shape: Sequence[int], chance: Chance) -> Tensor:
    """Numbers from 0 to 1, float64, drawn through noise so that one call serves many rows."""
    return 0.5 * torch.erfc(-chance.noise(shape).double() / math.sqrt(2.0))


def placed(law: PatchLaw, noise_NP: Tensor) -> Tensor:
    """The patch at standard normal noise: mean + tril noise. [..., P]"""
    noise_NP = noise_NP.to(law.mean_NP)
    if isinstance(law, EchoLaw):
        return law.mean_NP + echoed(law.scale_NP * noise_NP, law.rho_N)
    return law.mean_NP + (law.tril_NPP @ noise_NP[..., None])[..., 0]


def echoed(shock_NP: Tensor, rho_N: Tensor) -> Tensor:
    """e_i = rho e_{i-1} + shock_i along the last dimension, in log P passes that each double how far back they sum."""
    reach, power_N1 = 1, rho_N[..., None]
    while reach < shock_NP.shape[-1]:
        ahead_NP = torch.addcmul(shock_NP[..., reach:], power_N1, shock_NP[..., :-reach])
        shock_NP = torch.cat((shock_NP[..., :reach].expand(*ahead_NP.shape[:-1], -1), ahead_NP), -1)
        reach, power_N1 = 2 * reach, power_N1.square()
    return shock_NP


def whitened(law: PatchLaw, x_NP: Tensor) -> Tensor:
    """The noise at which the law gives x: the inverse of `placed`. Not for point masses. [..., P]"""
    if isinstance(law, EchoLaw):
        gap_NP = x_NP - law.mean_NP
        before_NP = torch.nn.functional.pad(gap_NP[..., :-1], (1, 0))
        return (gap_NP - law.rho_N[..., None] * before_NP) / law.scale_NP
    gap_NP1 = (x_NP - law.mean_NP)[..., None]
    tril_NPP = law.tril_NPP.expand(*gap_NP1.shape[:-2], *law.tril_NPP.shape[-2:])
    out_NP1: Tensor = torch.linalg.solve_triangular(tril_NPP, gap_NP1, upper=False)
    return out_NP1[..., 0]


def log_density(law: PatchLaw, x_NP: Tensor) -> Tensor:
    """log of the law's density at x, with every constant: without them wide laws take all that narrow ones draft."""
    diagonal_NP = law.scale_NP if isinstance(law, EchoLaw) else law.tril_NPP.diagonal(dim1=-2, dim2=-1)
    constant = diagonal_NP.log().sum(-1) + 0.5 * math.log(2 * math.pi) * x_NP.shape[-1]
    return -0.5 * whitened(law, x_NP).square().sum(-1) - constant


def log_ratio(p: PatchLaw, q: PatchLaw, x_NP: Tensor) -> Tensor:
    """log p(x) / q(x); of point masses 0 where p's mean is x and q is one too, else minus infinity."""
    point_p, point_q = _is_point(p), _is_point(q)
    if not bool((point_p | point_q).any()):
        return log_density(p, x_NP) - log_density(q, x_NP)
    ratio_N = log_density(_spread(p, point_p), x_NP) - log_density(_spread(q, point_q), x_NP)
    same_N = point_p & point_q & (p.mean_NP == x_NP).all(-1)
    ratio_N = ratio_N.masked_fill(point_p | point_q, -torch.inf)
    return ratio_N.masked_fill(same_N, 0.0)


def distance(p: PatchLaw, q: PatchLaw) -> Tensor:
    """How far the means lie apart, in standard deviations of p along the way. [...]"""
    return whitened(p, q.mean_NP).square().sum(-1).sqrt()


def overlap(distance_N: Tensor) -> Tensor:
    """2 Phi(-D / 2): how often a guess is accepted where both laws have one covariance and means D apart."""
    return torch.erfc(distance_N / math.sqrt(8.0))


def accept_patches(p: PatchLaw, q: PatchLaw, x_RKP: Tensor, chance: Chance) -> list[int]:
    """How many drafted patches each row keeps: each with chance min(1, p / q), up to the first no.

    Args:
        p: laws [R, K + 1]. q: laws [R, K] that x was drawn from.
    """
    rows, drafted = x_RKP.shape[:2]
    return _counted(log_ratio(p[:, :drafted], q, x_RKP), chance) if drafted else [0] * rows


def _counted(ratio_RK: Tensor, chance: Chance) -> list[int]:
    """How many drafted patches each row keeps at these log ratios."""
    yes_RK = uniform(ratio_RK.shape, chance).log().to(ratio_RK.device) < ratio_RK
    counts: list[int] = yes_RK.long().cumprod(1).sum(1).tolist()
    return counts


def correct(p: PatchLaw, q: PatchLaw, x_RP: Tensor, chance: Chance) -> Tensor:
    """The patch that takes the place of a rejected x, so that kept and corrected ones together have law p. [R, P]

    Where both laws have one covariance, x is reflected: in the plane half way between the means it has the law that is
    left of p (Bou-Rabee et al. 2020, 1805.00452). Else patches are drawn from p until one is kept with chance
    1 - min(1, q / p), 1 / (1 - overlap) times on average, without a call. Never is p itself drawn from: that pulls the
    output towards q.
    """
    point_R = _is_point(p)
    same_R = _same_factor(p, q) & ~point_R
    out_RP = p.mean_NP.clone()
    if bool(same_R.any()):
        out_RP[same_R] = _reflected(p[same_R], q[same_R], x_RP[same_R])
    other = (~same_R & ~point_R).nonzero()[:, 0]
    if len(other):
        out_RP[other] = _thinned(p[other], q[other], chance)
    return out_RP


def judge(p: PatchLaw, q: PatchLaw, x_RKP: Tensor, noise_RKP: Tensor, chance: Chance) -> Verdict:
    """How many drafted patches each row keeps, and the patch behind them: corrected, or drawn where all were kept.

    Args:
        p: laws [R, K + 1]. q: laws [R, K]. noise_RKP: noise [R, K + 1, P] of the places, read behind kept drafts only.
    """
    rows, drafted = x_RKP.shape[:2]
    ratio_RK = log_ratio(p[:, :drafted], q, x_RKP) if drafted else x_RKP.new_empty(rows, 0)
    counts = _counted(ratio_RK, chance) if drafted else [0] * rows
    at, every = torch.tensor(counts, device=x_RKP.device), torch.arange(rows, device=x_RKP.device)
    last_RP = placed(p[every, at], noise_RKP[every.cpu(), at.cpu()])
    no = (at < drafted).nonzero()[:, 0]
    if len(no):
        last_RP[no] = correct(p[no, at[no]], q[no, at[no]], x_RKP[no, at[no]], chance)
    return Verdict(counts, last_RP, ratio_RK)


def _is_point(law: PatchLaw) -> Tensor:
    if isinstance(law, EchoLaw):
        return (law.scale_NP == 0).all(-1)
    return (law.tril_NPP == 0).all(-1).all(-1)


def _same_factor(p: PatchLaw, q: PatchLaw) -> Tensor:
    if isinstance(p, EchoLaw) and isinstance(q, EchoLaw):
        return (p.scale_NP == q.scale_NP).all(-1) & (p.rho_N == q.rho_N)
    return (p.tril_NPP == q.tril_NPP).all(-1).all(-1)


def _spread(law: PatchLaw, point_N: Tensor) -> PatchLaw:
    """The law with point masses made wide, so that nothing divides by 0."""
    if not bool(point_N.any()):
        return law
    if isinstance(law, EchoLaw):
        return EchoLaw(law.mean_NP, law.scale_NP.masked_fill(point_N[..., None], 1.0), law.rho_N)
    eye_PP = torch.eye(law.mean_NP.shape[-1]).to(law.tril_NPP)
    return PatchLaw(law.mean_NP, torch.where(point_N[..., None, None], eye_PP, law.tril_NPP))


def _reflected(p: PatchLaw, q: PatchLaw, x_RP: Tensor) -> Tensor:
    z_RP, e_RP = whitened(q, x_RP), -whitened(p, q.mean_NP)
    e_RP = e_RP / e_RP.norm(dim=-1, keepdim=True).clamp_min(1e-300)
    return placed(p, z_RP - 2 * e_RP * (z_RP * e_RP).sum(-1, keepdim=True))


def _thinned(p: PatchLaw, q: PatchLaw, chance: Chance) -> Tensor:
    out_RP = torch.empty_like(p.mean_NP)
    left = torch.arange(len(out_RP), device=out_RP.device)
    tries, width = 0, FIRST_TRIES
    while len(left):
        shape = (len(left), max(1, min(width, WIDEST // len(left))))
        some_p, some_q = p[left][:, None], q[left][:, None]
        y_RTP = placed(some_p, chance.noise((*shape, out_RP.shape[-1])))
        give_RT = uniform(shape, chance).log().to(out_RP.device) >= log_ratio(some_q, some_p, y_RTP).clamp_max(0.0)
        tries, width = tries + shape[1], 2 * width
        if tries >= MOST_TRIES:  # nothing is left of p but rounding
            give_RT[:, -1] = True
        done_R, first_R = give_RT.any(1), give_RT.long().argmax(1)
        out_RP[left[done_R]] = y_RTP[done_R, first_R[done_R]]
        left = left[~done_R]
    return out_RP
