"""The maths of judging several guesses for one place at once: each rule exactly once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from backend.chance import Chance
from backend.peaks import peak, peaks
from backend.sampling import residual, shorten


def without(q_V: Tensor, token: int) -> Tensor:
    """q renormalised without a token: the law of the next sibling. All zeros where nothing else is left."""
    rest_V = q_V.clone()
    rest_V[token] = 0.0
    total = rest_V.sum()
    return rest_V / total if total > 0 else rest_V


def pick_siblings(q_V: Tensor, count: int, chance: Chance) -> list[int]:
    """Up to `count` different tokens drawn from q without replacement, in their order; fewer where q has fewer.

    The same law as the `count` largest of log q plus Gumbel noise, from the largest down.
    """
    x: list[int] = []
    while len(x) < count and float(q_V.sum()) > 0:
        x.append(chance.pick(q_V))
        q_V = without(q_V, x[-1])
    return x


def surest(q_V: Tensor, count: int) -> list[int]:
    """Up to `count` most probable tokens of q, the most probable first; none that q has no chance for."""
    found = q_V.sort(descending=True, stable=True)
    return [int(i) for i, q in zip(found.indices[:count].tolist(), found.values[:count].tolist(), strict=True) if q > 0]


def accept_siblings(p_V: Tensor, q_V: Tensor, x: Sequence[int], chance: Chance) -> tuple[int, Tensor]:
    """Recursive rejection of siblings x_1, x_2, ... drawn from q without replacement: which one stays.

    Jeon et al. 2024 (2402.14160). Each is a draft from q without its elders, judged against what the refused elders
    left of p. Exact if a sibling's token has that law whatever was drawn before, its being there included.

    Returns:
        n, rest_V: index of the sibling that stays, len(x) if none does, and what is then left of p: the token's law.
    """
    for i, token in enumerate(x):
        if chance.flip(min(1.0, float(p_V[token]) / float(q_V[token]))):
            return i, p_V
        p_V, q_V = residual(p_V, q_V), without(q_V, token)
    return len(x), p_V


# --------------------------------------------------------------------------------------- several drafts from one place
# A rule draws a token of law p that is one of the drafts as often as it can manage. Choosing among drafts is a
# transport problem, whose dual says how often any rule could: 1 + min over token sets H of p(H) - Q(H), where Q(H) is
# the chance that all drafts lie in H. Hu et al. 2025 (2502.18779).
# (p_V, q_V, drafts in their order, chance) -> token, and the drafts that were judged and thrown away
Rule = Callable[[Tensor, Tensor, Sequence[int], Chance], tuple[int, list[int]]]


@dataclass
class Drafts:
    """Several drafts in one tree, shared where they begin alike; what was drawn at every node is remembered in order.

    tokens, parents: the tree, as `CausalSession.score` takes it. drawn: by node (-1 is the text) all tokens drawn
    there, repeats included, because a rule must know how many drafts there were.
    """

    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    drawn: dict[int, list[int]] = field(default_factory=dict)
    _at: dict[tuple[int, int], int] = field(default_factory=dict)

    def hang(self, node: int, token: int) -> int:
        """Lead one more draft from `node` through `token`; returns the node that it has reached."""
        self.drawn.setdefault(node, []).append(token)
        if (node, token) not in self._at:
            self._at[node, token] = len(self.tokens)
            self.tokens.append(token)
            self.parents.append(node)
        return self._at[node, token]

    def descend(
        self, p_NV: Tensor, q: Sequence[Tensor], rule: Rule, chance: Chance
    ) -> tuple[list[int], int, list[int]]:
        """Ask the rule at every node and follow its token as long as a draft went there: exact if the rule is.

        Args:
            p_NV: row 0 after the text, row i + 1 after node i. q: the drafter's laws in the same order, as far as
                nodes have children.

        Returns:
            path, token, refused: the nodes that stay, from the top, the token drawn behind them, and the nodes that
            were judged and thrown away.
        """
        path: list[int] = []
        refused: list[int] = []
        node = -1
        while node in self.drawn:
            token, unfit = rule(p_NV[node + 1], q[node + 1], self.drawn[node], chance)
            refused += [self._at[node, other] for other in dict.fromkeys(unfit) if other != token]
            if (node, token) not in self._at:
                return path, token, refused
            node = self._at[node, token]
            path.append(node)
        return path, chance.pick(p_NV[node + 1]), refused


def overlap(p_V: Tensor, q_V: Tensor) -> float:
    """Sum of min(p, q): how often speculative sampling keeps a single draft."""
    return float(torch.minimum(p_V.double(), q_V.double()).sum())


def figures(
    p_NV: Tensor, q: Sequence[Tensor], n: int, drafts: Callable[[Tensor, Tensor, int], tuple[float, float]]
) -> dict[str, float]:
    """How often the first slot of a step takes a draft: with a "single" one, by the "rule", and at the "optimum".

    Args:
        p_NV, q: laws of target and drafter, row 0 behind the text. n: drafts. drafts: how they are drawn and judged:
            `independent`, `greedy` or `siblings`.

    Returns:
        Nothing where nothing was drafted or both laws are one-hot, as at temperature 0: all three are the same then.
    """
    if not q or int(p_NV[0].count_nonzero()) == int(q[0].count_nonzero()) == 1:
        return {}
    rule, optimum = drafts(p_NV[0], q[0], n)
    return {"single": shorten(overlap(p_NV[0], q[0])), "rule": shorten(rule), "optimum": shorten(optimum)}


class Tokens(NamedTuple):
    """A law p to be met by drafts from q: tokens with q > 0 in the order of p / q, or some hundred that stand for them.

    p_W, q_W: float64, each of all the `size_W` tokens of about equal p / q that were merged. q sums to 1.
    """

    p_W: Tensor
    q_W: Tensor
    size_W: Tensor

    def behind(self) -> Tensor:
        """q of everything behind each prefix, without the cancellation of 1 - q(H). [W]"""
        return pad(self.q_W[1:].flip(0).cumsum(0).flip(0), (0, 1))


SINGLE = 128  # the drafter's likeliest tokens are never merged
NARROW = 4096  # no token of so small a vocabulary is merged


def tokens_by_ratio(p_V: Tensor, q_V: Tensor) -> Tokens:
    """The two laws for computing acceptances: what best rules can do depends on p / q, and on few tokens one by one.

    In wide vocabularies tokens whose ratios differ by less than 1/16 are merged (1/4 where one law gives 16 times as
    much as the other), all but the drafter's likeliest; their number is set so that two draws are the same token as
    often as before. A best acceptance, which is a minimum over prefixes, moves by less than 1/64 (1/16) of what p gives
    to the merged tokens of one ratio: about 1e-5 with real models.
    """
    p_W, q_W = p_V.detach().to("cpu", torch.float64), q_V.detach().to("cpu", torch.float64)
    size_W = torch.ones_like(q_W)
    if len(q_W) > NARROW:
        ratio_V = torch.where(q_W > 0, p_W / q_W, torch.inf).float()
        bits_V = ratio_V.view(torch.int32)  # sorted like the numbers, as none is negative; the last 23 stand behind 1.
        near_V = (ratio_V > 1 / 16) & (ratio_V < 16)
        key_V = torch.where(near_V, bits_V >> 19, bits_V >> 21 << 2)
        alone_K = q_W.topk(SINGLE).indices
        p_K, q_K = p_W[alone_K], q_W[alone_K]
        p_W, q_W = (x_W.index_fill(0, alone_K, 0.0) for x_W in (p_W, q_W))
        p_R, q_R, squares_R = (torch.bincount(key_V, x_W) for x_W in (p_W, q_W, q_W**2))
        size_W = torch.cat([torch.ones_like(q_K), (q_R**2 / squares_R).round()])
        p_W, q_W = torch.cat([p_K, p_R]), torch.cat([q_K, q_R])
    order_W = torch.where(q_W > 0, p_W / q_W, torch.inf).argsort()[: int((q_W > 0).sum())]
    return Tokens(p_W[order_W] / p_W.sum(), q_W[order_W] / q_W.sum(), size_W[order_W])


# ------------------------------------------------------------------------------------------------- independent drafts
def k_seq(p_V: Tensor, q_V: Tensor, k: int) -> float:
    """The factor rho of K-SEQ for k independent drafts, between 1 and k.

    Sun et al. 2023 (2310.15141). A trial succeeds with chance beta = sum min(p / rho, q), one of k with chance
    1 - (1 - beta)^k, and this has to be rho beta; here both are divided by beta. With the tokens where p is the smaller
    part known, beta is under / rho + over, and rho found by bisection; with any other set it comes out too small, so
    that the tokens are found by trying again with the new rho until it stays.
    """
    p_V, q_V = p_V.double(), q_V.double()
    rho = 1.0
    while True:
        under_V = (p_V <= rho * q_V).double()
        under, over = float(p_V @ under_V), float(q_V @ (1.0 - under_V))
        low, high = rho, float(k)
        while low < (middle := (low + high) / 2) < high:
            miss, trials = max(0.0, 1.0 - under / middle - over), 1.0
            for _ in range(k - 1):
                trials = 1.0 + miss * trials  # 1 + miss + miss^2 + ...: trials made, of which beta succeed
            low, high = (middle, high) if trials > middle else (low, middle)
        if high <= rho * (1.0 + 1e-15) or k == 1:
            return rho
        rho = high


def choose_k_seq(p_V: Tensor, q_V: Tensor, x: Sequence[int], chance: Chance) -> tuple[int, list[int]]:
    """K-SEQ: the first of k independent drafts whose trial with chance min(1, p / (rho q)) succeeds, else a new token.

    All trials together take min(p, rho q) from p, which leaves the residual of a single draft with law rho q. With
    k = 1 this is speculative sampling. Returns a `Rule`'s answer.
    """
    p_V, q_V = p_V.double(), q_V.double()
    claim_V = k_seq(p_V, q_V, len(x)) * q_V
    for i, token in enumerate(x):
        if chance.flip(min(1.0, float(p_V[token]) / float(claim_V[token]))):
            return token, list(x[:i])
    return chance.pick(residual(p_V, claim_V)), list(x)


def k_seq_acceptance(p_V: Tensor, q_V: Tensor, k: int) -> float:
    """How often K-SEQ takes one of k independent drafts: at least 1 - 1/e times the best possible."""
    return overlap(p_V, k_seq(p_V, q_V, k) * q_V.double())


def best_independent(p_V: Tensor, q_V: Tensor, n: int) -> float:
    """How often the best rule takes one of n independent drafts: the dual with Q(H) = q(H)^n.

    Q is convex in q(H), so that the best H is a prefix of the tokens in the order of p / q.
    """
    p_W, q_W, _ = tokens_by_ratio(p_V, q_V)
    return 1.0 + min(0.0, float((p_W.cumsum(0) - q_W.cumsum(0) ** n).min()))


def independent(p_V: Tensor, q_V: Tensor, n: int) -> tuple[float, float]:
    """Acceptance of n independent drafts by K-SEQ and by the best rule, for `figures`."""
    return k_seq_acceptance(p_V, q_V, n), best_independent(p_V, q_V, n)


# ------------------------------------------------------------------------------------------ drafts without replacement
STEP = 0.5  # of the integral over log t: errors below 1e-7


def best_siblings(p_V: Tensor, q_V: Tensor, n: int) -> float:
    """How often the best rule takes one of n drafts drawn without replacement; fewer drafts where q has fewer tokens.

    As for independent drafts, the best H is a prefix of the tokens in the order of p / q. With two drafts,
    Q(H) = q(H) - (1 - q(H)) * sum of q / (1 - q) over H. More take an integral.
    """
    return _best_siblings(tokens_by_ratio(p_V, q_V), n)


def siblings(p_V: Tensor, q_V: Tensor, n: int) -> tuple[float, float]:
    """Acceptance of n drafts without replacement by recursive rejection and by the best rule, for `figures`."""
    tokens = tokens_by_ratio(p_V, q_V)
    return _recursive_acceptance(tokens, n), _best_siblings(tokens, n)


def _best_siblings(tokens: Tokens, n: int) -> float:
    p_W, q_W, size_W = tokens
    n = min(n, int(size_W.sum()))
    each_W, inside_W, behind_W = q_W / size_W, q_W.cumsum(0), tokens.behind()
    if n > 2:
        inside_W = _all_inside(tokens, n)
    elif n == 2:
        others_W = pad(inside_W[:-1], (1, 0)) + behind_W + (q_W - each_W)  # 1 - q of one token
        inside_W = inside_W - behind_W * (q_W / others_W.clamp_min(1e-300)).cumsum(0)
    return 1.0 + min(0.0, float((p_W.cumsum(0) - inside_W).min()))


def _all_inside(tokens: Tokens, n: int) -> Tensor:
    """Q(H) of every prefix H: the chance that n drafts, which do not repeat, lie in it. [W]

    Give every token an alarm that rings after an exponential time of rate q: the first n to ring are the drafts. They
    lie in H unless fewer than n alarms of H have rung before the first one outside, which comes at rate 1 - q(H): an
    integral over its time t, by the trapezoidal rule in log t. Whether an alarm has rung by t is a coin, and the law of
    the number of heads below n is a polynomial cut off behind n terms; those of all prefixes are multiplied up in
    log W rounds.
    """
    _, q_W, size_W = tokens
    behind_W1 = tokens.behind()[:, None]
    each_W1, size_W1 = (q_W / size_W)[:, None], size_W[:, None]
    late = 40.0 / float(each_W1.repeat_interleave(size_W.clamp_max(n).long(), 0)[:, 0].topk(n).values[-1])
    t_T = torch.arange(-10.0, math.log(late), STEP, dtype=torch.float64).exp()  # by then the n likeliest have rung
    rung_WT, ways_W1 = -torch.expm1(-each_W1 * t_T), torch.ones_like(size_W1)
    heads = []
    for j in range(n):  # j of `size` coins
        heads.append(ways_W1 * rung_WT**j * torch.exp(-each_W1 * (size_W1 - j).clamp_min(0.0) * t_T))
        ways_W1 = ways_W1 * (size_W1 - j).clamp_min(0.0) / (j + 1)
    heads_NWT = torch.stack(heads)
    shift = 1
    while shift < len(q_W):
        upper_NWT, lower_NWT = heads_NWT[:, shift:], heads_NWT[:, :-shift]
        both = [reduce(torch.add, (upper_NWT[i] * lower_NWT[j - i] for i in range(j + 1))) for j in range(n)]
        heads_NWT = torch.cat([heads_NWT[:, :shift], torch.stack(both)], dim=1)
        shift *= 2
    first_WT = behind_W1 * t_T
    short_W = STEP * (first_WT * torch.exp(-first_WT) * heads_NWT.sum(0)).sum(1)
    short_W += first_WT[:, 0] * STEP / math.expm1(STEP)  # the rule goes on towards t = 0, where the integrand is first
    return 1.0 - short_W.where(behind_W1[:, 0] > 0, 0.0)


HEAVY = 16  # the drafter's likeliest tokens, which are told apart
STATES = 256  # the likeliest courses of events, which are followed


def _recursive_acceptance(tokens: Tokens, n: int) -> float:
    """How often `accept_siblings` takes one of n drafts without replacement.

    What refused elders leave of p is (p - k q)+ up to its mass s(k), and k alone says which: with c what q has left,
    the next draft comes from q / c and leaves k + s(k) / c. It is refused with chance s(k + s(k) / c) / s(k), and only
    which token it was decides what c becomes.
    """
    p_W, q_W, size_W = tokens
    left_p, left_q = (pad(x_W.flip(0).cumsum(0).flip(0), (0, 1)) for x_W in (p_W, q_W))
    never, ratio_W = max(0.0, 1.0 - float(left_p[0])), p_W / q_W  # p of tokens that are never drafted

    def mass(k_M: Tensor) -> Tensor:  # s(k)
        at_M = torch.searchsorted(ratio_W, k_M, right=True)
        return never + (left_p[at_M] - k_M * left_q[at_M]).clamp_min(0.0)

    heavy_H = torch.where(size_W == 1, q_W, 0.0).topk(min(HEAVY, len(q_W))).indices
    p_H, q_H, rest_W = p_W[heavy_H], q_W[heavy_H], q_W.index_fill(0, heavy_H, 0.0)
    light = (rest_W**2 / size_W).sum() / rest_W.sum().clamp_min(1e-300)  # q of a token that is not heavy, on average
    steps_T = torch.cat([q_H, light[None]])
    k_M, c_M, weight_M = q_W.new_zeros(1), q_W.new_ones(1), q_W.new_ones(1)
    open_MT = torch.ones(1, len(steps_T), dtype=torch.bool)  # tokens that were not drawn yet; the last: all light ones
    missed = 0.0
    for i in range(n):
        has_M = mass(k_M).clamp_min(1e-300)
        next_M = k_M + has_M / c_M
        refused_M = mass(next_M) / has_M
        if i == n - 1:
            return 1.0 - missed - float((weight_M * refused_M).sum())
        heavy_MH = q_H / c_M[:, None] - (p_H - k_M[:, None] * q_H).clamp_min(0.0) / has_M[:, None]
        heavy_MH = heavy_MH.clamp_min(0.0) * open_MT[:, :-1]
        light_M1 = (refused_M[:, None] - heavy_MH.sum(1, keepdim=True)).clamp_min(0.0)
        weight_B = (weight_M[:, None] * torch.cat([heavy_MH, light_M1], dim=1)).flatten()
        c_B = (c_M[:, None] - steps_T).flatten()
        missed += float(weight_B[c_B <= 1e-12].sum())  # nothing is left to draw
        weight_B = weight_B.where(c_B > 1e-12, 0.0)
        weight_M, best_M = weight_B.topk(min(STATES, len(weight_B)))
        weight_M = weight_M * (weight_B.sum() / weight_M.sum().clamp_min(1e-300))
        was_M, token_M = best_M // len(steps_T), best_M % len(steps_T)
        k_M, c_M, open_MT = next_M[was_M], c_B[best_M].clamp_min(1e-12), open_MT[was_M]
        open_MT[torch.arange(len(token_M)), token_M] = token_M == len(steps_T) - 1
    return 0.0


# ------------------------------------------------------------------------------------------------------ greedy drafts
def draft_greedy(q_V: Tensor, n: int, chance: Chance) -> list[int]:
    """n greedy drafts: the n - 1 most likely tokens for sure, then one drawn from q without them.

    Hu et al. 2025 (2502.18779). Where q has fewer than n tokens, these are the drafts. With n = 1 it is x ~ q.
    """
    top = _top(q_V, n)
    return [*top, chance.pick(reduce(without, top, q_V))]


def choose_greedy(p_V: Tensor, q_V: Tensor, x: Sequence[int], chance: Chance) -> tuple[int, list[int]]:
    """The best rule for greedy drafts, drawn one last: judge only this one, against the law it was drawn from.

    The sure ones have no share in that law, so the residual after a rejection gives them all that p does; what it
    draws judges them. Returns a `Rule`'s answer.
    """
    p_V, rest_V = p_V.double(), reduce(without, x[:-1], q_V.double())
    if chance.flip(min(1.0, float(p_V[x[-1]]) / float(rest_V[x[-1]]))):
        return x[-1], []
    return chance.pick(residual(p_V, rest_V)), list(x)


def best_greedy(p_V: Tensor, q_V: Tensor, n: int) -> float:
    """How often `choose_greedy` takes one of n greedy drafts, and no rule for these drafts can do it more often."""
    top = _top(q_V, n)
    return float(p_V[top].double().sum()) + overlap(p_V, reduce(without, top, q_V.double()))


def greedy(p_V: Tensor, q_V: Tensor, n: int) -> tuple[float, float]:
    """Acceptance of n greedy drafts by `choose_greedy`, which is the best rule for them, for `figures`."""
    best = best_greedy(p_V, q_V, n)
    return best, best


def _top(q_V: Tensor, n: int) -> list[int]:
    """The n - 1 most likely tokens; fewer where nothing would be left to draw."""
    q_1K, at_1K = peaks(q_V[None], n)
    return [token for token, q in zip(at_1K[0].tolist(), q_1K[0].tolist(), strict=True) if q > 0][:-1]


# ------------------------------------------------------------------------------------------------------- paired drafts
def draft_hub(q_V: Tensor, chance: Chance) -> list[int]:
    """Two drafts of which one is the hub, q's most likely token: x ~ q and the hub, or the hub and x ~ q without it.

    Sun et al. 2024 (2411.05289). Where q has one token only, this is the only draft.
    """
    hub, x = int(peak(q_V[None])), chance.pick(q_V)
    if x != hub:
        return [x, hub]
    rest_V = without(q_V, hub)
    return [hub, chance.pick(rest_V)] if bool(rest_V.any()) else [hub]


def choose_hub(p_V: Tensor, q_V: Tensor, x: Sequence[int], chance: Chance) -> tuple[int, list[int]]:
    """SpecHub's rule: what the other token of a pair cannot use of the pair's weight goes to the hub.

    The other token is taken first from pairs in which it was drawn first, then from those in which the hub was; the
    hub takes what they leave over in the reverse order. A single draft is judged as in speculative sampling. Returns a
    `Rule`'s answer.
    """
    p_V, q_V = p_V.double(), q_V.double()
    if len(x) == 1:
        if chance.flip(min(1.0, float(p_V[x[0]]) / float(q_V[x[0]]))):
            return x[0], []
        return chance.pick(residual(p_V, q_V)), list(x)
    hub = int(peak(q_V[None]))
    claim_V = without(q_V, hub)  # weight of both pairs of every token
    second_V = q_V[hub] * claim_V  # weight of the pair in which it comes second
    unmet_V = (p_V - q_V).clamp_min(0.0)  # what its first pair cannot give it
    unmet_V[hub] = 0.0
    other = x[0] if x[0] != hub else x[1]
    wanted = p_V[other] / q_V[other] if other == x[0] else unmet_V[other] / second_V[other]
    if chance.flip(min(1.0, float(wanted))):
        return other, []
    spare_V = (second_V - unmet_V).clamp_min(0.0)
    if x[0] == hub:
        wanted = p_V[hub] / spare_V.sum()
    else:
        first_V = (q_V - p_V).clamp_min(0.0)
        first_V[hub] = 0.0
        wanted = (p_V[hub] - spare_V.sum()).clamp_min(0.0) / first_V.sum()
    if chance.flip(min(1.0, float(wanted))):
        return hub, [other]
    claim_V[hub] = p_V[hub]
    return chance.pick(residual(p_V, claim_V)), list(x)
