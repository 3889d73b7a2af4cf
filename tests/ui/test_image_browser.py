"""The image tab in Chromium: first screen, run, replay, stop, comparing, brush, phone. DOM facts, not pixels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.ui.conftest import LABEL
from tests.ui.visits import DONE, LANE, Visit

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
BOARD = "#image-board "
OPAQUE = """(lane) => {
  const node = document.querySelector(`#image-board .dl-lane[data-lane="${lane}"] .dl-picture`);
  const data = node.getContext("2d").getImageData(0, 0, node.width, node.height).data;
  let count = 0;
  for (let i = 3; i < data.length; i += 4) count += data[i] > 0;
  return count / (data.length / 4);
}"""


@pytest.fixture
def visit(browser: Any, url: str) -> Iterator[Visit]:
    made = Visit(browser, url, 1280, 800, "?tab=image", shows=BOARD + ".dl-picture")
    yield made
    made.context.close()


def painted(visit: Visit, lane: int) -> float:
    """Share of the pixels of a lane's picture that are painted."""
    return float(visit.page.evaluate(OPAQUE, lane))


def test_first_screen_replay_and_cells(visit: Visit) -> None:
    page = visit.page
    assert LABEL in visit.text(BOARD + ".dl-notice")
    page.wait_for_function(f"({OPAQUE})(1) === 1 && ({OPAQUE})(3) === 1")
    assert "256 of 256 cells" in page.get_attribute(BOARD + ".dl-picture", "aria-label")
    assert page.locator(BOARD + ".dl-frame").count() == 7
    page.keyboard.press("Home")
    page.wait_for_function(f"({OPAQUE})(1) === 0")
    page.evaluate("DecodingLab.race('image').seek(DecodingLab.race('image').lanes[0].steps[127].clock)")
    page.wait_for_function(f"({OPAQUE})(1) === 0.5")
    page.keyboard.press("End")
    page.wait_for_function(f"({OPAQUE})(1) === 1")
    page.focus(BOARD + ".dl-cells")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(BOARD + ".dl-card:not([hidden])")
    assert "row 1, column 2" in visit.text(BOARD + ".dl-card")
    page.click(BOARD + '[data-paint="step"]')
    assert page.is_visible(BOARD + ".dl-scale")
    visit.check()


def test_run_compare_and_paint_over(visit: Visit) -> None:
    page = visit.page
    page.click("#image-run")
    page.wait_for_selector(BOARD + ".dl-tag.is-live")
    for lane in (1, 2, 3):
        page.wait_for_selector(BOARD + DONE.format(lane))
        assert painted(visit, lane) == 1
    assert "pixels" in visit.text(".dl-wipe-told")
    page.focus(".dl-wipe-frame input")
    page.keyboard.press("ArrowRight")
    assert page.input_value(".dl-wipe-frame input") == "0.51"
    page.wait_for_selector("#image-run:not([disabled])")
    page.click("button:has-text('Paint over a part of a picture')")
    page.select_option(".dl-brush select", "1")
    page.locator(".dl-brush canvas").click(position={"x": 60, "y": 60})
    page.wait_for_selector("text=Run paints 4 of 256 cells again")
    page.click("#image-run")
    page.wait_for_function("DecodingLab.race('image').lanes[1]?.meta.picture?.given.length === 252")
    page.wait_for_selector(BOARD + LANE.format(1) + '[data-state="error"]')
    assert "row by row" in visit.text(BOARD + LANE.format(1) + " .dl-message")
    page.wait_for_selector(BOARD + DONE.format(2))
    visit.check()


def test_stop_keeps_the_picture_so_far(visit: Visit) -> None:
    page = visit.page
    page.click("#image-run")
    page.wait_for_function(
        "!DecodingLab.race('image').value.recorded && DecodingLab.race('image').lanes[0].steps.length > 3"
    )
    page.wait_for_selector("#image-stop:not([disabled])")
    page.keyboard.press("Escape")
    page.wait_for_selector(BOARD + LANE.format(1) + '[data-state="stopped"]')
    assert 0 < painted(visit, 1) < 1
    page.wait_for_selector("#image-run:not([disabled])")
    page.fill("#image-prompt textarea", "a ${1+1} dragon")
    page.wait_for_selector("#image-reading .is-wrong")
    assert "dragon" in visit.text("#image-reading")
    visit.check()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_phone(browser: Any, url: str, theme: str) -> None:
    phone = Visit(
        browser, url, 390, 844, f"?tab=image&__theme={theme}", BOARD + ".dl-picture", has_touch=True, is_mobile=True
    )
    ask, stage = (phone.page.locator(f"#image-{s}").bounding_box()["y"] for s in ("run", "board"))
    assert ask < stage
    phone.check()
    phone.context.close()
