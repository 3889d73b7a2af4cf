"""Event sampling: every call draws the next event of all sample paths, when and of which kind, and feeds it back.

Ancestral sampling from a temporal point process whose next gap is a mixture of log-normal laws (Shchur et al. 2020);
the law against which speculative events are measured. A path ends with the first event beyond the end of time, which
is not part of it, so S paths cost as many calls as the longest has events, and one more.
Show: the raster filling one event a call; the rate of all paths under its band.
"""

from collections.abc import Iterator
from typing import Annotated

from backend.chance import Ask
from backend.events import EventPaths, Events, placed
from backend.protocols import EventSession
from backend.registry import strategy
from backend.types import Guarantee, Knob, Step


@strategy(paper="1909.12127", guarantee=Guarantee.LOSSLESS, family="events")
def event_sampling(
    target: EventSession,
    ask: Ask,
    *,
    paths: Annotated[int, Knob(1, 256, "sample paths")] = 16,
) -> Iterator[Step]:
    """Yield one step per target call: an event of every path that is open."""
    under_way = EventPaths(target, ask, paths)
    while rows := under_way.open:
        law = target.score(rows=rows)[:, 0]
        event = placed(law, under_way.noise(rows, 1)[:, 0])
        marks, events, kept = under_way.add(rows, Events.none(len(rows)), [0] * len(rows), event)
        target.commit(events.gap_N, events.kind_N, kept, rows)
        over = paths - len(under_way.open)
        yield Step(marks, f"an event of {len(rows)} paths, {over} of {paths} at their end")
