"""Results of the benchmark of forecasts as Markdown: the table of lanes, and what was asked for beside what came out.

Nothing is measured here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from backend.documents import grid
from backend.image_report import LANE, Figure, asked_and_measured, by_name, cells, gallery_rows

Row = Mapping[str, Any]
MISSING = (
    "Not measured yet; `python -m backend.bench --tab forecasting --threads 2 --json assets/bench/forecasting.json` "
    "measures it."
)
PLAIN, CHECKED, SWEEPS, DIRECT = "recursive", "speculative_patches", "noise_jacobi", "direct"
LEAST = 10  # forecasts that an error is told over; fewer are of other series than the lanes beside them
SAME = 1e-6  # a tolerance up to which a path is the same, as far as its digits are kept


# --------------------------------------------------------------------------------------------------------------- table
def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    head = f"{LANE.format(seconds='ms')} | MASE | WQL | SQL | sMAPE | in 80 % | CRPS of sum | cases"
    return grid(head, (cells(r, 1000, ".0f", worth(r.get("quality") or {})) for r in rows))


def worth(q: Row) -> list[str]:
    """Errors, coverage, and how many cases they are of."""
    if "law_of" in q:
        return [f"as `{q['law_of']}`", *[""] * 6]
    if q.get("wql") is None:
        return [""] * 7
    if q["cases"] < LEAST:
        return [*[""] * 6, f"only {q['cases']}"]
    errors = [q.get(name) for name in ("mase", "wql", "sql", "smape")]
    told = ["" if x is None else f"{x:.3f}" for x in errors]
    inside, total = q.get("coverage80"), q.get("crps_of_sum")
    cases = f"{q['cases']}" + (f", {q['paths']} paths" if q.get("paths") else "")
    return [*told, "" if inside is None else f"{inside:.0%}", "" if total is None else f"{total:.3f}", cases]


def report(result: Row) -> str:
    """A result as Markdown: where it was measured, the table, and what its columns are."""
    e, rows = result["environment"], result["rows"]
    where = (
        f"{e['horizon']} steps of {e['prompts']} shipped series in {e['repeats']} alternating repeats, {e['paths']} "
        f"sample paths at once (one a run where tokens are written), temperature {e['temperature']:g}; {e['device']}: "
        f"{e['cpu']}, {e['threads']} threads, {e['dtype']}, torch {e['torch']}, Python {e['python']}, {e['date']}. "
        "Medians; *x calls* and *x time* are against the plain way to unroll the same kind of model: "
        + ", ".join(f"`{name}`" for name in dict.fromkeys(r["against"] for r in rows))
        + "."
    )
    columns = (
        f"Errors are geometric means over up to {e['cases']} forecasts of shipped series, which no training has seen, "
        "at nine quantile levels: *MASE* and *SQL* in units of the seasonal naive error of the past, *WQL* and *CRPS "
        "of sum* in units of the mean size of the truth and of its sum; *in 80 %*: share of truths between the "
        "quantiles 0.1 and 0.9. A lane of one curve is judged as a law of one point a step: its *WQL* is its weighted "
        "absolute error and its *SQL* its *MASE*; it has no band, and sums are judged where there are paths. "
        f"Errors over fewer than {LEAST} forecasts are left out; the models' cards tell errors of all groups. "
        f"Where a run writes one path, {e['token_paths']} runs make a forecast. *calls*: those "
        "of the target one after the other, and behind a plus those of other models; one call serves all paths. "
        "*rows*: patches, steps or tokens that all models looked at."
    )
    told = law(result.get("equal_law"))
    return "\n\n".join([where, table(rows), columns, *([told] if told else [])])


def law(found: Row | None) -> str:
    """What the paired comparison of an exact lane with the plain one found; "" where there is none."""
    if not found:
        return ""
    sees = "no difference" if found["same"] else "a difference"
    return (
        f"Equal law, by measurement: the WQL of `{found['lane']}` over that of `{found['against']}` is "
        f"{found['ratio']:.4f}, 95 % interval {found['low']:.4f} to {found['high']:.4f} (paired bootstrap over "
        f"{found['cases']} forecasts): {sees}."
    )


def for_gallery(result: Row) -> dict[str, Any]:
    """The result with rows named and summed as the benchmark of texts has them, for views that show any of them.

    Speedups are per forecast; `worth` is the WQL, None where the law is that of another lane.
    """
    horizon = result["environment"]["horizon"]
    rows = [
        {**r, "horizon": r["slots"] / (r["paths"] or 1) if r.get("kind") == "events" else horizon}
        for r in gallery_rows([_told(r) for r in result["rows"]], "wql")
    ]
    return {"environment": {**result["environment"], "new_tokens": str(horizon)}, "rows": rows}


def _told(row: Row) -> Row:
    """The row without errors that are of too few forecasts."""
    quality = row.get("quality") or {}
    return {**row, "quality": {}} if quality.get("cases", LEAST) < LEAST else row


# ------------------------------------------------------------------------------------------------ asked and measured
def figures(result: Row) -> str:
    """What was asked for and what was measured, as a Markdown table."""
    more = {"equal_law": result.get("equal_law") or {}, "sweeps": {"rows": result.get("sweeps") or []}}
    more["long_drafts"] = {"rows": result.get("long_drafts") or []}
    return asked_and_measured(FIGURES, by_name(result["rows"]) | more)


Check = Callable[[Mapping[str, Row]], tuple[str, bool] | None]


def _speculative(lanes: Mapping[str, Row]) -> tuple[str, bool] | None:
    ours, plain, told = lanes.get(CHECKED), lanes.get(PLAIN), lanes["equal_law"]
    if ours is None or plain is None or not told:
        return None
    fewer, faster = plain["calls"] / ours["calls"], ours["speedup_time"]
    mean = ours.get("calls_a_path")
    own = f", {plain['calls'] / mean:.2f}x for a path on average ({mean:.2f})" if mean else ""
    kept = f", {ours['alpha']:.0%} of the patches that were judged stay" if ours.get("alpha") is not None else ""
    said = (
        f"{fewer:.2f}x fewer calls ({ours['calls']:.2f} against {plain['calls']:.2f}){own}, {faster:.2f}x in time at "
        f"{ours['paths']} paths, where a call with its drafts takes {fewer / faster:.1f} plain ones{kept}; WQL "
        f"{told['ratio']:.4f} of recursive's, {told['low']:.4f} to {told['high']:.4f} over {told['cases']} forecasts"
    )
    long = [_long(found) for found in lanes["long_drafts"]["rows"]]
    reached = fewer >= 1.5 and faster >= 1 and told["same"]
    return "; ".join([said, *(words for words, _ in long)]), reached or any(there for _, there in long)


def _long(found: Row) -> tuple[str, bool]:
    """The same over a longer horizon, in words, and whether what was asked for is reached there."""
    plain, (name, ours) = found["lanes"][PLAIN], next(item for item in found["lanes"].items() if item[0] != PLAIN)
    fewer, own = (plain["calls"] / ours[which] for which in ("calls", "calls_a_path"))
    faster, law = found["speedup_time"], found["law"]
    said = (
        f"`{name}` over {found['horizon']} steps of {found['series']} series: {fewer:.2f}x fewer calls, {own:.2f}x for "
        f"a path on average, {faster:.2f}x in time"
    )
    if law is None:
        return said, False
    said += f"; WQL {law['ratio']:.4f}, {law['low']:.4f} to {law['high']:.4f}"
    return said, fewer >= 1.5 and faster >= 1 and law["same"]


def _sweeps(lanes: Mapping[str, Row]) -> tuple[str, bool] | None:
    rows = [row for row in lanes["sweeps"]["rows"] if row["case"] == "ar1"]
    if not rows:
        return None
    told, best = [], 0.0
    for row in rows:
        plain, parts = row["lanes"][PLAIN]["calls"], []
        for name, lane in row["lanes"].items():
            if not name.startswith(SWEEPS):
                continue
            tolerance, ratio = float(name.rpartition("tolerance=")[2]), plain / lane["calls"]
            best = max(best, ratio if tolerance <= SAME else 0.0)
            how = f"within {tolerance:g}" if tolerance else "to the last bit"
            parts.append(f"{ratio:.2f}x {how} ({lane['calls']} against {plain})")
        told.append(f"`{row['target']}`, {row['horizon']} steps of {row['paths']} paths: {', '.join(parts)}")
    return "; ".join(told), best >= 3


def _direct(lanes: Mapping[str, Row]) -> tuple[str, bool] | None:
    ours, plain = lanes.get(DIRECT), lanes.get(PLAIN)
    if ours is None or plain is None:
        return None
    pairs = [(r.get("quality") or {}) for r in (ours, plain)]
    if any(q.get("wql") is None for q in pairs):
        return None
    ratio = plain["calls"] / ours["calls"]
    told = (
        f"{ratio:.1f}x fewer calls, {ours['speedup_time']:.1f}x in time; WQL {pairs[0]['wql']:.3f} against "
        f"{pairs[1]['wql']:.3f}, MASE {pairs[0]['mase']:.3f} against {pairs[1]['mase']:.3f}"
    )
    return told, ratio >= 8


def _three_seconds(lanes: Mapping[str, Row]) -> tuple[str, bool] | None:
    plain = lanes.get(PLAIN)
    if plain is None:
        return None
    known = {r["strategy"]: r["seconds"] for r in lanes.values() if r.get("kind") == "paths"}
    slowest = max(known, key=lambda name: known[name])
    told = (
        f"`{PLAIN}` {plain['seconds']:.2f} s at {plain['paths']} paths; the slowest of {len(known)} lanes, "
        f"`{slowest}`, {known[slowest]:.2f} s"
    )
    return told, plain["seconds"] < 3


FIGURES = (
    Figure(
        "`speculative_patches`: 1.5x fewer target calls than `recursive` at equal law, and not slower at 64 paths",
        _speculative,
    ),
    Figure("`noise_jacobi`: 3x fewer calls one after the other on the AR(1) series", _sweeps),
    Figure("`direct`: 8x fewer calls, with its accuracy beside it", _direct),
    Figure("one default forecast in under 3 s on 2 cores", _three_seconds),
)
