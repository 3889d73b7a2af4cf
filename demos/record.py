"""Record races with a real model for the first screen: `python -m demos.record [--out assets/traces]`.

Writes race-<example>.json.gz for every example prompt (the baseline and three strategies that suit it) and
<strategy>.json.gz for every strategy, all of which the app and the tests can replay without a model.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from backend.catalog import Catalog
from backend.registry import Strategy
from backend.trace import Trace
from backend.types import Request
from demos.parts.assets import TRACES
from demos.parts.examples import EXAMPLES, Example
from demos.parts.knobs import offered
from demos.parts.race import Line, Race
from demos.parts.tables import save_race
from demos.text import BASELINE, PROTOCOL, machine

LANES = 3  # strategies beside the baseline in a recorded race
REPEATS = 3  # races from which the one with the median baseline time is kept


def record_race(catalog: Catalog, example: Example, strategy_ids: Sequence[str], budget: int) -> list[Trace]:
    """The traces of the baseline and these strategies on an example, of the median of a few races."""
    prompt = example.prompt if example.chat else {"text": example.prompt, "chat": False}
    races = []
    warm: set[tuple[str, ...]] = set()
    for _ in range(REPEATS):
        race = Race(
            [Request(s, prompt, budget=budget) for s in (BASELINE, *strategy_ids)], catalog, Line(catalog.lock), warm
        )
        race.start().wait()
        races.append(race)
    race = sorted(races, key=lambda r: r.lanes[0].clock)[REPEATS // 2]
    failed = [lane for lane in race.lanes if lane.state != "done"]
    for lane in failed:
        print(f"  {lane.request.strategy}: {lane.message}", file=sys.stderr)
    return [lane.trace for lane in race.lanes if lane.trace is not None and lane not in failed]


def fastest(catalog: Catalog, example: Example, known: Sequence[Strategy], budget: int) -> list[str]:
    """The strategies to show for an example: the quickest ones, at most one of a family as long as that is possible."""
    timed: list[tuple[float, Strategy]] = []
    for found in known[1:]:
        traces = record_race(catalog, example, [found.id], budget)
        if len(traces) == 2:
            timed.append((traces[1].summary().speedup_time(traces[0].summary()), found))
    best = sorted(timed, key=lambda item: -item[0])
    for ratio, found in best:
        print(f"  {found.id:22} x{ratio:.2f}")
    heads = {s.family: s.id for _, s in reversed(best)}
    order = [s.id for _, s in best if s.id in heads.values()] + [s.id for _, s in best if s.id not in heads.values()]
    return order[:LANES]


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m demos.record", description="Record races for the first screen.")
    parser.add_argument("--out", type=Path, default=TRACES)
    parser.add_argument("--budget", type=int, default=72, help="new tokens a lane")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--only", nargs="*", help="kinds of examples to record; all if left out")
    args = parser.parse_args(argv)
    catalog, known = Catalog(dtype=args.dtype), offered(PROTOCOL)
    label = f"recorded on {time.strftime('%Y-%m-%d')}, {machine(catalog.environment())}, not live"
    args.out.mkdir(parents=True, exist_ok=True)
    for i, example in enumerate(EXAMPLES):
        if args.only and example.kind not in args.only:
            continue
        print(example.kind)
        chosen = fastest(catalog, example, known, args.budget)
        path = save_race(
            record_race(catalog, example, chosen, args.budget), args.out / f"race-{example.kind}.json.gz", label
        )
        print(f"  {path} with {', '.join(chosen)}")
        if i == 0:
            for found in known:
                ids = [] if found.id == BASELINE else [found.id]
                traces = record_race(catalog, example, ids, args.budget)
                traces[-1].save(args.out / f"{found.id}.json.gz")
    return 0


if __name__ == "__main__":
    sys.exit(main())
