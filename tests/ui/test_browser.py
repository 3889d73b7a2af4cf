"""The page in Chromium: what a visitor sees and can do. DOM facts, not pixels."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from gradio_client import Client

from tests.ui.conftest import LABEL
from tests.ui.fakes import HOSTILE
from tests.ui.visits import DONE, LANE, Visit

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def visit(browser: Any, url: str) -> Iterator[Visit]:
    made = Visit(browser, url, 1280, 800)
    yield made
    made.context.close()


def test_first_screen_is_a_recorded_race_that_can_be_replayed(visit: Visit) -> None:
    page = visit.page
    assert LABEL in visit.text(".dl-notice")
    assert "not live" in visit.text(".dl-notice")
    assert visit.tokens(1) == visit.tokens(2) == 40
    page.keyboard.press("Home")
    page.wait_for_function("document.querySelectorAll('.dl-lane .dl-text .dl-tok:not([hidden])').length === 0")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("document.querySelectorAll('.dl-lane .dl-text .dl-tok:not([hidden])').length > 0")
    assert visit.tokens(1) + visit.tokens(2) + visit.tokens(3) < 20
    page.evaluate("DecodingLab.race('text').speed = 0.01")
    page.keyboard.press(" ")
    page.wait_for_function("DecodingLab.race('text').playing")
    page.keyboard.press("End")
    page.wait_for_function("document.querySelectorAll('.dl-lane .dl-text .dl-tok:not([hidden])').length === 120")
    page.locator("#text-plots").scroll_into_view_if_needed()
    page.wait_for_selector("#text-plots .main-svg")
    visit.check()


def test_run_fills_the_lanes_and_the_tables(visit: Visit) -> None:
    page = visit.page
    visit.run(24)
    page.wait_for_selector(".dl-tag.is-live")
    for lane in (1, 2, 3):
        page.wait_for_selector(DONE.format(lane))
    assert [visit.tokens(lane) for lane in (1, 2, 3)] == [24, 24, 24]
    assert "same text" in visit.text(LANE.format(2) + " .dl-chips")
    assert re.search(r"×\d", visit.text(LANE.format(2) + " .dl-speeds"))
    page.click("button:has-text('Summary')")
    page.wait_for_selector("text=Speculative sampling >> nth=1")
    assert page.is_enabled("#text-run")
    assert page.is_disabled("#text-stop")
    visit.check()


def test_stop_keeps_the_text_and_gives_run_back(visit: Visit) -> None:
    page = visit.page
    visit.run(500)
    page.wait_for_selector(LANE.format(1) + '[data-state="running"]')
    page.wait_for_function("DecodingLab.race('text').lanes[0].steps.length > 3")
    page.keyboard.press("Escape")
    page.wait_for_selector(LANE.format(1) + '[data-state="stopped"]')
    assert 0 < visit.tokens(1) < 500
    page.wait_for_selector("#text-run:not([disabled])")
    visit.check()


def test_a_lane_can_fail_alone_and_an_empty_prompt_is_a_sentence(visit: Visit) -> None:
    page = visit.page
    page.locator(".dl-lane-config.dl-l2 >> text=Options").click()
    page.get_by_label("draft model").first.fill("house/none")
    page.keyboard.press("Tab")
    visit.run(12)
    page.wait_for_selector(LANE.format(2) + '[data-state="error"]')
    assert "house/none" in visit.text(LANE.format(2) + " .dl-message")
    page.wait_for_selector(DONE.format(1))
    page.wait_for_selector("#text-run:not([disabled])")
    page.fill("#text-prompt textarea", "   ")
    page.click("#text-run")
    page.wait_for_selector("text=The prompt is empty")
    assert visit.tokens(1) == 12, "what was on the screen stays"
    visit.check()


def test_hostile_tokens_are_text(visit: Visit) -> None:
    page = visit.page
    page.evaluate(
        """(pieces) => {
        const marks = (i) => pieces.map((t, j) => [i * pieces.length + j, t, "bonus", j, 0.5, null, null, [[t, 0.5]]]);
        const n = pieces.length, totals = (i) => [i + 1, (i + 1) * n, i + 1, 0, 1, 0, 1, 0, 0, 0, 0];
        const line = (i) => JSON.stringify([...totals(i), pieces[2], marks(i)]);
        const log = Array.from({length: 625}, (_, i) => line(i)).join("\\n") + "\\n";
        const old = DecodingLab.race("text").value.lanes[0];
        DecodingLab.race("text").set({schema: 1, rev: 1, run_id: "hostile", state: "done",
            recorded: pieces[2], notice: "", prompt: pieces.join(" "), budget: 5000, seed: 0, temperature: 0, ahead: 0,
            lanes: [{...old, name: pieces[2], message: pieces[0], log}]});
        }""",
        list(HOSTILE),
    )
    page.wait_for_function("document.querySelectorAll('.dl-text .dl-tok').length === 5000")
    shown = page.locator(".dl-text .dl-tok").all_inner_texts()[: len(HOSTILE)]
    assert shown[:4] == list(HOSTILE[:4])
    assert shown[4:6] == ["a‹U+200B›b", "‹U+202E›drow"]
    page.locator(".dl-text .dl-tok").nth(2).hover()
    page.wait_for_selector(".dl-card:not([hidden])")
    assert page.locator(".dl-board img").count() == 0
    assert page.evaluate("getComputedStyle(document.querySelector('.dl-text .dl-tok')).unicodeBidi") == "isolate"
    visit.check()


def test_tokens_can_be_walked_with_the_keyboard(visit: Visit) -> None:
    page = visit.page
    page.locator(LANE.format(2) + " .dl-text .dl-tok").first.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(".dl-card:not([hidden])")
    assert page.evaluate("document.activeElement.classList.contains('dl-tok')")
    assert "token id" in visit.text(".dl-card")
    assert page.locator(LANE.format(2) + ' .dl-text .dl-tok[tabindex="0"]').count() == 1
    page.locator(".dl-key").first.click()
    assert page.get_attribute(".dl-board", "data-only") == "kept"
    page.click('[data-paint="confidence"]')
    assert page.is_visible(".dl-scale")
    visit.check()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_themes_and_phone(browser: Any, url: str, theme: str) -> None:
    phone = Visit(browser, url, 390, 844, f"?__theme={theme}", has_touch=True, is_mobile=True)
    page = phone.page
    ink, paper = page.evaluate(
        "() => { const c = getComputedStyle(document.querySelector('.dl-lane')); return [c.color, c.backgroundColor]; }"
    )
    brightness = [sum(int(x) for x in re.findall(r"\d+", color)[:3]) for color in (ink, paper)]
    assert (brightness[0] < brightness[1]) is (theme == "light")
    assert page.locator(".dl-replay .dl-button").first.bounding_box()["height"] >= 44
    ask, stage = (page.locator(s).bounding_box()["y"] for s in (".dl-ask", ".dl-stage"))
    lanes = page.locator(".dl-lane-list").bounding_box()["y"]
    assert ask < stage < lanes, "the race comes right behind the question"
    phone.check()
    phone.context.close()


def test_a_link_fills_the_form_and_runs_nothing(visit: Visit, browser: Any, url: str) -> None:
    page = visit.page
    page.fill("#text-prompt textarea", "From a link ${1+1}")
    page.click("#text-link")
    page.wait_for_function("location.search.includes('c=')")
    query = "?" + page.url.split("?", 1)[1]
    other = Visit(browser, url, 1280, 800, query)
    other.page.wait_for_function("document.querySelector('#text-prompt textarea').value === 'From a link ${1+1}'")
    assert "not live" in other.text(".dl-notice")
    other.check()
    other.context.close()
    visit.check()


@pytest.mark.parametrize("query", ["?tab=about", "?tab=no_such"])
def test_a_link_opens_its_tab(browser: Any, url: str, query: str) -> None:
    page = browser.new_page()
    page.goto(url + query)
    shown = "About" if query == "?tab=about" else "Text"
    page.wait_for_selector(f'button[role=tab][aria-selected=true]:has-text("{shown}")', timeout=20_000)
    page.close()


def test_a_closed_tab_frees_the_device(browser: Any, url: str) -> None:
    client = Client(url, verbose=False, analytics_enabled=False)
    gone = Visit(browser, url, 1280, 800)
    gone.run(500)
    gone.page.wait_for_selector(LANE.format(1) + '[data-state="running"]')
    assert client.predict(api_name="/health")["running"] == 1
    gone.context.close()
    end = time.monotonic() + 25
    while client.predict(api_name="/health")["running"]:
        assert time.monotonic() < end, "the race went on without anybody watching"
        time.sleep(0.2)


def test_reduced_motion_is_respected(browser: Any, url: str) -> None:
    calm = Visit(browser, url, 1280, 800, reduced_motion="reduce")
    calm.page.evaluate("document.querySelector('.dl-caret').hidden = false")
    assert calm.page.evaluate("getComputedStyle(document.querySelector('.dl-caret')).animationName") == "none"
    calm.context.close()
