"""Every registered strategy on exact toys; what is checked follows from the guarantee that it declares.

No strategy is named here. LOSSLESS: the law of the text equals plain ancestral sampling, every random branch
enumerated. GREEDY_EXACT: equal tokens at temperature 0. LOSSY: the distance from the target's law equals the number in
golden.json. To pin those numbers run: PIN_GOLDEN=1 python -m pytest tests/test_contract_strategies.py
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from backend.chance import Ask, Chance, Seeded
from backend.meter import Meter
from backend.protocols import (
    PROTOCOL_NAMES,
    BlockSession,
    CausalSession,
    CoarseSession,
    ContinuousSession,
    DenoiserSession,
    DistilledSession,
    EventSession,
    FleetSession,
    FlexibleSession,
    ForecastSession,
    GridSession,
    HeadsSession,
    JudgeSession,
    MaskedSession,
    MixingSession,
    NestedSession,
    PictureJudgeSession,
    PictureSession,
    RedrawingSession,
    ScaleSession,
    SkippingSession,
    TwoLevelSession,
    base,
)
from backend.registry import Option, Strategy, strategies
from backend.run import decode, record
from backend.trace import Trace
from backend.types import Fate, Guarantee, Mark, Request, Sampling, Step
from tests.exact import TooManyGamesError, ancestral, greedy, law, total_variation
from tests.toys import Toy, ToyCatalog, ToyCausal, ToyMasked, ToyScale, canvases, causal_pair
from tests.toys_block import ToyBlock
from tests.toys_coarse import ToyCoarse
from tests.toys_continuous import ToyContinuous, ToyDenoiser, ToyForecaster
from tests.toys_distilled import ToyDistilled
from tests.toys_fleet import ToyFleet
from tests.toys_heads import ToyHeads
from tests.toys_image import ToyFlexible, ToyGrid, ToyRedrawing
from tests.toys_judge import ToyJudge
from tests.toys_mixing import ToyMixing
from tests.toys_nested import ToyNested
from tests.toys_picture import ToyPicture, ToyPictureJudge
from tests.toys_skipping import ToySkipping
from tests.toys_two_level import ToyTwoLevel

GOLDEN = Path(__file__).with_name("golden.json")
MAX_GAMES = 6_000
PLAIN = Sampling(temperature=1.0)
FILTERS = {
    "top-p": Sampling(temperature=1.0, top_p=0.7),
    "top-k": Sampling(temperature=1.0, top_k=2),
    "all": Sampling(temperature=0.7, top_k=2, top_p=0.9, min_p=0.1),
}
GREEDY = Sampling(temperature=0.0)
NUMBERS = (ForecastSession, EventSession)  # those are in test_contract_forecast and test_contract_events
ALL = [s for s in strategies().values() if s.base not in NUMBERS]
CAUSAL = [s for s in ALL if s.base is CausalSession]
DISCRETE = (CausalSession, MaskedSession, ScaleSession, CoarseSession)
PROMPTS = {CausalSession: "0 1 0 1", ForecastSession: "2 1 3 2"}  # by base; the others start from nothing
EXTENDED: dict[type, type[ToyCausal]] = {  # targets that can more, or other things
    SkippingSession: ToySkipping,
    MixingSession: ToyMixing,
    FleetSession: ToyFleet,
    TwoLevelSession: ToyTwoLevel,
    PictureSession: ToyPicture,
}


# ------------------------------------------------------------------------------------------------------------ stages
def toy_models(strategy: Strategy, variant: str) -> dict[str, Toy]:
    """A toy for every role of the strategy, the target first."""
    options: dict[str, dict[str, Any]] = {
        "table": {"seed": 1},
        "markov": {"seed": 2, "order": 1, "zeros": 0.0},
        "end": {"seed": 4, "end": frozenset({2})},
        "two": {"seed": 6, "size": 2, "zeros": 0.0},
        "wide": {"seed": 8, "size": 5, "order": 2, "zeros": 0.0},
    }
    several = PictureJudgeSession in strategy.roles.values()  # pictures at once, and all their games are played
    small: dict[str, Any] = {"length": 2, "size": 2} if several else {}
    target, draft = causal_pair(kind=EXTENDED.get(strategy.protocol, ToyCausal), **options[variant])
    out: dict[str, Toy] = {}
    for i, (role, protocol) in enumerate(strategy.roles.items()):
        if base(protocol) is CausalSession:
            other = ToyCausal(f"toy/{role}", seed=100 + i, size=target.size, order=target.order, like=target)
            other.codec = target.codec
            out[role] = target if role == "target" else draft if role == "draft" else other
        else:
            out[role] = {
                HeadsSession: lambda name, i: ToyHeads(name, target, seed=100 + i),
                JudgeSession: lambda name, i: ToyJudge(name, target),
                NestedSession: lambda name, i: ToyNested(name, target, seed=100 + i),
                BlockSession: lambda name, i: ToyBlock(name, target, seed=100 + i),
                MaskedSession: lambda name, i: ToyMasked(name, seed=3 + i, **small),
                PictureJudgeSession: lambda name, i: ToyPictureJudge(name),
                GridSession: lambda name, i: ToyGrid(name, seed=3 + i),
                ScaleSession: lambda name, i: ToyScale(name, seed=5 + i),
                FlexibleSession: lambda name, i: ToyFlexible(name, seed=5 + i),
                RedrawingSession: lambda name, i: ToyRedrawing(name, seed=5 + i),
                DistilledSession: lambda name, i: ToyDistilled(name, seed=5 + i),
                CoarseSession: lambda name, i: ToyCoarse(name, seed=5 + i),
                ContinuousSession: lambda name, i: ToyContinuous(name, pull=0.7 - 0.1 * i),
                DenoiserSession: lambda name, i: ToyDenoiser(model_id=name, mean=1.5 - 0.1 * i),
                ForecastSession: lambda name, i: ToyForecaster(name, phi=0.8 - 0.1 * i),
            }[protocol](f"toy/{role}", i)
    return out


def settings(strategy: Strategy) -> dict[str, dict[str, Any]]:
    """Knob values worth a test, from the signature: defaults and highs made small, lows, and every choice once."""

    def small(option: Option, value: Any) -> Any:
        return value if option.kind is not int else int(max(option.low or 0, min(value, 3)))

    def edge(option: Option, value: float | None, last: int) -> Any:
        if option.choices:
            return option.choices[last]
        return bool(last) if option.kind is bool else option.default if value is None else option.kind(value)

    knobs = strategy.knobs
    usual = {name: small(o, o.default) for name, o in knobs.items()}
    out = {
        "usual": usual,
        "low": {name: edge(o, o.low, 0) for name, o in knobs.items()},
        "high": {name: small(o, edge(o, o.high, -1)) for name, o in knobs.items()},
    }
    for name, o in knobs.items():
        for value in (*o.choices, *((True, False) if o.kind is bool else ())):
            out[f"{name}={value}"] = {**usual, name: value}
    seen: list[dict[str, Any]] = []
    return {name: v for name, v in out.items() if v not in seen and not seen.append(v)}  # type: ignore[func-returns-value]


@dataclass
class Played:
    """What one game left behind."""

    sessions: dict[str, Any]
    steps: list[Step]
    prompt: tuple[int, ...]

    @property
    def written(self) -> tuple[int, ...]:
        """The tokens behind the prompt, as the target holds them; as the marks tell where it holds none."""
        target = self.sessions["target"]
        if hasattr(target, "tokens"):
            return tuple(target.tokens[len(self.prompt) :])
        told = tuple(Trace(Request("", ""), self.prompt, steps=tuple(self.steps)).written())
        assert not hasattr(target, "written") or tuple(target.written) == told
        return told


def play(
    run: Any, models: Mapping[str, Toy], chance: Chance, knobs: Mapping[str, Any], sampling: Sampling, budget: int
) -> Played:
    """One game of a strategy's generator function, without the runner."""
    target = models["target"]
    prompt = target.codec.encode(PROMPTS.get(base(target.protocol), ""))
    sessions = {role: m.make(prompt, sampling, Meter(), budget) for role, m in models.items()}
    steps = list(run(**sessions, ask=Ask(budget, chance, target.codec.end), **knobs))
    return Played(sessions, steps, prompt.tokens)


def target_law(target: Toy, budget: int, sampling: Sampling) -> dict[tuple[int, ...], float]:
    """What plain sampling of the target gives, from its tables alone."""
    if isinstance(target, ToyCausal):
        return ancestral(target, target.codec.encode(PROMPTS[CausalSession]).tokens, budget, sampling)
    assert sampling == PLAIN
    if isinstance(target, ToyMasked):
        return {c: float(target.joint[c]) for c in canvases(target.size, target.length)}
    if isinstance(target, ToyCoarse):
        return target.law()
    assert isinstance(target, ToyScale)
    out: dict[tuple[int, ...], float] = {(): 1.0}
    for at, (h, w) in enumerate(target.sizes):
        grown = {}
        for coarser, weight in out.items():
            p_NV = target.given(coarser, at)
            for tokens in canvases(target.size, h * w):
                p = float(p_NV[range(h * w), list(tokens)].prod())
                grown[(*coarser, *tokens)] = weight * p
        out = grown
    return out


def strategy_law(
    run: Any, models: Mapping[str, Toy], knobs: Mapping[str, Any], sampling: Sampling, budget: int
) -> dict[tuple[int, ...], float]:
    """What the strategy writes, with its true probabilities."""
    return law(lambda chance: play(run, models, chance, knobs, sampling, budget).written, MAX_GAMES)


def law_and_budget(
    s: Strategy, models: Mapping[str, Toy], setting: str, sampling: Sampling, budget: int
) -> tuple[dict[tuple[int, ...], float], int]:
    """The law, with the largest budget up to the given one that can be enumerated. Lows must fit as they are."""
    target = models["target"]
    if base(target.protocol) is not CausalSession:
        return strategy_law(s.run, models, settings(s)[setting], sampling, target.context), target.context
    for smaller in range(budget, 1, -1):
        try:
            return strategy_law(s.run, models, settings(s)[setting], sampling, smaller), smaller
        except TooManyGamesError:
            if setting == "low" or (setting == "usual" and s.knobs == {}):
                raise
    pytest.fail(f"{s.id} branches too often with {settings(s)[setting]}: its law is not proven")


def with_settings(which: Sequence[Strategy], *promised: Guarantee) -> list[Any]:
    """The strategies with their settings, of these with which they promise one of the named guarantees if any."""
    return [
        pytest.param(s, name, id=f"{s.id}-{name}")
        for s in which
        for name, knobs in settings(s).items()
        if not promised or s.promises(knobs) in promised
    ]


def named(which: Sequence[Strategy]) -> list[Any]:
    return [pytest.param(s, id=s.id) for s in which]


# -------------------------------------------------------------------------------------------------------------- laws
LAWFUL = [s for s in ALL if s.base in DISCRETE]


@pytest.mark.parametrize(("s", "setting"), with_settings(LAWFUL, Guarantee.LOSSLESS))
@pytest.mark.parametrize(("variant", "budget"), [("table", 3), ("two", 4)])
def test_lossless_law(s: Strategy, setting: str, variant: str, budget: int) -> None:
    """Zeros in p and q; three tokens of three, four of two."""
    models = toy_models(s, variant)
    got, length = law_and_budget(s, models, setting, PLAIN, budget)
    assert total_variation(got, target_law(models["target"], length, PLAIN)) < 1e-9


@pytest.mark.parametrize("s", named([s for s in CAUSAL if s.promises({}) is Guarantee.LOSSLESS]))
@pytest.mark.parametrize(("variant", "filters"), [("end", None), ("markov", None), *(("table", f) for f in FILTERS)])
def test_lossless_law_with_end_tokens_and_filters(s: Strategy, variant: str, filters: str | None) -> None:
    """Texts that end early; texts that repeat themselves; p and q filtered in the same way."""
    sampling = FILTERS[filters] if filters else PLAIN
    models = toy_models(s, variant)
    got, length = law_and_budget(s, models, "usual", sampling, 3)
    assert total_variation(got, target_law(models["target"], length, sampling)) < 1e-9


@pytest.mark.parametrize(("s", "setting"), with_settings(CAUSAL, Guarantee.LOSSLESS, Guarantee.GREEDY_EXACT))
def test_greedy_tokens(s: Strategy, setting: str) -> None:
    """Temperature 0: the tokens of plain greedy decoding, after 50 prompts, many of which make the text repeat."""
    models = toy_models(s, "wide")
    target = models["target"]
    assert isinstance(target, ToyCausal)
    stream = random.Random(5)
    for i in range(50 if setting == "usual" else 10):
        prompt = tuple(stream.randrange(target.size) for _ in range(1 + i % 7))
        sessions = {
            role: m.make(replace(m.codec.encode("0"), tokens=prompt), GREEDY, Meter(), 12) for role, m in models.items()
        }
        knobs = {name: o.default for name, o in s.knobs.items()} if setting == "usual" else settings(s)[setting]
        for _ in s.run(**sessions, ask=Ask(12, Seeded(i)), **knobs):
            pass
        assert list(sessions["target"].tokens[len(prompt) :]) == greedy(target, prompt, 12), f"prompt {prompt}"


@pytest.mark.parametrize(("s", "setting"), with_settings(LAWFUL, Guarantee.LOSSY))
def test_lossy_distance_is_pinned(s: Strategy, setting: str) -> None:
    """The law may only change on purpose."""
    models = toy_models(s, "table")
    got, length = law_and_budget(s, models, setting, PLAIN, 3)
    distance = total_variation(got, target_law(models["target"], length, PLAIN))
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    name = f"{PROTOCOL_NAMES[s.base]}/{s.id}/{setting}"
    if os.environ.get("PIN_GOLDEN"):
        GOLDEN.write_text(json.dumps(golden | {name: round(distance, 12)}, indent=1, sort_keys=True) + "\n")
        return
    assert name in golden, f"{distance:.12f} is not pinned: look at it, then run pytest once with PIN_GOLDEN=1"
    assert distance == pytest.approx(golden[name], abs=1e-9)


# ------------------------------------------------------------------------------------------------------------ traces
def request_for(s: Strategy, models: Mapping[str, Toy], knobs: Mapping[str, Any], **options: Any) -> Request:
    prompt = PROMPTS.get(s.base, "")
    ids = {role: model.id for role, model in models.items()}
    return Request(s.id, prompt, ids, dict(knobs), **({"sampling": PLAIN, "budget": 9, "seed": 3} | options))


def catalog_of(models: Mapping[str, Toy]) -> ToyCatalog:
    return ToyCatalog(list(models.values()))


def budgets(target: Toy) -> tuple[int, ...]:
    """Budgets worth a run: any for a text or a series, the whole canvas for the rest."""
    return (1, 2, 9) if base(target.protocol) in (CausalSession, ForecastSession) else (target.context,)


def without_times(trace: Trace) -> Trace:
    return replace(trace, steps=tuple(replace(step, seconds=0.0, spent={}, frame=None) for step in trace.steps))


@pytest.mark.parametrize(("s", "setting"), with_settings(CAUSAL))
def test_trace_with_an_end_token(s: Strategy, setting: str) -> None:
    """As `test_trace`, on texts that end early."""
    check_traces(s, setting, "end")


@pytest.mark.parametrize(("s", "setting"), with_settings(ALL))
def test_trace(s: Strategy, setting: str) -> None:
    """Budget, end token, replay, counts and marks, at several budgets, seeds and temperatures."""
    check_traces(s, setting, "table")


def check_traces(s: Strategy, setting: str, variant: str) -> None:
    models = toy_models(s, variant)
    target = models["target"]
    for seed, budget in enumerate((*budgets(target), *budgets(target)[-1:] * 3)):
        sampling = GREEDY if seed == 1 and s.base is CausalSession else PLAIN
        request = request_for(s, models, settings(s)[setting], seed=seed, budget=budget, sampling=sampling)
        trace = record(request, catalog_of(models))
        check_budget_and_end(trace, target)
        check_counts(trace, models)
        if isinstance(target, ToyCausal):
            assert trace.replay() == list(target.sessions[-1].tokens), "the marks do not rebuild the text"
            check_marks(trace, models, sampling)


def check_budget_and_end(trace: Trace, target: Toy) -> None:
    """Never a token too many, never one behind an end token, and a true reason for stopping."""
    written = trace.written()
    assert trace.end == ("end token" if written and written[-1] in target.codec.end else "budget")
    assert len(written) <= trace.request.budget
    if base(target.protocol) in DISCRETE:
        assert trace.end == "end token" or len(written) == trace.request.budget
        assert not target.codec.end & set(written[:-1]), "tokens behind an end token"
        assert -1 not in written, "open slots were left"


def check_counts(trace: Trace, models: Mapping[str, Toy]) -> None:
    """What the runner stamped is what the sessions counted themselves."""
    for role, model in models.items():
        session = model.sessions[-1]
        assert sum(step.calls[role] for step in trace.steps) == session.calls, f"calls of {role}"
        assert sum(step.rows[role] for step in trace.steps) == session.rows, f"rows of {role}"
    assert [step.index for step in trace.steps] == list(range(len(trace.steps)))


def check_marks(trace: Trace, models: Mapping[str, Toy], sampling: Sampling) -> None:
    """Slots and parents make sense, committed marks extend the text, p and q are the models' own."""
    target = models["target"]
    assert isinstance(target, ToyCausal)
    drafters = [m for role, m in models.items() if role != "target" and isinstance(m, ToyCausal)]
    text = list(trace.prompt)
    for step in trace.steps:
        new = sorted((m for m in step.marks if m.fate.commits), key=lambda m: m.slot)
        assert [m.slot for m in new] == list(range(len(text), len(text) + len(new))), "gap or overlap in the text"
        after = text + [token for m in new if (token := m.token) is not None]
        assert len(after) == len(text) + len(new), "a committed mark without a token"
        for i, mark in enumerate(step.marks):
            assert mark.slot >= len(text)
            assert (mark.token is None) == (mark.fate is Fate.ERASED)
            if mark.parent is not None:
                assert 0 <= mark.parent < len(step.marks)
                assert mark.parent != i
                assert step.marks[mark.parent].slot == mark.slot - 1, "a parent stands one slot before its child"
            if mark.token is None or mark.fate is Fate.GUESS:
                continue
            assert 0 <= mark.token < target.size
            context = after[: mark.slot] if mark.fate in (Fate.FIXED, Fate.BONUS) else before(step.marks, mark, text)
            if mark.p is not None:
                assert mark.p == pytest.approx(float(target.row(context, sampling)[mark.token]), rel=1e-5, abs=1e-12)
            if mark.q is not None:
                truths = [float(d.row(context, sampling)[mark.token]) for d in drafters] or [mark.q]
                assert any(mark.q == pytest.approx(truth, rel=1e-5, abs=1e-12) for truth in truths)
        text = after


def before(marks: Sequence[Mark], mark: Mark, text: list[int]) -> list[int]:
    """The text that a guess follows: up its parents, or along the chain that it stands in."""
    if mark.parent is None and mark.slot == len(text):
        return text
    guesses = (Fate.KEPT, Fate.REJECTED, Fate.UNREAD)
    above = (
        [marks[mark.parent]]
        if mark.parent is not None
        else [m for m in marks if m.slot == mark.slot - 1 and m.parent is None and m.fate in guesses]
    )
    assert len(above) == 1, f"a guess at slot {mark.slot} without a parent follows {len(above)} guesses"
    assert above[0].token is not None
    return [*before(marks, above[0], text), above[0].token]


@pytest.mark.parametrize("s", named(ALL))
def test_same_seed_same_trace(s: Strategy) -> None:
    """Twice the same, from the request alone; and nothing was drawn from the global stream."""
    models = toy_models(s, "table")
    request = request_for(s, models, {}, budget=budgets(models["target"])[-1])
    state = torch.get_rng_state()
    first, second = (without_times(record(request, catalog_of(models))) for _ in range(2))
    assert first == second
    assert torch.equal(state, torch.get_rng_state()), "randomness that does not come from ask.chance"


@pytest.mark.parametrize("s", named(ALL))
def test_json_round_trip(s: Strategy) -> None:
    """A trace survives JSON as it is, frames left out."""
    models = toy_models(s, "table")
    trace = record(request_for(s, models, {}, budget=budgets(models["target"])[-1]), catalog_of(models))
    bare = replace(trace, steps=tuple(replace(step, frame=None) for step in trace.steps))
    assert Trace.from_json(json.loads(json.dumps(trace.to_json()))) == bare


@pytest.mark.parametrize("s", named(ALL))
def test_closing_midway(s: Strategy) -> None:
    """A visitor may leave after any step: no exception, and the sessions stand where the marks say."""
    models = toy_models(s, "table")
    target = models["target"]
    for taken in (0, 1, 2):
        with decode(request_for(s, models, {}, budget=budgets(target)[-1]), catalog_of(models)) as run:
            for _, _ in zip(range(taken), run, strict=False):
                pass
        assert run.trace.end in ("stopped", "budget")
        assert len(run.trace.steps) <= taken
        assert list(run) == []
        if isinstance(target, ToyCausal):
            session = target.sessions[-1]
            assert list(session.tokens) == run.trace.replay()
            assert torch.equal(session.score().p_NV[0], target.row(session.tokens, PLAIN))
