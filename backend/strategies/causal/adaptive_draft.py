"""Adaptive draft: a tri-gram matrix learns from the target while it writes, and a tree search turns it into a draft.

ADED, Liu et al. 2024 (2407.12021), from a cold start: the matrix begins with the prompt's tri-grams and takes up the
target's best next tokens at every judged node; a pair never seen falls back on its last token. Tri-grams of the newest
text gain weight at each step. A tree search (PUCT) visits promising continuations, and the most visited make the draft;
where the paper plays out at random, the likeliest successor is followed, so that nothing is drawn. The target's own
samples are followed, which is exact for any tree.
Show: a tree that widens where the matrix is unsure; acceptance that grows as the matrix adapts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, log, sqrt
from typing import Annotated

from backend.chance import Ask
from backend.protocols import CausalSession
from backend.registry import strategy
from backend.trees import follow_tree, judged_tree, merge
from backend.types import Guarantee, Knob, Step

SUCCESSORS = 12  # tokens that a pair leads to in the search
MOST = 3.0  # weight that nudges cannot pass
C1, C2 = 32.0, 8.0  # the paper's constants of exploration


@strategy(paper="2407.12021", guarantee=Guarantee.LOSSLESS, family="lookup")
def adaptive_draft(
    target: CausalSession,
    ask: Ask,
    *,
    iterations: Annotated[int, Knob(20, 300, "rounds of the tree search before each target call")] = 150,
    keep: Annotated[int, Knob(1, 24, "most visited prefixes that become drafts; the paper keeps 24")] = 12,
    nodes: Annotated[int, Knob(1, 64, "most guesses in the tree; the paper's limit is 64")] = 20,
    depth: Annotated[int, Knob(1, 8, "tokens that the search looks ahead")] = 4,
    step: Annotated[float, Knob(0.0, 1.0, "weight that a tri-gram of the newest text gains at each step")] = 0.04,
    window: Annotated[int, Knob(3, 64, "tokens of the newest text whose tri-grams gain weight")] = 16,
) -> Iterator[Step]:
    """Yield one step per target call: the tree, the path that agreed, then the target's own token."""
    matrix = Matrix()
    for i in range(2, len(target.tokens)):
        matrix.learn(target.tokens[i - 2 : i], [(target.tokens[i], 1.0)])
    while ask.open:
        slot, ending = len(target.tokens), tuple(target.tokens[-2:])
        matrix.nudge(target.tokens[-window:], step)
        prefixes = search(matrix, ending, iterations, depth)[:keep]
        paths = ([*path, *(token for token, _ in matrix.after((*ending, *path))[:1])] for path in prefixes)
        x, parents = (side[:nodes] for side in merge(path[: ask.left - 1] for path in paths))
        scores = target.score(x, parents)
        path, token = follow_tree(scores.p_NV, x, parents, slot, ask.chance)
        pairs = [ending, *((x[up] if up >= 0 else ending[-1], guess) for guess, up in zip(x, parents, strict=True))]
        for row, pair in enumerate(pairs):
            matrix.learn(pair, scores.options(row, SUCCESSORS))
        kept = ask.take([*(x[i] for i in path), token])
        target.commit(kept)
        yield Step(judged_tree(slot, x, parents, path, kept, scores), note=f"tri-grams of {len(matrix.rows)} endings")


class Matrix:
    """The tri-gram matrix: the heaviest next tokens of a text's last pair, or of its last token if the pair is new."""

    def __init__(self) -> None:
        self.rows: dict[tuple[int, ...], dict[int, float]] = {}  # by ending: weight by token, heaviest first
        self._seen: Counter[tuple[int, ...]] = Counter()

    def learn(self, text: Sequence[int], chances: Iterable[tuple[int, float]]) -> None:
        """Move the weights behind a text towards these chances of its next token: to their mean, but for nudges."""
        told = dict(chances)
        for ending in {tuple(text[-2:]), tuple(text[-1:])}:
            self._seen[ending] += 1
            weights = self.rows.get(ending, {})
            for token in {**weights, **told}:
                old = weights.get(token, 0.0)
                weights[token] = old + (told.get(token, 0.0) - old) / self._seen[ending]
            self._put(ending, weights)

    def nudge(self, text: Sequence[int], step: float) -> None:
        """Add `step` to the weight of every tri-gram of a text."""
        for i in range(2, len(text)):
            weights = self.rows.get(tuple(text[i - 2 : i]), {})
            weights[text[i]] = min(MOST, weights.get(text[i], 0.0) + step)
            self._put(tuple(text[i - 2 : i]), weights)

    def after(self, text: Sequence[int]) -> list[tuple[int, float]]:
        """Tokens and weights behind a text, heaviest first."""
        return list((self.rows.get(tuple(text[-2:])) or self.rows.get(tuple(text[-1:]), {})).items())

    def _put(self, ending: tuple[int, ...], weights: Mapping[int, float]) -> None:
        best = sorted(weights.items(), key=lambda item: -item[1])[:SUCCESSORS]
        self.rows[ending] = {token: weight for token, weight in best if weight > 0}


@dataclass
class Place:
    """A continuation in the search tree, and what the search thinks of it so far."""

    path: tuple[int, ...]
    weight: float
    visits: int = 0
    reward: float = 0.0
    children: list[Place] = field(default_factory=list)


def search(matrix: Matrix, ending: tuple[int, ...], iterations: int, depth: int) -> list[tuple[int, ...]]:
    """The continuations that PUCT visits, most visited first, a beginning always before what is longer."""
    root, places = Place((), 0.0), list[Place]()
    for _ in range(iterations):
        line = [root]
        while line[-1].children:
            line.append(promising(line[-1]))
        leaf, text = line[-1], (*ending, *line[-1].path)
        ahead = matrix.after(text) if len(leaf.path) < depth else []
        leaf.children = [Place((*leaf.path, token), weight) for token, weight in ahead]
        places += leaf.children
        reward = 1.0 + sum(place.weight for place in line)
        for _ in range(depth - len(leaf.path)):  # play on to the full depth
            for token, weight in matrix.after(text)[:1]:
                reward, text = reward + weight, (*text, token)
        for place in line:
            place.visits, place.reward = place.visits + 1, place.reward + reward
    return [place.path for place in sorted(places, key=lambda place: -place.visits) if place.visits]


def promising(parent: Place) -> Place:
    """The first child that was never visited, else the one with the best mean reward plus exploration bonus."""
    k = (C1 + log((parent.visits + C2 + 1) / C2)) * sqrt(parent.visits)
    return max(parent.children, key=lambda c: c.reward / c.visits + k * c.weight / (1 + c.visits) if c.visits else inf)
