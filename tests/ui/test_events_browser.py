"""The events of the forecasting tab: what was recorded, links to them, and a run in Chromium. DOM facts, not pixels."""

from __future__ import annotations

from typing import Any

import pytest

from demos.parts import events, links
from tests.ui.visits import Visit

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
PART = "#forecast-events-part "
BOARD = "#forecast-events "
FORM = {"data": "quakes", "csv": "", "horizon": 6.0, "gamma": 3, "paths": 4, "seed": 5}
OURS = "\n".join(["time,mark", *(f"{0.5 * i + 0.1 * (i % 3)},{'ab'[i % 2]}" for i in range(40)), "soon,a"])


def query(link: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in link.removeprefix("?").split("&"))


def test_links_hold_the_form() -> None:
    told = query(events.make_link("forecast", FORM))
    assert told["view"] == "events"
    assert events.linked(told, "forecast") == FORM
    assert events.linked(told, "image") == {}
    own = {**FORM, "data": "own", "csv": OURS}
    assert events.linked(query(events.make_link("forecast", own)), "forecast") == own


@pytest.mark.parametrize(
    "given", [{}, {"data": 3, "gamma": "x", "csv": None}, {"data": "own", "seed": float("inf"), "paths": True}]
)
def test_what_a_link_does_not_tell_is_as_usual(given: dict[str, Any]) -> None:
    told = events.linked(query(links.make_link("forecast", {"events": given}, view="events")), "forecast")
    assert told == {**events.USUAL, "csv": "", "seed": events.NUMBERS["seed"][1] if "seed" in given else 0}


def test_what_is_recorded_is_whole() -> None:
    told = events.recorded()
    assert told is not None
    assert told["state"] == "done"
    assert told["recorded"].startswith("on 20")
    plain, ours = told["lanes"]
    assert plain["strategy"] == events.LANES[0]
    assert ours["summary"]["calls"] < plain["summary"]["calls"]
    for lane in (plain, ours):
        assert lane["residuals"]["target"]["count"] == lane["summary"]["events"]


def test_a_link_opens_the_part_and_it_runs(browser: Any, url: str) -> None:
    link = events.make_link("forecast", {**FORM, "paths": 2})
    visit = Visit(browser, url, 1280, 800, link, shows=BOARD + ".dl-tag")
    page = visit.page
    assert visit.text(BOARD + ".dl-tag") == "recorded, not live"
    page.wait_for_function(
        "(() => { const at = document.querySelector('#forecast-events-part').getBoundingClientRect().top;"
        " return at > -400 && at < innerHeight; })()"
    )
    assert page.input_value("#forecast-events-paths input") == "2"
    page.click("#forecast-events-run")
    page.wait_for_selector(BOARD + ".dl-tag.is-live")
    page.wait_for_selector(BOARD + ".dl-verdict[data-state=done]")
    assert "fewer target calls an event" in visit.text(BOARD + ".dl-verdict")
    assert "Earthquakes: 128 events known" in visit.text(BOARD + ".dl-when")
    rows = page.locator(BOARD + "tbody tr")
    assert rows.count() == 2
    assert rows.nth(1).locator("td").last.inner_text() == "lossless"
    page.wait_for_selector("#forecast-events-run:not([disabled])")
    visit.check()
    visit.context.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_own_events_on_a_phone_with_a_bad_row(browser: Any, url: str, theme: str) -> None:
    phone = Visit(
        browser, url, 390, 844, f"?tab=forecast&__theme={theme}", BOARD + ".dl-tag", has_touch=True, is_mobile=True
    )
    page = phone.page
    page.click(PART + "button:has-text('Your own events')")
    page.click("#forecast-events-csv textarea")
    page.keyboard.insert_text(OURS)  # as pasting does
    page.fill("#forecast-events-horizon input", "4")
    page.locator("#forecast-events-horizon input").blur()
    page.wait_for_function("document.querySelector('#forecast-events-data input').value === 'Your own events'")
    page.click("#forecast-events-run")
    page.wait_for_selector(BOARD + ".dl-verdict[data-state=done]:has-text('law')")
    page.wait_for_selector(BOARD + ".dl-tag.is-live")
    assert "Row 42, column time: 'soon' is neither a number nor a date" in phone.text(BOARD + ".dl-event-problems")
    phone.check()
    phone.context.close()
