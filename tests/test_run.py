"""From a request to a trace: what is refused, in which words; what is stamped; how a run ends."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from backend.errors import UserError
from backend.protocols import CausalSession, MaskedSession, Scores
from backend.run import MAX_BUDGET, decode, record
from backend.types import Fate, Request, Sampling
from tests.exact import greedy
from tests.toys import Toy, ToyCatalog, ToyCausal, ToyCausalSession, ToyMasked, causal_pair

PLAIN = Sampling(temperature=1.0)
REQUEST = Request("speculative", "0 1 2", sampling=PLAIN, budget=8)


def catalog(*models: Toy, **options: Any) -> ToyCatalog:
    return ToyCatalog(models or causal_pair(**options), {"draft": "toy/draft", "twin": "toy/draft"})


def sentence_of(error: BaseException | str) -> str:
    """The text, which must be exactly one sentence."""
    text = str(error)
    assert text.endswith("."), text
    assert "\n" not in text, text
    assert not re.search(r"[.!?] +[A-Z]", text), f"more than one sentence: {text}"
    return text


def refused(request: Request, models: ToyCatalog | None = None) -> str:
    """The sentence with which a request is refused before anything runs."""
    with pytest.raises(UserError) as caught:
        decode(request, models or catalog())
    return sentence_of(caught.value)


# ----------------------------------------------------------------------------------------------------------- refusals
def test_unknown_strategy() -> None:
    text = refused(replace(REQUEST, strategy="medusa9"))
    assert "'medusa9'" in text
    assert "autoregressive" in text
    assert "speculative" in text


def test_unknown_model() -> None:
    assert "'toy/nothing'" in refused(replace(REQUEST, models={"target": "toy/nothing"}))


def test_unknown_role() -> None:
    text = refused(replace(REQUEST, models={"judge": "toy/draft"}))
    assert text == "speculative has no model role 'judge'; its roles are: target, draft."


def test_missing_draft() -> None:
    assert "'draft'" in refused(REQUEST, ToyCatalog(causal_pair()))


def test_knobs_are_refused_not_clamped() -> None:
    assert refused(replace(REQUEST, knobs={"gamma": 99})) == (
        "speculative: gamma must lie between 1 and 12, but 99 was given."
    )
    assert "a whole number" in refused(replace(REQUEST, knobs={"gamma": 2.5}))
    assert "'gama'" in refused(replace(REQUEST, knobs={"gama": 2}))
    assert refused(replace(REQUEST, strategy="autoregressive", knobs={"gamma": 2})) == (
        "autoregressive has no option 'gamma'; its options are: none."
    )


@pytest.mark.parametrize("budget", [0, -3, MAX_BUDGET + 1, 2.5, "ten", None, True])
def test_budget_out_of_range(budget: Any) -> None:
    text = refused(replace(REQUEST, budget=budget))
    assert repr(budget) in text
    assert str(MAX_BUDGET) in text


@pytest.mark.parametrize("seed", [-1, 1 << 32, 1.5, "lucky", None])
def test_seed_out_of_range(seed: Any) -> None:
    assert repr(seed) in refused(replace(REQUEST, seed=seed))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", 5.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("temperature", "hot"),
        ("temperature", None),
        ("top_k", -1),
        ("top_k", 2.5),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("min_p", 1.0),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", 3.0),
    ],
)
def test_sampling_out_of_range(name: str, value: Any) -> None:
    text = refused(replace(REQUEST, sampling=Sampling(**{name: value})))
    assert text.startswith(f"{name} must lie between ")
    assert text.endswith(f"but {value!r} was given.")


def test_empty_prompt() -> None:
    assert refused(replace(REQUEST, prompt=" ")).startswith("The prompt is empty")


def test_too_long_prompt_says_the_limit_and_the_excess() -> None:
    text = refused(replace(REQUEST, prompt="0 " * 60))
    assert "60 tokens" in text
    assert "holds 64" in text
    assert "by 4." in text


def test_the_longest_prompt_that_fits_is_not_refused() -> None:
    assert len(record(replace(REQUEST, prompt="0 " * 56), catalog()).written()) == 8


def test_a_draft_with_a_short_context_limits_the_prompt_too() -> None:
    target, _ = causal_pair()
    text = refused(REQUEST, catalog(target, ToyCausal("toy/draft", context=10)))
    assert "toy/draft holds 10" in text


def test_tokenizers_differ() -> None:
    text = refused(REQUEST, catalog(ToyCausal(), ToyCausal("toy/draft", size=5)))
    assert "toy/draft cannot be the draft of toy/target because their tokenizers differ" in text


def test_wrong_protocol_names_what_the_model_could_do() -> None:
    models = catalog(ToyMasked("toy/masked"), *causal_pair())
    text = refused(replace(REQUEST, models={"target": "toy/masked"}), models)
    assert "needs a causal model as target" in text
    assert "toy/masked speaks masked" in text


def test_a_wrong_target_is_told_before_its_missing_partner() -> None:
    class Alone(ToyCatalog):
        def default(self, role: str, target: str) -> str:
            raise UserError(f"There is no {role} for {target}.")

    for target, told in ((ToyMasked(), "needs a causal model as target"), (ToyCausal(), "There is no draft")):
        with pytest.raises(UserError, match=told):
            decode(replace(REQUEST, models={"target": target.id}), Alone((target,), {}))


def test_nothing_is_opened_for_a_refused_request() -> None:
    models = causal_pair()
    refused(replace(REQUEST, knobs={"gamma": 99}), catalog(*models))
    refused(replace(REQUEST, prompt="0 " * 60), catalog(*models))
    assert [model.sessions for model in models] == [[], []]


# -------------------------------------------------------------------------------------------------- breaking half way
class Breaking(ToyCausal):
    """A target whose third call raises."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def make(self, *args: Any) -> ToyCausalSession:
        session, error = super().make(*args), self.error
        score, count = session.score, 0

        def broken(draft: Sequence[int] = (), parents: Sequence[int] | None = None) -> Scores:
            nonlocal count
            count += 1
            if count == 3:
                raise error
            return score(draft, parents)

        session.score = broken  # type: ignore[method-assign]
        return session


def broken_run(error: BaseException) -> tuple[BaseException, Any]:
    """What reaches the caller, and the run that it ended."""
    run = decode(replace(REQUEST, strategy="autoregressive"), catalog(Breaking(error)))
    assert len([next(run), next(run)]) == 2
    with pytest.raises(type(error) if not memory(error) else UserError) as caught:
        next(run)
    return caught.value, run


def memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "alloc" in str(error)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=["python", "cuda", "cpu"],
)
def test_out_of_memory_is_a_sentence(error: BaseException) -> None:
    seen, run = broken_run(error)
    assert "ran out of memory" in sentence_of(seen)
    assert "toy/target" in str(seen)
    assert run.trace.end == f"error: {seen}"
    assert seen.__cause__ is error


def test_a_broken_model_ends_the_run_with_its_sentence() -> None:
    seen, run = broken_run(UserError("toy/target returned numbers that are no probabilities (NaN); reload the model."))
    sentence_of(seen)
    assert run.trace.end == f"error: {seen}"


@pytest.mark.parametrize("error", [UserError("The model broke."), RuntimeError("our bug"), KeyError("our bug")])
def test_a_broken_run_keeps_its_steps_and_never_looks_complete(error: BaseException) -> None:
    _, run = broken_run(error)
    assert list(run) == []
    run.close()
    assert run.trace.end.startswith("error: ")
    assert len(run.trace.steps) == 2
    assert len(run.trace.written()) == 2


def test_memory_error_while_opening() -> None:
    class Huge(ToyCausal):
        def make(self, *args: Any) -> ToyCausalSession:
            raise MemoryError

    assert "ran out of memory" in refused(replace(REQUEST, strategy="autoregressive"), catalog(Huge()))


# -------------------------------------------------------------------------------------------------------- good endings
def test_defaults_are_settled_into_the_trace() -> None:
    trace = record(REQUEST, catalog())
    assert trace.request.models == {"target": "toy/target", "draft": "toy/draft"}
    assert trace.request.knobs == {"gamma": 4}
    assert trace.prompt == (0, 1, 2)
    assert trace.environment == {"device": "table", "dtype": "float64"}
    assert record(trace.request, catalog()).written() == trace.written()


def test_budget_ends_a_run() -> None:
    trace = record(REQUEST, catalog())
    assert trace.end == "budget"
    assert len(trace.written()) == 8


def test_an_end_token_ends_a_run() -> None:
    models = causal_pair(fixed=(0.5, 0.0, 0.5), end=frozenset({2}))
    trace = record(replace(REQUEST, budget=60, seed=1), catalog(*models))
    assert trace.end == "end token"
    assert trace.written()[-1] == 2
    assert 2 not in trace.written()[:-1]


def test_an_end_token_in_the_prompt_does_not_end_it() -> None:
    models = causal_pair(fixed=(0.5, 0.5, 0.0), end=frozenset({2}))
    assert record(REQUEST, catalog(*models)).end == "budget"


def test_closing_midway_is_stopped() -> None:
    run = decode(REQUEST, catalog())
    step = next(run)
    assert run.trace.end == ""
    run.close()
    run.close()  # twice does no harm
    assert run.trace.end == "stopped"
    assert run.trace.steps == (step,)
    assert list(run) == []


def test_closing_before_the_first_step() -> None:
    with decode(REQUEST, catalog()) as run:
        pass
    assert run.trace.end == "stopped"
    assert run.trace.steps == ()


def test_closing_a_finished_run_keeps_its_end() -> None:
    with decode(REQUEST, catalog()) as run:
        assert list(run)
    assert run.trace.end == "budget"


def test_an_exception_of_the_caller_stops_the_run() -> None:
    run = decode(REQUEST, catalog())

    def watch() -> None:
        with run:
            next(run)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        watch()
    assert run.trace.end == "stopped"


def test_text_and_pieces() -> None:
    with decode(replace(REQUEST, sampling=Sampling()), catalog()) as run:
        for _ in run:
            assert run.text == " ".join(map(str, run.trace.written()))
    written = run.trace.written()
    assert written == greedy(causal_pair()[0], (0, 1, 2), 8)
    mentioned = {m.token for s in run.trace.steps for m in s.marks} | {
        token for s in run.trace.steps for m in s.marks for token, _ in m.options
    }
    assert run.trace.pieces == {token: f"<{token}>" for token in mentioned | {0, 1, 2}}


def test_every_step_is_stamped() -> None:
    trace = record(REQUEST, catalog())
    for i, step in enumerate(trace.steps):
        assert step.index == i
        assert step.calls["target"] == 1
        assert step.rows["target"] >= 1
        assert 0 <= step.spent["target"] + step.spent["draft"] <= step.seconds
    kept = sum(m.fate is Fate.KEPT for s in trace.steps for m in s.marks)
    assert trace.summary().num_target_calls == len(trace.steps)
    assert len(trace.written()) - kept <= len(trace.steps)


def test_time_between_steps_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Own compute time only: whoever watches takes as long as they like."""
    now = 0.0
    monkeypatch.setattr("time.perf_counter", lambda: now)
    with decode(REQUEST, catalog()) as run:
        for _ in run:
            now += 5.0
    assert [step.seconds for step in run.trace.steps] == [0.0] * len(run.trace.steps)


def test_two_runs_at_once_do_not_interact() -> None:
    models = catalog()
    alone = record(REQUEST, models).written()
    first, second = decode(REQUEST, models), decode(replace(REQUEST, seed=9), models)
    while True:
        a, b = next(first, None), next(second, None)
        if a is None and b is None:
            break
    assert first.trace.written() == alone
    assert second.trace.written() == record(replace(REQUEST, seed=9), models).written()


def test_roles_are_opened_with_their_protocol() -> None:
    target, draft = causal_pair()
    record(REQUEST, catalog(target, draft))
    assert isinstance(target.sessions[0], CausalSession)
    assert not isinstance(target.sessions[0], MaskedSession)
    assert len(draft.sessions) == 1


def test_the_seed_of_the_request_is_the_one_that_counts() -> None:
    texts = [tuple(record(replace(REQUEST, seed=seed), catalog(zeros=0.0)).written()) for seed in range(8)]
    assert len(set(texts)) > 4
