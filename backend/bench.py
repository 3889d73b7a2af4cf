"""Benchmark: strategies against plain decoding on the same prompts, alternating in one process.

    python -m backend.bench --tab text --model local/smollm2-135m --strategies speculative,prompt_lookup \\
        --prompts 20 --new-tokens 64 --temperature 0 --repeats 3 --peer transformers --json OUT

Every lane is warmed up; a repeat runs all prompts, each prompt through all lanes in turn; times are medians over
repeats with their quartiles. Ratios are taken within a repeat, so that a slow moment hits both sides.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from backend.bench_report import counts_table, show, table
from backend.catalog import ASSETS, DRAFT, DTYPES, LOCAL, Catalog
from backend.chance import Ask, Seeded
from backend.costs import cost_curve, interpolated
from backend.errors import UserError
from backend.meter import Meter
from backend.protocols import CausalSession, FleetSession, Model
from backend.quality import log_likelihood
from backend.registry import compatible, find
from backend.run import decode
from backend.trace import Trace, speedup_modelled, summarise
from backend.types import Guarantee, Request, Sampling

PROMPTS = ASSETS / "prompts.jsonl"
BASELINE = "autoregressive"
BARE = "bare loop"


@dataclass(frozen=True)
class Prompted:
    """A prompt of the set, and what kind of task it is."""

    text: str
    kind: str


@dataclass(frozen=True)
class Timed:
    """One prompt through one lane: new tokens, seconds, and the trace where the lane is ours.

    wall: from the prompt as text to the finished trace, which is what a peer's own call is compared with. seconds: of
    the steps alone, which is what our lanes are compared by. calls: seconds in model calls.
    """

    tokens: tuple[int, ...]
    seconds: float
    wall: float
    trace: Trace | None = None
    calls: float = 0.0


class Lane(Protocol):
    """Something that can be timed on a prompt."""

    @property
    def name(self) -> str: ...

    @property
    def peer(self) -> str | None: ...

    @property
    def dtype(self) -> str: ...

    def run(self, prompt: Prompted, seed: int) -> Timed: ...


@dataclass
class OurLane:
    """A strategy of this project; its name may set knobs, as in `spectr:drafts=8:gamma=4`."""

    name: str
    catalog: Catalog
    model: str
    sampling: Sampling
    budget: int
    draft: str | None = None
    peer: str | None = None

    @property
    def dtype(self) -> str:
        return self.catalog.dtype

    def run(self, prompt: Prompted, seed: int) -> Timed:
        """Decode the prompt."""
        models = {"target": self.model}
        strategy_id, knobs = read_lane(self.name)
        if self.draft and "draft" in find(strategy_id).roles:
            models["draft"] = self.draft
        request = Request(strategy_id, prompt.text, models, knobs, self.sampling, self.budget, seed)
        start = time.perf_counter()
        with decode(request, self.catalog) as run:
            for _ in run:
                pass
            trace = run.trace
            wall = time.perf_counter() - start
        calls = sum(sum(step.spent.values()) for step in trace.steps)
        return Timed(tuple(trace.written()), sum(step.seconds for step in trace.steps), wall, trace, calls)


@dataclass
class BareLane:
    """Plain decoding without runner, steps, marks or trace: what those are measured against."""

    catalog: Catalog
    model: str
    sampling: Sampling
    budget: int
    name: str = BARE
    peer: str | None = None

    @property
    def dtype(self) -> str:
        return self.catalog.dtype

    def run(self, prompt: Prompted, seed: int) -> Timed:
        """Decode the prompt."""
        start = time.perf_counter()
        model, meter = self.catalog.get(self.model), Meter(self.catalog.sync)
        encoded = model.codec.encode(prompt.text)
        session = model.open(CausalSession, encoded, self.sampling, meter, self.budget)
        ask = Ask(self.budget, Seeded(seed), model.codec.end)
        while ask.open:
            slot = len(session.tokens)
            session.commit(ask.take([ask.chance.pick(session.score().p_NV[0], slot)]))
        wall = time.perf_counter() - start
        return Timed(tuple(session.tokens[len(encoded.tokens) :]), wall, wall, calls=meter.seconds)


def read_lane(name: str) -> tuple[str, dict[str, Any]]:
    """Strategy and knobs that a lane's name sets. Raises UserError for a knob that is unknown or no value of its kind.

    >>> read_lane("spectr:drafts=8")
    ('spectr', {'drafts': 8})
    """
    strategy_id, *set_knobs = name.split(":")
    options, knobs = find(strategy_id).knobs, dict[str, Any]()
    for knob, _, text in (part.partition("=") for part in set_knobs):
        if knob not in options:
            raise UserError(f"{strategy_id} has no knob {knob!r}; its knobs are: {', '.join(options) or 'none'}.")
        try:
            kind = options[knob].kind
            knobs[knob] = {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
        except (ValueError, KeyError) as error:
            raise UserError(f"{knob} of {strategy_id} cannot be {text!r}.") from error
    find(strategy_id).settle(knobs)
    return strategy_id, knobs


def read_prompts(source: str, kinds: Sequence[str] = ()) -> list[Prompted]:
    """The first N shipped prompts, or all of a JSONL file whose lines have a `prompt` field. Raises UserError."""
    path = PROMPTS if source.isdigit() else Path(source)
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        prompts = [Prompted(str(line["prompt"]), str(line.get("kind", "prompt"))) for line in lines]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read as JSON lines with a field 'prompt' ({error}).") from error
    prompts = [prompt for prompt in prompts if not kinds or prompt.kind in kinds]
    if source.isdigit():
        count = min(int(source), len(prompts))
        if not count and prompts:
            raise UserError("The number of prompts must be at least 1, but 0 was given.")
        prompts = [prompts[i * len(prompts) // count] for i in range(count)]  # spread over all kinds
    if not prompts:
        raise UserError(f"{path} holds no prompt of the kinds asked for; leave out --kinds to take all.")
    return prompts


def measure(
    lanes: Sequence[Lane], prompts: Sequence[Prompted], repeats: int, tell: Callable[[str], None]
) -> dict[str, list[list[Timed]]]:
    """Results by lane name: a list a repeat, an entry a prompt. Each lane is warmed up on the first prompt."""
    results: dict[str, list[list[Timed]]] = {lane.name: [] for lane in lanes}
    for lane in lanes:
        tell(f"warming up {lane.name}")
        lane.run(prompts[0], seed=0)
    for repeat in range(repeats):
        for lane in lanes:
            results[lane.name].append([])
        for i, prompt in enumerate(prompts):
            tell(f"repeat {repeat + 1} of {repeats}, prompt {i + 1} of {len(prompts)}")
            shift = (i + repeat) % len(lanes)
            for lane in [*lanes[shift:], *lanes[:shift]]:  # every lane gets every place in the order
                results[lane.name][repeat].append(lane.run(prompt, seed=i))
    return results


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
        "units_per_second_quartiles": _quartiles(rates),
        "units_per_second_wall": statistics.median(_rate(repeat, wall=True) for repeat in timed),
        "speedup_time": statistics.median(ratios),
        "speedup_time_quartiles": _quartiles(ratios),
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


def _quartiles(values: Sequence[float]) -> list[float]:
    if len(values) < 2:
        return [values[0], values[0]]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return [low, high]


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


def bench(args: argparse.Namespace, tell: Callable[[str], None]) -> dict[str, Any]:
    """Run the benchmark that the arguments describe; {"environment", "rows", ...}. Raises UserError."""
    if args.tab != "text":
        raise UserError(f"There is no bench for the tab {args.tab!r} yet; the tab that works is: text.")
    if args.repeats < 1:
        raise UserError(f"The number of repeats must be at least 1, but {args.repeats} was given.")
    catalog = Catalog(device=args.device, dtype=args.dtype, threads=args.threads)
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
        modelled = _modelled(catalog, lane, target, results[lane.name]) if isinstance(lane, OurLane) else None
        rows.append(row(lane, results[lane.name], results[BASELINE], prompts, modelled))
    environment["target_seconds_by_rows"] = target
    share = run_overhead(results[BASELINE], results[BARE])
    return {"environment": environment, "rows": rows, "over_peer": peer_ratios(rows), "run_overhead": share}


def _modelled(
    catalog: Catalog, lane: OurLane, target: dict[int, float], timed: list[list[Timed]]
) -> Callable[[Trace], float] | None:
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
    parser.add_argument("--tab", default="text", help="modality (text)")
    parser.add_argument("--model", default=LOCAL, help="model id of the target")
    parser.add_argument("--draft", default=None, help="model id of the draft (default: the catalog's)")
    parser.add_argument(
        "--strategies", default="", help="ids, comma-separated (default: all), with knobs: spectr:drafts=8"
    )
    parser.add_argument("--prompts", default="20", help="how many of the shipped prompts, or a JSONL file")
    parser.add_argument("--kinds", default="", help="only prompts of these kinds, comma-separated")
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dtype", default="auto", choices=["auto", *DTYPES])
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=None, help="CPU threads")
    parser.add_argument("--counts", action="store_true", help="measure no times; every repeat has other seeds")
    parser.add_argument("--peer", choices=["transformers"], help="also time another library's counterparts")
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
    print((counts_table if args.counts else table)(result["rows"]))
    for name, ratio in result["over_peer"].items():
        print(f"{name}: {ratio:.2f} x transformers at its best precision and setting")
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
