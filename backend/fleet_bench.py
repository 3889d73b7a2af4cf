"""Benchmark of several texts on one model: one fused call for all, static batches, and one text after another.

    python -m backend.fleet_bench --texts 8 --new-tokens 48 --repeats 3 --json assets/bench/fusion.json

Every schedule writes the same texts; repeats alternate in one process, so that a slow moment hits all of them. The
yardstick is plain decoding of one text after another by `autoregressive`, which shares no code with the fleet.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from backend.bench import BASELINE, Prompted, read_prompts
from backend.catalog import DTYPES, LOCAL, Catalog
from backend.documents import grid
from backend.errors import UserError
from backend.run import record
from backend.timeline import percentile, spans
from backend.trace import Trace, summarise
from backend.types import Request, Sampling

FUSION = "temporal_fusion"


@dataclass(frozen=True)
class Served:
    """All texts through one schedule. seconds: of the steps. latencies: from the arrival of each text to its end."""

    texts: tuple[tuple[int, ...], ...]
    seconds: float
    latencies: tuple[float, ...]
    first_tokens: tuple[float, ...]
    traces: tuple[Trace, ...]

    @property
    def rate(self) -> float:
        """New tokens per second."""
        return sum(map(len, self.texts)) / self.seconds


def fused(catalog: Catalog, request: Request) -> Served:
    """The texts as a schedule of the strategy serves them."""
    trace = record(request, catalog)
    rows = spans(trace)
    return Served(
        tuple(row.tokens for row in rows),
        sum(step.seconds for step in trace.steps),
        tuple(row.latency or 0.0 for row in rows),
        tuple(row.first_token or 0.0 for row in rows),
        (trace,),
    )


def one_by_one(catalog: Catalog, request: Request) -> Served:
    """The texts in turn by plain decoding, all of them there from the beginning, whatever the gap."""
    texts = request.prompt["texts"]
    share, start = request.budget // len(texts), 0.0
    traces, latencies, firsts = [], [], []
    for i, text in enumerate(texts):
        plain = Request(BASELINE, text, request.models, {}, request.sampling, share, request.seed + i)
        traces.append(record(plain, catalog))
        steps = traces[-1].steps
        firsts.append(start + steps[0].seconds)
        start += sum(step.seconds for step in steps)
        latencies.append(start)
    return Served(tuple(tuple(t.written()) for t in traces), start, tuple(latencies), tuple(firsts), tuple(traces))


def measure(catalog: Catalog, request: Request, repeats: int, tell: Callable[[str], None]) -> dict[str, list[Served]]:
    """Results by schedule, one a repeat. Every schedule is warmed up with a few tokens."""
    gap = {name: request.knobs[name] for name in ("gap", "arrivals")}
    schedules: dict[str, Mapping[str, Any] | None] = {
        "fused": {**gap, "concurrency": request.knobs["concurrency"]},
        "fused without compaction": {**gap, "concurrency": request.knobs["concurrency"], "compaction": False},
        "static": {**gap, "concurrency": request.knobs["concurrency"], "schedule": "static"},
        "sequential": {**gap, "schedule": "sequential"},
        BASELINE: None,
    }

    def run(name: str, budget: int) -> Served:
        knobs = schedules[name]
        asked = Request(FUSION, request.prompt, request.models, knobs or {}, request.sampling, budget, request.seed)
        return one_by_one(catalog, asked) if knobs is None else fused(catalog, asked)

    for name in schedules:
        tell(f"warming up {name}")
        run(name, 2 * len(request.prompt["texts"]))
    results: dict[str, list[Served]] = {name: [] for name in schedules}
    for repeat in range(repeats):
        order = [*schedules][repeat % len(schedules) :] + [*schedules][: repeat % len(schedules)]
        for name in order:
            tell(f"repeat {repeat + 1} of {repeats}, {name}")
            results[name].append(run(name, request.budget))
    return results


def row(name: str, served: Sequence[Served], plain: Sequence[Served]) -> dict[str, Any]:
    """The measures of a schedule; times are medians over repeats, ratios are taken within a repeat."""
    total = summarise(served[0].traces)
    figures = [step.figures for trace in served[0].traces for step in trace.steps]

    def median(of: Callable[[Served], float]) -> float:
        return statistics.median(map(of, served))

    return {
        "schedule": name,
        "tokens_per_second": median(lambda s: s.rate),
        "tokens_per_second_repeats": [s.rate for s in served],
        "speedup_time": statistics.median(a.rate / b.rate for a, b in zip(served, plain, strict=True)),
        "latency_p50": median(lambda s: percentile(s.latencies, 50)),
        "latency_p95": median(lambda s: percentile(s.latencies, 95)),
        "first_token_p50": median(lambda s: percentile(s.first_tokens, 50)),
        "first_token_p95": median(lambda s: percentile(s.first_tokens, 95)),
        "new_tokens": total.new_slots,
        "target_calls": total.num_target_calls,
        "target_rows": total.rows["target"],
        "padding_rows": sum(f.get("padding", 0) for f in figures),
        "moved_places": sum(f.get("moved", 0) for f in figures),
        "outside_model_calls": 1.0 - sum(total.spent.values()) / total.seconds,
        "same_text": statistics.fmean(a == b for a, b in zip(served[0].texts, plain[0].texts, strict=True)),
    }


def bench(args: argparse.Namespace, tell: Callable[[str], None]) -> dict[str, Any]:
    """Run what the arguments describe; {"environment", "rows"}. Raises UserError."""
    if args.repeats < 1 or args.texts < 1:
        raise UserError(
            f"There must be one text and one repeat or more, but {args.texts} and {args.repeats} were given."
        )
    catalog = Catalog(device=args.device, dtype=args.dtype, threads=args.threads)
    prompts: list[Prompted] = read_prompts(str(args.texts))
    if len(prompts) < args.texts:
        raise UserError(f"{args.texts} texts were asked for, but {len(prompts)} prompts are shipped; ask for fewer.")
    request = Request(
        FUSION,
        {"texts": [prompt.text for prompt in prompts]},
        {"target": args.model},
        {"gap": args.gap, "arrivals": args.arrivals, "concurrency": args.concurrency or args.texts},
        Sampling(temperature=args.temperature),
        args.texts * args.new_tokens,
    )
    results = measure(catalog, request, args.repeats, tell)
    codec = catalog.get(args.model).codec
    environment = {
        **catalog.environment(),
        "date": date.today().isoformat(),
        "model": args.model,
        "texts": args.texts,
        "prompt_tokens": [len(text) for text in codec.encode(request.prompt).texts],
        "new_tokens": args.new_tokens,
        "temperature": args.temperature,
        "gap": args.gap,
        "arrivals": args.arrivals,
        "concurrency": request.knobs["concurrency"],
        "repeats": args.repeats,
    }
    return {"environment": environment, "rows": [row(n, served, results[BASELINE]) for n, served in results.items()]}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a Markdown table; latencies in seconds."""
    told = [
        [
            f"`{r['schedule']}`" if r["schedule"] == BASELINE else r["schedule"],
            f"{r['tokens_per_second']:.1f}",
            f"{r['speedup_time']:.2f}",
            *(f"{r[name]:.2f}" for name in ("latency_p50", "latency_p95", "first_token_p50")),
            str(r["target_calls"]),
            f"{r['padding_rows']:.0f}",
            f"{r['same_text']:.0%}",
        ]
        for r in rows
    ]
    head = "schedule | tok/s | x time | latency p50 | p95 | first token p50 | calls | padding rows | same text"
    return grid(head, told)


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m backend.fleet_bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default=LOCAL, help="model id of the target")
    parser.add_argument("--texts", type=int, default=8, help="how many of the shipped prompts")
    parser.add_argument("--new-tokens", type=int, default=48, help="of each text")
    parser.add_argument("--gap", type=int, default=0, help="iterations between two arrivals")
    parser.add_argument("--arrivals", choices=["even", "poisson"], default="even", help="gaps all alike, or by chance")
    parser.add_argument("--concurrency", type=int, default=None, help="places (default: one a text)")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dtype", default="auto", choices=["auto", *DTYPES])
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=None, help="CPU threads")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write {environment, rows} here")
    args = parser.parse_args(argv)
    try:
        result = bench(args, tell=lambda line: print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True))
    except UserError as error:
        print(f"\n{error}", file=sys.stderr)
        return 2
    print(file=sys.stderr)
    print(table(result["rows"]))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
