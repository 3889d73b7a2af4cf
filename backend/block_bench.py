"""Benchmark of the block transformer beside its plain twin: tokens a second and bytes of keys and values a token.

    python -m backend.block_bench --contexts 64,128,256,448 --new-tokens 48 --repeats 5 --json assets/bench/blocks.json

Each prompt has as many tokens as a context length says. The step that runs the prompt is left out; repeats alternate in
one process, so that a slow moment hits both. Bytes of the block transformer are those its calls read; the twin reads
the keys and values of every token before.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from backend.catalog import ASSETS, DTYPES, Catalog
from backend.errors import UserError
from backend.models.causal import CausalModel
from backend.run import record
from backend.trace import Trace
from backend.types import Request, Sampling

LANES = {"block_transformer": "house/tales-block", "autoregressive": "house/tales-twin"}
STORY = """One sunny morning, a little fox named Finn found a red ball in the garden. He took it to the river, where his
friend Mia was waiting for him. "Look what I have found," he said. Mia smiled, for she had lost the ball on the day
before. They played until the sun went down, and then they walked home together through the quiet forest. """


@dataclass(frozen=True)
class Pace:
    """One run without its first step: new tokens, seconds, and bytes of keys and values that were read."""

    tokens: int
    seconds: float
    kv_bytes: float
    plain_kv_bytes: float

    @classmethod
    def of(cls, trace: Trace) -> Pace:
        """The pace of a trace. Raises UserError where it has but one step."""
        later = trace.steps[1:]
        tokens = sum(mark.fate.commits for step in later for mark in step.marks)
        if not tokens:
            raise UserError(f"{trace.request.strategy} stopped after one step; ask for more new tokens.")
        read = [sum(step.figures.get(name, 0.0) for step in later) for name in ("kv_bytes", "plain_kv_bytes")]
        return cls(tokens, sum(step.seconds for step in later), *read)


def prompt_of(model: CausalModel, length: int) -> str:
    """A beginning of about that many tokens: our own little story, again and again."""
    ids = model.codec.encode(STORY.replace("\n", " ") * (length // 40 + 1)).tokens[:length]
    return model.codec.decode(ids)


def measure(catalog: Catalog, contexts: Sequence[int], new_tokens: int, repeats: int) -> list[dict[str, Any]]:
    """One row a context length; times are medians over repeats, the ratio is taken within a repeat."""
    rows = []
    for context in contexts:
        model = catalog.get(LANES["block_transformer"])
        assert isinstance(model, CausalModel)
        prompt = prompt_of(model, context)
        requests = {
            lane: Request(lane, prompt, {"target": target}, {}, Sampling(temperature=1.0), new_tokens, 1)
            for lane, target in LANES.items()
        }
        for request in requests.values():
            record(request, catalog)
        paces: dict[str, list[Pace]] = {lane: [] for lane in LANES}
        for repeat in range(repeats):
            for lane in list(LANES)[:: 1 if repeat % 2 else -1]:
                paces[lane].append(Pace.of(record(requests[lane], catalog)))
        block, plain = paces.values()
        rows.append(
            {
                "context": len(model.codec.encode(prompt).tokens),
                "block_tokens_per_second": _median([p.tokens / p.seconds for p in block]),
                "twin_tokens_per_second": _median([p.tokens / p.seconds for p in plain]),
                "speedup_time": _median(
                    [a.tokens / a.seconds / (b.tokens / b.seconds) for a, b in zip(block, plain, strict=True)]
                ),
                "block_kv_bytes_per_token": round(block[0].kv_bytes / block[0].tokens, 1),
                "twin_kv_bytes_per_token": round(block[0].plain_kv_bytes / block[0].tokens, 1),
            }
        )
    return rows


def _card(model_id: str) -> dict[str, Any]:
    """Size and held-out loss of a model. Raises UserError if it was not built."""
    path = ASSETS / f"{model_id}.json"
    if not path.exists():
        raise UserError(f"{model_id} is not in assets/house; build it with python -m backend.train.tales.")
    card = json.loads(path.read_text(encoding="utf-8"))
    return {"num_params": card["num_params"], "nats_per_token": card["held_out"]["nats_per_token"]}


def _median(values: Sequence[float]) -> float:
    return round(statistics.median(values), 3)


def bench(args: argparse.Namespace, tell: Callable[[str], None]) -> dict[str, Any]:
    """Run what the arguments describe; {"date", "environment", "models", "rows"}. Raises UserError."""
    contexts = [int(text) for text in args.contexts.split(",")]
    if args.repeats < 1 or min(contexts) < 1:
        raise UserError(f"There must be one repeat or more and positive contexts; got {args.repeats} and {contexts}.")
    catalog = Catalog(device=args.device, dtype=args.dtype, threads=args.threads)
    models = {model_id: _card(model_id) for model_id in LANES.values()}
    tell(f"{len(contexts)} contexts, {args.repeats} repeats")
    rows = measure(catalog, contexts, args.new_tokens, args.repeats)
    return {"date": date.today().isoformat(), "environment": catalog.environment(), "models": models, "rows": rows}


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m backend.block_bench", description=__doc__)
    parser.add_argument("--contexts", default="64,128,256,448", help="tokens of the prompts")
    parser.add_argument("--new-tokens", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="float32")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--json", type=Path, help="also write the result here")
    args = parser.parse_args(argv)
    try:
        result = bench(args, lambda message: print(message, file=sys.stderr))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(result["rows"], indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
