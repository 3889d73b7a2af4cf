"""The forecasting tab in Chromium: first screen, replay, own data with a bad row, run, phone. DOM facts, not pixels."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from demos.parts import links
from tests.ui.conftest import LABEL
from tests.ui.visits import DONE, LANE, Visit

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
BOARD = "#forecast-board "
FAN = BOARD + ".dl-fan-chart"
LANES = [{"strategy": s, "models": {}, "knobs": {}} for s in ("speculative_patches", "rolled_direct")]
SMALL = {"horizon": 32, "paths": 6, "context": 64, "lanes": LANES}
ROWS = [f"shop,2024-{1 + i // 28:02}-{1 + i % 28:02},{10 + i % 7}" for i in range(140)]
BAD = "\n".join(["unique_id,ds,y", *ROWS, "cafe,2024-01-01,1", "cafe,2024-01-02,<b>two</b>"])


def bands(lane: int) -> str:
    return f"document.querySelectorAll('{BOARD}{LANE.format(lane)} .dl-fan-chart .dl-band').length"


@pytest.fixture
def visit(browser: Any, url: str) -> Iterator[Visit]:
    link = links.make_link("forecast", SMALL)
    made = Visit(browser, url, 1280, 800, link, shows=FAN)
    yield made
    made.context.close()


def test_first_screen_replay_and_reading_a_step(visit: Visit) -> None:
    page = visit.page
    assert LABEL in visit.text(BOARD + ".dl-notice")
    assert "trend_season: 96 steps behind" in visit.text(BOARD + ".dl-prompt")
    page.wait_for_function(f"{bands(1)} === 3 && {bands(2)} === 3 && {bands(3)} === 2")
    assert page.locator(BOARD + LANE.format(2) + " .dl-calls [data-f=rejected]").count() > 0
    assert page.locator(BOARD + LANE.format(2) + " .dl-ring").count() >= 3
    assert page.locator("#forecast-scores tbody tr").count() == 3
    page.keyboard.press("Home")
    page.wait_for_function(f"{bands(1)} === 0 && {bands(2)} === 0")
    page.keyboard.press("ArrowRight")
    page.wait_for_function(f"{bands(1)} + {bands(2)} + {bands(3)} > 0")
    page.keyboard.press("End")
    page.wait_for_function(f"{bands(1)} === 3")
    page.focus(BOARD + ".dl-fan")
    page.keyboard.press("End")
    tip = visit.text(BOARD + ".dl-fan-tip:not([hidden])")
    for told in ("96 of 96", "truth", "median", "80 % band"):
        assert told in tip
    assert page.locator(BOARD + ".dl-cross:not([hidden])").count() == 3, "the cross is in every lane"
    page.click(BOARD + '[data-layer="bands"]')
    assert page.locator(FAN + " .dl-band >> visible=true").count() == 0
    page.locator(BOARD + LANE.format(1) + " .dl-call-row .dl-bar").first.click()
    page.wait_for_function("DecodingLab.race('forecast').at(DecodingLab.race('forecast').lanes[0]) === 1")
    visit.check()


def test_own_data_with_a_bad_row_is_told_and_the_rest_runs(visit: Visit, tmp_path: Path) -> None:
    page, path = visit.page, tmp_path / "mine.csv"
    path.write_text(BAD)
    page.click("button:has-text('Your own data')")
    with page.expect_file_chooser() as chooser:
        page.click("#forecast-upload")
    chooser.value.set_files(path)
    page.wait_for_selector("#forecast-series li")
    assert "Row 143, column y: '<b>two</b>' is no number; series 'cafe' is left out." in visit.text("#forecast-series")
    page.fill("#forecast-horizon input[type=number]", "145")
    page.locator("#forecast-horizon input[type=number]").blur()
    page.wait_for_selector("#forecast-series .is-wrong")
    page.click("#forecast-run")
    page.wait_for_selector("[data-testid=toast-body] >> text=are left to look back on")
    assert page.input_value("#forecast-csv textarea") == BAD, "nothing typed is lost"
    page.fill("#forecast-horizon input[type=number]", "32")
    page.locator("#forecast-horizon input[type=number]").blur()
    page.wait_for_selector("#forecast-series .is-wrong", state="detached")
    page.click("#forecast-run")
    page.wait_for_selector(BOARD + ".dl-tag.is-live")
    for lane in (1, 2, 3):
        page.wait_for_selector(BOARD + DONE.format(lane))
    assert "shop: 32 steps behind" in visit.text(BOARD + ".dl-prompt")
    assert page.locator(FAN + ":has(.dl-truth)").count() == 3
    page.wait_for_selector("#forecast-run:not([disabled])")
    cells = page.locator("#forecast-scores tbody tr").first.locator("td").all_inner_texts()
    assert float(cells[5]) > 0
    assert cells[-1] == "lossless"
    with page.expect_download() as waiting:
        page.click("#forecast-export")
    rows = list(csv.DictReader(waiting.value.path().open()))
    assert len(rows) == 32
    assert {"unique_id", "ds", "recursive", "recursive-lo-80", "rolled_direct-hi-80"} <= set(rows[0])
    visit.check()


def test_pasted_data_is_chosen_at_once(visit: Visit) -> None:
    page = visit.page
    page.click("button:has-text('Your own data')")
    page.click("#forecast-csv textarea")
    page.keyboard.insert_text(BAD)  # as pasting does
    page.wait_for_function("document.querySelector('#forecast-data input').value === 'Your own data'")
    page.wait_for_function("document.querySelector('#forecast-own input').value === 'shop'")
    visit.check()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_phone(browser: Any, url: str, theme: str) -> None:
    phone = Visit(browser, url, 390, 844, f"?tab=forecast&__theme={theme}", FAN, has_touch=True, is_mobile=True)
    page = phone.page
    ask, stage = (page.locator(f"#forecast-{s}").bounding_box()["y"] for s in ("run", "board"))
    assert ask < stage
    assert page.locator(FAN).first.bounding_box()["width"] > 300, "one lane below the other, as wide as the screen"
    median, band = (f"getComputedStyle(document.querySelector('{FAN} {c}'))" for c in (".dl-median", ".dl-band"))
    assert page.evaluate(f"{median}.stroke") == page.evaluate(f"{band}.fill") != "none"
    phone.check()
    phone.context.close()
