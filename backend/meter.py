"""Counts what a session costs: calls, rows and seconds. The session holds it, the runner reads it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Meter:
    """Running totals of one role. `sync` waits for the device, so that seconds are its own work."""

    def __init__(self, sync: Callable[[], None] | None = None) -> None:
        self.calls = 0
        self.rows = 0
        self.seconds = 0.0
        self.parts: dict[str, Meter] = {}
        self._sync = sync

    def part(self, name: str) -> Meter:
        """The totals of a part of the model that is called apart, such as a head: not counted here."""
        return self.parts.setdefault(name, Meter(self._sync))

    @contextmanager
    def call(self, rows: int) -> Iterator[None]:
        """Wrap one forward pass over `rows` positions."""
        start = time.perf_counter()
        yield
        if self._sync is not None:
            self._sync()
        self.calls += 1
        self.rows += rows
        self.seconds += time.perf_counter() - start
