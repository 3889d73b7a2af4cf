"""Benchmark of pictures: what every way of painting costs, beside what its pictures are worth.

    python -m backend.bench --tab image --prompts 12 --pictures 500 --json assets/bench/image.json [--resume]
    python -m backend.bench --tab image --model house/thumbs@cfg=2 --json assets/bench/image-thumbs.json

Painters of another style get prompts of that style, its judge, and a few lanes.
First the lanes are timed, alternating in one process as texts are. Then, untimed, each lane whose law is not an exact
lane's paints further prompts, and the judge reads them: as many as fit into --quality-seconds, but --set of them at
least, for their FD-house, and all of --pictures for plain decoding and next_scale. The file is written after every
lane; --resume leaves out lanes that stand in it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from backend.bench_lanes import BASELINE, OurLane, Prompted, Timed, measure, quartiles, read_lane, read_prompts
from backend.catalog import Catalog
from backend.codecs.atlas import Pixels
from backend.codecs.of_models import style_of_model
from backend.codecs.styles import PIXEL
from backend.entries import preferred
from backend.errors import UserError
from backend.image_prompts import file_of
from backend.image_reference import Reference, reference_of
from backend.models.house.portrait_judge import PortraitJudge, fd_house
from backend.models.house.raster_fleet import can_paint, paint_many
from backend.protocols import (
    PROTOCOL_NAMES,
    CausalSession,
    CoarseSession,
    DistilledSession,
    FleetSession,
    MaskedSession,
    Model,
    ScaleSession,
)
from backend.protocols import base as base_of
from backend.quality import by_painter, finished, hits, judge, log_likelihood, nats_a_cell, small
from backend.registry import find, strategies
from backend.run import record
from backend.trace import Trace, summarise
from backend.types import Guarantee, Sampling

PAINTER = "house/portraits@cfg=3"
EXACT: Mapping[type, str] = {  # the target's own law, by what is written
    CausalSession: BASELINE,
    MaskedSession: "random_order",
    ScaleSession: "next_scale",
}
SETS = {  # lanes of a strategy, where not its defaults alone
    "confidence": ("confidence:steps=8", "confidence:steps=12"),
    "flexible_scale": ("flexible_scale", "flexible_scale:scales=5"),
    "relaxed": ("relaxed", "relaxed:delta=0"),
}
FEW = (BASELINE, "speculative_jacobi", "confidence:steps=12")  # lanes of a style that is not the tab's first
Tell = Callable[[str], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What only this tab reads."""
    parser.add_argument("--pictures", type=int, default=500, help="images: most prompts painted for the judge")
    parser.add_argument("--quality-seconds", type=float, default=15.0, help="images: for painting them, a lane")
    parser.add_argument("--set", type=int, default=48, help="images: pictures in a set whose FD-house is told")
    parser.add_argument("--resume", action="store_true", help="images: keep the lanes that stand in the file of --json")


# --------------------------------------------------------------------------------------------------------------- lanes
def lanes_here(catalog: Catalog, painter: str) -> list[str]:
    """Every strategy that can paint with the models here, under the names of its lanes, the plain ones first."""
    names: list[str] = []
    if style_of_model(painter) != PIXEL:
        return [name for name in FEW if _target(catalog, read_lane(name)[0], painter) is not None]
    for strategy in strategies().values():
        target = _target(catalog, strategy.id, painter)
        if target is not None and strategy.protocol is not FleetSession:
            names += SETS.get(strategy.id, (strategy.id,))
    plain = [name for name in EXACT.values() if name in names]
    return [*plain, *(name for name in names if name not in plain)]


def _target(catalog: Catalog, strategy_id: str, painter: str) -> str | None:
    """The usual target of a strategy on pictures; None where a model that it needs is not here."""
    strategy, here = find(strategy_id), {entry.id: entry for entry in catalog.entries()}
    if strategy.base not in (*EXACT, CoarseSession, DistilledSession):
        return None
    try:
        causal = strategy.base is CausalSession
        target = painter if causal else _guided(catalog, _usual(catalog, strategy.protocol, painter), painter)
        ids = [target, *(catalog.default(role, target) for role in strategy.roles if role != "target")]
    except UserError:
        return None
    entry = here.get(target.partition("@")[0])
    if entry is not None and entry.modality != "image":
        return None
    if any(not here[name].available for name in (i.partition("@")[0] for i in ids) if name in here):
        return None
    return target if strategy.protocol in catalog.get(target).speaks else None


def _usual(catalog: Catalog, protocol: type, painter: str) -> str:
    """The usual target of a protocol in the painter's style. Raises UserError where there is none."""
    style = style_of_model(painter)
    if style == PIXEL:
        return catalog.default_target(protocol)
    if base_of(protocol) is not MaskedSession:
        raise UserError(f"There is no {PROTOCOL_NAMES[protocol]} model of the style {style}.")
    return preferred(f"house/{style}-masked")


def _guided(catalog: Catalog, target: str, painter: str) -> str:
    """The target under the painter's guidance, if that can be; so all lanes paint under the same."""
    same = target + "".join(painter.partition("@cfg=")[1:])
    try:
        catalog.get(same)
    except UserError:
        return target
    return same


def make_lane(name: str, catalog: Catalog, painter: str, sampling: Sampling) -> OurLane:
    """The lane of that name. Raises UserError where it cannot paint with the models here."""
    strategy_id, _ = read_lane(name)
    target = _target(catalog, strategy_id, painter)
    if target is None and "target=" not in name:
        raise UserError(f"{strategy_id} has no model here to paint with; name one: {name}:target=house/...")
    return OurLane(name, catalog, target or "", sampling, None)


# ---------------------------------------------------------------------------------------------------------------- cost
def cost(lane: OurLane, timed: Sequence[Sequence[Timed]], base: Sequence[Sequence[Timed]]) -> dict[str, Any]:
    """What a lane's pictures cost: calls, rows and seconds a picture, and both against plain decoding."""
    ours, plain = ([t.trace for repeat in runs for t in repeat if t.trace is not None] for runs in (timed, base))
    total, whole = summarise(ours), summarise(plain)
    request, pictures = ours[0].request, len(ours)
    seconds = [t.seconds for repeat in timed for t in repeat]
    ratios = [b.seconds / a.seconds for x, y in zip(timed, base, strict=True) for a, b in zip(x, y, strict=True)]
    told, steps = total.to_json(), [step for trace in ours for step in trace.steps]
    return {
        "strategy": lane.name,
        "guarantee": find(request.strategy).promises(request.knobs).value,
        "models": dict(request.models),
        "knobs": dict(request.knobs),
        "pictures_timed": pictures,
        "calls": total.num_target_calls / pictures,
        "calls_by_role": {role: sum(s.calls.get(role, 0) for s in steps) / pictures for role in total.rows},
        "rows_by_role": {role: rows / pictures for role, rows in total.rows.items()},
        "seconds": statistics.median(seconds),
        "seconds_quartiles": quartiles(seconds),
        "speedup_calls": (whole.num_target_calls / len(plain)) / (total.num_target_calls / pictures),
        "speedup_time": statistics.median(ratios),
        "speedup_time_quartiles": quartiles(ratios),
        "seconds_in_calls": {role: spent / pictures for role, spent in total.spent.items()},
        "slots": total.new_slots / pictures,
        **{name: told[name] for name in ("mean_acceptance_length", "draft_acceptance_rate", "alpha")},
        "figures": _figures(ours),
        **_for_tables(told, timed),
    }


def _for_tables(told: Mapping[str, Any], timed: Sequence[Sequence[Timed]]) -> dict[str, Any]:
    """The sums over all timed pictures under the names that rows of texts have, for whoever shows both."""
    seconds = [sum(t.seconds for t in repeat) for repeat in timed]
    tokens = [sum(len(t.tokens) for t in repeat) for repeat in timed]
    rates = [n / s for n, s in zip(tokens, seconds, strict=True)]
    sums = {name: told[name] for name in ("new_slots", "num_target_calls", "num_draft_calls", "rows", "spent")}
    return {"sums": {**sums, "seconds": sum(seconds), "units_per_second": statistics.median(rates)}}


def _figures(traces: Sequence[Trace]) -> dict[str, float]:
    """Means over the steps that tell a figure."""
    steps = [step for trace in traces for step in trace.steps]
    names = sorted({name for step in steps for name in step.figures})
    return {name: statistics.fmean(s.figures[name] for s in steps if name in s.figures) for name in names}


def exact_lane(lane: OurLane) -> str | None:
    """The plain lane with whose law this one paints: where it promises so. Itself, for the plain lanes."""
    request = lane.request("", 0)
    strategy = find(request.strategy)
    lossless = strategy.promises(strategy.settle(request.knobs)) is Guarantee.LOSSLESS
    return EXACT.get(strategy.base) if lossless else None


# ------------------------------------------------------------------------------------------------------------- quality
@dataclass(frozen=True)
class Reader:
    """What pictures are held against: the judge, the prompts in their order, and portraits drawn for them."""

    reader: PortraitJudge
    painter: Model  # under which the cells of all pictures are told
    prompts: Sequence[Prompted]
    conditions: Sequence[Sequence[int]]
    drawn: Reference | None  # of pictures that were drawn for the prompts
    in_set: int

    @classmethod
    def of(cls, prompts: Sequence[Prompted], catalog: Catalog, painter: str, in_set: int) -> Reader:
        """Raises UserError where no judge is built."""
        style = style_of_model(painter)
        reader = judge(style)
        if reader is None:
            script = "judge" if style == PIXEL else f"style_judge --style {style}"
            raise UserError(f"There is no judge of {style}; train it with python -m backend.train.portraits.{script}.")
        model = catalog.get(painter)
        asked = [model.codec.encode(prompt.text).extras["conditions"] for prompt in prompts]
        return cls(reader, model, prompts, asked, reference_of(reader, asked), in_set)

    def worth(self, pictures: Pixels, nats: Sequence[float | None], cells: Sequence[float | None]) -> dict[str, Any]:
        """Measures of the pictures of the first prompts: attributes right, overall and by kind of prompt, and distance.

        nats, cells: their log-likelihoods under their own target and under the painter. attributes_error: standard
        error, over pictures. fd_house: of the first `in_set` of them, against what was drawn for all prompts;
        fd_house_of_real tells that of as many others that were drawn for the same prompts.
        """
        scores = hits(self.reader, pictures, self.conditions[: len(pictures)])
        kinds = [prompt.kind for prompt in self.prompts[: len(pictures)]]
        out: dict[str, Any] = {
            "pictures": len(pictures),
            **share(scores),
            "by_kind": {
                kind: share([score for score, k in zip(scores, kinds, strict=True) if k == kind])
                for kind in dict.fromkeys(kinds)
            },
            "log_likelihood": _mean(nats),
            "by_painter": _mean(cells),
        }
        if len(pictures) >= self.in_set and self.drawn is not None:
            features = self.reader.features_of(pictures[: self.in_set])
            out["fd_house"] = fd_house(features, self.drawn.real)
            out["fd_house_of_real"] = fd_house(self.drawn.more[: self.in_set], self.drawn.real)
        return out


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean of those that are known."""
    known = [x for x in values if x is not None]
    return statistics.fmean(known) if known else None


def share(scores: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """Attributes right among those named, and its standard error, pictures being what varies."""
    right, asked = (sum(score[i] for score in scores) for i in (0, 1))
    if not asked:
        return {"attributes": None, "attributes_error": None}
    value, n = right / asked, len(scores)
    spread = sum((r - value * a) ** 2 for r, a in scores)
    error = (spread * n / (n - 1)) ** 0.5 / asked if n > 1 else None
    return {"attributes": value, "attributes_error": error}


def paint_for(
    lane: OurLane, against: Reader, seconds: float, most: int
) -> tuple[Pixels, list[float | None], list[float | None]]:
    """Pictures of the first prompts and their log-likelihoods, under their own target and under the painter.

    One by one until the seconds are used up, but a whole set at least.
    """
    pictures, nats, cells = [], list[float | None](), list[float | None]()
    end = time.perf_counter() + seconds
    for i, prompt in enumerate(against.prompts[:most]):
        trace = record(lane.request(prompt.text, i), lane.catalog)
        model = lane.catalog.get(trace.request.models["target"])
        picture = finished(trace, model, model.codec.encode(prompt.text))
        if picture is None:
            raise UserError(f"{lane.name} did not finish its picture of prompt {i + 1}: {trace.end}.")
        pictures.append(picture)
        nats.append(log_likelihood(trace, lane.catalog))
        cells.append(by_painter(trace, lane.catalog, against.painter.id))
        if time.perf_counter() > end and len(pictures) >= against.in_set:
            break
    return np.stack(pictures), nats, cells


def quality(lane: OurLane, against: Reader, seconds: float, pictures: int) -> dict[str, Any]:
    """What the pictures of a lane are worth. Plain decoding paints all prompts, many at once; next_scale all, too."""
    request = lane.request("", 0)
    model = lane.catalog.get(request.models["target"])
    if request.strategy == BASELINE and can_paint(model):
        conditions = against.conditions[:pictures]
        canvases, nats = paint_many(model, conditions, range(len(conditions)), lane.sampling)  # type: ignore[arg-type]
        painted = np.stack([small(model.codec.decode(canvas), against.reader.side) for canvas in canvases])
        texts = [prompt.text for prompt in against.prompts]
        cells = [nats_a_cell(against.painter, *of) for of in zip(canvases, texts, strict=False)]
        return against.worth(painted, nats, cells)
    patient = request.strategy == EXACT[ScaleSession]
    return against.worth(*paint_for(lane, against, float("inf") if patient else seconds, pictures))


# ------------------------------------------------------------------------------------------------------------ together
@dataclass
class Progress:
    """Rows so far, by lane, and the file that they are written to."""

    environment: Mapping[str, Any]
    path: Path | None
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)

    def resume(self) -> None:
        """Take over the rows of the file. Raises UserError where they were measured elsewhere or otherwise."""
        if self.path is None or not self.path.is_file():
            return
        before = json.loads(self.path.read_text(encoding="utf-8"))
        for name, value in self.environment.items():
            if name != "date" and before["environment"].get(name) != value:
                was = before["environment"].get(name)
                raise UserError(f"{self.path} was measured with {name} {was!r}, not {value!r}; leave out --resume.")
        self.rows = {row["strategy"]: row for row in before["rows"] if row.get("quality")}

    def result(self, order: Sequence[str] = ()) -> dict[str, Any]:
        """What the file holds: the plain lanes first, then in the order of this run, then what was there before."""
        names = [name for name in (*EXACT.values(), *order, *self.rows) if name in self.rows]
        return {"environment": dict(self.environment), "rows": [self.rows[name] for name in dict.fromkeys(names)]}

    def save(self, order: Sequence[str]) -> None:
        """Write the file, if there is one to be written."""
        if self.path is not None:
            self.path.write_text(json.dumps(self.result(order), indent=1) + "\n", encoding="utf-8")


def bench(args: argparse.Namespace, catalog: Catalog, tell: Tell) -> dict[str, Any]:
    """Run the benchmark that the arguments describe; {"environment", "rows"}. Raises UserError."""
    sampling = Sampling(temperature=args.temperature)
    kinds = args.kinds.split(",") if args.kinds else ()
    shipped = file_of(style_of_model(args.model))
    timed_prompts = read_prompts(args.prompts, kinds, shipped)
    every = read_prompts(str(shipped), kinds)
    against = Reader.of(every[: args.pictures], catalog, args.model, args.set)
    asked = args.strategies.split(",") if args.strategies else lanes_here(catalog, args.model)
    names = list(dict.fromkeys([BASELINE, *asked]))
    progress = Progress(_environment(args, catalog, len(timed_prompts), len(against.prompts)), args.json)
    if args.resume:
        progress.resume()
    lanes = [make_lane(name, catalog, args.model, sampling) for name in names if name not in progress.rows]
    if not lanes:
        return progress.result(names)
    if BASELINE in progress.rows:
        lanes.insert(0, make_lane(BASELINE, catalog, args.model, sampling))
    lanes = _warm(lanes, timed_prompts[0], tell, strict=bool(args.strategies))
    results = measure(lanes, timed_prompts, args.repeats, tell, warm=False)
    for lane in lanes:
        if lane.name not in progress.rows:
            progress.rows[lane.name] = cost(lane, results[lane.name], results[BASELINE])
    progress.save(names)
    for lane in lanes:
        row = progress.rows[lane.name]
        if not row.get("quality"):
            tell(f"painting for the judge: {lane.name}")
            row["quality"] = _quality(lane, names, against, args)
            progress.save(names)
    return progress.result(names)


def _quality(lane: OurLane, names: Sequence[str], against: Reader, args: argparse.Namespace) -> dict[str, Any]:
    """Of a lane whose law is another one's: which; of others: what was measured."""
    plain = exact_lane(lane)
    if plain is not None and plain in names and plain != lane.name:
        twin = make_lane(plain, lane.catalog, args.model, lane.sampling)
        if twin.request("", 0).models["target"] == lane.request("", 0).models["target"]:
            return {"law_of": plain}
    return quality(lane, against, args.quality_seconds, args.pictures)


def _warm(lanes: Sequence[OurLane], prompt: Prompted, tell: Tell, strict: bool) -> list[OurLane]:
    """Run every lane once; strict: a lane that cannot run is an error, else it is left out, with its reason."""
    ready = []
    for lane in lanes:
        tell(f"warming up {lane.name}")
        try:
            lane.run(prompt, seed=0)
        except UserError as error:
            if strict or lane.name == BASELINE:
                raise
            tell(f"{lane.name} is left out: {error}\n")
            continue
        ready.append(lane)
    return ready


def _environment(args: argparse.Namespace, catalog: Catalog, timed: int, judged: int) -> dict[str, Any]:
    return {
        **catalog.environment(),
        "date": date.today().isoformat(),
        "tab": "image",
        "model": args.model,
        "prompts": timed,
        "prompt_set": "shipped" if args.prompts.isdigit() else Path(args.prompts).name,
        "kinds": args.kinds,
        "temperature": args.temperature,
        "repeats": args.repeats,
        "pictures": judged,
        "quality_seconds": args.quality_seconds,
        "set": args.set,
    }
