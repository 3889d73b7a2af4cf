"""Races on ZeroGPU, where a GPU is lent to one call of one function, which runs in a process of its own.

The whole race is that call: it is stepped where the GPU is, and its lanes travel back as values a few times a second.
`LentRace` looks like a `Race` from outside. Off ZeroGPU nothing here is used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence

from backend.catalog import Catalog
from backend.types import Request
from demos.parts.race import Lane, Line, Race, State

Stepped = Callable[[Sequence[Request], str], Generator[list[Lane], None, None]]

LOAD_SECONDS = 20  # of a lease, for loading and warming up
SLOWEST = 20.0  # tokens a second of a lane that a lease must still suffice for
LONGEST = 120  # seconds of a lease; longer ones cost visitors their daily share and wait longer


def is_lent() -> bool:
    """Whether this is a ZeroGPU Space."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "true")


def lease_seconds(requests: Sequence[Request], precision: str) -> int:
    """How long the GPU is asked for: short leases start sooner and cost the visitor less."""
    return min(LONGEST, round(LOAD_SECONDS + sum(r.budget for r in requests) / SLOWEST))


def step_lanes(requests: Sequence[Request], precision: str) -> Generator[list[Lane], None, None]:
    """A race from its start to its end, in this process: its lanes as they are, again and again."""
    catalog = _catalog(precision)
    race = Race(requests, catalog, Line(catalog.lock))
    watching = race.start().watch()
    try:
        for _ in watching:
            yield race.lanes
    finally:
        watching.close()


def borrow() -> Stepped:
    """`step_lanes` on a borrowed GPU. To be called once, before the page is served: ZeroGPU looks for it then."""
    import spaces

    lent: Stepped = spaces.GPU(duration=lease_seconds)(step_lanes)
    return lent


_catalogs: dict[str, Catalog] = {}  # of the process that holds the GPU


def _catalog(precision: str) -> Catalog:
    """Made where the GPU is, and kept there for the next call."""
    if precision not in _catalogs:
        _catalogs[precision] = Catalog("auto", precision)
    return _catalogs[precision]


class LentRace(Race):
    """A race that is stepped elsewhere and watched from here.

    Args:
        stepped: see `borrow`. precision: of the weights. line: only to be asked how many wait.
    """

    def __init__(
        self, requests: Sequence[Request], catalog: Catalog, line: Line, precision: str, stepped: Stepped
    ) -> None:
        super().__init__(requests, catalog, line)
        self._precision = precision
        self._stepped = stepped
        self._requests = list(requests)

    def start(self) -> LentRace:
        """Nothing yet: the call is made by whoever watches, because the visitor's quota is known only there."""
        return self

    def watch(self, pause: float = 0.0) -> Generator[None, None, None]:
        """Borrow the GPU and pass on what comes back; closing this, or `stop`, ends the lease."""
        stepping = self._stepped(self._requests, self._precision)
        try:
            yield
            for lanes in stepping:
                self.lanes = lanes
                if self.stopping or all(lane.state.over for lane in lanes):
                    break
                yield
        except GeneratorExit:
            raise
        except Exception as error:  # no quota, no GPU free, a lease that ran out
            for lane in self.lanes:
                if not lane.state.over:
                    lane.state = State.ERROR
                    lane.message = f"The borrowed GPU gave up: {error} Try fewer tokens, or again in a while."
        finally:
            stepping.close()
            for lane in self.lanes:
                if not lane.state.over:
                    lane.state = State.STOPPED
            self._over.set()
        yield
