"""The rolling backtest and the view of predictability: handlers as generators, then what the browser draws."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr
import pytest

from backend.predictability import BLOCK, sources
from demos.parts import backtest, predictability
from demos.parts.forecast_form import HOLD, NUMBERS
from demos.parts.lab import Lab
from tests.ui.forecasters import SeriesCatalog
from tests.ui.visits import Stage

FORM: dict[str, Any] = {
    **{name: default for name, (_, _, default, _) in NUMBERS.items()},
    **{"data": "trend_season", "csv": "", "own": "", "truth": HOLD, "model": "", "precision": "auto", "lock": True},
    **{"horizon": 24, "paths": 12, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "penalty": 1.0},
    "lanes": [
        {"strategy": "speculative_patches", "models": {}, "knobs": {}},
        {"strategy": "rolled_direct", "models": {}, "knobs": {}},
    ],
}


def lab(seconds: float = 0.0) -> Lab:
    return Lab(SeriesCatalog(seconds))  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------------ backtest
def test_every_lane_is_scored_at_eight_origins() -> None:
    here = lab()
    seen = list(backtest.run(here, FORM, "me"))
    last = seen[-1][0]
    assert (last["state"], last["done"], last["total"]) == ("done", 8, 8)
    assert [values["rev"] for values, *_ in seen] == sorted({values["rev"] for values, *_ in seen})
    result = last["result"]
    assert result["origins"][-1]["until"] == 420 - 24
    assert [lane["strategy"] for lane in result["lanes"]] == ["recursive", "speculative_patches", "rolled_direct"]
    for lane in result["lanes"]:
        assert lane["problems"] == [""] * 8
        assert lane["pooled"]["origins"] == 8
        assert len(lane["by_step"]["sql"]) == 24
    assert "has the smallest WQL over 8 origins" in last["message"]
    assert here.catalog().lock.acquire(timeout=1), "the device is free again"


def test_stop_keeps_the_origins_that_are_done() -> None:
    here = lab(0.02)
    running = backtest.run(here, FORM, "me")
    for values, *_ in running:
        if values["done"] == 1 and values["state"] == "running":
            backtest.Rolling.stop(here, "me")
            break
    last = list(running)[-1][0]
    assert last["state"] == "stopped"
    assert 1 <= last["done"] < 8
    assert last["message"] == f"Stopped after {last['done']} of 8 origins."
    assert here.catalog().lock.acquire(timeout=5)


def test_closing_it_frees_the_device_and_a_new_one_stops_the_old_one() -> None:
    here = lab(0.02)
    first = backtest.run(here, FORM, "me")
    next(first)
    second = backtest.Rolling(here, FORM, "me")
    assert list(first)[-1][0]["state"] == "stopped"
    running = second.watch()
    next(running)
    running.close()
    assert here.catalog().lock.acquire(timeout=5)


def test_what_cannot_be_backtested_is_one_sentence() -> None:
    with pytest.raises(gr.Error, match="needs at least 2 of them"):
        next(backtest.run(lab(), {**FORM, "data": "nile", "horizon": 80}, "me"))
    broken = {**FORM, "lanes": [{"strategy": "speculative_patches", "models": {"draft": "house/none"}, "knobs": {}}]}
    last = list(backtest.run(lab(), broken, "me"))[-1][0]
    plain, other = last["result"]["lanes"]
    assert plain["pooled"]["origins"] == 8
    assert all("house/none" in text for text in other["problems"])


# ------------------------------------------------------------------------------------------------------ predictability
def test_one_source_is_measured_while_watched() -> None:
    here = lab()
    seen = list(predictability.run(here, "ar1-0.8", "me"))
    last = seen[-1][0]
    assert last["state"] == "done"
    assert (last["now"]["name"], last["now"]["series"], last["now"]["patches"]) == ("ar1-0.8", 2, 16)
    assert len(last["now"]["wql"]) == 256 // BLOCK
    assert "of the judged patches kept" in last["message"]
    assert here.catalog().lock.acquire(timeout=1)
    with pytest.raises(gr.Error, match="no source 'weather'"):
        next(predictability.run(here, "weather", "me"))


def test_stopping_a_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    here = lab(0.05)
    running = predictability.run(here, "ar1-0.5", "me")
    next(running)
    next(running)
    here.stop("chaos-me")
    assert list(running)[-1][0]["state"] == "stopped"
    assert here.catalog().lock.acquire(timeout=5)


def test_rank_correlation() -> None:
    assert predictability.correlation([(1, 5), (2, 6), (3, 9)]) == pytest.approx(1)
    assert predictability.correlation([(1, 9), (2, 6), (3, 5)]) == pytest.approx(-1)
    assert predictability.correlation([(1, 2), (2, 2), (3, 5)]) == pytest.approx(0.866, abs=1e-3)
    assert predictability.correlation([(1, 2), (2, 2), (3, 2)]) == 0


def test_the_summary_says_where_nothing_varies() -> None:
    rows = [{"exponent": e, "acceptance": a, "sweeps": {"0.0": 16.0}} for e, a in ((-1, 0.9), (0.1, 0.5), (1, 0.8))]
    said = predictability.summary(rows)
    assert said == "Rank correlation with the exponent: acceptance -0.50. Exact sweeps: 16 for every series."
    assert predictability.summary(rows[:2]) == ""


# ------------------------------------------------------------------------------------------------------------- browser
@pytest.fixture(name="stage", params=[1280, 390])
def a_stage(browser: Any, request: pytest.FixtureRequest) -> Iterator[Stage]:
    stage = Stage(browser, request.param, 900)
    yield stage
    stage.context.close()


MOUNT = """([value, name]) => { const at = document.getElementById("board"), props = { value, plotly: "" };
    DecodingLab[name](at, props, (what, call) => { window.__again = (next) => { props.value = next; call(); }; }); }"""


def test_the_board_of_the_backtest_grows_and_shows_scores_and_trouble(stage: Stage) -> None:
    here = lab()
    seen = [values for values, *_ in backtest.run(here, {**FORM, "data": "ar1"}, "me")]
    stage.page.evaluate(MOUNT, [seen[0], "mountBacktest"])
    assert stage.page.locator(".dl-back-table").is_hidden()
    assert "Origin 1 of 8" in stage.text(".dl-verdict")
    last = seen[-1]
    last["result"]["lanes"][2]["problems"][3] = "<img src=x onerror=alert(1)> cannot run"
    stage.page.evaluate("(value) => window.__again(value)", last)
    rows = stage.page.locator(".dl-back-table tbody tr")
    assert rows.count() == 3
    assert stage.page.locator("td[data-best]").count() >= 3
    assert f"{last['result']['lanes'][0]['pooled']['wql']:.3g}"[:4] in rows.nth(0).inner_text()
    stage.page.click("text=Every origin as a table")
    stage.page.wait_for_selector("details tbody tr")
    assert "<img src=x onerror=alert(1)> cannot run" in stage.text("details")
    assert stage.page.locator("details img").count() == 0
    assert stage.page.locator("details tbody tr").count() == 8
    stage.page.click("[data-panel=steps] button[data-view=width]")
    assert stage.page.get_attribute("[data-panel=steps] button[data-view=width]", "aria-pressed") == "true"
    assert stage.errors == []
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert stage.page.evaluate(wide) <= 0


def test_the_view_of_predictability_has_every_source_in_its_table(stage: Stage) -> None:
    rows = [
        {
            **{"name": s.name, "kind": s.kind, "title": s.title, "exponent": s.exponent, "series": 1, "patches": 16},
            **{"acceptance": 0.5, "interval": [0.4, 0.6], "calls": 8.0, "sweeps": {"0.0": 9.0, "0.001": 7.5}},
            "wql": [0.1, 0.2],
        }
        for s in sources().values()
    ]
    told = {**predictability.recorded(), "environment": None, "rows": rows, "message": predictability.summary(rows)}
    stage.page.evaluate(MOUNT, [{**told, "now": None}, "mountPredictability"])
    stage.page.click("text=These plots as a table")
    stage.page.wait_for_selector("details tbody tr")
    assert stage.page.locator("details tbody tr").count() == len(rows)
    assert "50.0 %" in stage.text("details")
    stage.page.evaluate("(value) => window.__again(value)", {**told, "now": rows[0], "run_id": "x", "state": "done"})
    assert stage.page.locator("details tbody tr").count() == len(rows) + 1
    assert stage.errors == []
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert stage.page.evaluate(wide) <= 0
