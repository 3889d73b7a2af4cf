"""A visitor in Chromium, who notes every request and every complaint of the page."""

from __future__ import annotations

import re
from typing import Any

from demos.parts import assets

LANE = '.dl-lane[data-lane="{}"]'
DONE = LANE + '[data-state="done"]'


class Visit:
    """A page, and everything it asked for or complained about."""

    def __init__(
        self, browser: Any, url: str, width: int, height: int, query: str = "", shows: str = ".dl-lane", **context: Any
    ) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": height}, **context)
        self.page = self.context.new_page()
        self.page.set_default_timeout(60_000)
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda r: self.requests.append(r.url))
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda e: self.errors.append(str(e)))
        self.page.goto(url + query)
        self.page.wait_for_selector(shows)

    def check(self) -> None:
        """Nothing left this machine, nothing failed, nothing is wider than the screen."""
        foreign = [r for r in self.requests if not re.match(r"(data|blob):|https?://(127\.0\.0\.1|localhost)[:/]", r)]
        assert foreign == []
        assert self.errors == []
        wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert self.page.evaluate(wide) <= 0

    def text(self, selector: str) -> str:
        return str(self.page.inner_text(selector))

    def tokens(self, lane: int) -> int:
        return int(self.page.locator(f"{LANE.format(lane)} .dl-text .dl-tok:not([hidden])").count())

    def run(self, budget: int = 24) -> None:
        self.page.fill("#text-budget input[type=number]", str(budget))
        self.page.locator("#text-budget input[type=number]").blur()
        self.page.click("#text-run")


class Stage(Visit):
    """A bare page with our scripts and the views of a race, but without a server: for what the browser does alone."""

    def __init__(self, browser: Any, width: int, height: int, **context: Any) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": height}, **context)
        self.page = self.context.new_page()
        self.page.set_default_timeout(60_000)
        self.requests, self.errors = [], []
        self.page.on("request", lambda r: self.requests.append(r.url))
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda e: self.errors.append(str(e)))
        self.page.set_content(STAGE)
        for name in assets.STYLES:
            self.page.add_style_tag(path=assets.UI / name)
        for name in assets.SCRIPTS:
            self.page.add_script_tag(path=assets.UI / name)
        self.page.evaluate(
            """() => { const lab = DecodingLab, at = (id) => document.getElementById(id);
            lab.mountBoard(at("board"), {race: "text"}, () => {});
            lab.mountInside(at("text-inside"), {race: "text"}); }"""
        )


STAGE = (
    '<!doctype html><meta name="viewport" content="width=device-width"><body class="gradio-container" style="margin:0">'
    '<div id="board"></div><div id="text-inside"></div></body>'
)
