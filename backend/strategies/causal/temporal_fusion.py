"""Temporal fusion: several requests in flight on one model, one token for each of them in every call.

Yao et al. 2023 (2305.13484), Flover. A request's prompt runs once, into a free place of one buffer; from then on one
loop extends whatever requests are alive, each at its own position, and lets others in between two iterations. When
some end, the rest are moved together, as few as possible, so that the next call covers no free place.
The budget is shared evenly: each of n texts gets budget // n new tokens, in slots of its own behind all prompts.
Text i draws with the noise of seed + i, so that it is what plain decoding writes for it alone with that seed.
Schedules: "static" takes a batch and waits until the last of it has ended; "sequential" takes one text after another.
A step is an iteration; one in which there is nothing to do is yielded empty. Text i arrives in step i * gap, or, in a
Poisson stream, in each step one with chance 1 / gap. A mark at slot s is of text (s - prompt) // share: its first is
its prefill, the others come from the call that extends all.
Figures of a step: `texts` and `share`, the slots of each; `alive` texts in the call and `padding`, its rows without
one; `admitted` and `waiting` texts; `freed` and `moved` places. `backend.timeline` reads them.
Show: a Gantt chart, a row a text and a column a step: waiting, prefill, decoding, padding; latency and throughput.
"""

from collections.abc import Collection, Iterator
from typing import Annotated, Literal

from backend.chance import Ask
from backend.protocols import FleetSession, Scores
from backend.registry import strategy
from backend.sampling import drawn
from backend.types import Fate, Guarantee, Knob, Mark, Step


@strategy(paper="2305.13484", guarantee=Guarantee.LOSSLESS, family="several texts")
def temporal_fusion(
    target: FleetSession,
    ask: Ask,
    *,
    concurrency: Annotated[int, Knob(1, 32, "places: most texts in flight")] = 8,
    gap: Annotated[int, Knob(0, 64, "iterations between two arrivals; 0: all are there at once")] = 0,
    arrivals: Annotated[Literal["even", "poisson"], Knob(None, None, "gaps all alike, or by chance")] = "even",
    schedule: Annotated[
        Literal["fused", "static", "sequential"], Knob(None, None, "whom a waiting text waits for")
    ] = "fused",
    compaction: Annotated[bool, Knob(None, None, "move texts together when others have ended")] = True,
) -> Iterator[Step]:
    """Yield one step an iteration: a token for every open text in flight, and the first of every text let in."""
    flight = Flight(target, ask)
    clock, let_in, arrived, num = 0, 0, 0, len(target.texts)
    places = 1 if schedule == "sequential" else min(concurrency, num)
    target.reserve(places, flight.share)
    while ask.open:
        alive, marks, padding = flight.alive(), [], 0
        if alive:
            rows = range(min(flight.at), max(flight.at) + 1)
            scores = target.score(rows)  # one call for all
            marks = [flight.write(place, scores, place - rows.start) for place in alive]
            padding = len(rows) - len(alive)
        freed = flight.land(schedule == "static")
        if gap and clock and arrivals == "poisson":
            arrived += arrived < num and ask.chance.flip(1 / gap)
        else:
            arrived = min(num, clock // gap + 1) if gap else num
        free = 0 if schedule == "static" and flight.at else places - len(flight.at)
        admitted = range(let_in, min(let_in + free, arrived))
        for text in admitted:
            place = nearest(flight.at, places)
            flight.at[place] = text
            marks.append(flight.write(place, target.admit(text, place), 0))
        let_in += len(admitted)
        freed += flight.land(schedule == "static")
        moves = compact(flight.at, places) if compaction else []
        for source, goal in moves:
            target.move(source, goal)
            flight.at[goal] = flight.at.pop(source)
        counts = {"texts": num, "share": flight.share, "alive": len(alive), "admitted": len(admitted), "freed": freed}
        counts |= {"waiting": arrived - let_in, "padding": padding, "moved": len(moves)}
        clock += 1
        yield Step(tuple(marks), f"{len(alive)} decoding, {arrived - let_in} waiting", figures=counts)


class Flight:
    """Which text is at which place, and what is left to write of each."""

    def __init__(self, target: FleetSession, ask: Ask) -> None:
        self.at: dict[int, int] = {}  # the text at every place that is taken
        self._target = target
        self._asks = ask.split(len(target.texts))
        self.share = self._asks[0].left
        first = sum(map(len, target.texts))
        self._slots = [first + i * self.share for i in range(len(self._asks))]  # of every text's next token

    def alive(self) -> list[int]:
        """Places whose text is not done."""
        return sorted(place for place, text in self.at.items() if self._asks[text].open)

    def write(self, place: int, scores: Scores, row: int) -> Mark:
        """Draw the next token of the text at a place from that row of the scores."""
        text = self.at[place]
        ask, slot = self._asks[text], self._slots[text]
        (token,) = ask.take([ask.chance.pick(scores.p_NV[row], len(self._target.texts[text]))])
        self._target.commit(place, token)
        self._slots[text] += 1
        return drawn(slot, token, Fate.BONUS, scores, row)

    def land(self, together: bool) -> int:
        """Free the places of texts that are done; together: only once all are. Returns how many places."""
        alive = self.alive()
        done = [] if together and alive else [place for place in self.at if place not in alive]
        for place in done:
            self._target.retire(place)
            del self.at[place]
        return len(done)


def nearest(taken: Collection[int], places: int) -> int:
    """The free place that makes the run of places from the first taken one to the last the least longer."""
    free = [place for place in range(places) if place not in taken]
    return min(free, key=lambda place: max([place, *taken]) - min([place, *taken]))


def compact(taken: Collection[int], places: int) -> list[tuple[int, int]]:
    """Moves (from, to) after which the taken places lie side by side, as few as there can be.

    The window over as many places as are taken that holds most of them stays; only those outside move into it.
    """
    windows = (range(i, i + len(taken)) for i in range(places - len(taken) + 1))
    window = max(windows, key=lambda window: sum(place in taken for place in window))
    outside = sorted(place for place in taken if place not in window)
    return list(zip(outside, (place for place in window if place not in taken), strict=True))
