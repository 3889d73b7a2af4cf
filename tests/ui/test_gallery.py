"""The gallery: every strategy in turn on one prompt, rows that grow, sort, fail alone, and stop."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import gradio as gr
import pytest

from backend.registry import compatible, strategies
from demos import gallery
from demos.parts import knobs
from demos.parts.lab import Lab
from demos.parts.links import read_link
from demos.parts.parade import Parade, recorded_rows
from tests.ui.fakes import FakeCatalog, FakeModel
from tests.ui.visits import Stage, Visit

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
FORM = {"prompt": "hello", "mode": "Chat", "model": "", "precision": "auto", "budget": 8, "temperature": 0.0, "seed": 0}
SOME = ("autoregressive", "jacobi", "prompt_lookup", "speculative")


@pytest.fixture
def some(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few strategies, so that a run is quick."""
    monkeypatch.setattr(knobs, "offered", lambda protocol: [strategies()[s] for s in SOME])


def lab(**fake: float) -> Lab:
    return Lab(FakeCatalog(**fake))  # type: ignore[arg-type]


@pytest.mark.usefixtures("some")
def test_every_strategy_runs_in_turn_and_rows_stay() -> None:
    seen = [values[0] for values in gallery.run(lab(), FORM, "me")]
    last = seen[-1]
    assert [row["id"] for row in last["rows"]] == list(SOME)
    assert [row["state"] for row in last["rows"]] == ["done"] * 4
    assert last["state"] == "done"
    base, *others = last["rows"]
    assert (base["same"], base["speed_time"], base["tokens"]) == ("baseline", 1.0, 8)
    for row in others:
        assert row["same"] == "same"
        assert row["text"] == base["text"]
        assert row["length"] == pytest.approx(row["tokens"] / row["calls"], abs=1e-3)
        form = read_link(dict(parse_qsl(row["link"].removeprefix("?"))))
        assert (form["prompt"], form["budget"]) == (FORM["prompt"], FORM["budget"])
        assert [lane["strategy"] for lane in form["lanes"]] == [row["id"]]
    assert [values["rev"] for values in seen] == sorted({values["rev"] for values in seen})
    finished = next(v for v in seen if v["rows"][0]["state"] == "done")
    assert finished["rows"][0] is last["rows"][0], "a finished row is never made again"


@pytest.mark.usefixtures("some")
def test_a_row_that_cannot_run_leaves_the_others_going(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeCatalog, "default", lambda self, role, target: "house/none")
    rows = list(gallery.run(lab(), FORM, "me"))[-1][0]["rows"]
    assert [row["state"] for row in rows] == ["done", "done", "done", "error"]
    assert "house/none" in rows[3]["message"]


@pytest.mark.usefixtures("some")
def test_a_model_that_cannot_run_ends_it_with_one_reason() -> None:
    rows = list(gallery.run(lab(), {**FORM, "model": "house/broken"}, "me"))[-1][0]["rows"]
    assert rows[0]["state"] == "error"
    assert "no probabilities" in rows[0]["message"]
    assert {row["message"] for row in rows[1:]} == {"not run, since plain decoding failed"}


@pytest.mark.usefixtures("some")
def test_stop_ends_it_and_frees_the_device() -> None:
    here = lab(seconds=0.01)
    running = gallery.run(here, {**FORM, "budget": 400}, "me")
    for values in running:
        if values[0]["rows"][0]["state"] == "running" and values[0]["rows"][0].get("tokens", 0) > 3:
            Parade.stop(here, "somebody else")
            Parade.stop(here, "me")
            break
    rest = list(running)
    states = [row["state"] for row in rest[-1][0]["rows"]]
    assert states == ["stopped"] * 4
    assert not here.catalog().lock.locked()


@pytest.mark.usefixtures("some")
def test_closing_it_frees_the_device() -> None:
    here = lab(seconds=0.01)
    running = gallery.run(here, {**FORM, "budget": 400}, "me")
    next(running)
    running.close()
    end = time.monotonic() + 15
    while here.catalog().lock.locked():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_what_cannot_run_is_refused_at_once() -> None:
    with pytest.raises(gr.Error, match="prompt is empty"):
        next(gallery.run(lab(), {**FORM, "prompt": " "}, "me"))


def test_the_recorded_gallery_is_labelled_and_leaves_peers_out(tmp_path: Path) -> None:
    value = recorded_rows(gallery.RECORDED)
    assert value is not None
    assert "core" in value["recorded"]
    assert value["recorded"].startswith("on 20")
    ids = [row["id"] for row in value["rows"]]
    assert ids[0] == "autoregressive"
    assert set(ids) <= set(strategies())
    shipped = {r["strategy"]: r for r in json.loads(gallery.RECORDED.read_text())["rows"]}
    for row in value["rows"]:
        assert row["speed_time"] == pytest.approx(shipped[row["id"]]["speedup_time"], abs=1e-3)
        assert bool(row["why"]) <= (row["speed_time"] < 1)
    assert recorded_rows(tmp_path / "none.json") is None


# ------------------------------------------------------------------------------------------------------- in Chromium
def staged(browser: Any, width: int, height: int, **context: Any) -> Stage:
    """The recorded gallery on a page without a server."""
    stage = Stage(browser, width, height, **context)
    mount = "(value) => DecodingLab.mountGallery(document.getElementById('board'), {value}, () => {})"
    stage.page.evaluate(mount, recorded_rows(gallery.RECORDED))
    stage.page.wait_for_selector(".dl-gal-row")
    return stage


def column(visit: Stage | Visit, at: int) -> list[str]:
    return [str(x) for x in visit.page.locator(f".dl-gal-row > :nth-child({at})").all_inner_texts()]


def times_of(visit: Stage | Visit) -> list[float]:
    return [float(x.strip().removeprefix("×")) for x in column(visit, 7) if "×" in x]


def test_the_recorded_gallery_can_be_sorted(browser: Any) -> None:
    visit = staged(browser, 1280, 800)
    page = visit.page
    assert "not live" in visit.text(".dl-gallery .dl-notice")
    assert times_of(visit) == sorted(times_of(visit), reverse=True)
    page.click('.dl-gallery [data-sort="calls"]:is(.dl-segment *)')
    calls = [float(x.strip().removeprefix("×")) for x in column(visit, 6)]
    assert calls == sorted(calls, reverse=True)
    page.click('.dl-gal thead [data-sort="name"] button')
    assert page.get_attribute('.dl-gal th[data-sort="name"]', "aria-sort") == "ascending"
    names = page.locator(".dl-gal-name").all_inner_texts()
    assert names == sorted(names)
    page.click('.dl-gallery [data-sort="guarantee"]:is(.dl-segment *)')
    order = {"lossless": 0, "greedy-exact": 1, "lossy": 2}
    ranks = [order[x.strip()] for x in column(visit, 2)]
    assert ranks == sorted(ranks)
    page.locator(".dl-gal-name").first.click()
    assert page.locator(".dl-gal-name").first.get_attribute("aria-expanded") == "true"
    visit.check()
    visit.context.close()


def test_it_runs_live_sorts_and_stops(browser: Any, url: str) -> None:
    visit = Visit(browser, url, 1280, 800, "?tab=gallery", ".dl-gal-row:visible")
    page = visit.page
    page.set_default_timeout(150_000)  # on a busy machine
    page.fill("#gallery-budget input[type=number]", "100")
    page.locator("#gallery-budget input[type=number]").blur()
    page.click("#gallery-run")
    page.wait_for_selector(".dl-gallery .dl-tag.is-live")
    page.wait_for_function("document.querySelectorAll('.dl-gal-row[data-state=done]').length >= 2")
    able = {strategy.id for strategy in compatible(FakeModel.speaks)}
    shown = page.evaluate("[...document.querySelectorAll('.dl-gal-row')].map((row) => row.dataset.id)")
    assert sorted(shown) == sorted(able)
    order = page.evaluate(
        """() => { const rows = DecodingLab.gallery.value.rows, at = (row) => rows.find((r) => r.id === row.dataset.id);
        return [...document.querySelectorAll('.dl-gal-row[data-state=done]')].map(at).map((r) => r.speed_time); }"""
    )
    assert 1.0 in order
    assert order == sorted(order, reverse=True)
    page.keyboard.press("Escape")
    page.wait_for_selector("#gallery-run:not([disabled])")
    assert page.locator('.dl-gal-row[data-state="stopped"]').count() > 0
    assert "Stopped with" in visit.text(".dl-gallery .dl-verdict")
    visit.check()
    visit.context.close()


def test_it_fits_a_phone(browser: Any, url: str) -> None:
    phone = staged(browser, 390, 844, has_touch=True, is_mobile=True)
    row = phone.page.locator(".dl-gal-row").first.bounding_box()
    assert row["width"] <= 390
    assert phone.page.locator(".dl-gal-row > td:nth-child(7)").first.bounding_box()["y"] > row["y"] + 20, (
        "a card, not a line"
    )
    phone.check()
    phone.context.close()
