"""Results of the benchmark as Markdown: measured lanes, counted lanes, and the part of the README that shows them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from backend import forecast_table, image_report
from backend.codecs.of_models import style_of_model
from backend.codecs.styles import PIXEL
from backend.documents import grid, is_current, marks, write
from backend.errors import UserError

TABLE = marks("bench", "python -m backend.bench --report assets/bench/text.json --write README.md")
IMAGES = marks("bench-image", "python -m backend.bench --report assets/bench/image.json --write README.md")
STYLED = marks(
    "bench-image-thumbs", "python -m backend.bench --report assets/bench/image-thumbs.json --write README.md"
)
FORECASTS = marks(
    "bench-forecasting", "python -m backend.bench --report assets/bench/forecasting.json --write README.md"
)
REPORTS = {"image": (IMAGES, image_report.report), "forecasting": (FORECASTS, forecast_table.report)}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a Markdown table."""
    told = []
    for r in rows:
        low, high = r["units_per_second_quartiles"]
        name = f"{r['strategy']} ({r['dtype']})" if r["peer"] else f"`{r['strategy']}`"
        rate = r.get("draft_acceptance_rate")
        cells = [
            name,
            f"{r['units_per_second']:.1f} ({low:.1f}-{high:.1f})",
            f"{r['speedup_time']:.2f}",
            f"{r['speedup_calls']:.2f}" if "speedup_calls" in r else "",
            f"{r['speedup_modelled']:.2f}" if r.get("speedup_modelled") else "",
            f"{r['mean_acceptance_length']:.2f} ({break_even(r):.2f})" if "mean_acceptance_length" in r else "",
            f"{rate:.0%}" if rate is not None else "",
            f"{r['same_text']:.0%}",
        ]
        told.append(cells)
    head = "strategy | tok/s (quartiles) | x time | x calls | x modelled | tok/call (even at) | accepted | same text"
    return grid(head, told)


def break_even(row: Mapping[str, Any]) -> float:
    """Tokens a target call at which the strategy, with calls of the cost measured, were as fast as plain decoding."""
    return float(row["mean_acceptance_length"] / row["speedup_time"])


def counts_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows without times as a Markdown table."""
    told = []
    for r in rows:
        length = f"{r['mean_acceptance_length']:.3f} ({r['standard_error']:.3f})"
        drafts = r["num_draft_calls"] / r["num_target_calls"]
        calls = str(r["num_target_calls"])
        told.append([f"`{r['strategy']}`", length, f"{r['rows_per_call']:.1f}", f"{drafts:.1f}", calls])
    return grid("strategy | tok/call (standard error) | target rows/call | draft calls/call | calls", told)


def report(result: Mapping[str, Any]) -> str:
    """A result as Markdown: where it was measured, the table, and how it compares with the peer."""
    e = result["environment"]
    where = (
        f"{e['model']} in {e['dtype']}, draft {e['draft']}, {e['prompts']} {e['prompt_set']} prompts, "
        f"{e['new_tokens']} new tokens, temperature {e['temperature']:g}; "
        f"{e['device']}: {e['cpu']}, {e['threads']} threads, torch {e['torch']}, transformers {e['transformers']}, "
        f"Python {e['python']}, {e['date']}. Medians of {e['repeats']} alternating repeats."
    )
    peer = "\n".join(
        f"- `{name}`: {ratio:.2f} x transformers' counterpart at its best precision and setting, in wall time"
        for name, ratio in result["over_peer"].items()
    )
    own = next((r.get("log_likelihood") for r in result["rows"] if r["strategy"] == "autoregressive"), None)
    worth = "\n".join(
        f"- `{r['strategy']}` is lossy: its texts are worth {r['log_likelihood']:.2f} nats a token to the target, "
        f"plain decoding's {own:.2f}"
        for r in result["rows"]
        if own is not None and r.get("log_likelihood") is not None and r["strategy"] != "autoregressive"
    )
    share = (
        f"Runner, marks, hover options and trace take {result['run_overhead']:.1%} of plain decoding, measured against "
        "a bare loop in the same process."
    )
    return "\n\n".join(part for part in (where, table(result["rows"]), peer, worth, share) if part)


def show(source: Path | None, target: Path | None, check: Path | None) -> int:
    """Print a result, put it into a document, or compare it with one; the exit status. Raises UserError."""
    if source is None or not source.is_file():
        raise UserError(f"--report must name a result written by --json, but {source or 'nothing'} was given.")
    result = json.loads(source.read_text(encoding="utf-8"))
    part, made = REPORTS.get(result["environment"].get("tab", "text"), (TABLE, report))
    if part is IMAGES and style_of_model(result["environment"].get("model") or "") != PIXEL:
        part = STYLED
    text = made(result)
    if check:
        current = is_current(check, part, text)
        print(f"{check} is up to date." if current else f"{check} is out of date: run with --write {check}")
        return int(not current)
    if target:
        write(target, part, text)
    else:
        print(text)
    return 0
