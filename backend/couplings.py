"""The maths of judging several guesses for one place at once: each rule exactly once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import reduce

import torch
from torch import Tensor
from torch.nn.functional import pad

from backend.chance import Chance
from backend.peaks import peak, peaks
from backend.sampling import residual


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
Rule = Callable[[Tensor, Tensor, Sequence[int], Chance], int]  # (p_V, q_V, drafts in their order, chance) -> token


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

    def descend(self, p_NV: Tensor, q: Sequence[Tensor], rule: Rule, chance: Chance) -> tuple[list[int], int]:
        """Ask the rule at every node and follow its token as long as a draft went there: exact if the rule is.

        Args:
            p_NV: row 0 after the text, row i + 1 after node i. q: the drafter's laws in the same order, as far as
                nodes have children.

        Returns:
            path, token: the nodes that stay, from the top, and the token drawn behind them.
        """
        path: list[int] = []
        node = -1
        while node in self.drawn:
            token = rule(p_NV[node + 1], q[node + 1], self.drawn[node], chance)
            if (node, token) not in self._at:
                return path, token
            node = self._at[node, token]
            path.append(node)
        return path, chance.pick(p_NV[node + 1])


def overlap(p_V: Tensor, q_V: Tensor) -> float:
    """Sum of min(p, q): how often speculative sampling keeps a single draft."""
    return float(torch.minimum(p_V.double(), q_V.double()).sum())


def gap(p_V: Tensor, q_V: Tensor, used: float, best: float) -> str:
    """How often the rule in use, a single draft, and the best rule for the same drafts have one taken, in words."""
    return f"acceptance {used:.2f} used, {overlap(p_V, q_V):.2f} one draft, {best:.2f} best possible"


# ------------------------------------------------------------------------------------------------- independent drafts
def k_seq(p_V: Tensor, q_V: Tensor, k: int) -> float:
    """The factor rho of K-SEQ for k independent drafts, between 1 and k.

    Sun et al. 2023 (2310.15141). A trial succeeds with chance beta = sum min(p / rho, q), one of k with chance
    1 - (1 - beta)^k, and this has to be rho beta; here both are divided by beta. Between two neighbours in the order of
    p / q, beta is under / rho + over: first the two neighbours are found, then rho by bisection.
    """
    p_V, q_V, ratio_V = _by_ratio(p_V, q_V)
    under_W, over_W = pad(p_V.cumsum(0), (1, 0)), pad(q_V.flip(0).cumsum(0).flip(0), (0, 1))  # cut before each token
    miss_V = (1.0 - under_W[:-1] / ratio_V - over_W[:-1]).clamp_min(0.0)
    trials_V = torch.ones_like(miss_V)
    for _ in range(k - 1):
        trials_V = 1.0 + miss_V * trials_V  # 1 + miss + miss^2 + ...: trials made, of which beta succeed
    cut = int(((ratio_V <= 1.0) | (trials_V > ratio_V)).sum())
    under, over = float(under_W[cut]), float(over_W[cut])
    low = max(1.0, float(ratio_V[cut - 1])) if cut else 1.0
    high = min(float(k), float(ratio_V[cut])) if cut < len(ratio_V) else float(k)

    def is_low(rho: float) -> bool:
        return sum(max(0.0, 1.0 - under / rho - over) ** i for i in range(k)) > rho

    if not is_low(low):
        return low
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if is_low(middle) else (low, middle)
    return high


def choose_k_seq(p_V: Tensor, q_V: Tensor, x: Sequence[int], chance: Chance) -> int:
    """K-SEQ: the first of k independent drafts whose trial with chance min(1, p / (rho q)) succeeds, else a new token.

    All trials together take min(p, rho q) from p, which leaves the residual of a single draft with law rho q. With
    k = 1 this is speculative sampling.
    """
    p_V, q_V = p_V.double(), q_V.double()
    claim_V = k_seq(p_V, q_V, len(x)) * q_V
    for token in x:
        if chance.flip(min(1.0, float(p_V[token]) / float(claim_V[token]))):
            return token
    return chance.pick(residual(p_V, claim_V))


def k_seq_acceptance(p_V: Tensor, q_V: Tensor, k: int) -> float:
    """How often K-SEQ takes one of k independent drafts: at least 1 - 1/e times the best possible."""
    return overlap(p_V, k_seq(p_V, q_V, k) * q_V.double())


def best_independent(p_V: Tensor, q_V: Tensor, n: int) -> float:
    """How often the best rule takes one of n independent drafts: the dual with Q(H) = q(H)^n.

    Q is convex in q(H), so that the best H is a prefix of the tokens in the order of p / q.
    """
    p_V, q_V, _ = _by_ratio(p_V, q_V)
    return 1.0 + min(0.0, float((p_V.cumsum(0) - q_V.cumsum(0) ** n).min()))


def _by_ratio(p_V: Tensor, q_V: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """p, q and p / q in float64, sorted by p / q ascending, tokens with q = 0 last."""
    p_V, q_V = p_V.double(), q_V.double()
    ratio_V = torch.where(q_V > 0, p_V / q_V, torch.inf)
    order_V = ratio_V.view(torch.int64).sort().indices  # never negative: the bits sort alike, several times faster
    return p_V[order_V], q_V[order_V], ratio_V[order_V]


# ------------------------------------------------------------------------------------------ drafts without replacement
STEP = 0.4  # of the integral over log t: errors below 1e-8


def best_siblings(p_V: Tensor, q_V: Tensor, n: int) -> float:
    """How often the best rule takes one of n drafts drawn without replacement; fewer drafts where q has fewer tokens.

    As for independent drafts, the best H is a prefix of the tokens in the order of p / q. With two drafts,
    Q(H) = q(H) - (1 - q(H)) * sum of q / (1 - q) over H. More take an integral: some 0.2 s for 49,152 tokens.
    """
    p_V, q_V, _ = _by_ratio(p_V, q_V)
    p_V, q_V = p_V[q_V > 0], q_V[q_V > 0] / q_V.sum()
    n = min(n, len(q_V))
    behind_V = torch.cat([q_V[1:].flip(0).cumsum(0).flip(0), q_V.new_zeros(1)])  # 1 - q(H), without cancellation
    if n > 2:
        return 1.0 + min(0.0, _least_gap(p_V.cumsum(0), q_V, behind_V, n))
    all_V = q_V.cumsum(0) - (behind_V * (q_V / (1.0 - q_V)).cumsum(0) if n == 2 else 0.0)
    return 1.0 + min(0.0, float((p_V.cumsum(0) - all_V).min()))


def _least_gap(upto_V: Tensor, q_V: Tensor, behind_V: Tensor, n: int) -> float:
    """The least p(H) - Q(H) over prefixes H, where upto_V is p(H), behind_V is 1 - q(H), and drafts do not repeat.

    Give every token an alarm that rings after an exponential time of rate q: the first n to ring are the drafts. They
    lie in H if n alarms of H ring before the first one outside, which comes at rate 1 - q(H): an integral over its
    time t, by the trapezoidal rule in log t. Whether an alarm has rung by t is a coin, and the law of the number of
    heads below n grows coin by coin, for blocks of S coins first. Neither p(H) nor Q(H) falls within a block, so its
    ends bound the gap inside, and only blocks that could hold the least one are looked into.
    """
    t_T = torch.arange(-10.0, 37.0, STEP, dtype=torch.float64).exp()
    size = math.isqrt(len(q_V))
    blocks = ((upto_V, 1.0), (behind_V, 0.0), (q_V, 0.0))
    upto_BS, behind_BS, q_BS = (pad(x_V, (0, -len(q_V) % size), value=end).view(-1, size) for x_V, end in blocks)

    def toss(law_BTN: Tensor, q_B: Tensor) -> Tensor:
        rung_BT1 = -torch.expm1(-q_B[:, None, None] * t_T[:, None])
        return law_BTN * (1.0 - rung_BT1) + pad(law_BTN, (1, -1)) * rung_BT1

    def inside(law_BTN: Tensor, behind_B: Tensor) -> Tensor:  # Q(H)
        first_BT = behind_B[:, None] * t_T
        all_B = (STEP * first_BT * (-first_BT).exp() * (1.0 - law_BTN.sum(-1))).sum(-1)
        return torch.where(behind_B > 0, all_B, 1.0)

    law_TN = torch.eye(1, n, dtype=torch.float64).expand(len(t_T), n)  # no heads yet
    before = []
    for block_TN in reduce(toss, q_BS.T, law_TN.expand(len(q_BS), -1, -1)):
        before.append(law_TN)
        law_TN = torch.stack([pad(block_TN, (i, -i)) * law_TN[:, i : i + 1] for i in range(n)]).sum(0)
    law_BTN = torch.stack([*before, law_TN])
    all_B = inside(law_BTN[1:], behind_BS[:, -1])
    least = float((upto_BS[:, -1] - all_B).min())
    open_B = pad(upto_BS[:-1, -1], (1, 0)) - all_B <= least
    law_BTN = law_BTN[:-1][open_B]
    for upto_B, behind_B, q_B in zip(upto_BS[open_B].T, behind_BS[open_B].T, q_BS[open_B].T, strict=True):
        law_BTN = toss(law_BTN, q_B)
        least = min(least, float((upto_B - inside(law_BTN, behind_B)).min()))
    return least


# ------------------------------------------------------------------------------------------------------ greedy drafts
def draft_greedy(q_V: Tensor, n: int, chance: Chance) -> list[int]:
    """n greedy drafts: the n - 1 most likely tokens for sure, then one drawn from q without them.

    Hu et al. 2025 (2502.18779). Where q has fewer than n tokens, these are the drafts. With n = 1 it is x ~ q.
    """
    top = _top(q_V, n)
    return [*top, chance.pick(reduce(without, top, q_V))]


def choose_greedy(p_V: Tensor, q_V: Tensor, x: Sequence[int], chance: Chance) -> int:
    """The best rule for greedy drafts, drawn one last: judge only this one, against the law it was drawn from.

    The sure ones have no share in that law, so the residual after a rejection gives them all that p does.
    """
    p_V, rest_V = p_V.double(), reduce(without, x[:-1], q_V.double())
    if chance.flip(min(1.0, float(p_V[x[-1]]) / float(rest_V[x[-1]]))):
        return x[-1]
    return chance.pick(residual(p_V, rest_V))


def best_greedy(p_V: Tensor, q_V: Tensor, n: int) -> float:
    """How often `choose_greedy` takes one of n greedy drafts, and no rule for these drafts can do it more often."""
    top = _top(q_V, n)
    return float(p_V[top].double().sum()) + overlap(p_V, reduce(without, top, q_V.double()))


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


def choose_hub(p_V: Tensor, q_V: Tensor, x: Sequence[int], chance: Chance) -> int:
    """SpecHub's rule: what the other token of a pair cannot use of the pair's weight goes to the hub.

    The other token is taken first from pairs in which it was drawn first, then from those in which the hub was; the
    hub takes what they leave over in the reverse order. A single draft is judged as in speculative sampling.
    """
    p_V, q_V = p_V.double(), q_V.double()
    if len(x) == 1:
        taken = chance.flip(min(1.0, float(p_V[x[0]]) / float(q_V[x[0]])))
        return x[0] if taken else chance.pick(residual(p_V, q_V))
    hub = int(peak(q_V[None]))
    claim_V = without(q_V, hub)  # weight of both pairs of every token
    second_V = q_V[hub] * claim_V  # weight of the pair in which it comes second
    unmet_V = (p_V - q_V).clamp_min(0.0)  # what its first pair cannot give it
    unmet_V[hub] = 0.0
    other = x[0] if x[0] != hub else x[1]
    wanted = p_V[other] / q_V[other] if other == x[0] else unmet_V[other] / second_V[other]
    if chance.flip(min(1.0, float(wanted))):
        return other
    spare_V = (second_V - unmet_V).clamp_min(0.0)
    if x[0] == hub:
        wanted = p_V[hub] / spare_V.sum()
    else:
        first_V = (q_V - p_V).clamp_min(0.0)
        first_V[hub] = 0.0
        wanted = (p_V[hub] - spare_V.sum()).clamp_min(0.0) / first_V.sum()
    if chance.flip(min(1.0, float(wanted))):
        return hub
    claim_V[hub] = p_V[hub]
    return chance.pick(residual(p_V, claim_V))
