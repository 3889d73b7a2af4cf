"""Token recycling: the best few next tokens of every row ever scored are remembered and make the next draft tree.

Luo et al. 2024 (2408.08696). A table holds, for each token seen, the target's most likely successors when it was last
scored, rejected guesses included. From the last token a fixed tree of ranks is filled from the table and scored in
one call. The target's own samples are followed down the tree, which is exact for any tree.
Show: the tree filling up as the table learns; rows per call are the price.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

from backend.chance import Ask
from backend.protocols import CausalSession, Scores
from backend.registry import strategy
from backend.trees import follow_tree, judged_tree
from backend.types import Guarantee, Knob, Step

DEEPEST = 6


@strategy(paper="2408.08696", guarantee=Guarantee.LOSSLESS, family="lookup")
def token_recycling(
    target: CausalSession,
    ask: Ask,
    *,
    nodes: Annotated[int, Knob(1, 80, "guesses in the tree; the paper's tree has 80")] = 20,
    branch: Annotated[int, Knob(1, 8, "successors remembered for each token")] = 8,
) -> Iterator[Step]:
    """Yield one step per target call: the tree, the path that agreed, then the target's own token."""
    shape = rank_tree(nodes, branch)
    table: dict[int, list[int]] = {}
    while ask.open:
        slot = len(target.tokens)
        x, parents = fill(shape, table, target.tokens[-1], ask.left - 1)
        scores = target.score(x, parents)
        path, token = follow_tree(scores.p_NV, x, parents, slot, ask.chance)
        remember(table, [target.tokens[-1], *x], scores, branch)
        kept = ask.take([*(x[i] for i in path), token])
        target.commit(kept)
        yield Step(judged_tree(slot, x, parents, path, kept, scores), note=f"{len(table)} tokens known")


def rank_tree(nodes: int, branch: int) -> list[tuple[int, ...]]:
    """The most promising paths of ranks, parents before children: rank r counts as likely as 2 ** -(r + 1)."""
    paths: list[tuple[int, ...]] = []
    border: list[tuple[int, ...]] = [(r,) for r in range(branch)]
    while border and len(paths) < nodes:
        best = min(border, key=lambda path: (sum(path) + len(path), len(path), path))
        border.remove(best)
        paths.append(best)
        if len(best) < DEEPEST:
            border += [(*best, r) for r in range(branch)]
    return sorted(paths, key=lambda path: (len(path), path))


def fill(
    shape: Sequence[tuple[int, ...]], table: Mapping[int, Sequence[int]], root: int, deepest: int
) -> tuple[list[int], list[int]]:
    """Tokens and parents of the tree of ranks under `root`, as far as the table knows successors."""
    tokens: list[int] = []
    parents: list[int] = []
    at: dict[tuple[int, ...], int] = {(): -1}
    for path in shape:
        if path[:-1] not in at or len(path) > deepest:
            continue
        parent = at[path[:-1]]
        successors = table.get(tokens[parent] if parent >= 0 else root, ())
        if path[-1] < len(successors):
            at[path] = len(tokens)
            tokens.append(successors[path[-1]])
            parents.append(parent)
    return tokens, parents


def remember(table: dict[int, list[int]], tokens: Sequence[int], scores: Scores, branch: int) -> None:
    """Write the best successors of every scored token into the table; the latest row wins."""
    laws_NV = scores.p_NV if scores.raw_NV is None else scores.raw_NV
    best_NK = laws_NV.topk(min(branch, laws_NV.shape[1]), dim=-1).indices.tolist()
    table.update(zip(tokens, best_NK, strict=True))
