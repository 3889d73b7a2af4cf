"""Record races with real models for the first screens: `python -m demos.record [--tab image|forecast|events]`.

Of text it writes race-<example>.json.gz for every example prompt (the baseline and three strategies that suit it) and
<strategy>.json.gz for every strategy; of images and forecasts race-image-<example>.json.gz and
race-forecast-<example>.json.gz, with the strategies that the tab starts with; of events race-events.json.gz. All of
them can be shown by the app and the tests without a model.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from backend.catalog import Catalog
from backend.protocols import CausalSession
from backend.quality import is_lossy, weighed
from backend.registry import Strategy
from backend.trace import Trace
from backend.types import Request
from demos import forecasting, image
from demos.parts import events, forecast_form, painting
from demos.parts.assets import TRACES
from demos.parts.examples import EXAMPLES, Example
from demos.parts.form import BASELINE
from demos.parts.knobs import offered
from demos.parts.lab import Lab
from demos.parts.page import machine
from demos.parts.race import Line, Race, State
from demos.parts.subjects import EXAMPLES as PORTRAITS
from demos.parts.subjects import LOOKS, Portrait
from demos.parts.tables import load_race, save_race
from demos.text import PROTOCOL

LANES = 3  # strategies beside the baseline in a recorded race


def record_race(
    catalog: Catalog, example: Example, strategy_ids: Sequence[str], budget: int, repeats: int = 1
) -> list[Trace]:
    """The traces of the baseline and these strategies on an example, of the median of a few races."""
    prompt = example.prompt if example.chat else {"text": example.prompt, "chat": False}
    return run_race(catalog, [Request(s, prompt, budget=budget) for s in (BASELINE, *strategy_ids)], repeats)


def run_race(catalog: Catalog, requests: Sequence[Request], repeats: int = 1) -> list[Trace]:
    """The traces of the lanes that ran to their end, of the median of a few races."""
    races, warm = [], set[tuple[str, ...]]()
    for _ in range(repeats):
        race = Race(requests, catalog, Line(catalog.lock), warm)
        race.start().wait()
        races.append(race)
    race = sorted(races, key=lambda r: r.lanes[0].clock)[repeats // 2]
    failed = [lane for lane in race.lanes if lane.state != State.DONE]
    for lane in failed:
        print(f"  {lane.request.strategy}: {lane.message}", file=sys.stderr)
    return [lane.trace for lane in race.lanes if lane.trace is not None and lane not in failed]


def survey(
    catalog: Catalog, example: Example, known: Sequence[Strategy], budget: int
) -> dict[str, tuple[float, Trace]]:
    """Measured speedup and trace of every strategy that runs on an example, the quickest first."""
    found: dict[str, tuple[float, Trace]] = {}
    ids = [strategy.id for strategy in known[1:]]
    for at in range(0, len(ids), LANES):
        base, *rest = record_race(catalog, example, ids[at : at + LANES], budget)
        for trace in rest:
            found[trace.request.strategy] = (trace.summary().speedup_time(base.summary()), trace)
            print(f"  {trace.request.strategy:22} x{found[trace.request.strategy][0]:.2f}", flush=True)
    return dict(sorted(found.items(), key=lambda item: -item[1][0]))


def comparable(surveyed: Mapping[str, tuple[float, Trace]], target: str) -> list[str]:
    """The strategies of a survey that belong beside plain decoding on the first screen: same target, and not lossy."""
    return [s for s, (_, t) in surveyed.items() if t.request.models["target"] == target and not is_lossy(t.request)]


def varied(ranked: Sequence[str], known: Sequence[Strategy]) -> list[str]:
    """The first of every family, in order of rank, then the others: a race should show different ideas."""
    family = {s.id: s.family for s in known}
    heads = list({family[s]: s for s in reversed(ranked)}.values())
    return [s for s in ranked if s in heads] + [s for s in ranked if s not in heads]


def record_pictures(catalog: Catalog, example: Portrait, strategy_ids: Sequence[str], repeats: int) -> list[Trace]:
    """The traces of the baseline and these strategies on a prompt, with the first settings of the image tab."""
    form: dict[str, Any] = {name: default for name, (_, _, default, _) in painting.NUMBERS.items()}
    lanes = [{"strategy": s, "models": {}, "knobs": {}} for s in strategy_ids]
    form |= {
        "prompt": example.prompt,
        "style": example.style,
        "mode": painting.RACE,
        "brush": "",
        "lock": True,
        "lanes": lanes,
    }
    return run_race(catalog, painting.requests_of(form, catalog), repeats)


def record_example(
    catalog: Catalog, tab: str, kind: str, strategy_ids: Sequence[str] | None = None, repeats: int = 1
) -> list[Trace]:
    """The traces of an example of the image or forecasting tab."""
    if tab == "image":
        portrait = next(e for e in PORTRAITS if e.kind == kind)
        return record_pictures(catalog, portrait, strategy_ids or LOOKS[portrait.style].usual, repeats)
    example = next(e for e in forecast_form.EXAMPLES if e.kind == kind)
    return record_forecasts(catalog, example, strategy_ids, repeats)


def record_forecasts(
    catalog: Catalog, example: forecast_form.Example, strategy_ids: Sequence[str] | None, repeats: int
) -> list[Trace]:
    """The traces of the baseline and these strategies, or those of the example, with the tab's first settings."""
    form: dict[str, Any] = {name: default for name, (_, _, default, _) in forecast_form.NUMBERS.items()}
    lanes = example.lanes
    if strategy_ids is not None:
        lanes = [{"strategy": s, "models": {}, "knobs": {}} for s in strategy_ids]
    form |= {"data": example.series, "horizon": example.horizon, "truth": forecast_form.HOLD, "lock": True}
    return run_race(catalog, forecast_form.requests_of({**form, "lanes": lanes}, catalog), repeats)


def weigh_again(catalog: Catalog, path: Path) -> Path:
    """Tell anew what the output of a recorded race is worth; its runs stay as they are. Raises UserError."""
    traces, label = load_race(path)
    return save_race([weighed(trace, catalog) for trace in traces], path, label)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m demos.record", description="Record races for the first screen.")
    parser.add_argument("--out", type=Path, default=TRACES)
    parser.add_argument("--budget", type=int, default=72, help="new tokens a lane")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--repeats", type=int, default=1, help="races; the one with the median baseline time is kept")
    parser.add_argument("--only", nargs="*", help="kinds of examples to record; all if left out")
    parser.add_argument("--tab", choices=("text", "image", "forecast", "events"), default="text", help="whose races")
    parser.add_argument(
        "--lanes", nargs="*", help="strategies of lanes 2 to 4, not of text; the usual ones if left out"
    )
    parser.add_argument("--weigh", action="store_true", help="images: run nothing, only tell what pictures are worth")
    args = parser.parse_args(argv)
    if args.weigh and args.tab != "image":
        parser.error("--weigh is for --tab image alone")
    catalog = Catalog(dtype=args.dtype)
    label = f"on {time.strftime('%Y-%m-%d')}, {machine(catalog.environment())}"
    args.out.mkdir(parents=True, exist_ok=True)
    if args.tab == "events":
        print(events.record(Lab(catalog), args.out / events.RECORDED.name))
        return 0
    if args.tab != "text":
        page = image.PAGE if args.tab == "image" else forecasting.PAGE
        for kind in page.kinds:
            path = args.out / f"race-{page.file_of(kind)}.json.gz"
            if (args.only and kind not in args.only) or (args.weigh and not path.is_file()):
                continue
            if args.weigh:
                print(weigh_again(catalog, path), flush=True)
            else:
                traces = record_example(catalog, args.tab, kind, args.lanes, args.repeats)
                print(
                    f"{save_race(traces, path, label)} with {', '.join(t.request.strategy for t in traces)}", flush=True
                )
        return 0
    known = offered(PROTOCOL)
    for i, example in enumerate(EXAMPLES):
        if args.only and example.kind not in args.only:
            continue
        print(example.kind)
        surveyed = survey(catalog, example, known, args.budget)
        target = catalog.default_target(CausalSession)
        chosen = varied(comparable(surveyed, target), known)[:LANES]
        path = args.out / f"race-{example.kind}.json.gz"
        traces = record_race(catalog, example, chosen, args.budget, args.repeats)
        print(f"  {save_race(traces, path, label)} with {', '.join(chosen)}", flush=True)
        if i == 0:
            for name, trace in {BASELINE: traces[0], **{s: t for s, (_, t) in surveyed.items()}}.items():
                trace.save(args.out / f"{name}.json.gz")
    return 0


if __name__ == "__main__":
    sys.exit(main())
