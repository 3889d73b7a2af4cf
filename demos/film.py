"""Film the recorded race of the first screen for the README: `python -m demos.film`.

Starts the app, moves its replay bar through the race in Chromium and writes the frames as one animated picture.
Needs the packages of requirements-dev.txt and a Chromium.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

import app

OUT = Path(__file__).resolve().parents[1] / "assets" / "readme" / "race.webp"
FRAMES = 36
SIZE = (1120, 700)  # of the film, in pixels
HOLD = 12  # times the last frame is shown
MILLISECONDS = 160
SEEK = """share => {
  const bar = document.querySelector('.dl-replay input[type=range]');
  bar.value = share * Number(bar.max);
  bar.dispatchEvent(new Event('input', { bubbles: true }));
}"""


def film(page: Page) -> Iterator[Image.Image]:
    """Pictures of the race from its first moment to its last."""
    page.wait_for_selector(".dl-lane .dl-tok")
    page.wait_for_timeout(1500)
    for i in range(FRAMES):
        page.evaluate(SEEK, i / (FRAMES - 1))
        page.wait_for_timeout(120)
        yield Image.open(io.BytesIO(page.screenshot())).convert("RGB")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m demos.film", description="Film the first screen's race.")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("google-chrome"))
    args = parser.parse_args(argv)
    if not args.chromium:
        print("No Chromium was found; install one or name it with --chromium.", file=sys.stderr)
        return 2
    _, url, _ = app.build().launch(prevent_thread_lock=True, quiet=True, **app.options())
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=args.chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme="light")
        page.goto(url + "?__theme=light")
        frames = list(film(page))
        browser.close()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    times = [MILLISECONDS] * (len(frames) - 1) + [MILLISECONDS * HOLD]
    frames = [frame.resize(SIZE, Image.Resampling.LANCZOS) for frame in frames]
    frames[0].save(args.out, save_all=True, append_images=frames[1:], duration=times, loop=0, quality=20, method=4)
    print(f"{args.out}: {len(frames)} frames, {args.out.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
