"""Predictable means parallel: acceptance, sweeps and error of forecasts against how fast a series forgets.

    python -m backend.predictability --threads 2 --json assets/bench/predictability.json [--only lorenz,ar1-0.8]

Series of twelve chaotic systems and of autoregressions with known roots are continued by `speculative_patches` and by
`noise_jacobi`. On one axis stands the largest Lyapunov exponent a step: of a chaotic system as our own integration
measured it, of x' = root x + noise the logarithm of the root. Every series is made anew, standardised, and was in no
training.

Shape letters: B series, T steps of the past, H horizon, Q quantile levels.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from backend.catalog import Catalog
from backend.codecs.dates import Floats
from backend.errors import UserError
from backend.forecast_report import Held, finished, interval
from backend.run import record
from backend.series import chaos
from backend.series.forecasts import Forecast, acceptance_of, forecast_of
from backend.series.metrics import LEVELS, pinball
from backend.series.shipped import exponents
from backend.series.synthetic import autoregressive
from backend.trace import Trace
from backend.types import Request, Sampling

FORECASTER = "house/forecaster"
ROOTS = (0.25, 0.5, 0.8, 0.9, 0.95, 0.99, 1.0)
CONTEXT, HORIZON, PATHS, SERIES = 512, 256, 16, 3
BLOCK = 16  # steps that an error is told for together
SEED = 9_000  # far from those of the shipped series
EXACT, NEAR = "0.0", "0.001"  # tolerances of the sweeps, in spreads of the context


@dataclass(frozen=True)
class Source:
    """Where series come from. kind: "chaos" or "ar1"; exponent: largest Lyapunov exponent a step."""

    name: str
    kind: str
    title: str
    exponent: float
    make: Callable[[int, int], Floats]  # count, length -> [B, T]


def sources() -> dict[str, Source]:
    """All of them by name, the chaotic systems first."""
    found: dict[str, Source] = {}
    for name, system in chaos.SYSTEMS.items():
        title = name.replace("_", " ").capitalize()

        def run(count: int, length: int, system: chaos.System = system) -> Floats:
            return chaos.series(system, count, length, SEED)

        found[name] = Source(name, "chaos", title, exponents()[name], run)
    for root in ROOTS:

        def drawn(count: int, length: int, root: float = root) -> Floats:
            return np.stack([_walk(root, length, i) for i in range(count)])

        found[f"ar1-{root:g}"] = Source(f"ar1-{root:g}", "ar1", f"AR(1), root {root:g}", math.log(root), drawn)
    return found


def _walk(root: float, length: int, number: int) -> Floats:
    return autoregressive(np.random.default_rng([SEED, number]), length, (root,))


def windows(source: Source, count: int = SERIES, horizon: int = HORIZON, context: int = CONTEXT) -> list[Held]:
    """Series of a source with their truth, standardised over the whole window."""
    series_BT = source.make(count, context + horizon)
    series_BT = (series_BT - series_BT.mean(axis=1, keepdims=True)) / series_BT.std(axis=1, keepdims=True)
    return [Held(y_T[:context], 1, y_T[context:]) for y_T in series_BT]


def requests(held: Held, paths: int = PATHS, seed: int = 0, target: str = FORECASTER) -> list[Request]:
    """What is asked of one series: drafted patches, and sweeps, exactly and nearly."""
    assert held.truth_H is not None
    prompt = {"y": held.past_T.tolist(), "season": 1}
    lanes: list[tuple[str, dict[str, Any]]] = [
        ("speculative_patches", {}),
        ("noise_jacobi", {"tolerance": float(EXACT)}),
        ("noise_jacobi", {"tolerance": float(NEAR)}),
    ]
    warm, horizon = Sampling(temperature=1.0), len(held.truth_H)
    return [
        Request(name, prompt, {"target": target}, {**knobs, "paths": paths}, warm, horizon, seed)
        for name, knobs in lanes
    ]


@dataclass
class Probe:
    """What the series of one source told so far."""

    source: Source
    kept: int = 0
    judged: int = 0
    sweeps: dict[str, list[float]] = field(default_factory=lambda: {EXACT: [], NEAR: []})
    calls: list[int] = field(default_factory=list)
    losses: list[Floats] = field(default_factory=list)  # mean pinball by step, over mean |truth| of the window
    patches: int = 0

    def take(self, trace: Trace, forecast: Forecast, held: Held) -> None:
        """Read a finished trace; forecast: of it, in units. Others are left out."""
        if not finished(trace) or held.truth_H is None:
            return
        if trace.request.strategy == "noise_jacobi":
            self.sweeps[EXACT if trace.request.knobs["tolerance"] == 0 else NEAR].append(sweeps_of(trace))
            return
        found = acceptance_of(trace)
        self.kept, self.judged = self.kept + sum(found.kept), self.judged + sum(found.judged)
        self.calls.append(trace.summary().num_target_calls)
        sizes = [len(mark.values) for step in trace.steps for mark in step.marks]
        self.patches = -(-len(held.truth_H) // max(sizes, default=1))
        loss_H = pinball(held.truth_H, forecast.quantiles(LEVELS), LEVELS).mean(axis=0)
        self.losses.append(loss_H / np.abs(held.truth_H).mean())

    def row(self) -> dict[str, Any]:
        """Everything so far: `acceptance` with its interval, `sweeps` a path by tolerance, `calls`, `wql` by block."""
        told: dict[str, Any] = {
            "name": self.source.name,
            "kind": self.source.kind,
            "title": self.source.title,
            "exponent": round(self.source.exponent, 6),
            "series": len(self.losses),
            "patches": self.patches,
            "acceptance": self.kept / self.judged if self.judged else None,
            "interval": list(interval(self.kept, self.judged)),
            "calls": _mean(self.calls),
            "sweeps": {name: _mean(calls) for name, calls in self.sweeps.items()},
            "wql": [],
        }
        if self.losses:
            mean_H = np.mean(self.losses, axis=0)
            told["wql"] = [round(float(mean_H[i : i + BLOCK].mean()), 5) for i in range(0, len(mean_H), BLOCK)]
        return told


def sweeps_of(trace: Trace) -> float:
    """Sweeps until a path is written, mean over paths; the calls of the trace are those of its slowest path."""
    horizon = trace.request.budget
    opened = [{mark.slot // horizon for mark in step.marks} for step in trace.steps]
    paths = len(set().union(*opened))
    return sum(map(len, opened)) / paths if paths else 0.0


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def measure(source: Source, catalog: Catalog, args: argparse.Namespace, tell: Callable[[str], None]) -> dict[str, Any]:
    """The row of a source. Raises UserError where a model is not here."""
    probe = Probe(source)
    for i, held in enumerate(windows(source, args.series, args.horizon)):
        for request in requests(held, args.paths, i):
            tell(f"{source.title}, series {i + 1} of {args.series}: {request.strategy}")
            trace = record(request, catalog)
            scale = catalog.get(FORECASTER).codec.encode(request.prompt).extras["scale"]
            probe.take(trace, forecast_of(trace, scale), held)
    return probe.row()


def read(path: Path) -> dict[str, Any] | None:
    """What `main` wrote; None where there is no such file."""
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def environment(catalog: Catalog, args: argparse.Namespace) -> dict[str, Any]:
    """Where and how it was measured."""
    return {
        **catalog.environment(),
        "date": date.today().isoformat(),
        "target": FORECASTER,
        "context": CONTEXT,
        "horizon": args.horizon,
        "paths": args.paths,
        "series": args.series,
        "block": BLOCK,
    }


def merged(before: Mapping[str, Any] | None, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of before, replaced by new ones of the same name, in the order of `sources`."""
    known = {row["name"]: dict(row) for row in (before or {}).get("rows", [])} | {r["name"]: dict(r) for r in rows}
    return [known[name] for name in sources() if name in known]


def _tell(line: str) -> None:
    print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m backend.predictability", description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="names of sources, comma-separated (default: all)")
    parser.add_argument("--series", type=int, default=SERIES, help="series of each source")
    parser.add_argument("--horizon", type=int, default=HORIZON)
    parser.add_argument("--paths", type=int, default=PATHS)
    parser.add_argument("--threads", type=int, default=None, help="CPU threads")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--json", type=Path, metavar="OUT", help="write {environment, rows} here, row by row")
    args = parser.parse_args(argv)
    known = sources()
    names = args.only.split(",") if args.only else list(known)
    try:
        if strange := [name for name in names if name not in known]:
            raise UserError(f"There is no source {strange[0]!r}; pick some of: {', '.join(known)}.")
        catalog = Catalog(device=args.device, threads=args.threads)
        rows: list[dict[str, Any]] = []
        before = read(args.json) if args.json and args.only else None
        for name in names:
            rows.append(measure(known[name], catalog, args, _tell))
            if args.json:
                result = {"environment": environment(catalog, args), "rows": merged(before, rows)}
                args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    except UserError as error:
        print(f"\n{error}", file=sys.stderr)
        return 2
    print(file=sys.stderr)
    for row in rows:
        swept = ", ".join(f"{calls:.1f} sweeps within {name}" for name, calls in row["sweeps"].items() if calls)
        print(f"{row['title']:24} exponent {row['exponent']:+.4f}  accepted {row['acceptance'] or 0:.3f}  {swept}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
