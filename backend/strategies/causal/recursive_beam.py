"""Recursive beam drafting: a stochastic beam search makes the draft tree, the same number of nodes at every depth.

Jeon et al. 2024 (2402.14160), RSD-S; the search is of Kool et al. 2019 (1903.06059). It draws whole paths from q
without replacement: likely beams get many children, unlikely ones die out. Its Gumbel noise does nothing but order the
paths, so the paths are drawn directly, by their mass among those not drawn yet: first the beam that the next one goes
through, then the child. Exactness rests on the second half alone: a child comes from q without its elder siblings,
whatever decided that its beam gets one more. So the tree is judged like that of recursive branching. With one beam it
is speculative sampling, and so it is at temperature 0, where q holds one token only.
Show: trees that are wide where the drafter doubts and deep where it is sure.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Annotated

import torch
from torch import Tensor

from backend.chance import Ask, Chance
from backend.couplings import figures, siblings
from backend.protocols import CausalSession
from backend.registry import strategy
from backend.trees import accept_tree, judged_tree
from backend.types import Guarantee, Knob, Step


@strategy(paper="2402.14160", guarantee=Guarantee.LOSSLESS, family="draft model")
def recursive_beam(
    target: CausalSession,
    draft: CausalSession,
    ask: Ask,
    *,
    beams: Annotated[int, Knob(1, 8, "guesses for every slot of the tree")] = 3,
    depth: Annotated[int, Knob(1, 8, "slots that the tree looks ahead")] = 4,
) -> Iterator[Step]:
    """Yield one step per target call: the judged tree, then one fixed or bonus token."""
    while ask.open:
        slot = len(target.tokens)
        x: list[int] = []
        parents: list[int] = []
        q: list[Tensor] = []
        level, masses = [-1], [1.0]  # the beams in the order of their arrival, and q of their whole paths
        for _ in range(min(depth, ask.left - 1)):
            q = list(draft.score(x, parents).p_NV)  # one call a level
            children = arrivals(masses, [q[node + 1] for node in level], beams, ask.chance)
            x += [token for _, token, _ in children]
            parents += [level[beam] for beam, _, _ in children]
            level, masses = [*range(len(x) - len(children), len(x))], [mass for _, _, mass in children]
        scores = target.score(x, parents)
        path, behind_V, refused = accept_tree(scores.p_NV, q, x, parents, ask.chance)
        kept = ask.take([*(x[i] for i in path), ask.chance.pick(behind_V)])
        target.commit(kept)
        draft.commit(kept)
        marks = judged_tree(slot, x, parents, path, kept, scores, q, refused)
        yield Step(marks, note=f"{len(x)} guesses", measure=partial(figures, scores.p_NV, q, beams, siblings))


def arrivals(
    masses: Sequence[float], laws: Sequence[Tensor], count: int, chance: Chance
) -> list[tuple[int, int, float]]:
    """The first `count` children of beams that stand in their order of arrival: (beam, token, mass of the path).

    A beam arrived when the first path through it was drawn. So the next path goes through a beam that already has
    children, by the mass of those it has left, or through a new one, by all the mass outside; then it is known which.
    """
    children: list[tuple[int, int, float]] = []
    arrived: list[Tensor] = []  # for every beam that arrived, the masses of its children; 0 once drawn
    while len(children) < count:
        waiting = masses[len(arrived) :]
        outside = max(1.0 - sum(masses[: len(arrived)]), sum(waiting)) if waiting else 0.0
        weights = torch.tensor([*(float(mass_V.sum()) for mass_V in arrived), outside], dtype=torch.float64)
        if not weights.any():
            break
        beam = chance.pick(weights / weights.sum())
        if beam == len(arrived):
            arrived.append(masses[beam] * laws[beam].double())
        token = chance.pick(arrived[beam] / arrived[beam].sum())
        children.append((beam, token, float(arrived[beam][token])))
        arrived[beam][token] = 0.0
    return children
