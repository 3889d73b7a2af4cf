"""A race on a lent GPU: the call is made in another process, so that everything that travels is a plain value."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Generator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from backend.types import Request
from demos.parts import header, lent
from demos.parts.lab import Lab
from demos.parts.race import Lane, State
from tests.ui.fakes import FakeCatalog

STRATEGIES = ("autoregressive", "speculative", "prompt_lookup")


def requests(budget: int = 16) -> list[Request]:
    return [Request(s, "hello there", budget=budget) for s in STRATEGIES]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """ZeroGPU as far as it can be had here: arguments and yields are pickled. Returns the seconds asked for."""
    seconds: list[int] = []

    def gpu(duration: Any) -> Any:
        def lend(work: Any) -> Any:
            def call(*args: Any) -> Generator[Any, None, None]:
                seconds.append(duration(*args))
                inner = work(*pickle.loads(pickle.dumps(args)))
                try:
                    for item in inner:
                        yield pickle.loads(pickle.dumps(item))
                finally:
                    inner.close()

            return call

        return lend

    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    monkeypatch.setitem(sys.modules, "spaces", SimpleNamespace(GPU=gpu))
    monkeypatch.setattr(lent, "_catalogs", {"auto": FakeCatalog(0.002)})
    return seconds


def test_a_lent_race_ends_like_any_other(asked: list[int]) -> None:
    race = Lab(FakeCatalog()).race(requests(), "auto", "me")  # type: ignore[arg-type]
    seen = [[lane.state for lane in race.lanes] for _ in race.start().watch()]
    assert seen[0] == [State.QUEUED] * 3
    assert [lane.state for lane in race.lanes] == [State.DONE] * 3
    assert all(lane.trace and len(lane.trace.written()) == 16 for lane in race.lanes)
    assert race.over
    assert asked == [lent.LOAD_SECONDS + round(3 * 16 / lent.SLOWEST)]


def test_leases_are_never_long(asked: list[int]) -> None:
    assert lent.lease_seconds(requests(4096), "auto") == lent.LONGEST


def test_stop_ends_the_lease(asked: list[int]) -> None:
    catalog = FakeCatalog(0.01)
    lent._catalogs["auto"] = catalog  # type: ignore[assignment]
    lab = Lab(FakeCatalog())  # type: ignore[arg-type]
    race = lab.race(requests(400), "auto", "me")
    for looks, _ in enumerate(race.start().watch()):
        if looks == 2:
            lab.stop("me")
    assert {lane.state for lane in race.lanes} == {State.STOPPED}
    assert race.over
    assert catalog.lock.acquire(timeout=5)  # the device was freed


def test_no_quota_is_said_on_every_lane(asked: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(requests: Sequence[Request], precision: str) -> Generator[list[Lane], None, None]:
        raise RuntimeError("You have no GPU quota left.")
        yield

    monkeypatch.setattr(lent, "step_lanes", refuse)
    race = Lab(FakeCatalog()).race(requests(), "auto", "me")  # type: ignore[arg-type]
    for _ in race.start().watch():
        pass
    assert all(lane.state is State.ERROR and "no GPU quota left" in lane.message for lane in race.lanes)
    assert race.over


def test_the_header_says_so(asked: list[int]) -> None:
    assert "ZeroGPU" in header.render(Lab(FakeCatalog()))  # type: ignore[arg-type]
