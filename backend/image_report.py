"""Results of the benchmark of pictures as Markdown: the table of lanes, and what was asked for beside what came out.

Nothing is measured here; what limits a lane is told from its own calls, rows and seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend.documents import grid

Row = Mapping[str, Any]
LANE = "strategy | target | calls | rows | {seconds} (quartiles) | x calls | x time | guarantee"  # of `cells`
MISSING = "Not measured yet; `python -m backend.bench --tab image --json assets/bench/image.json` measures it."
PLAIN, SCALES = "autoregressive", "next_scale"
COMMON = "common"  # kind of prompts
SLOW = ("random_order", "verified_steps")  # one call a slot, and several pictures for one: never meant to be quick


# --------------------------------------------------------------------------------------------------------------- table
def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    head = f"{LANE.format(seconds='s a picture')} | attributes right | nats a token | nats a cell | FD-house"
    return grid(head, (cells(r, 1, ".2f", _worth(r.get("quality") or {})) for r in rows))


def cells(r: Row, seconds: float, digits: str, worth: Sequence[str]) -> list[str]:
    """The cells of a row under LANE, then those of what it is worth. seconds: how many of its unit make a second."""
    middle, low, high = (format(seconds * x, digits) for x in (r["seconds"], *r["seconds_quartiles"]))
    return [
        f"`{r['strategy'].partition(':target=')[0]}`",
        r["models"]["target"].removeprefix("house/"),
        calls(r),
        f"{sum(r['rows_by_role'].values()):.0f}",
        f"{middle} ({low}-{high})",
        f"{r['speedup_calls']:.2f}",
        f"{r['speedup_time']:.2f}",
        r["guarantee"],
        *worth,
    ]


def calls(r: Row) -> str:
    """Calls of the target, and those of others behind a plus."""
    others = sum(n for role, n in r["calls_by_role"].items() if role.partition(".")[0] != "target")
    return f"{r['calls']:.1f}" + (f" + {others:.1f}" if others else "")


def _worth(q: Row) -> list[str]:
    """Attributes right with their error and number of pictures, both log-likelihoods and distance."""
    if "law_of" in q:
        return [f"as `{q['law_of']}`", "", "", ""]
    if q.get("attributes") is None:
        return ["", "", "", ""]
    measures = ((q.get("log_likelihood"), ".3f"), (q.get("by_painter"), ".3f"), (q.get("fd_house"), ".0f"))
    return [accuracy(q), *("" if value is None else format(value, digits) for value, digits in measures)]


def accuracy(q: Row) -> str:
    """Attributes right: share, standard error, pictures."""
    error = q.get("attributes_error")
    return f"{q['attributes']:.1%}" + (f" ± {error:.1%}" if error is not None else "") + f" of {q['pictures']}"


def report(result: Row) -> str:
    """A result as Markdown: where it was measured, the table, and what its columns are."""
    e, rows = result["environment"], result["rows"]
    where = (
        f"{e['prompts'] * e['repeats']} pictures a lane, one after the other, {e['prompt_set']} prompts, temperature "
        f"{e['temperature']:g}, guidance as the target's name says; {e['device']}: {e['cpu']}, {e['threads']} threads, "
        f"{e['dtype']}, torch {e['torch']}, Python {e['python']}, {e['date']}. Medians; the lanes take turns, and "
        "ratios are those of the same prompt."
    )
    real = next((q["fd_house_of_real"] for r in rows if "fd_house_of_real" in (q := r.get("quality") or {})), None)
    floor = "" if real is None else f"; as many portraits of the drawer itself stand at {real:.0f}"
    columns = (
        "*attributes right*: of what held-out prompts name, the share that the judge reads off the picture, with its "
        "standard error and the number of pictures. *nats a token*: log-likelihood under the lane's own target, whose "
        "tokens are pixels or maps, so that only lanes of one target compare; none where the target has no such law. "
        f"*nats a cell*: that of the picture under `{e['model']}`, whoever painted it, so that all lanes compare. "
        f"*FD-house*: Frechet distance in the judge's features, {e['set']} pictures against drawn ones{floor}; it is "
        "no FID. *rows*: token-forwards of all models, two a token under guidance. *calls*: those of the target, which "
        "alone *x calls* compares, and behind a plus those of other models."
    )
    return "\n\n".join([where, table(rows), columns, *_knob_table(rows)])


def _knob_table(rows: Sequence[Row]) -> list[str]:
    """What lanes are set to, lanes of like settings in one row, folded; nothing where they have no knobs."""
    lanes: dict[str, list[str]] = {}
    for r in rows:
        if knobs := _knobs(r):
            lanes.setdefault(knobs, []).append(f"`{r['strategy']}`")
    told = grid("knobs | lanes", ([knobs, ", ".join(dict.fromkeys(each))] for knobs, each in lanes.items()))
    return ["<details><summary>Knobs of the lanes</summary>", told, "</details>"] if lanes else []


def _knobs(r: Row) -> str:
    return ", ".join(f"{name} {value}" for name, value in r["knobs"].items())


def for_gallery(result: Row) -> dict[str, Any]:
    """The result with rows named and summed as the benchmark of texts has them, for views that show either.

    Speedups are per picture; `worth` is the share of attributes right, None where the law is that of another lane.
    """
    return {
        "environment": {**result["environment"], "new_tokens": "256"},
        "rows": gallery_rows(result["rows"], "attributes"),
    }


def gallery_rows(rows: Sequence[Row], measure: str) -> list[dict[str, Any]]:
    """Rows as the benchmark of texts has them: `seconds` are those of all runs, `seconds_each` the median of one.

    measure: of quality, that is their `worth`.
    """
    laws = {r["strategy"]: (r.get("quality") or {}).get(measure) for r in rows}
    return [
        {
            **r,
            **r["sums"],
            "seconds_each": r["seconds"],
            "strategy": r["strategy"].partition(":")[0],
            "lane": r["strategy"],
            "worth": laws.get((r.get("quality") or {}).get("law_of", r["strategy"])),
        }
        for r in rows
    ]


# ------------------------------------------------------------------------------------------------ asked and measured
@dataclass(frozen=True)
class Figure:
    """Something asked for. check: what was measured and whether that reaches it; None while a lane is missing."""

    asked: str
    check: Callable[[Mapping[str, Row]], tuple[str, bool] | None]


def figures(result: Row) -> str:
    """What was asked for and what was measured, as a Markdown table."""
    return asked_and_measured(FIGURES, by_name(result["rows"]))


def by_name(rows: Sequence[Row]) -> dict[str, Row]:
    """Lanes by their names, and by the strategy alone the first of it."""
    lanes: dict[str, Row] = {}
    for r in rows:
        lanes.setdefault(r["strategy"], r)
        lanes.setdefault(r["strategy"].partition(":")[0], r)
    return lanes


def asked_and_measured(asked: Sequence[Figure], known: Mapping[str, Row]) -> str:
    """Figures and what they found, as a Markdown table."""
    rows = []
    for figure in asked:
        found = figure.check(known)
        told = ("not measured yet", "") if found is None else (found[0], "yes" if found[1] else "no")
        rows.append((figure.asked, *told))
    return grid("asked for | measured | reached", rows)


def quality_of(name: str, lanes: Mapping[str, Row]) -> Row | None:
    """The quality of a lane, or that of the lane whose law it has."""
    q = (lanes.get(name, {}).get("quality")) or {}
    q = (lanes.get(q["law_of"], {}).get("quality") or {}) if "law_of" in q else q
    return q if q.get("attributes") is not None else None


def call_cost(ours: Row, plain: Row) -> str:
    """What a target call of a lane costs against one of plain decoding."""
    per_call = [
        (r["seconds_in_calls"]["target"] / r["calls"], r["rows_by_role"]["target"] / r["calls"]) for r in (ours, plain)
    ]
    (mine, rows), (base, base_rows) = per_call
    return f"a call over {rows:.0f} rows costs {mine / base:.1f} calls over {base_rows:.1f}"


def _next_scale(lanes: Mapping[str, Row]) -> tuple[str, bool] | None:
    ours, mine, plain = lanes.get(SCALES), quality_of(SCALES, lanes), quality_of(PLAIN, lanes)
    if ours is None or mine is None or plain is None:
        return None
    behind = plain["attributes"] - mine["attributes"]
    reached = ours["speedup_calls"] >= 15 and ours["speedup_time"] >= 8 and behind <= 0.03
    told = (
        f"{ours['speedup_calls']:.1f}x fewer calls, {ours['speedup_time']:.1f}x faster; "
        f"attributes right {accuracy(mine)} against {accuracy(plain)}"
    )
    limit = "" if ours["speedup_time"] >= 8 else f"; {call_cost(ours, lanes[PLAIN])}"
    return told + limit, reached


def _fewer_calls(name: str, least: float, base: str = PLAIN, worth: bool = False) -> Callable[[Mapping[str, Row]], Any]:
    """Target calls of `base` over those of a lane; worth: with the attributes that come out right."""

    def check(lanes: Mapping[str, Row]) -> tuple[str, bool] | None:
        ours, plain = lanes.get(name), lanes.get(base)
        if ours is None or plain is None:
            return None
        ratio = plain["calls"] / ours["calls"]
        told = (
            f"{ratio:.2f}x ({ours['calls']:.1f} calls against {plain['calls']:.1f}), "
            f"in time {plain['seconds'] / ours['seconds']:.2f}x"
        )
        q = quality_of(name, lanes)
        if q is not None and (worth or ours["guarantee"] == "lossy"):
            told += f"; attributes right {accuracy(q)}"
        if ratio < least:
            told += f"; {_keeps(ours, plain)}"
        return told, ratio >= least

    return check


def _keeps(ours: Row, plain: Row) -> str:
    """What limits the calls: how many tokens one writes, and how many guesses stay."""
    rates = [f"{r['draft_acceptance_rate']:.0%}" for r in (ours, plain) if r.get("draft_acceptance_rate") is not None]
    told = f"a call writes {ours['mean_acceptance_length']:.2f} tokens"
    return told + (f", {' against '.join(rates)} of the guesses stay" if rates else "")


def _relaxed(lanes: Mapping[str, Row]) -> tuple[str, bool] | None:
    found: tuple[str, bool] | None = _fewer_calls("relaxed", 1.5, "speculative", worth=True)(lanes)
    if found is None:
        return None
    told = lanes["relaxed"]["figures"]
    moved = f"; mass moved at a place {told['moved']:.3g}" if "moved" in told else ""
    bound = f", bound {told['bound']:.3g} (means over steps)" if moved and "bound" in told else ""
    return found[0] + moved + bound + _unrelaxed(lanes), found[1]


def _unrelaxed(lanes: Mapping[str, Row]) -> str:
    """What plain speculation needs that drafts as far ahead with the same draft: a fair part of the calls saved."""
    ours, plain = lanes["relaxed"], lanes.get("relaxed:delta=0")
    if plain is None:
        return ""
    ratio, ahead = plain["calls"] / ours["calls"], ours["knobs"]["depth"]
    return f"; drafting {ahead} ahead as it does, but lossless (delta 0): {plain['calls']:.1f} calls, so {ratio:.2f}x"


def _collaborative(lanes: Mapping[str, Row]) -> tuple[str, bool] | None:
    ours, plain = lanes.get("collaborative"), lanes.get(SCALES)
    mine, whole = quality_of("collaborative", lanes), quality_of(SCALES, lanes)
    if ours is None or plain is None or mine is None or whole is None:
        return None
    ratio, behind = plain["seconds"] / ours["seconds"], whole["attributes"] - mine["attributes"]
    told = f"{ratio:.2f}x its speed; attributes right {accuracy(mine)} against {accuracy(whole)}"
    return told, ratio > 1 and behind <= 0.03


def _two_seconds(lanes: Mapping[str, Row]) -> tuple[str, bool] | None:
    plain = lanes.get(PLAIN)
    known = {
        r["strategy"]: r["seconds"]
        for r in lanes.values()
        if plain is not None
        and r["models"]["target"] != plain["models"]["target"]
        and r["strategy"] not in SLOW
        and not r["strategy"].startswith("one_step")
    }
    if SCALES not in known or len(known) < 2:
        return None
    slowest = max(known, key=lambda name: known[name])
    told = f"`{SCALES}` {known[SCALES]:.2f} s, the slowest of {len(known)} lanes, `{slowest}`, {known[slowest]:.2f} s"
    return told, known[slowest] < 2


def _common(lanes: Mapping[str, Row]) -> tuple[str, bool] | None:
    both = {name: quality_of(name, lanes) for name in (PLAIN, SCALES)}
    told, reached = [], True
    for name, q in both.items():
        kind = (q or {}).get("by_kind", {}).get(COMMON, {})
        if q is None or kind.get("attributes") is None:
            return None
        told.append(f"`{name}` {kind['attributes']:.1%} ({accuracy(q)} of all kinds)")
        reached = reached and kind["attributes"] >= 0.9
    return ", ".join(told), reached


FIGURES = (
    Figure("plain decoding and `next_scale`: 90 % of the attributes of common prompts, by the judge", _common),
    Figure(
        "`next_scale`: 15x fewer calls and 8x faster than plain decoding, within 3 points of its accuracy", _next_scale
    ),
    Figure("`speculative_jacobi`: 1.8x fewer calls than plain decoding", _fewer_calls("speculative_jacobi", 1.8)),
    Figure("`relaxed`: 1.5x fewer calls than `speculative`, with its bound", _relaxed),
    Figure("`confidence` in 12 steps: 15x fewer calls than plain decoding", _fewer_calls("confidence:steps=12", 15)),
    Figure("`collaborative`: faster than `next_scale`, within 3 points of its accuracy", _collaborative),
    Figure("`one_step`: 30x fewer calls than plain decoding", _fewer_calls("one_step", 30, worth=True)),
    Figure("masked and scale lanes: a picture in under 2 s", _two_seconds),
)
