"""Several texts in flight: each is the text it would be alone; admission, moving and padding on hand-made arrivals."""

from __future__ import annotations

import math
from itertools import combinations, pairwise
from typing import Any

import pytest

from backend.chance import Ask, Chance, Seeded
from backend.errors import UserError
from backend.meter import Meter
from backend.protocols import Prompt
from backend.registry import find
from backend.run import Run, decode, record
from backend.strategies.causal.temporal_fusion import compact, nearest, temporal_fusion
from backend.timeline import spans
from backend.trace import Trace
from backend.types import Fate, Request, Sampling
from tests.exact import ancestral, law, total_variation
from tests.strategies.causal.played import COLD, WARM
from tests.toys import ToyCatalog, ToyCausal
from tests.toys_fleet import ToyFleet, tiny_llama

TEXTS = ["0 1", "2", "1 1 0 2", "0", "2 2", "1"]
KNOBS: list[dict[str, Any]] = [
    {},
    {"concurrency": 2},
    {"concurrency": 3, "gap": 1},
    {"concurrency": 3, "compaction": False},
    {"concurrency": 2, "gap": 5},
    {"concurrency": 3, "schedule": "static", "gap": 1},
    {"schedule": "sequential"},
    {"concurrency": 2, "gap": 2, "arrivals": "poisson"},
]


def play(
    model: ToyFleet, texts: list[str], budget: int, sampling: Sampling = WARM, seed: int = 0, **knobs: Any
) -> Trace:
    request = Request("temporal_fusion", {"texts": texts}, {}, knobs, sampling, budget, seed)
    with Run(request, ToyCatalog([model])) as run:  # type: ignore[arg-type]
        for _ in run:
            pass
        return run.trace


def solo(model: ToyCausal, text: str, budget: int, sampling: Sampling, seed: int) -> tuple[int, ...]:
    """The text that plain decoding writes with that seed."""
    session = model.make(Prompt(tuple(map(int, text.split()))), sampling, Meter(), budget)
    ask = Ask(budget, Seeded(seed), model.codec.end)
    for _ in find("autoregressive").run(target=session, ask=ask):
        pass
    return tuple(session.tokens[len(text.split()) :])


def ending_after(lengths: dict[int, int], size: int = 9) -> ToyFleet:
    """A table whose text repeats its first token t, and ends with token 0 as the lengths[t]-th behind the prompt."""

    def law(text: tuple[int, ...]) -> list[float]:
        token = 0 if len(text) >= lengths.get(text[0], 99) else text[0]
        return [float(t == token) for t in range(size)]

    return ToyFleet(size=size, fixed=law, end=frozenset({0}))


# -------------------------------------------------------------------------------------------------- same as alone
@pytest.mark.parametrize("sampling", [WARM, COLD], ids=["warm", "cold"])
@pytest.mark.parametrize("knobs", KNOBS, ids=str)
def test_every_text_is_what_it_is_alone(knobs: dict[str, Any], sampling: Sampling) -> None:
    """Text i is plain decoding's with seed + i, on texts that end at different times."""
    for seed in range(8):
        options: dict[str, Any] = {"seed": seed, "end": frozenset({2}), "zeros": 0.0}
        trace = play(ToyFleet(**options), TEXTS, 6 * 7, sampling, seed, **knobs)
        alone = [solo(ToyCausal(**options), text, 7, sampling, seed + i) for i, text in enumerate(TEXTS)]
        assert [span.tokens for span in spans(trace)] == alone


@pytest.mark.parametrize("knobs", KNOBS, ids=str)
@pytest.mark.parametrize("sampling", [Sampling(0.8, top_p=0.9), COLD], ids=["warm", "cold"])
def test_every_text_of_a_llama_is_what_it_is_alone(knobs: dict[str, Any], sampling: Sampling) -> None:
    """The same through caches, masks and moves, in float64."""
    model = tiny_llama(end=range(30, 40))
    texts = ["w5 w17 w3", "w9", "w60 w2 w2 w31 w7", "w13 w80", "w1 w1 w1 w1 w1 w1 w1", "w44"]
    catalog: Any = ToyCatalog([model])  # type: ignore[list-item]
    trace = record(Request("temporal_fusion", {"texts": texts}, {}, knobs, sampling, 6 * 9, 4), catalog)
    alone = [
        record(Request("autoregressive", text, {}, {}, sampling, 9, 4 + i), catalog) for i, text in enumerate(texts)
    ]
    assert [span.tokens for span in spans(trace)] == [tuple(other.written()) for other in alone]
    lengths = [len(span.tokens) for span in spans(trace)]
    assert min(lengths) < max(lengths) == 9, "texts must end at different times for this to mean anything"


def test_the_law_of_two_texts_is_that_of_two_plain_ones() -> None:
    """Every branch enumerated: exact, and independent even where the prompts are equal."""
    model = ToyFleet(seed=1)
    prompt = model.codec.encode({"texts": ["0 1", "0 1"]})
    plain = ancestral(model, (0, 1), 2, WARM)
    truth = {a + b: pa * pb for a, pa in plain.items() for b, pb in plain.items()}
    for knobs in ({}, {"gap": 1}, {"concurrency": 1}, {"schedule": "static", "gap": 2}):

        def game(chance: Chance, knobs: dict[str, Any] = knobs) -> tuple[int, ...]:
            session = model.make(prompt, WARM, Meter(), 4)
            for _ in temporal_fusion(session, Ask(4, chance), **knobs):
                pass
            return tuple(session.tokens[4:])

        assert total_variation(law(game), truth) < 1e-9


def test_another_prompt_changes_no_other_text() -> None:
    options: dict[str, Any] = {"seed": 5, "zeros": 0.0}
    first = spans(play(ToyFleet(**options), TEXTS, 60))
    other = spans(play(ToyFleet(**options), [TEXTS[0], "0 0 0 1", *TEXTS[2:]], 60))
    assert [a.tokens == b.tokens for a, b in zip(first, other, strict=True)] == [True, False, *[True] * 4]


# ------------------------------------------------------------------------------------------- places and iterations
def test_compaction_moves_as_few_as_there_can_be() -> None:
    """Against every window, over every set of taken places of seven."""
    for count in range(8):
        for taken in combinations(range(7), count):
            moves = compact(taken, 7)
            after = sorted({*taken} - {a for a, _ in moves} | {b for _, b in moves})
            assert len(after) == count
            assert after == list(range(after[0], after[0] + count)) if after else not moves
            fewest = min(sum(p not in range(i, i + count) for p in taken) for i in range(8 - count))
            assert len(moves) == fewest
    assert compact([0, 3, 4, 6], 8) == [(0, 5)]


def test_a_text_is_let_in_where_the_run_of_places_stays_short() -> None:
    assert nearest([], 4) == 0
    assert nearest([1, 3], 4) == 2
    assert nearest([2, 3], 4) == 1
    assert nearest([0, 1], 4) == 2


def test_places_of_texts_that_end_are_used_again_and_the_rest_moves_together() -> None:
    """Five texts, four places. The second ends first and its place is taken by the fifth; then the first and third."""
    model = ending_after({1: 5, 2: 3, 3: 5, 4: 9, 5: 9})
    trace = play(model, ["1", "2", "3", "4", "5"], 5 * 9, COLD, concurrency=4)
    session = model.sessions[-1]
    assert session.admitted == [(0, 0), (1, 1), (2, 2), (3, 3), (4, 1)]
    assert session.moves == [(3, 0)], "of the texts at places 1 and 3 one is moved beside the other"
    figures = [{k: v for k, v in step.figures.items() if k not in ("texts", "share")} for step in trace.steps]
    assert figures[0] == {"alive": 0, "admitted": 4, "freed": 0, "waiting": 1, "padding": 0, "moved": 0}
    assert figures[1] == {"alive": 4, "admitted": 0, "freed": 0, "waiting": 1, "padding": 0, "moved": 0}
    assert figures[2] == {"alive": 4, "admitted": 1, "freed": 1, "waiting": 0, "padding": 0, "moved": 0}
    assert figures[4] == {"alive": 4, "admitted": 0, "freed": 2, "waiting": 0, "padding": 0, "moved": 1}
    assert [len(span.tokens) for span in spans(trace)] == [5, 3, 5, 9, 9]
    assert trace.end == "end token"


def test_without_compaction_free_places_are_computed_as_padding() -> None:
    prompts, lengths = ["1", "2", "3", "4"], {1: 9, 2: 3, 3: 3, 4: 9}
    kept, moved = (play(ending_after(lengths), prompts, 40, COLD, compaction=on) for on in (False, True))
    assert [step.figures["padding"] for step in kept.steps] == [0, 0, 0, *[2] * 6]
    assert sum(step.figures["padding"] for step in moved.steps) == 0
    assert [step.rows["target"] for step in kept.steps] == [4, *[4] * 8]
    assert [step.rows["target"] for step in moved.steps] == [4, 4, 4, *[2] * 6]
    assert kept.replay() == moved.replay()


def test_late_arrivals_wait_for_their_iteration() -> None:
    """Gap 2: prefill in steps 0, 2, 4, one call a step for those already in flight."""
    model = ending_after({1: 9, 2: 2, 3: 3})
    trace = play(model, ["1", "2", "3"], 30, COLD, gap=2)
    assert [(span.arrived, span.prefill, span.last) for span in spans(trace)] == [(0, 0, 8), (2, 2, 3), (4, 4, 6)]
    assert [step.calls["target"] for step in trace.steps] == [1, 1, 2, 1, 2, 1, 1, 1, 1]


def test_a_poisson_stream_has_the_rate_it_is_asked_for() -> None:
    """Gaps between arrivals are geometric with mean `gap`, and never 0; the texts are those of an even stream."""
    gaps: list[int] = []
    for seed in range(40):
        trace = play(ToyFleet(seed=3), [str(i % 3) for i in range(20)], 20, seed=seed, gap=3, arrivals="poisson")
        arrived = [span.arrived for span in spans(trace)]
        assert len(arrived) == 20
        assert arrived[0] == 0
        gaps += [later - sooner for sooner, later in pairwise(arrived)]
        assert trace.replay() == play(ToyFleet(seed=3), [str(i % 3) for i in range(20)], 20, seed=seed).replay()
    assert min(gaps) == 1
    assert sum(gaps) / len(gaps) == pytest.approx(3, abs=4 * math.sqrt(6 / len(gaps)))  # variance (1 - p) / p^2
    assert sum(gap == 1 for gap in gaps) / len(gaps) == pytest.approx(1 / 3, abs=4 * math.sqrt(2 / 9 / len(gaps)))


def test_iterations_without_a_text_are_empty_steps() -> None:
    trace = play(ending_after({1: 2, 2: 2}), ["1", "2"], 20, COLD, gap=4)
    assert [len(step.marks) for step in trace.steps] == [1, 1, 0, 0, 1, 1]
    assert trace.steps[2].calls["target"] == 0


def test_static_batches_wait_for_their_last_text() -> None:
    prompts, lengths = ["1", "2", "3", "4"], {1: 2, 2: 5, 3: 3, 4: 3}
    fused, static, sequential = (
        play(ending_after(lengths), prompts, 40, COLD, concurrency=2, schedule=name)
        for name in ("fused", "static", "sequential")
    )
    assert [(s.prefill, s.last) for s in spans(fused)] == [(0, 1), (0, 4), (1, 3), (3, 5)]
    assert [(s.prefill, s.last) for s in spans(static)] == [(0, 1), (0, 4), (4, 6), (4, 6)]
    assert [(s.prefill, s.last) for s in spans(sequential)] == [(0, 1), (1, 5), (5, 7), (7, 9)]
    assert [step.figures["padding"] for step in static.steps] == [0, 0, 1, 1, 1, 0, 0]
    assert fused.replay() == static.replay() == sequential.replay()


def test_many_texts_through_few_places() -> None:
    """Every schedule ends, keeps every text, and has at most `concurrency` in flight."""
    for knobs in KNOBS:
        trace = play(ToyFleet(seed=3, end=frozenset({2})), [str(i % 3) for i in range(20)], 20 * 6, seed=2, **knobs)
        busy = [step.figures["alive"] + step.figures["padding"] for step in trace.steps]
        assert max(busy) <= knobs.get("concurrency", 8)
        assert all(span.tokens and (len(span.tokens) == 6 or span.tokens[-1] == 2) for span in spans(trace))


# --------------------------------------------------------------------------------------------------- what is traced
def test_marks_rebuild_every_text_and_open_slots_count_as_none() -> None:
    trace = play(ToyFleet(seed=4, end=frozenset({2})), TEXTS, 6 * 7, seed=1, concurrency=3, gap=2)
    share, first = int(trace.steps[0].figures["share"]), len(trace.prompt)
    canvas = trace.replay() + [-1] * 100
    for i, span in enumerate(spans(trace)):
        own = canvas[first + i * share : first + (i + 1) * share]
        assert tuple(token for token in own if token >= 0) == span.tokens
        assert own[: len(span.tokens)] == list(span.tokens)
    total = sum(len(span.tokens) for span in spans(trace))
    assert trace.summary().new_slots == total < len(trace.written())
    assert all(mark.fate is Fate.BONUS for step in trace.steps for mark in step.marks)
    assert Trace.from_json(trace.to_json()) == trace


def test_spans_of_a_run_that_was_stopped() -> None:
    model = ToyFleet(seed=4)
    request = Request("temporal_fusion", {"texts": ["0", "1", "2"]}, {}, {"concurrency": 1, "gap": 2}, WARM, 30)
    with Run(request, ToyCatalog([model])) as run:  # type: ignore[arg-type]
        for _ in range(3):
            next(run)
    assert [(s.arrived, s.prefill, s.last) for s in spans(run.trace)] == [(0, 0, 2), (2, None, None)]
    assert run.trace.end == "stopped"
    waits, open_ = spans(run.trace)[1], spans(run.trace)[0]
    assert waits.latency is None
    assert open_.latency == pytest.approx(sum(step.seconds for step in run.trace.steps))


def test_spans_need_a_trace_of_several_texts() -> None:
    with Run(Request("autoregressive", "0", {}, {}, WARM, 2), ToyCatalog([ToyCausal()])) as run:  # type: ignore[arg-type]
        assert spans(run.trace) == []
        next(run)
    with pytest.raises(UserError, match="autoregressive"):
        spans(run.trace)


# ------------------------------------------------------------------------------------------------------ bad requests
def test_a_budget_below_one_token_a_text_is_refused() -> None:
    with pytest.raises(UserError, match="6 texts share the budget, but it is 5; ask for 6"):
        play(ToyFleet(), TEXTS, 5)


def test_a_text_longer_than_the_context_is_refused() -> None:
    """The longest text counts with its share; all together may be longer than the context."""
    model = ToyFleet(context=8)
    assert len(play(model, ["0 1 0 1", "1 0 1 0", "2 2 2"], 3 * 4).written()) > 8
    with pytest.raises(UserError, match="The prompt has 5 tokens and the budget is 4"):
        play(model, ["0 1 0 1", "1 0 1 0 1"], 2 * 4)


def test_several_texts_are_refused_by_strategies_for_one() -> None:
    model = tiny_llama()
    with pytest.raises(UserError, match="2 prompts were given, but this strategy writes one text"):
        decode(Request("autoregressive", {"texts": ["w1", "w2"]}), ToyCatalog([model]))  # type: ignore[arg-type,list-item]


@pytest.mark.parametrize("texts", [[], ["w1"] * 65, "w1 w2", None])
def test_lists_of_texts_have_bounds(texts: Any) -> None:
    with pytest.raises(UserError, match="must be a list of 1 to 64 prompts"):
        tiny_llama().codec.encode({"texts": texts})


def test_every_text_of_a_list_must_be_one() -> None:
    with pytest.raises(UserError, match="empty"):
        tiny_llama().codec.encode({"texts": ["w1", " "]})
    with pytest.raises(UserError, match="string"):
        tiny_llama().codec.encode({"texts": ["w1", 3]})
