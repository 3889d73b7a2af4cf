"""Recursive: every call draws the next patch of all sample paths and feeds it back.

Ancestral sampling from a patch model (one step at a time where patches have one value); the law against which all other
ways of unrolling the same model are measured. S paths cost as many calls as one.
Show: paths growing patch by patch under a fan that widens; one call a patch in the timeline.
"""

from collections.abc import Iterator
from typing import Annotated

from backend.chance import Ask
from backend.gaussian import placed
from backend.protocols import PathSession
from backend.registry import strategy
from backend.sampling import shorten
from backend.types import Fate, Guarantee, Knob, Step
from backend.unrolling import Paths, widths


@strategy(paper="1704.04110", guarantee=Guarantee.LOSSLESS, family="feedback")
def recursive(
    target: PathSession,
    ask: Ask,
    *,
    paths: Annotated[int, Knob(1, 1024, "sample paths")] = 64,
) -> Iterator[Step]:
    """Yield one step per target call: a patch of every path. figures: `width`, the mean deviation of its law."""
    under_way = Paths(target, ask, paths)
    while rows := under_way.open:
        law = target.score()[:, 0]
        x_S1P = placed(law, under_way.noise(rows, 1)[:, 0])[:, None]
        target.commit(x_S1P, [1] * paths)
        marks = under_way.add(rows, x_S1P, [1] * paths, [Fate.BONUS] * paths)
        note = f"patch {under_way.lengths[0]} of {under_way.patches}"
        yield Step(tuple(marks), note, figures={"width": shorten(widths(law).mean())})
