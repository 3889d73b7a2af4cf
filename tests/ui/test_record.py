"""Recording: what belongs on the first screen."""

from __future__ import annotations

from backend.trace import Trace
from backend.types import Request
from demos.parts.knobs import offered
from demos.record import comparable, varied


def surveyed(*runs: tuple[str, str]) -> dict[str, tuple[float, Trace]]:
    return {s: (2.0, Trace(Request(s, "hi", {"target": target}))) for s, target in runs}


def test_the_first_screen_shows_no_other_target_and_nothing_lossy() -> None:
    found = surveyed(("block_transformer", "house/b"), ("judge", "local/a"), ("eagle", "local/a"))
    assert comparable(found, "local/a") == ["eagle"]


def test_the_first_of_every_family_comes_first() -> None:
    assert varied(["eagle", "medusa", "suffix", "jacobi"], offered("causal")) == ["eagle", "suffix", "jacobi", "medusa"]
