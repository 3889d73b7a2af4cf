"""The image tab in Chromium: first screen, run, replay, stop, comparing, brush, phone. DOM facts, not pixels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from demos.parts import brush
from tests.ui.conftest import LABEL
from tests.ui.visits import DONE, LANE, Stage, Visit

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


def uploaded(visit: Visit, folder: Path, colour: str) -> None:
    """Unfold the brush and give it a picture of one colour."""
    path = folder / "picture.png"
    Image.new("RGB", (64, 64), colour).save(path)
    visit.page.click("button:has-text('Paint over a part of a picture')")
    with visit.page.expect_file_chooser() as chooser:
        visit.page.click("#image-upload")
    chooser.value.set_files(path)
    visit.page.wait_for_selector(".dl-brush canvas")


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


def test_a_part_of_an_uploaded_picture_is_painted_over(visit: Visit, tmp_path: Path) -> None:
    page = visit.page
    uploaded(visit, tmp_path, "#2f7fc4")
    page.click(".dl-brush [data-tool='size-4']")
    canvas = page.locator(".dl-brush canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    at = [(box["x"] + box["width"] * x, box["y"] + box["height"] * y) for x, y in ((0.4, 0.5), (0.9, 0.5))]
    page.mouse.move(*at[0])
    page.mouse.down()
    page.mouse.move(*at[1], steps=20)
    page.mouse.up()
    page.wait_for_selector("text=of 256 cells again")
    marked = int(visit.text(".dl-brush-told").split()[2])
    assert marked % 4 == 0
    assert 40 <= marked <= 48, "a stroke of four rows over half of the picture"
    page.click(".dl-brush [data-tool='erase']")
    canvas.focus()
    page.keyboard.press("ArrowRight")
    assert "row 1, column 2: kept" in visit.text(".dl-brush-told")
    page.click("#image-run")
    page.wait_for_function(f"DecodingLab.race('image').lanes[1]?.meta.picture?.given.length === {256 - marked}")
    page.wait_for_selector(BOARD + DONE.format(2))
    kept = page.evaluate("""() => {
      const lane = DecodingLab.race('image').lanes[1], film = DecodingLab.filmOf(lane).to(lane.steps.length);
      return [...film.given].map((slot) => [...film.rgb.slice(3 * slot, 3 * slot + 3)].join());
    }""")
    assert len(set(kept)) == 1, "what was not brushed over is as it was uploaded"
    page.click(".dl-brush [data-tool='remove']")
    assert page.is_hidden(".dl-brush canvas")
    visit.check()


def test_four_seeds_of_a_lane(visit: Visit) -> None:
    page = visit.page
    page.click("#image-mode input")
    page.click("[role=option]:has-text('Four seeds of lane 2')")
    page.click("#image-run")
    page.wait_for_function("DecodingLab.race('image').value.seeds")
    for lane in (1, 2, 3, 4):
        page.wait_for_selector(BOARD + DONE.format(lane))
        assert f"seed {lane - 1}" in visit.text(BOARD + LANE.format(lane) + " h3")
        assert painted(visit, lane) == 1
    assert "One strategy, four seeds." in visit.text(BOARD + ".dl-verdict")
    assert page.locator(BOARD + ".dl-speeds").first.evaluate("(n) => getComputedStyle(n).visibility") == "hidden"
    assert page.locator(".dl-wipe-menus option").count() == 8
    visit.check()


def test_another_style(visit: Visit) -> None:
    page = visit.page
    assert page.is_hidden("#image-chip-asleep")
    page.click("#image-style >> text=Thumbs")
    page.wait_for_function("document.querySelector('#image-prompt textarea').value.startsWith('orange thumb')")
    page.wait_for_selector("#image-chip-asleep")
    assert page.is_hidden("#image-chip-glasses")
    assert "Describe a thumb" in visit.text("#image-prompt")
    page.wait_for_function("document.querySelector('#image-lane-4 input').value.includes('Halton order')")
    page.click("#image-lane-4 input")
    offered = page.locator("[role=option]").all_inner_texts()
    assert any("Confidence" in name for name in offered)
    assert not any("Next scale" in name for name in offered)
    page.keyboard.press("Escape")
    page.click("#image-run")
    page.wait_for_selector(BOARD + DONE.format(4))
    page.wait_for_function("DecodingLab.race('image').lanes[3].meta.picture.side === 64")
    assert painted(visit, 4) == 1
    page.wait_for_selector("#image-run:not([disabled])")
    page.click("button:has-text('Paint over a part of a picture')")
    page.select_option(".dl-brush select", "3")
    page.click(".dl-brush [data-tool='low']")
    page.wait_for_selector("text=Run paints 128 of 256 cells again")
    page.fill("#image-prompt textarea", "a bald man with a beard")
    page.wait_for_selector("#image-reading .is-wrong")
    assert "describes a portrait, but the style is Thumbs" in visit.text("#image-reading")
    page.click("#image-style >> text=Pixel portraits")
    page.wait_for_selector("#image-chip-glasses")
    page.wait_for_function("document.querySelector('#image-lane-4 input').value.includes('Next scale')")
    page.wait_for_selector(".dl-brush canvas", state="hidden")
    visit.check()


def test_the_value_that_the_page_began_with_takes_no_picture_away(browser: Any) -> None:
    """Gradio hands it out again when something on the page unfolds, which may be after a picture was taken."""
    stage = Stage(browser, 800, 600)
    side, first = 16, brush.emptied()
    picture = brush._packed(np.full((side, side, 3), 9, dtype=np.uint8), np.zeros((side, side), dtype=np.uint8))
    made = """([first, picture]) => {
      const props = { value: first, race: "image" }, node = document.body.appendChild(document.createElement("div"));
      const watch = (name, heard) => { window.give = (value) => { props.value = value; heard(); }; };
      DecodingLab.mountBrush(node, props, watch);
      window.props = props;
      window.give(picture);
      node.querySelector("[data-tool=all]").click();
    }"""
    stage.page.evaluate(made, [first, picture])
    held = json.loads(stage.page.evaluate("props.value"))
    for late in (first, picture):
        stage.page.evaluate("(late) => give(late)", late)
        assert json.loads(stage.page.evaluate("props.value")) == held, "what Run sends is what is shown"
        assert stage.page.is_visible(".dl-brush canvas")
    stage.page.evaluate("(late) => give(late)", brush.emptied())
    assert stage.page.is_hidden(".dl-brush canvas")
    stage.context.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_phone(browser: Any, url: str, theme: str) -> None:
    phone = Visit(
        browser, url, 390, 844, f"?tab=image&__theme={theme}", BOARD + ".dl-picture", has_touch=True, is_mobile=True
    )
    ask, stage = (phone.page.locator(f"#image-{s}").bounding_box()["y"] for s in ("run", "board"))
    assert ask < stage
    phone.check()
    phone.context.close()
