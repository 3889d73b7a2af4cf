"""Recording: what belongs on the first screen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backend.trace import Trace
from backend.types import Request, Sampling
from demos import image
from demos.parts.assets import TRACES
from demos.parts.knobs import offered
from demos.parts.tables import load_race, save_race
from demos.record import comparable, varied, weigh_again
from tests.toys_raster import Painters, paint, painter


def surveyed(*runs: tuple[str, str]) -> dict[str, tuple[float, Trace]]:
    return {s: (2.0, Trace(Request(s, "hi", {"target": target}))) for s, target in runs}


def test_the_first_screen_shows_no_other_target_and_nothing_lossy() -> None:
    found = surveyed(("block_transformer", "house/b"), ("judge", "local/a"), ("eagle", "local/a"))
    assert comparable(found, "local/a") == ["eagle"]


def test_the_first_of_every_family_comes_first() -> None:
    assert varied(["eagle", "medusa", "suffix", "jacobi"], offered("causal")) == ["eagle", "suffix", "jacobi", "medusa"]


def test_what_a_recorded_picture_is_worth_can_be_told_anew(tmp_path: Path) -> None:
    trace = paint("autoregressive", [painter()], sampling=Sampling(temperature=1.0))
    path = save_race([trace], tmp_path / "race.json.gz", "then")
    catalog: Any = Painters(painter())
    (told,), label = load_race(weigh_again(catalog, path))
    assert label == "then"
    assert told.worth["log_likelihood"] < 0
    assert told.steps == load_race(save_race([trace], tmp_path / "before.json.gz"))[0][0].steps


RACES = [path for kind in image.PAGE.kinds if (path := TRACES / f"race-{image.PAGE.file_of(kind)}.json.gz").is_file()]


@pytest.mark.parametrize("path", RACES, ids=lambda path: path.name)
def test_all_recorded_pictures_are_judged_and_weighed_by_one_painter(path: Path) -> None:
    for trace in load_race(path)[0]:
        assert trace.worth["by_painter"] < 0
        assert 0 < trace.worth["attributes"] <= 1
