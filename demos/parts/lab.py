"""What all tabs share: the catalogs, the line before the device, and the races that visitors have under way."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from backend.catalog import Catalog
from backend.types import Request
from demos.parts.lent import LentRace, borrow, is_lent
from demos.parts.race import Line, Race

if TYPE_CHECKING:
    from demos.parts.backtest import Rolling
    from demos.parts.parade import Parade

DEVICE = "device"  # concurrency id of everything that computes
WAITING_ROOM = 8  # races that may wait for the device or run on it; later ones wait in the queue of the server


class Lab:
    """One a process. A visitor has at most one race at a time; a new one stops the old one."""

    def __init__(self, catalog: Catalog | None = None) -> None:
        """catalog: the one for the precision "auto"; made now if left out."""
        self._catalogs = {"auto": catalog or Catalog(_device())}
        self._warm: dict[str, set[tuple[str, ...]]] = {}
        self._races: dict[str, Race] = {}
        self._guard = threading.Lock()
        self.parades: WeakValueDictionary[str, Parade] = WeakValueDictionary()  # by the visitor's session
        self.backtests: WeakValueDictionary[str, Rolling] = WeakValueDictionary()  # the same
        self.line = Line(self.catalog().lock)
        self._stepped = borrow() if is_lent() else None

    def catalog(self, precision: str = "auto") -> Catalog:
        """The models in this precision. Raises UserError for an unknown one."""
        usual = self._catalogs["auto"]
        if precision == usual.environment()["dtype"]:
            return usual
        if precision not in self._catalogs:
            self._catalogs[precision] = Catalog(_device(), precision)
        return self._catalogs[precision]

    def race(self, requests: Sequence[Request], precision: str, owner: str) -> Race:
        """A race that is ready to start. owner: the visitor's session."""
        catalog = self.catalog(precision)
        if self._stepped is None:
            race = Race(requests, catalog, self.line, self._warm.setdefault(precision, set()))
        else:
            race = LentRace(requests, catalog, self.line, precision, self._stepped)
        with self._guard:
            self._races = {key: other for key, other in self._races.items() if not other.over}
            if owner in self._races:
                self._races[owner].stop()
            self._races[owner] = race
        return race

    def race_of(self, owner: str) -> Race | None:
        """The last race of a visitor's session, if it is remembered."""
        return self._races.get(owner)

    def stop(self, owner: str) -> None:
        """Stop the visitor's race, if there is one."""
        race = self._races.get(owner)
        if race is not None:
            race.stop()

    @property
    def running(self) -> int:
        """Races that are not over."""
        return sum(not race.over for race in self._races.values())


def offline() -> bool:
    """Whether the model hub is switched off."""
    return os.environ.get("HF_HUB_OFFLINE", "") in ("1", "true", "True")


def _device() -> str:
    """Where this process computes: not on a GPU that is only lent to calls in other processes."""
    return "cpu" if is_lent() else "auto"
