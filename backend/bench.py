"""Benchmark: strategies against plain decoding on the same prompts, alternating in one process.

    python -m backend.bench --tab text --model local/smollm2-135m --strategies speculative,prompt_lookup \\
        --prompts 20 --new-tokens 64 --temperature 0 --repeats 3 --peer transformers --json OUT
    python -m backend.bench --tab image --json OUT    (see `image_bench`)
    python -m backend.bench --tab forecasting --json OUT    (see `forecast_bench`)

Every lane is warmed up; a repeat runs all prompts, each prompt through all lanes in turn; times are medians over
repeats with their quartiles. Ratios are taken within a repeat, so that a slow moment hits both sides.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from backend import forecast_bench, forecast_table, image_bench, image_report
from backend.bench_lanes import BARE as BARE
from backend.bench_lanes import BASELINE as BASELINE
from backend.bench_lanes import PROMPTS as PROMPTS
from backend.bench_lanes import BareLane as BareLane
from backend.bench_lanes import Lane as Lane
from backend.bench_lanes import OurLane as OurLane
from backend.bench_lanes import Prompted as Prompted
from backend.bench_lanes import Timed as Timed
from backend.bench_lanes import measure, quartiles
from backend.bench_lanes import read_lane as read_lane
from backend.bench_lanes import read_prompts as read_prompts
from backend.bench_report import counts_table, show, table
from backend.catalog import DRAFT, DTYPES, LOCAL, Catalog
from backend.costs import cost_curve, interpolated
from backend.errors import UserError
from backend.protocols import CausalSession, FleetSession, Model
from backend.quality import log_likelihood
from backend.registry import compatible, find
from backend.trace import Trace, speedup_modelled, summarise
from backend.types import Guarantee, Sampling


def row(
    lane: Lane,
    timed: list[list[Timed]],
    base: list[list[Timed]],
    prompts: Sequence[Prompted],
    modelled: Callable[[Trace], float] | None,
) -> dict[str, Any]:
    """One row of the result: the measures of a lane under their names."""
    rates = [_rate(repeat) for repeat in timed]
    ratios = [_rate(ours) / _rate(theirs) for ours, theirs in zip(timed, base, strict=True)]
    out: dict[str, Any] = {
        "strategy": lane.name,
        "peer": lane.peer,
        "dtype": lane.dtype,
        "units_per_second": statistics.median(rates),
        "units_per_second_quartiles": quartiles(rates),
        "units_per_second_wall": statistics.median(_rate(repeat, wall=True) for repeat in timed),
        "speedup_time": statistics.median(ratios),
        "speedup_time_quartiles": quartiles(ratios),
        "same_text": sum(a.tokens == b.tokens for a, b in zip(timed[0], base[0], strict=True)) / len(prompts),
        "by_kind": _by_kind(timed, base, prompts),
        "new_slots": sum(len(t.tokens) for t in timed[0]),
    }
    ours = [t.trace for t in timed[0] if t.trace is not None]
    if ours:
        total = summarise(ours)
        plain = summarise([t.trace for t in base[0] if t.trace is not None])
        out |= {k: v for k, v in total.to_json().items() if k not in out}
        out |= {
            "guarantee": find(ours[0].request.strategy).promises(ours[0].request.knobs).value,
            "speedup_calls": total.speedup_calls(plain),
            "speedup_modelled": statistics.fmean(modelled(t) for t in ours) if modelled else None,
            "overhead": _overhead(timed),
            "outside_model_calls": 1.0 - sum(total.spent.values()) / total.seconds,
        }
        if isinstance(lane, OurLane) and (lane.name == BASELINE or out["guarantee"] == Guarantee.LOSSY):
            worth = [w for t in ours if (w := log_likelihood(t, lane.catalog)) is not None]
            out["log_likelihood"] = statistics.fmean(worth) if worth else None
    return out


def count(
    lanes: Sequence[OurLane], prompts: Sequence[Prompted], repeats: int, tell: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Rows of counts alone, which hold whatever else the machine does; every repeat has seeds of its own.

    standard_error: of the mean acceptance length, from how much the calls differ. rows_per_call: rows of the target,
    without those of the prompt.
    """
    traces: dict[str, list[Trace]] = {lane.name: [] for lane in lanes}
    for seed in range(repeats * len(prompts)):
        for lane in lanes:
            tell(f"run {seed + 1} of {repeats * len(prompts)}: {lane.name}")
            trace = lane.run(prompts[seed % len(prompts)], seed).trace
            assert trace is not None
            traces[lane.name].append(trace)
    return [_counted(name, runs) for name, runs in traces.items()]


def _counted(name: str, runs: Sequence[Trace]) -> dict[str, Any]:
    total, steps = summarise(runs).to_json(), [step for run in runs for step in run.steps]
    lengths = [sum(mark.fate.commits for mark in step.marks) for step in steps if step.calls["target"]]
    behind = [step for step in steps if step.index > 0]  # the first step runs the prompt too
    return {
        "strategy": name,
        **{k: v for k, v in total.items() if k not in ("seconds", "spent", "units_per_second")},
        "standard_error": statistics.stdev(lengths) / len(lengths) ** 0.5 if len(lengths) > 1 else None,
        "rows_per_call": sum(s.rows["target"] for s in behind) / sum(s.calls["target"] for s in behind),
        "figures": {
            figure: statistics.fmean(s.figures[figure] for s in steps if figure in s.figures)
            for figure in sorted({figure for step in steps for figure in step.figures})
        },
    }


def _rate(repeat: Sequence[Timed], wall: bool = False) -> float:
    return sum(len(t.tokens) for t in repeat) / sum(t.wall if wall else t.seconds for t in repeat)


def _overhead(timed: list[list[Timed]]) -> float:
    """Share of the wall time that opening, stamping and the trace took, on top of the steps."""
    wall = sum(t.wall for repeat in timed for t in repeat)
    return 1.0 - sum(t.seconds for repeat in timed for t in repeat) / wall


def run_overhead(runs: list[list[Timed]], bare: list[list[Timed]]) -> float:
    """Share of decoding that runner, steps, marks, hover options and trace take; median over repeats.

    What lies outside model calls in a run, less what lies outside them in a bare loop, over the run.
    """

    def outside(repeat: Sequence[Timed]) -> float:
        return sum(t.wall - t.calls for t in repeat)

    pairs = zip(runs, bare, strict=True)
    return statistics.median((outside(a) - outside(b)) / sum(t.wall for t in a) for a, b in pairs)


def _by_kind(timed: list[list[Timed]], base: list[list[Timed]], prompts: Sequence[Prompted]) -> dict[str, float]:
    """Median measured speedup on the prompts of each kind."""
    out = {}
    for kind in dict.fromkeys(prompt.kind for prompt in prompts):
        mine = [i for i, prompt in enumerate(prompts) if prompt.kind == kind]
        pairs = zip(timed, base, strict=True)
        out[kind] = statistics.median(_rate([a[i] for i in mine]) / _rate([b[i] for i in mine]) for a, b in pairs)
    return out


def peer_ratios(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Our units per second, wall time, over the best precision and setting of the peer's counterpart."""
    best: dict[str, float] = {}
    for r in rows:
        if r["peer"]:
            kind = r["strategy"].split(" ")[1].rstrip("4")
            best[kind] = max(best.get(kind, 0.0), r["units_per_second_wall"])
    pairs = {"autoregressive": "generate", "speculative": "assisted", "prompt_lookup": "lookup"}
    return {
        r["strategy"]: r["units_per_second_wall"] / best[pairs[r["strategy"]]]
        for r in rows
        if not r["peer"] and pairs.get(r["strategy"]) in best
    }


def _runnable(catalog: Catalog, model: Model) -> list[str]:
    """Strategies for one text that the model can play the target of, and whose other models are here."""
    here = {entry.id: entry.available for entry in catalog.entries()}
    return [
        s.id
        for s in compatible(model.speaks)
        if s.protocol is not FleetSession
        and all(here.get(catalog.default(role, model.id), True) for role in s.roles if role != "target")
    ]


TABS: Mapping[str, Mapping[str, Any]] = {  # what an argument is that is left out
    "text": {"model": LOCAL, "prompts": "20", "new_tokens": 64, "temperature": 0.0, "repeats": 3},
    "image": {"model": image_bench.PAINTER, "prompts": "12", "new_tokens": None, "temperature": 1.0, "repeats": 1},
    "forecasting": {"model": "", "prompts": "6", "new_tokens": None, "temperature": 1.0, "repeats": 2},
}
TABLES = {"image": image_report.table, "forecasting": forecast_table.table}
TEXT_ONLY = ("counts", "peer", "draft", "new_tokens")
FOREIGN: Mapping[str, Sequence[str]] = {  # arguments that a tab does not read
    "text": ("resume",),
    "image": TEXT_ONLY,
    "forecasting": (*TEXT_ONLY, "model", "kinds"),
}


def settle(args: argparse.Namespace) -> None:
    """Fill in the tab's defaults. Raises UserError for a tab that has no bench, and for arguments of another tab."""
    if args.tab not in TABS:
        raise UserError(
            f"There is no bench for the tab {args.tab!r} yet; the tabs that have one are: {', '.join(TABS)}."
        )
    for name in FOREIGN[args.tab]:
        if getattr(args, name):
            raise UserError(f"--{name.replace('_', '-')} is not for the tab {args.tab!r}; leave it out.")
    for name, value in TABS[args.tab].items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if args.repeats < 1:
        raise UserError(f"The number of repeats must be at least 1, but {args.repeats} was given.")


def bench(args: argparse.Namespace, tell: Callable[[str], None]) -> dict[str, Any]:
    """Run the benchmark that the arguments describe; {"environment", "rows", ...}. Raises UserError."""
    settle(args)
    catalog = Catalog(device=args.device, dtype=args.dtype, threads=args.threads)
    if args.tab == "image":
        return image_bench.bench(args, catalog, tell)
    if args.tab == "forecasting":
        return forecast_bench.bench(args, catalog, tell)
    prompts = read_prompts(args.prompts, args.kinds.split(",") if args.kinds else ())
    model = catalog.get(args.model)
    names = args.strategies.split(",") if args.strategies else _runnable(catalog, model)
    names = list(dict.fromkeys(names if args.counts else [BASELINE, *names]))
    sampling = Sampling(temperature=args.temperature)
    ours = [OurLane(n, catalog, args.model, sampling, args.new_tokens, args.draft) for n in names]
    for name in names:
        read_lane(name)
    environment = {
        **catalog.environment(),
        "date": date.today().isoformat(),
        "model": args.model,
        "draft": args.draft or DRAFT,
        "prompts": len(prompts),
        "prompt_set": "shipped" if args.prompts.isdigit() else Path(args.prompts).name,
        "kinds": args.kinds,
        "transformers": version("transformers"),
        "new_tokens": args.new_tokens,
        "temperature": args.temperature,
        "repeats": args.repeats,
    }
    if args.counts:
        return {"environment": environment, "rows": count(ours, prompts, args.repeats, tell), "over_peer": {}}
    lanes: list[Lane] = [*ours]
    lanes.append(BareLane(catalog, args.model, sampling, args.new_tokens))
    if args.peer == "transformers":
        from backend.peers import transformers_lanes

        lanes += transformers_lanes(catalog, args.model, args.draft or DRAFT, sampling, args.new_tokens)
    results = measure(lanes, prompts, args.repeats, tell)
    tell("measuring the cost of a call")
    target = cost_curve(model, catalog.sync)
    rows = []
    for lane in lanes:
        if isinstance(lane, BareLane):
            continue
        modelled = _modelled(catalog, target, results[lane.name]) if isinstance(lane, OurLane) else None
        rows.append(row(lane, results[lane.name], results[BASELINE], prompts, modelled))
    environment["target_seconds_by_rows"] = target
    share = run_overhead(results[BASELINE], results[BARE])
    return {"environment": environment, "rows": rows, "over_peer": peer_ratios(rows), "run_overhead": share}


def _modelled(catalog: Catalog, target: dict[int, float], timed: list[list[Timed]]) -> Callable[[Trace], float] | None:
    """Speedup if nothing but model calls took time, from their cost curves; None beside models that have none."""
    traces = [t.trace for t in timed[0] if t.trace is not None]
    roles = {role: model for t in traces for role, model in t.request.models.items() if role != "target"}
    others = [catalog.get(model_id) for model_id in roles.values()]
    if any(CausalSession not in other.speaks for other in others):
        return None
    ratio = sum(cost_curve(other, catalog.sync, rows=(1,))[1] for other in others) / target[1]
    return lambda trace: speedup_modelled(trace, interpolated(target), ratio)


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m backend.bench", description=__doc__.splitlines()[0])
    parser.add_argument("--tab", default="text", help=f"modality: {', '.join(TABS)}")
    parser.add_argument("--model", default=None, help="model id of the target; of images, of causal strategies")
    parser.add_argument("--draft", default=None, help="model id of the draft (default: the catalog's)")
    parser.add_argument(
        "--strategies", default="", help="ids, comma-separated (default: all), with knobs: spectr:drafts=8"
    )
    parser.add_argument("--prompts", default=None, help="how many of the shipped prompts, or a JSONL file")
    parser.add_argument("--kinds", default="", help="only prompts of these kinds, comma-separated")
    parser.add_argument("--new-tokens", type=int, default=None, help="text: most tokens of an answer")
    parser.add_argument("--temperature", type=float, default=None, help="of sampling; 0 is greedy")
    parser.add_argument("--repeats", type=int, default=None, help="of every lane, in alternation")
    parser.add_argument("--dtype", default="auto", choices=["auto", *DTYPES], help="of weights and products")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"], help="where models run")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads")
    parser.add_argument("--counts", action="store_true", help="measure no times; every repeat has other seeds")
    parser.add_argument("--peer", choices=["transformers"], help="also time another library's counterparts")
    image_bench.add_arguments(parser)
    forecast_bench.add_arguments(parser)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write {environment, rows} here")
    parser.add_argument("--report", type=Path, metavar="FILE", help="measure nothing; print a result written by --json")
    parser.add_argument("--write", type=Path, metavar="README", help="with --report: put the tables into this file")
    parser.add_argument("--check", type=Path, metavar="README", help="with --report: exit 1 unless it holds them")
    args = parser.parse_args(argv)
    try:
        if args.report or args.write or args.check:
            return show(args.report, args.write, args.check)
        result = bench(args, tell=lambda line: print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True))
    except UserError as error:
        print(f"\n{error}", file=sys.stderr)
        return 2
    print(file=sys.stderr)
    if args.tab in TABLES:
        print(TABLES[args.tab](result["rows"]))
    else:
        print((counts_table if args.counts else table)(result["rows"]))
    for name, ratio in result.get("over_peer", {}).items():
        print(f"{name}: {ratio:.2f} x transformers at its best precision and setting")
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
