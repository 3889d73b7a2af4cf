"""Token trees: guesses that branch. A tree is two lists, tokens and parents; parents[i] < i, -1 hangs from the text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor

from backend.chance import Chance
from backend.protocols import Scores
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


def judged_tree(
    slot: int, x: Sequence[int], parents: Sequence[int], path: Sequence[int], kept: Sequence[int], scores: Scores
) -> tuple[Mark, ...]:
    """Marks of a judged tree, one a node in its order, then the token drawn behind the path.

    Children of the path's nodes were judged (KEPT or REJECTED); what hangs below a rejected one is UNREAD.
    """
    stay = set(path[: len(kept)])
    read = {-1, *path[: len(kept) if len(kept) > len(path) else max(len(kept) - 1, 0)]}  # nodes whose children count
    marks = []
    for i, (token, parent, depth) in enumerate(zip(x, parents, depths(parents), strict=True)):
        judged_here = parent in read and i not in path
        fate = Fate.KEPT if i in stay else Fate.REJECTED if judged_here else Fate.UNREAD
        p = shorten(scores.p_NV[parent + 1, token])
        options = scores.options(parent + 1) if fate is Fate.KEPT else ()
        marks.append(Mark(slot + depth, token, fate, p, None, parent if parent >= 0 else None, options))
    if len(kept) > len(path):
        tail = path[-1] if path else -1
        fixed = any(parent == tail for parent in parents)
        marks.append(drawn(slot + len(path), kept[-1], Fate.FIXED if fixed else Fate.BONUS, scores, tail + 1))
    return tuple(marks)
