"""Rows of pictures and forecasts in the gallery: what was measured, against its own plain lane, with links to races."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from backend.registry import strategies
from demos import gallery
from demos.parts import measured
from demos.parts.links import read_link
from demos.parts.parade import recorded_rows
from tests.test_forecast_bench import lane
from tests.ui.visits import Stage


def forecasts(tmp_path: Path) -> measured.Tab:
    """A tab with three lanes of forecasts."""
    sums = {"new_slots": 8192, "num_target_calls": 8, "num_draft_calls": 0, "rows": {"target": 8}, "seconds": 4.0}
    made = [
        lane("recursive", 8, 0.5, 0.2),
        lane("speculative_patches:gamma=5", 4, 0.8, None, knobs={"gamma": 5, "paths": 64}),
        lane("rolled_direct:feedback=median", 1, 0.01, 0.25, knobs={"feedback": "median"}),
    ]
    for row in made:
        row |= {"slots": 8192, "sums": {**sums, "seconds": 8 * row["seconds"], "spent": {"target": 2.0}}}
    env = {"device": "cpu", "cores": 2, "cpu": "a test", "dtype": "float32", "date": "2026-01-01", "horizon": 128}
    path = tmp_path / "forecasting.json"
    path.write_text(json.dumps({"environment": {**env, "prompts": 6}, "rows": made}), encoding="utf-8")
    return replace(measured.TABS[1], path=path)


def test_rows_are_the_measured_ones(tmp_path: Path) -> None:
    value = measured.tab_rows(forecasts(tmp_path))
    assert value is not None
    assert value["recorded"] == "on 2026-01-01, 2-core a test, float32: 6 series, 128 steps ahead, medians"
    plain, ours, bands = value["rows"]
    assert (plain["same"], plain["length"], plain["note"]) == ("baseline", 16, "WQL 0.200, MASE 1.10")
    assert ours["title"] == "Speculative patches, gamma 5"
    assert ours["note"] == "as recursive"
    assert ours["speed_time"] == 0.625
    assert (plain["rate"], bands["rate"]) == (2, 100), "of one forecast, not of all that were timed"
    assert ours["why"].startswith("Why slower?")
    assert bands["why"] == ""
    form = read_link(dict(parse_qsl(bands["link"].removeprefix("?"))))
    assert form["lanes"] == [{"strategy": "rolled_direct", "knobs": {"feedback": "median"}, "models": {}}]
    assert dict(parse_qsl(bands["link"].removeprefix("?")))["tab"] == "forecast"
    assert measured.tab_rows(replace(measured.TABS[1], path=tmp_path / "none.json")) is None


def test_shipped_pictures_are_in_the_gallery() -> None:
    images = next(other for other in measured.others() if other["id"] == "image")
    assert images["title"] == "Images"
    rows = images["value"]["rows"]
    ids = [row["id"] for row in rows]
    assert len(ids) == len(set(ids)) > 10
    assert {row["id"].partition(":")[0] for row in rows} <= set(strategies())
    plain, whole = (next(row for row in rows if row["id"] == name) for name in ("autoregressive", "next_scale"))
    assert plain["same"] == "baseline"
    assert whole["rate"] == pytest.approx(whole["speed_time"] * plain["rate"], rel=0.5), "both tell how quick it is"
    assert whole["note"].endswith("% as asked")
    assert "nats/cell, FD-house" in whole["detail"]
    assert "detail" not in next(row for row in rows if row["note"].startswith("as "))


@pytest.mark.parametrize("width", [1280, 390])
def test_the_gallery_switches_between_them(browser: Any, tmp_path: Path, width: int) -> None:
    stage = Stage(browser, width, 800)
    other = {"id": "forecast", "title": "Forecasts", "value": measured.tab_rows(forecasts(tmp_path))}
    mount = """([value, other]) => { const props = { value, others: [other] };
        DecodingLab.mountGallery(document.getElementById("board"), props, (what, call) => {
            window.__again = (next) => { props.value = next; call(); }; }); }"""
    text = recorded_rows(gallery.RECORDED)
    assert text is not None
    stage.page.evaluate(mount, [text, other])
    stage.page.wait_for_selector(".dl-gal-row")
    assert stage.page.locator(".dl-gal-row").count() == len(text["rows"])
    stage.page.click("button[data-kind=forecast]")
    stage.page.wait_for_selector('.dl-gal-row[data-id="recursive"]')
    assert stage.page.locator(".dl-gal-row").count() == 3
    assert "6 series, 128 steps ahead" in stage.text(".dl-notice")
    assert "WQL 0.200, MASE 1.10" in stage.text(".dl-gal")
    if width > 1000:
        assert "steps / call" in stage.text(".dl-gal thead")
    fresh = {**text, "run_id": "live", "recorded": "", "state": "running", "rev": 1}
    stage.page.evaluate("(value) => window.__again(value)", fresh)
    stage.page.wait_for_selector(".dl-tag.is-live")
    assert stage.page.locator(".dl-gal-row").count() == len(text["rows"]), "a run is shown at once"
    stage.check()
    stage.context.close()
