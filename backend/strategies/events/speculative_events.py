"""Speculative events: a small point process drafts events of every path, the target judges them all in one call.

Speculative sampling (2211.17192) on events: a time and a kind drawn from q stay together with chance min(1, p / q),
joint densities with all their constants; behind the first no comes an event from what is left of p, by thinning. To
judge the time and then the kind is exact too, but keeps less; to judge the time alone is not exact. A drafted event
beyond the end of time is judged like any other: kept, it ends its path, and is not part of it.
Show: the raster by call, kept, rejected, corrected; acceptance by place beside that of time and kind judged apart.
"""

from collections.abc import Iterator
from typing import Annotated

from backend.chance import Ask
from backend.events import EventPaths, Events, acceptance, judge, placed, stacked
from backend.protocols import EventLaw, EventSession
from backend.registry import strategy
from backend.types import Fate, Guarantee, Knob, Step


@strategy(paper="2507.09252", guarantee=Guarantee.LOSSLESS, family="events")
def speculative_events(
    target: EventSession,
    draft: EventSession,
    ask: Ask,
    *,
    gamma: Annotated[int, Knob(1, 64, "events drafted before each target call")] = 4,
    paths: Annotated[int, Knob(1, 256, "sample paths")] = 16,
) -> Iterator[Step]:
    """Yield one step per target call: the judged drafts of all open paths, and one event behind each."""
    under_way = EventPaths(target, ask, paths)
    draft.fork(paths)
    while rows := under_way.open:
        length = min(gamma, under_way.room(rows) - 1)
        noise_RK3 = under_way.noise(rows, length + 1)
        drafts = Events.none(len(rows))
        q: list[EventLaw] = []
        for k in range(length):  # draft events 1 .. K from q
            q.append(draft.score(drafts.gap_N, drafts.kind_N, rows)[:, -1])
            drafts = drafts.then(placed(q[-1], noise_RK3[:, k]))
            if under_way.all_over(rows, drafts):
                break
        p = target.score(drafts.gap_N, drafts.kind_N, rows)  # one call, K + 1 laws for each path
        laws = stacked(q) if q else p[:, :0]
        counts, last = judge(p, laws, drafts, noise_RK3, ask.chance)
        figures = acceptance(p, laws, drafts)
        marks, events, kept = under_way.add(rows, drafts, counts, last)
        target.commit(events.gap_N, events.kind_N, kept, rows)
        draft.commit(events.gap_N, events.kind_N, kept, rows)
        agreed = sum(mark.fate is Fate.KEPT for mark in marks)
        yield Step(marks, f"{len(rows)} paths, {agreed} of {len(rows) * len(q)} drafted events kept", figures=figures)
