"""Look inside: every view is rebuilt from the trace's lines alone, and tells what the trace holds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from backend.trace import Trace
from demos.parts.snapshot import recorded
from tests.ui import made
from tests.ui.visits import Stage, Visit

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
VIEW = '.dl-in-menu [data-view="{}"]'


def test_lines_carry_roles_and_figures() -> None:
    lines = [json.loads(line) for line in recorded([made.tree()], "then")["lanes"][0]["log"].splitlines()]
    assert lines[0][13] == {"target": [1, 1, 0.05], "draft": [3, 3, 0.02], "target.tokens": [2, 2, 0.01]}
    assert lines[0][14] == {"single": 0.5, "rule": 0.7, "optimum": 0.8, "own_number": 3.0}
    totals = lines[-1][:8]
    assert totals[2:4] == [8, 24], "calls of the target, of others; those of its parts are in neither"
    assert totals[6:8] == pytest.approx([8 * 0.06, 8 * 0.02]), "a part's seconds are the target's"
    assert len(json.loads(recorded([made.plain()], "then")["lanes"][0]["log"].splitlines()[0])) == 14


@pytest.fixture(scope="module")
def visit(browser: Any) -> Iterator[Stage]:
    opened = Stage(browser, 1280, 800)
    yield opened
    opened.check()
    opened.context.close()


@pytest.fixture(scope="module")
def phone(browser: Any) -> Iterator[Stage]:
    opened = Stage(browser, 390, 844, has_touch=True, is_mobile=True, reduced_motion="reduce")
    yield opened
    opened.check()
    opened.context.close()


def show(visit: Visit, trace: Trace, view: str, step: int | None = None) -> None:
    """Put a race of a plain lane and this one on the page, and choose the view."""
    show.count = getattr(show, "count", 0) + 1  # type: ignore[attr-defined]
    value = recorded([made.plain(), trace], "then", f"made-{show.count}")  # type: ignore[attr-defined]
    page = visit.page
    page.evaluate("(value) => DecodingLab.race('text').set(value)", value)
    page.wait_for_selector(".dl-inside:not([hidden])")
    page.evaluate("document.getElementById('text-inside').scrollIntoView()")
    page.click('.dl-in-lanes [data-lane="1"]')
    page.wait_for_selector('.dl-in-lanes [data-lane="1"][aria-pressed="true"]')
    if step is not None:
        page.evaluate("k => { const r = DecodingLab.race('text'); r.seek(r.lanes[1].steps[k - 1].clock); }", step)
    page.click(VIEW.format(view))
    page.wait_for_selector(VIEW.format(view) + '[aria-pressed="true"]')
    if step is not None:
        page.wait_for_function(
            "k => document.querySelector('.dl-in-step').textContent.startsWith(`step ${k} of`)", arg=step
        )


def caption(visit: Visit) -> str:
    return visit.text(".dl-in-body .dl-in-caption")


def test_a_tree_has_its_nodes_ranks_and_path(visit: Visit) -> None:
    show(visit, made.tree(), "tree", step=3)
    page = visit.page
    nodes = page.locator(".dl-node")
    assert nodes.count() == 7
    assert [n.get_attribute("aria-level") for n in nodes.all()] == ["1", "1", "2", "2", "2", "2", "2"]
    assert page.locator(".dl-edge.is-path").count() == 2, "the accepted guess and what the target drew behind it"
    assert page.locator(".dl-rank").all_text_contents() == ["1", "2", "1", "2", "3"]
    assert "6 guesses, 2 deep, 1 accepted" in caption(visit)
    trust = page.evaluate(
        """() => { const r = DecodingLab.race('text');
        return DecodingLab.treeOf(r.lanes[1].steps[2]).nodes.map((n) => n.trust); }"""
    )
    assert trust == pytest.approx([0.5, 0.4, 0.45, 0.2, 0.12, 0.04, 0.4])
    nodes.nth(1).focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(".dl-inside .dl-card:not([hidden])")
    card = visit.text(".dl-inside .dl-card")
    assert "rank among siblings" in card
    assert "0.200" in card, "q along the path"
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("document.activeElement.getAttribute('aria-level')") == "1"
    assert visit.text(".dl-in-step") == "step 3 of 8", "arrows in the tree do not move the race"


def test_chains_are_trees_with_one_child(visit: Visit) -> None:
    show(visit, made.chain(), "tree", step=2)
    levels = [n.get_attribute("aria-level") for n in visit.page.locator(".dl-node").all()]
    assert levels == ["1", "2", "3", "4", "3"]
    assert visit.page.locator(".dl-rank").count() == 0
    assert "a chain of 4 guesses, 2 accepted" in caption(visit)


def test_a_large_tree_keeps_the_accepted_path(visit: Visit) -> None:
    show(visit, made.wide_tree(), "tree")
    assert visit.page.locator(".dl-node").count() == 64
    assert visit.page.locator('.dl-node[data-f="kept"]').count() == 1
    assert "The 57 least trusted are left out" in caption(visit)


def test_steps_are_walked_with_the_buttons(visit: Visit) -> None:
    show(visit, made.tree(), "tree", step=3)
    visit.page.get_by_label("This lane's next step").click()
    visit.page.wait_for_function("document.querySelector('.dl-in-step').textContent === 'step 4 of 8'")
    visit.page.click(".dl-in-newest")
    visit.page.wait_for_function("document.querySelector('.dl-in-step').textContent === 'step 8 of 8'")


def test_depths_ranks_lengths_and_gap(visit: Visit) -> None:
    page = visit.page
    show(visit, made.tree(), "depth")
    sums = page.evaluate("() => { const l = DecodingLab.race('text').lanes[1]; return DecodingLab.depths(l, 8); }")
    assert (sums["drafted"], sums["play"], sums["kept"]) == ([16, 32], [16, 24], [8, 0])
    assert sums["hits"][0] == [0, 8], "at the first place the second guess was right every time"
    assert page.locator(".dl-matrix tbody tr").count() == 3
    show(visit, made.tree(), "lengths")
    assert "8 of 48 guesses were kept" in caption(visit)
    page.locator(".dl-step").nth(1).dispatch_event("click", {"bubbles": True})
    page.wait_for_function("document.querySelector('.dl-in-step').textContent === 'step 2 of 8'")
    show(visit, made.tree(), "gap")
    assert "gains 20.0 points over one draft, 67 %" in caption(visit)
    assert page.locator(".dl-stack").count() == 2


def test_calls_of_every_role_are_on_the_clock(visit: Visit) -> None:
    show(visit, made.tree(), "calls")
    assert visit.page.locator(".dl-rowname").all_text_contents() == [
        "draft",
        "target",
        "target.tokens",
        "outside calls",
    ]
    assert "target: 8 calls" in caption(visit)
    assert "50 % of the time" in caption(visit)


def test_unknown_figures_are_plotted_by_name(visit: Visit) -> None:
    show(visit, made.tree(), "figures")
    assert visit.page.locator(".dl-in-figure figcaption").all_inner_texts()[0].startswith("own number")
    assert visit.page.locator(".dl-in-figure").count() == 1, "the three of the gap have a view of their own"
    families = visit.page.evaluate("DecodingLab.families(['gate 10', 'kept', 'gate 2', 'gate 1'])")
    assert families == [["gate", ["gate 1", "gate 2", "gate 10"]], ["kept", ["kept"]]]


def test_suggestions_grow_and_one_is_taken(visit: Visit) -> None:
    show(visit, made.suggestions(), "suggest", step=2)
    lines = visit.page.locator(".dl-suggest li")
    assert lines.count() == 3
    assert "w30" in lines.nth(1).inner_text()
    assert "2: 30 %" in visit.text(".dl-stack")
    show(visit, made.suggestions(), "suggest", step=3)
    assert "✓ taken" in visit.page.locator(".dl-suggest li").nth(1).inner_text()
    assert visit.page.locator(".dl-suggest .is-taken").count() == 1


def test_requests_in_flight_wait_run_their_prompt_and_decode(visit: Visit) -> None:
    show(visit, made.requests(), "requests")
    kinds = [node.get_attribute("class") for node in visit.page.locator(".dl-gantt").all()]
    assert [sum(kind in (c or "") for c in kinds) for kind in ("is-wait", "is-prefill", "is-decode")] == [1, 3, 3]
    assert "2 rows of padding" in caption(visit)


def test_layers_and_exits(visit: Visit) -> None:
    show(visit, made.skipping(), "layers")
    assert "27 % of the feed-forward nets" in caption(visit)
    assert "of 10" in caption(visit)
    show(visit, made.exits(), "exits")
    assert "20 guesses left behind layer 1: 75 %, layer 3: 25 %" in caption(visit)


def test_a_slow_lane_says_why(visit: Visit) -> None:
    show(visit, made.chain(), "tree")
    lane = made.trace([*made.plain(12).steps])
    slow = [*(s for s in made.tree().steps), *(s for s in made.tree().steps)]
    value = recorded([lane, made.trace(slow)], "then", "slow")
    visit.page.evaluate("(value) => DecodingLab.race('text').set(value)", value)
    shown = visit.page.locator(".dl-lane .dl-why:not([hidden])").all_inner_texts()
    assert bool(shown) is bool(value["lanes"][1]["why"])


def test_the_recorded_first_screen_opens_with_a_view(browser: Any, url: str) -> None:
    first = Visit(browser, url, 1280, 800)
    first.page.locator("#text-inside").scroll_into_view_if_needed()
    first.page.wait_for_selector(".dl-inside .dl-node")
    menu = first.page.locator(".dl-in-menu button").all_inner_texts()
    assert menu[:3] == ["Draft tree", "By depth", "Draft lengths"]
    first.check()
    first.context.close()


def test_the_phone_shows_all_of_it(phone: Visit) -> None:
    for trace, view in (
        (made.wide_tree(), "tree"),
        (made.tree(), "depth"),
        (made.tree(), "calls"),
        (made.requests(), "requests"),
    ):
        show(phone, trace, view)
        inner, outer = phone.page.evaluate(
            "() => { const b = document.querySelector('.dl-inside'); return [b.scrollWidth, b.clientWidth]; }"
        )
        assert inner <= outer + 1
    assert re.match(r"4[4-9]|[5-9]\d", str(phone.page.locator(VIEW.format("calls")).bounding_box()["height"]))
