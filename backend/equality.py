"""Equality: does every strategy that promises the text of plain greedy decoding print it? Counted prompt by prompt.

    python -m backend.equality --prompts 100 --new-tokens 32 --json assets/bench/equality.json

A forward pass over several rows rounds otherwise than one row at a time, so that two tokens of almost equal logits may
change places. So every first difference is listed with its slot and with how far apart plain decoding saw its best two
tokens there. The file is written after each prompt; a run that finds it goes on with the prompts that a strategy lacks.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from backend.bench import BASELINE, PROMPTS, Prompted, read_prompts
from backend.catalog import ASSETS, DTYPES, LOCAL, Catalog
from backend.documents import grid
from backend.errors import UserError
from backend.registry import Strategy, compatible, find
from backend.run import record
from backend.trace import Trace
from backend.types import Guarantee, Request, Sampling

MORE = ASSETS / "prompts-more.jsonl"  # written by python -m backend.train.smollm2_prompts


def prompts_of(count: int) -> list[Prompted]:
    """The first `count` prompts: the bench's, then those of the longer list. Raises UserError beyond its end."""
    known = [*read_prompts(str(PROMPTS)), *read_prompts(str(MORE))]
    if not 1 <= count <= len(known):
        raise UserError(f"The number of prompts must lie between 1 and {len(known)}, but {count} was given.")
    return known[:count]


def promising(catalog: Catalog, model: str) -> list[Strategy]:
    """The strategies whose greedy text must be plain decoding's with default knobs, and which can run on the model."""
    speaks = catalog.get(model).speaks
    return [s for s in compatible(speaks) if s.id != BASELINE and s.promises({}) is not Guarantee.LOSSY]


def compare(strategy: Strategy, plain: Trace, catalog: Catalog, row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with one more prompt: the strategy on the request of plain decoding's trace. Raises UserError.

    Returns:
        equal, total: prompts with the same text, and all. differences: of the others, {"prompt", "slot" counted from
        the first new token, "gap" between the best two probabilities of plain decoding there}. calls: target calls;
        new_slots: tokens that they wrote.
    """
    was = plain.request
    models = {"target": was.models["target"]}
    trace = record(Request(strategy.id, was.prompt, models, {}, was.sampling, was.budget, was.seed), catalog)
    found, counts = trace.difference(plain), trace.summary()
    new = [{"prompt": row.get("total", 0), "slot": found.slot - len(trace.prompt), "gap": found.gap}] if found else []
    return {
        "strategy": strategy.id,
        "guarantee": strategy.promises({}).value,
        "models": dict(trace.request.models),
        "equal": row.get("equal", 0) + (not new),
        "total": row.get("total", 0) + 1,
        "differences": [*row.get("differences", []), *new],
        "calls": row.get("calls", 0) + counts.num_target_calls,
        "new_slots": row.get("new_slots", 0) + counts.new_slots,
    }


def equality(args: argparse.Namespace, tell: Callable[[str], None]) -> dict[str, Any]:
    """What the arguments describe, {"environment", "rows", "missing"}, saved after each prompt. Raises UserError."""
    catalog = Catalog(device=args.device, dtype=args.dtype, threads=args.threads)
    prompts = prompts_of(args.prompts)
    environment = {
        **catalog.environment(),
        "date": date.today().isoformat(),
        "model": args.model,
        "new_tokens": args.new_tokens,
        "temperature": 0.0,
    }
    rows = _found(args.json, environment)
    asked = args.strategies.split(",") if args.strategies else [s.id for s in promising(catalog, args.model)]
    for name in args.again.split(",") if args.again else []:
        rows.pop(name, None)
    known, missing = _loadable([find(name) for name in asked], args.model, catalog)
    result = {"environment": environment, "rows": list[Any](), "missing": missing}
    for i, prompt in enumerate(prompts):
        todo = [s for s in known if rows.get(s.id, {}).get("total", 0) == i]
        if not todo:
            continue
        tell(f"prompt {i + 1} of {len(prompts)}: {BASELINE}")
        request = Request(BASELINE, prompt.text, {"target": args.model}, {}, Sampling(temperature=0.0), args.new_tokens)
        plain = record(request, catalog)
        for strategy in todo:
            tell(f"prompt {i + 1} of {len(prompts)}: {strategy.id}")
            rows[strategy.id] = compare(strategy, plain, catalog, rows.get(strategy.id, {}))
        result["rows"] = [rows[name] for name in sorted(rows)]
        if args.json is not None:
            args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    result["rows"] = [rows[name] for name in sorted(rows)]
    return result


def _loadable(chosen: Sequence[Strategy], model: str, catalog: Catalog) -> tuple[list[Strategy], dict[str, str]]:
    """The strategies whose models are there; of the others, what is wrong."""
    missing: dict[str, str] = {}
    for strategy in chosen:
        try:
            for role in strategy.roles:
                catalog.get(model if role == "target" else catalog.default(role, model))
        except UserError as error:
            missing[strategy.id] = str(error)
    return [s for s in chosen if s.id not in missing], missing


def _found(path: Path | None, environment: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Rows by strategy that an earlier run left. Raises UserError where it measured something else."""
    if path is None or not path.is_file():
        return {}
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
        rows = {row["strategy"]: row for row in earlier["rows"]}
        of = earlier["environment"]
        others = [name for name in ("model", "dtype", "new_tokens") if of[name] != environment[name]]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no result of this command ({error}); name another file.") from error
    if others:
        raise UserError(f"{path} was measured with another {others[0]}; name another file, or remove it to start anew.")
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a Markdown table."""
    told = []
    for row in rows:
        found = ", ".join(
            f"{d['slot']} ({'?' if d['gap'] is None else format(d['gap'], '.2g')})" for d in row["differences"]
        )
        told.append((f"`{row['strategy']}`", row["guarantee"], f"{row['equal']} of {row['total']}", found))
    return grid("strategy | guarantee | same text | first differences: slot (gap of the best two)", told)


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m backend.equality", description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=LOCAL, help="model id of the target")
    parser.add_argument("--strategies", default="", help="ids, comma-separated (default: all that promise it)")
    parser.add_argument("--again", default="", help="ids whose rows in the file are thrown away first")
    parser.add_argument("--prompts", type=int, default=100, help="how many prompts")
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--dtype", default="float32", choices=list(DTYPES))
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=None, help="CPU threads")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the result here; go on with what it holds")
    args = parser.parse_args(argv)
    try:
        result = equality(args, tell=lambda line: print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True))
    except UserError as error:
        print(f"\n{error}", file=sys.stderr)
        return 2
    print(file=sys.stderr)
    print(table(result["rows"]))
    for name, why in result["missing"].items():
        print(f"{name} was left out: {why}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
