"""What the benchmarks found, and which models are here: `python -m backend.findings --write README.md`.

Nothing is measured here: the lines are made from the files that the benchmarks wrote into assets/bench, and from the
catalog's entries.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from backend import forecast_table, image_report
from backend.catalog import ASSETS
from backend.documents import grid, is_current, marks, write
from backend.entries import Entry, entries
from backend.errors import UserError
from backend.offers import series_entries, strategies_for
from backend.protocols import (
    PROTOCOL_NAMES,
    CausalSession,
    CoarseSession,
    DistilledSession,
    HeadsSession,
    MaskedSession,
    ScaleSession,
    base,
)

COMMAND = "python -m backend.findings --write README.md"
TABLE, FIGURES, MODELS = (marks(name, COMMAND) for name in ("findings", "image-figures", "image-models"))
FORECAST_FIGURES, FORECAST_MODELS = (marks(name, COMMAND) for name in ("forecast-figures", "forecast-models"))
FOLDER = ASSETS / "bench"
Result = Mapping[str, Any]
PICTURES = {  # what paints, by the protocol of its target
    CausalSession: "strategies that write one token after the other",
    MaskedSession: "the family *unmasking*",
    ScaleSession: "the family *next scale*",
    CoarseSession: "the family *coarse to fine*",
    DistilledSession: "the family *distilled*",
    HeadsSession: "`eagle` beside the first",
}


def raced(result: Result) -> str:
    """Timed lanes: speed against plain decoding, and tokens a target call; the quickest first."""
    rows = [r for r in result["rows"] if not r.get("peer") and r["strategy"] != "autoregressive"]
    rows.sort(key=lambda r: -r["speedup_time"])
    return ", ".join(f"`{r['strategy']}` {r['speedup_time']:.2f} ({r['mean_acceptance_length']:.2f})" for r in rows)


def counted(result: Result) -> str:
    """Counted lanes: tokens a target call, its standard error, and rows a call; the longest first."""
    rows = sorted(result["rows"], key=lambda r: -r["mean_acceptance_length"])
    lengths = [f"{r['mean_acceptance_length']:.2f} ± {r['standard_error']:.2f}" for r in rows]
    return ", ".join(
        f"`{r['strategy']}` {n} at {r['rows_per_call']:.1f} rows" for r, n in zip(rows, lengths, strict=True)
    )


def fused(result: Result) -> str:
    """Schedules of several requests: throughput against plain decoding of one after the other."""
    rows = [r for r in result["rows"] if r["schedule"] not in ("autoregressive", "sequential")]
    return ", ".join(f"{r['schedule']} {r['speedup_time']:.2f}" for r in rows)


def in_blocks(result: Result) -> str:
    """The longest context: time against the twin, and keys and values read."""
    row = max(result["rows"], key=lambda r: r["context"])
    read = row["block_kv_bytes_per_token"] / row["twin_kv_bytes_per_token"]
    return f"{row['speedup_time']:.2f} x the twin's speed, {read:.1%} of the keys and values read"


def equal(result: Result) -> str:
    """Greedy texts against plain decoding's: how many are the same, and where others part."""
    rows = result["rows"]
    same, total = sum(r["equal"] for r in rows), sum(r["total"] for r in rows)
    parted = [f"`{r['strategy']}` {len(r['differences'])}" for r in rows if r["differences"]]
    gaps = [d["gap"] for r in rows for d in r["differences"] if d["gap"] is not None]
    found = f"{same} of {total} texts of {len(rows)} strategies are the same"
    if not gaps:
        return found
    return f"{found}; others: {', '.join(parted)}, the best two tokens there no further apart than {max(gaps):.2g}"


def _chat(e: Result) -> str:
    return f"{e['prompts']} chat prompts of the page, {e['new_tokens']} tokens: x time (tokens a call)"


def _held_out(e: Result) -> str:
    return f"{e['prompts']} chat prompts of the training's grammar that no training used, {e['new_tokens']} tokens"


def _edit(e: Result) -> str:
    return f"{e['prompts']} texts to edit or summarise, {e['new_tokens']} tokens"


def _sampled(e: Result) -> str:
    return f"temperature {e['temperature']:g}, {e['prompts']} chat prompts x {e['repeats']} seeds: tokens a call"


def _fusion(e: Result) -> str:
    return f"{e['texts']} requests on one model, {e['new_tokens']} tokens each: x throughput of one after the other"


def _blocks(_: Result) -> str:
    return "the block transformer beside a plain twin of equal loss, longest context"


def _equality(e: Result) -> str:
    return f"greedy in {e['dtype']}, {e['new_tokens']} tokens, against plain decoding"


FILES: Mapping[str, tuple[Callable[[Result], str], Callable[[Result], str]]] = {
    "chat.json": (_chat, raced),
    "held-out.json": (_held_out, raced),
    "edit.json": (_edit, raced),
    "sampled.json": (_sampled, counted),
    "fusion.json": (_fusion, fused),
    "blocks.json": (_blocks, in_blocks),
    "equality.json": (_equality, equal),
}


def table(folder: Path = FOLDER) -> str:
    """The lines as a Markdown table; files that are not there are left out."""
    rows = []
    for name, (title, found) in FILES.items():
        if (folder / name).is_file():
            result = json.loads((folder / name).read_text(encoding="utf-8"))
            rows.append((title(result["environment"]), found(result), name))
    return grid("measured on | found | file", rows)


def figures(folder: Path = FOLDER) -> str:
    """What was asked of the image tab beside what its benchmark measured; that it was not, while there is no file."""
    path = folder / "image.json"
    if not path.is_file():
        return image_report.MISSING
    return image_report.figures(json.loads(path.read_text(encoding="utf-8")))


def painters(known: Sequence[Entry] | None = None) -> str:
    """The image models by the families of strategies that they are for, and which of these have none."""
    known = entries() if known is None else known
    ids: dict[type, list[str]] = {}
    for entry in known:
        if entry.modality == "image" and entry.available:
            protocol = next((p for p, name in PROTOCOL_NAMES.items() if name == entry.protocol), None)
            if protocol is not None:
                ids.setdefault(base(protocol), []).append(f"`{entry.id}`")
    here, missing = [], []
    for protocol, family in PICTURES.items():
        if protocol in ids:
            here.append(f"for {family} {', '.join(ids[protocol])}")
        elif protocol is not CausalSession:
            missing.append(family)
    told = f"Image models that are here: {'; '.join(here)}." if here else ""
    if missing:
        told += f" There is none yet for {' and '.join(missing)}, proven on toy models; so the app does not offer them."
    return told.strip()


def forecast_figures(folder: Path = FOLDER) -> str:
    """The same of the forecasting tab."""
    path = folder / "forecasting.json"
    if not path.is_file():
        return forecast_table.MISSING
    return forecast_table.figures(json.loads(path.read_text(encoding="utf-8")))


def forecasters(known: Sequence[Entry] | None = None) -> str:
    """Our models of series that are here, each with the strategies that continue a series with it."""
    every = [e for e in series_entries(known) if e.source == "house"]  # those of others differ by machine
    here, away = [e for e in every if e.available], [e for e in every if not e.available]
    if not here:
        return "There is no model of series yet; what forecasts is proven on toy models."
    told = [f"`{entry.id}` ({_served(entry)})" for entry in here]
    text = f"Models of series that are here, with what continues a series with each: {'; '.join(told)}."
    if away:
        text += f" Not built yet: {', '.join(f'`{entry.id}`' for entry in away)}."
    events = [f"`{e.id}` ({_served(e)})" for e in series_entries(known, "events") if e.available]
    return text + (f" Of events: {'; '.join(events)}." if events else "")


def _served(entry: Entry) -> str:
    """The strategies of a model in a few words: those of tokens by their family, of which there are many."""
    kind: Any = base(next(p for p, name in PROTOCOL_NAMES.items() if name == entry.protocol))
    if kind in PICTURES:
        return PICTURES[kind]
    return ", ".join(f"`{s.id}`" for s in strategies_for(entry)) or "none yet"


def parts() -> dict[tuple[str, str], str]:
    """The generated parts of the README, by their marks."""
    return {
        TABLE: table(),
        FIGURES: figures(),
        MODELS: painters(),
        FORECAST_FIGURES: forecast_figures(),
        FORECAST_MODELS: forecasters(),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m backend.findings", description=__doc__)
    parser.add_argument("--write", type=Path, metavar="README", help="put the parts into this file")
    parser.add_argument("--check", type=Path, metavar="README", help="exit 1 unless it holds the parts")
    args = parser.parse_args(argv)
    try:
        if args.check:
            return int(not all(is_current(args.check, part, text) for part, text in parts().items()))
        for part, text in parts().items():
            if args.write:
                write(args.write, part, text)
            else:
                print(f"{text}\n")
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
