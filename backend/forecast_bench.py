"""Benchmark of forecasts: what every way of unrolling a forecaster costs, beside how good its forecasts are.

    python -m backend.bench --tab forecasting --threads 2 --json assets/bench/forecasting.json [--resume]

First the lanes are timed, alternating in one process, on --prompts shipped series: those of one kind of model together,
against the plain way to unroll it. Then, untimed, lanes that promise no law forecast all shipped series, as many as fit
into --quality-seconds, and so do plain lanes, and speculative_patches, whose WQL is held against recursive's in pairs.
Last come the sweeps of noise_jacobi on autoregressions. The file is written after every lane; --resume leaves out what
stands in it.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from backend.bench_lanes import measure, read_lane
from backend.catalog import Catalog
from backend.codecs.dates import Floats
from backend.errors import UserError
from backend.event_cases import EventCase, EventLane, event_cases, event_quality
from backend.forecast_cases import PLAIN, Case, ForecastLane, cases, kind_of, spread, target_of
from backend.forecast_long import MOST, calls_a_path, drafted
from backend.forecast_report import Held, pit_histogram, reliability, scores_of
from backend.image_bench import cost
from backend.registry import find, strategies
from backend.series.forecasts import Forecast
from backend.trace import Trace
from backend.types import Guarantee, Sampling

SETS = {  # lanes of a strategy, where not its defaults alone
    "classical_draft": ("classical_draft", "classical_draft:model=seasonal"),
    "confidence": ("confidence:steps=8",),
    "multi_resolution": ("multi_resolution", "multi_resolution:rule=smallest"),
    "noise_jacobi": ("noise_jacobi", "noise_jacobi:tolerance=0.001"),
    "speculative_patches": ("speculative_patches", "speculative_patches:gamma=7"),
    "rolled_direct": tuple(f"rolled_direct:head=1:feedback={name}" for name in ("median", "fan_out", "sampled")),
}
CHECKED = "speculative_patches"  # its law is held against the plain one's by measurement, too
LONG = 512  # steps of a long horizon: the longest that the app offers
STEPS = "house/series-lags"  # a model that writes one step a call
SWEPT = tuple(f"noise_jacobi:window=512:carry=context:tolerance={t}" for t in ("0.0", "0.000001", "0.001"))
ALIKE = ("ar1", "random_walk")  # series that the sweeps are told of
LONG_DRAFTS = f"{CHECKED}:gamma=4"  # over long horizons, where paths have more patches to draft
SLOW = 6.0  # seconds of a forecast from which on a lane is timed once, on one series
TOKEN_PATHS = 16  # runs that make one forecast of a lane which writes one path
Tell = Callable[[str], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What only this tab reads."""
    parser.add_argument("--horizon", type=int, default=128, help="forecasting: steps")
    parser.add_argument("--paths", type=int, default=64, help="forecasting: sample paths")
    parser.add_argument("--origins", type=int, default=2, help="forecasting: most origins of a series")


def lanes_here(catalog: Catalog) -> list[str]:
    """Every strategy that can forecast with the models here, under the names of its lanes, the plain ones first."""
    able = [s.id for s in strategies().values() if target_of(catalog, s.id) is not None]
    names = [name for strategy_id in able for name in _sets(strategy_id)]
    plain = [name for name in PLAIN.values() if name in names]
    return [*plain, *(name for name in names if name not in plain)]


def _sets(strategy_id: str) -> Sequence[str]:
    """The lanes of a strategy; a set that names an option which it does not have is left out."""
    named = [name for name in SETS.get(strategy_id, (strategy_id,)) if _readable(name)]
    return named or [strategy_id]


def _readable(name: str) -> bool:
    try:
        read_lane(name)
    except UserError:
        return False
    return True


def make_lane(name: str, catalog: Catalog, args: argparse.Namespace, horizon: int | None = None) -> ForecastLane:
    """The lane of that name. Raises UserError where it cannot forecast with the models here."""
    strategy_id, _ = read_lane(name)
    target = target_of(catalog, strategy_id)
    if target is None and "target=" not in name:
        raise UserError(f"{strategy_id} has no model here to forecast with; name one: {name}:target=house/...")
    sampling = Sampling(temperature=args.temperature)
    kind = EventLane if kind_of(find(strategy_id)) == "events" else ForecastLane
    lane = kind(name, catalog, target or "", sampling, None, horizon=args.horizon, paths=args.paths)
    target = lane.request({}, 0).models["target"]
    wanted = horizon or args.horizon
    if wanted >= (room := catalog.get(target).context) and kind_of(find(strategy_id)) != "paths":
        raise UserError(f"{target} holds {room} steps in all, but {wanted} were asked for; lower --horizon.")
    lane.horizon = wanted
    return lane


def base_of(lane: ForecastLane) -> str:
    """The plain lane that a lane is compared with."""
    return PLAIN[lane.kind]


# ------------------------------------------------------------------------------------------------------------- quality
@dataclass
class Tally:
    """Scores of one lane over cases, as they come in."""

    names: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    wql: list[float | None] = field(default_factory=list)
    rows: list[Mapping[str, float | None]] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)
    forecasts: list[Forecast] = field(default_factory=list)
    helds: list[Held] = field(default_factory=list)

    def add(self, case: Case, forecast: Forecast, traces: Sequence[Trace]) -> None:
        """Score a forecast. A case without a truth, or one that is not finished, counts with no score."""
        found, truth_H = scores_of(forecast, case.held), case.held.truth_H
        scored: dict[str, float | None] = dict(asdict(found)) if found else {}
        if truth_H is not None and scored.get("crps_of_sum") is not None:
            size = float(abs(truth_H).sum())
            scored["crps_of_sum"] = scored["crps_of_sum"] / size if size > 0 else None  # type: ignore[operator]
        self.names.append(case.text)
        self.kinds.append(case.kind)
        self.wql.append(scored.get("wql"))
        self.rows.append(scored)
        self.calls.append(sum(trace.summary().num_target_calls for trace in traces))
        self.forecasts.append(forecast)
        self.helds.append(case.held)

    def result(self) -> dict[str, Any]:
        """Measures over all cases and by group: geometric means of errors, shares of coverage, calibration."""
        told = self._of(range(len(self.names)))
        groups = {
            kind: self._of([i for i, k in enumerate(self.kinds) if k == kind]) for kind in dict.fromkeys(self.kinds)
        }
        return {
            "cases": len(self.names),
            "paths": len(self.forecasts[0].values_SH) if self.forecasts and self.forecasts[0].joint else None,
            **told,
            "by_group": groups,
            "by_case": {
                name: {"wql": w, "calls": n} for name, w, n in zip(self.names, self.wql, self.calls, strict=True)
            },
            "pit": known(pit_histogram(self.forecasts, self.helds)),
            "reliability": known(reliability(self.forecasts, self.helds)),
        }

    def _of(self, some: Sequence[int]) -> dict[str, float | None]:
        errors = {name: mean_ratio([self.rows[i].get(name) for i in some]) for name in ("mase", "wql", "sql", "smape")}
        inside = [x for i in some if (x := self.rows[i].get("coverage80")) is not None]
        return {
            **errors,
            "crps_of_sum": mean_ratio([self.rows[i].get("crps_of_sum") for i in some]),
            "coverage80": statistics.fmean(inside) if inside else None,
        }


def known(shares: Floats) -> list[float] | None:
    """Rounded shares; None where there are none, as of single curves, which have no deciles."""
    return [round(float(x), 5) for x in shares] if bool(np.isfinite(shares).all()) else None


def mean_ratio(values: Sequence[float | None]) -> float | None:
    """Geometric mean of those that are above 0, which every series moves alike; None without one."""
    logs = [math.log(x) for x in values if x is not None and x > 0]
    return math.exp(statistics.fmean(logs)) if logs else None


def quality(lane: ForecastLane, every: Sequence[Case], seconds: float) -> dict[str, Any]:
    """How good a lane's forecasts of the cases are: of as many as fit into the seconds, one at least."""
    if isinstance(lane, EventLane):
        return event_quality(lane, event_cases())
    tally, end = Tally(), time.perf_counter() + seconds
    runs = 1 if lane.kind == "paths" else TOKEN_PATHS
    for i, case in enumerate(every):
        forecast, traces = lane.forecast(case, [runs * i + run for run in range(runs)])
        tally.add(case, forecast, traces)
        if time.perf_counter() > end:
            break
    return tally.result()


def law_of(lane: ForecastLane, args: argparse.Namespace, names: Sequence[str]) -> str | None:
    """The plain lane with whose law this one forecasts, where it promises so and that lane is told of."""
    request, plain = lane.request({}, 0), base_of(lane)
    strategy = find(request.strategy)
    if lane.name in (plain, CHECKED) or plain not in names:
        return None
    if strategy.promises(strategy.settle(request.knobs)) is not Guarantee.LOSSLESS:
        return None
    twin = make_lane(plain, lane.catalog, args).request({}, 0)
    return plain if twin.models["target"] == request.models["target"] else None


def equal_law(catalog: Catalog, args: argparse.Namespace, every: Sequence[Case], tell: Tell) -> dict[str, Any] | None:
    """The checked lane's WQL against recursive's, on every case with a few seeds; None where no model drafts."""
    if CHECKED not in lanes_here(catalog):
        return None
    lanes = {name: make_lane(name, catalog, args) for name in (PLAIN["paths"], CHECKED)}
    law = drafted(lanes, every, tell)["law"]
    return law and {"lane": CHECKED, "against": PLAIN["paths"], **law}


# -------------------------------------------------------------------------------------------------------------- sweeps
def sweeps(catalog: Catalog, args: argparse.Namespace, tell: Tell) -> list[dict[str, Any]]:
    """Calls of noise_jacobi beside recursive's on autoregressions, of our forecaster and of a model of single steps."""
    usual, here = target_of(catalog, "noise_jacobi"), {e.id for e in catalog.entries() if e.available}
    plans = [(usual, args.horizon), (usual, LONG), (STEPS if STEPS in here else None, args.horizon)]
    out = []
    for target, horizon in dict.fromkeys(plan for plan in plans if plan[0]):
        for case in (case for case in cases(args.horizon) if case.text in ALIKE):
            row: dict[str, Any] = {"case": case.text, "target": target, "horizon": horizon, "paths": args.paths}
            row["lanes"] = {}
            for name in (PLAIN["paths"], *SWEPT):
                tell(f"sweeps over {horizon} steps of {case.text}: {name}")
                trace = make_lane(f"{name}:target={target}", catalog, args, horizon).run(case, 0).trace
                assert trace is not None
                s = trace.summary()
                row["lanes"][name] = {"calls": s.num_target_calls, "rows": s.rows["target"], "seconds": s.seconds}
            out.append(row)
    return out


# -------------------------------------------------------------------------------------------------------- long drafts
def long_drafts(catalog: Catalog, args: argparse.Namespace, tell: Tell) -> list[dict[str, Any]]:
    """Drafting over twice the horizon and over the longest, as far as series are long enough and a model drafts."""
    out = []
    for horizon in dict.fromkeys((2 * args.horizon, LONG)):
        if (long := cases(horizon)) and CHECKED in lanes_here(catalog):
            lanes = {name: make_lane(name, catalog, args, horizon) for name in (PLAIN["paths"], LONG_DRAFTS)}
            out.append(drafted(lanes, spread(long, MOST), tell))
    return out


# ------------------------------------------------------------------------------------------------------------ together
@dataclass
class Progress:
    """What was measured so far, and the file that it is written to."""

    environment: Mapping[str, Any]
    path: Path | None
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    sweeps: list[dict[str, Any]] = field(default_factory=list)
    drafts: list[dict[str, Any]] = field(default_factory=list)
    law: dict[str, Any] | None = None

    def resume(self) -> None:
        """Take over what stands in the file. Raises UserError where it was measured elsewhere or otherwise."""
        if self.path is None or not self.path.is_file():
            return
        before = json.loads(self.path.read_text(encoding="utf-8"))
        for name, value in self.environment.items():
            was = before["environment"].get(name)
            if name != "date" and was != value:
                raise UserError(f"{self.path} was measured with {name} {was!r}, not {value!r}; leave out --resume.")
        self.rows = {row["strategy"]: row for row in before["rows"] if row.get("quality")}
        self.sweeps, self.drafts = before["sweeps"], before.get("long_drafts") or []
        self.law = before.get("equal_law")

    def result(self, order: Sequence[str]) -> dict[str, Any]:
        """What the file holds: the plain lanes first, then in the order of this run, then what was there before."""
        names = [name for name in (*PLAIN.values(), *order, *self.rows) if name in self.rows]
        return {
            "environment": dict(self.environment),
            "rows": [self.rows[name] for name in dict.fromkeys(names)],
            "equal_law": self.law,
            "sweeps": self.sweeps,
            "long_drafts": self.drafts,
        }

    def save(self, order: Sequence[str]) -> None:
        """Write the file, if there is one to be written."""
        if self.path is not None:
            self.path.write_text(json.dumps(self.result(order), indent=1) + "\n", encoding="utf-8")


def bench(args: argparse.Namespace, catalog: Catalog, tell: Tell) -> dict[str, Any]:
    """Run the benchmark that the arguments describe; {"environment", "rows", ...}. Raises UserError."""
    every = cases(args.horizon, args.origins)
    if not every:
        raise UserError(f"No shipped series is long enough for {args.horizon} steps; lower --horizon.")
    timed = spread(cases(args.horizon), _count(args.prompts))
    names = args.strategies.split(",") if args.strategies else lanes_here(catalog)
    progress = Progress(_environment(args, catalog, timed, every), args.json)
    if args.resume:
        progress.resume()
    fresh = [make_lane(name, catalog, args) for name in dict.fromkeys(names) if name not in progress.rows]
    for kind, plain in PLAIN.items():
        group = [lane for lane in fresh if lane.kind == kind]
        if group:
            _time(group, plain, event_cases() if kind == "events" else timed, args, progress, tell)
            progress.save(names)
    for lane in fresh:
        row = progress.rows.get(lane.name)
        if row is not None and not row.get("quality"):
            law = law_of(lane, args, [*names, *progress.rows])
            tell(f"how good the forecasts are: {lane.name}")
            row["quality"] = {"law_of": law} if law else quality(lane, every, _seconds(lane, args))
            progress.save(names)
    if not progress.sweeps:
        progress.sweeps = sweeps(catalog, args, tell)
        progress.save(names)
    if not progress.law:
        progress.law = equal_law(catalog, args, every, tell)
        progress.save(names)
    if not progress.drafts:
        progress.drafts = long_drafts(catalog, args, tell)
        progress.save(names)
    return progress.result(names)


def _time(
    group: Sequence[ForecastLane],
    plain: str,
    timed: Sequence[Case] | Sequence[EventCase],
    args: argparse.Namespace,
    progress: Progress,
    tell: Tell,
) -> None:
    """Time the lanes of one kind, with their plain one among them, and note their rows; slow ones on one series.

    Where the model of the plain one is not here, the first lane is what the others are compared with.
    """
    catalog, strict = group[0].catalog, bool(args.strategies)
    plain = plain if target_of(catalog, plain) is not None else group[0].name
    lanes = [lane for lane in group if lane.name == plain] or [make_lane(plain, catalog, args)]
    lanes += [lane for lane in group if lane.name != plain]
    quick, slow = list[ForecastLane](), list[ForecastLane]()
    for lane in lanes:
        tell(f"warming up {lane.name}")
        try:
            seconds = lane.run(timed[0], seed=0).wall
        except UserError as error:
            if strict or lane.name == plain:
                raise
            tell(f"{lane.name} is left out: {error}\n")
            continue
        (quick if seconds < SLOW or lane.name == plain else slow).append(lane)
    for some, on, repeats in ((quick, timed, args.repeats), *(([lanes[0], lane], timed[:1], 1) for lane in slow)):
        results = measure(some, on, repeats, tell, warm=False)
        for lane in some:
            if lane.name not in progress.rows:
                row = cost(lane, results[lane.name], results[plain])
                row["forecasts_timed"] = row.pop("pictures_timed")
                told: dict[str, Any] = {"kind": lane.kind, "against": plain, "paths": _paths(lane)}
                if lane.name.partition(":")[0] == CHECKED:
                    traces = [run.trace for repeat in results[lane.name] for run in repeat if run.trace]
                    told["calls_a_path"] = statistics.fmean(map(calls_a_path, traces))
                progress.rows[lane.name] = row | told


def _paths(lane: ForecastLane) -> int | None:
    """Sample paths of one run; None for bands."""
    request = lane.request({}, 0)
    if lane.kind not in ("paths", "events"):
        return 1
    known = request.knobs.get("paths")
    return int(known) if known is not None and request.knobs.get("feedback", "sampled") == "sampled" else None


def _seconds(lane: ForecastLane, args: argparse.Namespace) -> float:
    """Seconds for a lane's forecasts; plain lanes and the checked one forecast every case."""
    patient = lane.kind == "paths" and lane.name in (PLAIN["paths"], CHECKED)
    return float("inf") if patient else float(args.quality_seconds)


def _count(prompts: str) -> int:
    if not prompts.isdigit():
        raise UserError(f"--prompts is the number of timed series for this tab, but {prompts!r} was given.")
    return int(prompts)


def _environment(
    args: argparse.Namespace, catalog: Catalog, timed: Sequence[Case], every: Sequence[Case]
) -> dict[str, Any]:
    return {
        **catalog.environment(),
        "date": date.today().isoformat(),
        "tab": "forecasting",
        "horizon": args.horizon,
        "paths": args.paths,
        "token_paths": TOKEN_PATHS,
        "prompts": len(timed),
        "timed": [case.text for case in timed],
        "cases": len(every),
        "origins": args.origins,
        "temperature": args.temperature,
        "repeats": args.repeats,
        "quality_seconds": args.quality_seconds,
    }
