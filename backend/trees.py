"""Token trees: guesses that branch. A tree is two lists, tokens and parents; parents[i] < i, -1 hangs from the text."""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Iterable, Sequence

import torch
from torch import Tensor

from backend.chance import Chance
from backend.couplings import accept_siblings, pick_siblings, surest, without
from backend.protocols import CausalSession, HeadsSession, Scores
from backend.sampling import drawn, shorten
from backend.types import Fate, Mark


def depths(parents: Sequence[int]) -> list[int]:
    """Distance from the text for every node: 0 for those that follow it directly."""
    out: list[int] = []
    for parent in parents:
        out.append(0 if parent < 0 else out[parent] + 1)
    return out


def merge(paths: Iterable[Sequence[int]]) -> tuple[list[int], list[int]]:
    """One tree of several guesses that share their beginnings; earlier paths come first.

    >>> merge([[1, 2, 3], [1, 4]])
    ([1, 2, 3, 4], [-1, 0, 1, 0])
    """
    tokens: list[int] = []
    parents: list[int] = []
    at: dict[tuple[int, int], int] = {}
    for path in paths:
        node = -1
        for token in path:
            if (node, token) not in at:
                at[node, token] = len(tokens)
                tokens.append(token)
                parents.append(node)
            node = at[node, token]
    return tokens, parents


def follow_tree(
    p_NV: Tensor, x: Sequence[int], parents: Sequence[int], slot: int, chance: Chance
) -> tuple[list[int], int]:
    """Sample the target once per node and walk down while a child says the same: exact for ANY deterministic tree.

    Args:
        p_NV: row 0 after the text, row i + 1 after node i. slot: the slot of the nodes at depth 0.

    Returns:
        path, token: the nodes that agreed, from the top, and the token drawn behind them.
    """
    child = {(parent, token): i for i, (parent, token) in enumerate(zip(parents, x, strict=True))}
    path: list[int] = []
    node = -1
    while True:
        token = chance.pick(p_NV[node + 1], slot + len(path))
        if (node, token) not in child:
            return path, token
        node = child[node, token]
        path.append(node)


def follow_typical(
    p_NV: Tensor, x: Sequence[int], parents: Sequence[int], slot: int, chance: Chance, epsilon: float, alpha: float
) -> tuple[list[int], int]:
    """Typical acceptance: a node stays if its parent does and p(x) > min(epsilon, alpha exp(-H(p))); not the law p.

    Cai et al. 2024 (2401.10774), equation 1. H is the entropy of p, so at temperature 0 only the largest logit passes.
    Args and returns as in `follow_tree`; the longest path stays, the likeliest of equally long ones.
    """
    entropy_N = -torch.special.xlogy(p_NV, p_NV).sum(dim=-1)
    floor_N = (alpha * torch.exp(-entropy_N)).clamp_max(epsilon).tolist()
    paths: dict[int, tuple[list[int], float]] = {-1: ([], 0.0)}  # node that stays -> path to it, log p of that path
    for i, (token, parent) in enumerate(zip(x, parents, strict=True)):
        p = float(p_NV[parent + 1, token])
        if parent in paths and p > floor_N[parent + 1]:
            path, weight = paths[parent]
            paths[i] = ([*path, i], weight + math.log(p))
    node = max(paths, key=lambda i: (len(paths[i][0]), paths[i][1]))
    path = paths[node][0]
    return path, chance.pick(p_NV[node + 1], slot + len(path))


def likeliest_ranks(odds: Sequence[Sequence[float]], nodes: int, deepest: int) -> list[tuple[int, ...]]:
    """A tree without tokens: path (a, b) stands for the a-th best guess for one place and the b-th best for the next.

    odds[k][r]: how often the r-th best guess for place k is right. The `nodes` paths with the largest products are
    taken, a path never before its parent or its better sibling.

    Returns:
        The paths by depth, and within a depth in their natural order.
    """
    chosen: list[tuple[int, ...]] = []
    border: list[tuple[float, tuple[int, ...]]] = [(-odds[0][0], (0,))] if nodes > 0 and deepest > 0 else []
    while border and len(chosen) < nodes:
        minus, path = heapq.heappop(border)
        chosen.append(path)
        place, rank = len(path) - 1, path[-1]
        if rank + 1 < len(odds[place]) and odds[place][rank] > 0:
            heapq.heappush(border, (minus * odds[place][rank + 1] / odds[place][rank], (*path[:-1], rank + 1)))
        if len(path) < deepest:
            heapq.heappush(border, (minus * odds[place + 1][0], (*path, 0)))
    return sorted(chosen, key=lambda path: (len(path), path))


def fill_ranks(heads: HeadsSession, ranks: Sequence[tuple[int, ...]]) -> tuple[list[int], list[int], list[float]]:
    """Guesses for a tree of `likeliest_ranks`: the drafter is asked once a depth, for the nodes with children only.

    Returns:
        x, parents, q: the tree as `CausalSession.score` takes it, and the drafter's chance of each guess.
    """
    x: list[int] = []
    parents: list[int] = []
    q: list[float] = []
    at: dict[tuple[int, ...], int] = {(): -1}  # path -> its node
    inner: dict[tuple[int, ...], int] = {(): -1}  # path with children -> its place in what the drafter is shown
    shown: tuple[list[int], list[int]] = ([], [])
    has_children = {path[:-1] for path in ranks}
    for depth in range(1, max(map(len, ranks), default=0) + 1):
        level = [path for path in ranks if len(path) == depth]
        tokens, chances = heads.score(*shown).best(1 + max(path[-1] for path in level))
        for path in level:
            row, rank = inner[path[:-1]] + 1, path[-1]
            at[path] = len(x)
            x.append(tokens[row][rank])
            parents.append(at[path[:-1]])
            q.append(chances[row][rank])
            if path in has_children:
                inner[path] = len(shown[0])
                shown[0].append(x[-1])
                shown[1].append(row - 1)
    return x, parents, q


def grow_tree(
    heads: HeadsSession, nodes: int, beam: int, deepest: int, least: float = 0.0
) -> tuple[list[int], list[int], list[float]]:
    """The `nodes` guesses with the largest cumulative chance that a beam of the drafter finds.

    EAGLE-2, Li et al. 2024 (2406.16858): at each depth the `beam` best nodes get `beam` children each, then the best of
    all nodes are taken. A child never weighs more than its parent, so the search ends as soon as no deeper node can
    displace one that is in. It ends, too, where the nodes that would get children have less than the chance `least`
    together: that is how often one more call of the drafter could be of use.

    Returns:
        x, parents, q as `fill_ranks`, nodes in the order of their depth.
    """
    found: list[tuple[float, int, int, float]] = []  # cumulative chance, token, parent, chance
    shown: tuple[list[int], list[int]] = ([], [])
    border: list[tuple[int, float]] = [(-1, 1.0)]  # nodes that get children, with their cumulative chance
    place = {-1: -1}  # node -> its place in what the drafter is shown
    for _ in range(deepest):
        tokens, chances = heads.score(*shown).best(beam)
        first = len(found)
        for node, weight in border:
            row = place[node] + 1
            found += [(weight * q, token, node, q) for token, q in zip(tokens[row], chances[row], strict=True) if q > 0]
        fresh = sorted(range(first, len(found)), key=lambda i: -found[i][0])[:beam]
        best = sorted((weight for weight, *_ in found), reverse=True)[:nodes]
        border = [(i, found[i][0]) for i in fresh if len(best) < nodes or found[i][0] > best[-1]]
        if not border or sum(weight for _, weight in border) < least:
            break
        for node, _ in border:
            place[node] = len(shown[0])
            shown[0].append(found[node][1])
            shown[1].append(place[found[node][2]])
    chosen = sorted(sorted(range(len(found)), key=lambda i: -found[i][0])[:nodes])
    at = {-1: -1} | {i: n for n, i in enumerate(chosen)}
    return [found[i][1] for i in chosen], [at[found[i][2]] for i in chosen], [found[i][3] for i in chosen]


def draft_siblings(
    draft: CausalSession, branch: int, depth: int, chance: Chance | None
) -> tuple[list[int], list[int], list[Tensor]]:
    """A draft tree with `branch` different tokens for the next slot and half as many siblings at each slot behind it.

    One call of the drafter a level. Siblings are drawn without replacement, or, with no chance, they are the most
    probable ones; there is always one at least.

    Returns:
        x, parents, q: the tree as `CausalSession.score` takes it, and the drafter's laws, row 0 after the text and row
        i + 1 after node i, as far as nodes have children.
    """
    x: list[int] = []
    parents: list[int] = []
    q: list[Tensor] = []
    level = range(-1, 0)  # nodes that get children next: at first the text itself
    for ahead in range(depth):
        q = list(draft.score(x, parents).p_NV)
        start = len(x)
        for node in level:
            wanted = max(1, branch >> ahead)
            siblings = pick_siblings(q[node + 1], wanted, chance) if chance else surest(q[node + 1], wanted)
            x += siblings
            parents += [node] * len(siblings)
        level = range(start, len(x))
    return x, parents, q


def accept_tree(
    p_NV: Tensor, q: Sequence[Tensor], x: Sequence[int], parents: Sequence[int], chance: Chance
) -> tuple[list[int], Tensor, list[int]]:
    """Judge a tree of siblings drawn without replacement from the top: at every node one child stays, or none.

    Args:
        p_NV: row 0 after the text, row i + 1 after node i. q: the drafter's laws in the same order, as far as nodes
            have children. x: siblings in the order in which they were drawn.

    Returns:
        path, behind_V, refused: the nodes that stay, from the top, the law of the token behind them, and the nodes
        that were judged and thrown away.
    """
    path: list[int] = []
    refused: list[int] = []
    node = -1
    while True:
        below = [i for i, parent in enumerate(parents) if parent == node]
        if not below:
            return path, p_NV[node + 1], refused
        n, behind_V = accept_siblings(p_NV[node + 1], q[node + 1], [x[i] for i in below], chance)
        refused += below[:n]
        if n == len(below):
            return path, behind_V, refused
        node = below[n]
        path.append(node)


def traverse_tree(
    p_NV: Tensor, q: Sequence[Tensor], x: Sequence[int], parents: Sequence[int], chance: Chance
) -> tuple[list[int], Tensor, list[int]]:
    """Judge a tree of siblings drawn without replacement from its leaves up: whole paths, the longest first.

    Weng et al. 2025 (2505.12398); on a chain it is block verification. Below a node with weight a and law p, a path
    must stay with chance a and go on like p. A child x ~ q takes min(q, a p) of that with weight min(1, a p / q); what
    is missing is (a p - q)+, of mass z, and has to come from the 1 - a + z of cases in which no path through x stays,
    whichever x it was. So the node goes on with weight z / (1 - a + z), law (a p - q)+ / z and q without x: again a
    node, with one child less. The number of children may depend on nothing but q, since subtrees are judged before
    younger siblings.

    Args and returns as in `accept_tree`; `refused` is in the order of the visits.
    """
    refused: list[int] = []

    def visit(node: int, a: float) -> tuple[list[int], Tensor] | None:
        p_V = p_NV[node + 1]
        q_V = q[node + 1] if node + 1 < len(q) else p_V  # leaves at the bottom have no law of a child
        for i in (i for i, parent in enumerate(parents) if parent == node):
            found = visit(i, min(1.0, a * float(p_V[x[i]]) / float(q_V[x[i]])))
            if found:
                return [i, *found[0]], found[1]
            refused.append(i)
            rest_V = (a * p_V - q_V).clamp_min(0.0)
            z = float(rest_V.sum())
            if z > 0:
                a, p_V = z / (z + (1.0 - a)), rest_V / z
            elif a < 1.0:  # with nothing missing and a = 1, only rounding leads here
                a = 0.0
            q_V = without(q_V, x[i])
        return ([], p_V) if node < 0 or chance.flip(a) else None

    found = visit(-1, 1.0)
    assert found is not None, "the text itself always stays"
    return *found, refused


def judged_tree(
    slot: int,
    x: Sequence[int],
    parents: Sequence[int],
    path: Sequence[int],
    kept: Sequence[int],
    scores: Scores,
    q: Sequence[Tensor] = (),
    refused: Collection[int] | None = None,
    chances: Sequence[float] = (),
) -> tuple[Mark, ...]:
    """Marks of a judged tree, one a node in its order, then the token drawn behind the path.

    Without `refused`, all children of the path's nodes were judged (KEPT or REJECTED) and what hangs below a rejected
    one is UNREAD. With it, these nodes were judged and thrown away, and all others that do not stay are UNREAD; so is
    what stands behind the end of the text. q: the drafter's laws in the order of the target's, if it has any; chances:
    its chance of each node instead, where it has no laws.
    """
    stay = set(path[: len(kept)])
    read = {-1, *path[: len(kept) if len(kept) > len(path) else max(len(kept) - 1, 0)]}  # nodes whose children count
    marks = []
    for i, (token, parent, depth) in enumerate(zip(x, parents, depths(parents), strict=True)):
        if refused is None:
            judged_here = parent in read and i not in path
        else:
            judged_here = i in refused and (len(kept) > len(path) or depth < len(kept))
        fate = Fate.KEPT if i in stay else Fate.REJECTED if judged_here else Fate.UNREAD
        q_x = shorten(q[parent + 1][token]) if q else shorten(chances[i]) if chances else None
        p = shorten(scores.p_NV[parent + 1, token])
        options = scores.options(parent + 1) if fate is Fate.KEPT else ()
        marks.append(Mark(slot + depth, token, fate, p, q_x, parent if parent >= 0 else None, options))
    if len(kept) > len(path):
        tail = path[-1] if path else -1
        fixed = any(parent == tail for parent in parents)
        marks.append(drawn(slot + len(path), kept[-1], Fate.FIXED if fixed else Fate.BONUS, scores, tail + 1))
    return tuple(marks)
