"""One app with fake models for all tests that need a server, and one Chromium."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

import app
from demos.parts import examples, subjects
from demos.parts.lab import Lab
from demos.parts.tables import save_race
from demos.record import record_example, record_pictures, record_race
from tests.ui.fakes import FakeCatalog
from tests.ui.forecasters import SeriesCatalog
from tests.ui.painters import PainterCatalog

for _name in anyio.__all__ if hasattr(anyio, "__all__") else dir(anyio):
    getattr(anyio, _name)  # now: pytest rewrites it on import, and that may not happen in a thread of the server

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-quic --no-first-run "
    "--disable-component-update --disable-sync"
)
LABEL = "on 2026-01-01, a test"


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a running app whose first screen is a recorded race of fake models."""
    folder = tmp_path_factory.mktemp("traces")
    patch = pytest.MonkeyPatch()
    patch.setattr(examples, "TRACES", folder)
    patch.setenv("NO_PROXY", "localhost,127.0.0.1")
    traces = record_race(FakeCatalog(0.002), examples.EXAMPLES[0], ["speculative", "token_recycling"], 40)  # type: ignore[arg-type]
    save_race(traces, folder / f"race-{examples.EXAMPLES[0].kind}.json.gz", LABEL)
    portrait = subjects.EXAMPLES[0]
    pictures = record_pictures(PainterCatalog(), portrait, ["confidence", "next_scale"], 1)  # type: ignore[arg-type]
    save_race(pictures, folder / f"race-image-{portrait.kind}.json.gz", LABEL)
    forecasts = record_example(SeriesCatalog(), "forecast", "trend and season", ["speculative_patches", "direct"])  # type: ignore[arg-type]
    save_race(forecasts, folder / "race-forecast-trend-and-season.json.gz", LABEL)
    demo = app.build(Lab(SeriesCatalog(0.06, load_seconds=0.3)))  # type: ignore[arg-type]
    _, address, _ = demo.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", **app.options())
    yield address
    demo.close()
    patch.undo()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """The distribution's Chromium, driven by Playwright."""
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not installed")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=os.fspath(CHROMIUM), args=FLAGS.split())
        yield chromium
        chromium.close()
