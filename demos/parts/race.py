"""A fair race: one worker a device steps the lane that has computed least so far; whoever watches never slows it.

Each lane's clock counts its own compute only, so lanes do not contend and the picture is a race in lane time.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from backend.catalog import Catalog
from backend.errors import UserError
from backend.quality import is_lossy, is_worth_weighing, weighed
from backend.run import Run, decode
from backend.trace import Trace
from backend.types import Request

WARM_BUDGET = 4  # tokens of the untimed first run of a strategy
DEADLINE_SECONDS = 600.0  # wall time after which a race is stopped
PAUSE_SECONDS = 0.22  # between two looks at a running race
BROKEN = "Something broke inside Decoding Lab; the log of the server has the details, the other lanes go on."

log = logging.getLogger(__name__)


class State(StrEnum):
    """Where a lane is."""

    QUEUED = "queued"
    LOADING = "loading"
    RUNNING = "running"
    STOPPED = "stopped"
    DONE = "done"
    ERROR = "error"

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self in (State.STOPPED, State.DONE, State.ERROR)


@dataclass
class Lane:
    """One strategy in a race. Written by the worker alone; `trace` is a frozen value, replaced after every step.

    message: what it is doing, or the sentence that says what went wrong. fraction: how much is loaded, from 0 to 1.
    """

    request: Request
    state: State = State.QUEUED
    message: str = ""
    fraction: float = 0.0
    trace: Trace | None = None
    clock: float = 0.0

    def fail(self, error: Exception) -> None:
        """End with a sentence: the user's error, or a general one and a line in the log."""
        if not isinstance(error, UserError):
            log.error("%s failed", self.request.strategy, exc_info=error)
        self.message = str(error) if isinstance(error, UserError) else BROKEN
        self.state = State.ERROR


class Line:
    """First come, first served before the lock of a device."""

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self._waiting: list[Race] = []
        self._guard = threading.Lock()

    def enter(self, race: Race) -> bool:
        """Wait for the device; False if the race was stopped before its turn."""
        with self._guard:
            self._waiting.append(race)
        try:
            while not race.stopping:
                if self._waiting[0] is race and self._lock.acquire(timeout=0.05):
                    return True
                time.sleep(0.02)
            return False
        finally:
            with self._guard:
                self._waiting.remove(race)

    def leave(self) -> None:
        """Free the device."""
        self._lock.release()

    def ahead(self, race: Race) -> int:
        """How many use the device or wait for it in front of the race; 0 if it does not wait."""
        waiting = list(self._waiting)
        return waiting.index(race) + self._lock.locked() if race in waiting else 0

    @property
    def length(self) -> int:
        """How many are waiting."""
        return len(self._waiting)


class Race:
    """Several requests on one device. `start`, then look at `lanes` as often as you like; `stop` ends it soon."""

    def __init__(
        self,
        requests: Sequence[Request],
        catalog: Catalog,
        line: Line,
        warm: set[tuple[str, ...]] | None = None,
        deadline: float = DEADLINE_SECONDS,
    ) -> None:
        """Nothing is loaded yet. warm: runs that were warmed up before, shared by all races of a catalog."""
        self.id = uuid.uuid4().hex[:12]
        self.lanes = [Lane(request) for request in requests]
        self.started = time.perf_counter()
        self.seconds = 0.0  # wall time of its steps, from the first to the end
        self._catalog = catalog
        self._line = line
        self._warm = warm if warm is not None else set()
        self._deadline = deadline
        self._weigh_first = len(requests) == 1 or any(is_lossy(request) for request in requests)
        self._stop = threading.Event()
        self._over = threading.Event()

    @property
    def stopping(self) -> bool:
        """Whether somebody asked for the end."""
        return self._stop.is_set()

    @property
    def over(self) -> bool:
        """Whether the device is free again and nothing more will happen."""
        return self._over.is_set()

    @property
    def ahead(self) -> int:
        """How many races wait for the device in front of this one."""
        return self._line.ahead(self)

    def start(self) -> Race:
        """Begin, in a thread of its own."""
        threading.Thread(target=self._work, name=f"race-{self.id}", daemon=True).start()
        return self

    def stop(self) -> None:
        """End at the next step. Traces so far stay."""
        self._stop.set()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the end; False if it did not come in time."""
        return self._over.wait(seconds)

    def watch(self, pause: float = PAUSE_SECONDS) -> Generator[None, None, None]:
        """Wake up now and then, and once more at the end. Closing this stops the race and frees the device."""
        try:
            yield
            while not self._over.wait(pause):
                yield
            yield
        finally:
            self.stop()

    def _work(self) -> None:
        try:
            if self._line.enter(self):
                try:
                    self._run_lanes()
                finally:
                    self._line.leave()
        finally:
            for lane in self.lanes:
                if not lane.state.over:
                    lane.state, lane.message = State.STOPPED, lane.message if self.stopping else "time limit"
            self._over.set()

    def _run_lanes(self) -> None:
        """Open lane by lane, then step the lane with the smallest clock until all are over."""
        runs: dict[int, Run] = {}
        try:
            for i, lane in enumerate(self.lanes):
                if not self.stopping and (run := self._open(lane)):
                    runs[i] = run
            began = time.perf_counter()
            limit = began + self._deadline
            for i in runs:
                self.lanes[i].state, self.lanes[i].message = State.RUNNING, ""
            while runs and not self.stopping and time.perf_counter() < limit:
                i = min(runs, key=lambda i: self.lanes[i].clock)
                if not self._step(self.lanes[i], runs[i]):
                    runs.pop(i).close()
                self.seconds = time.perf_counter() - began
        finally:
            for i, run in runs.items():
                run.close()
                self.lanes[i].trace = run.trace

    def _open(self, lane: Lane) -> Run | None:
        """Load, warm up and open; None where that failed, with the reason on the lane."""
        lane.state = State.LOADING

        def tell(message: str, fraction: float) -> None:
            lane.message, lane.fraction = message, fraction

        try:
            run = decode(lane.request, self._catalog, tell)
            ids = tuple(run.trace.request.models.values())
            key = (lane.request.strategy, *ids, str(self._catalog.environment().get("dtype")))
            if key not in self._warm:
                tell("warming up", 1.0)
                self._warm_up(lane.request)
                self._warm.add(key)
        except Exception as error:
            lane.fail(error)
            return None
        lane.message, lane.fraction, lane.trace = "ready", 1.0, run.trace
        return run

    def _warm_up(self, request: Request) -> None:
        """One short untimed run, so that no lane pays for being first."""
        with decode(replace(request, budget=min(request.budget, WARM_BUDGET)), self._catalog) as run:
            for _ in run:
                if self.stopping:
                    return

    def _step(self, lane: Lane, run: Run) -> bool:
        """One step of one lane; False when the lane is over."""
        try:
            step = next(run, None)
        except Exception as error:
            lane.trace = run.trace
            lane.fail(error)
            return False
        lane.trace = run.trace
        if step is None:
            paints = is_worth_weighing(lane.trace.request, self._catalog)
            if paints or is_lossy(lane.request) or (lane is self.lanes[0] and self._weigh_first):
                lane.trace = weighed(lane.trace, self._catalog)  # on nobody's clock
            lane.state = State.DONE
            return False
        lane.clock += step.seconds
        return True
