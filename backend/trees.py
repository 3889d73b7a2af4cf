"""Token trees: guesses that branch. A tree is two lists, tokens and parents; parents[i] < i, -1 hangs from the text."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from torch import Tensor

from backend.chance import Chance
from backend.couplings import accept_siblings, pick_siblings, without
from backend.protocols import CausalSession, Scores
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


def draft_siblings(
    draft: CausalSession, branch: int, depth: int, chance: Chance
) -> tuple[list[int], list[int], list[Tensor]]:
    """A draft tree with `branch` different tokens for the next slot and half as many siblings at each slot behind it.

    One call of the drafter a level. Siblings are drawn without replacement; there is always one at least.

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
            siblings = pick_siblings(q[node + 1], max(1, branch >> ahead), chance)
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
) -> tuple[Mark, ...]:
    """Marks of a judged tree, one a node in its order, then the token drawn behind the path.

    Without `refused`, all children of the path's nodes were judged (KEPT or REJECTED) and what hangs below a rejected
    one is UNREAD. With it, these nodes were judged and thrown away, and all others that do not stay are UNREAD; so is
    what stands behind the end of the text. q: the drafter's laws in the order of the target's, if it has any.
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
        p, q_x = shorten(scores.p_NV[parent + 1, token]), shorten(q[parent + 1][token]) if q else None
        options = scores.options(parent + 1) if fate is Fate.KEPT else ()
        marks.append(Mark(slot + depth, token, fate, p, q_x, parent if parent >= 0 else None, options))
    if len(kept) > len(path):
        tail = path[-1] if path else -1
        fixed = any(parent == tail for parent in parents)
        marks.append(drawn(slot + len(path), kept[-1], Fate.FIXED if fixed else Fate.BONUS, scores, tail + 1))
    return tuple(marks)
