"""Verified steps: one candidate is the plain sampler, the judge's words decide, and what is given up is not called."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from backend.errors import UserError
from backend.meter import Meter
from backend.models.house.portrait_judge import PortraitJudge
from backend.models.verifier import PictureVerifier
from backend.protocols import PictureJudgeSession
from backend.trace import Trace
from backend.types import Sampling
from tests.toys import ToyMasked
from tests.toys_image import paint, painted_law
from tests.toys_picture import ToyPictureJudge
from tests.toys_raster import CODEC, PROMPT


def grid(length: int = 6, seed: int = 3) -> ToyMasked:
    return ToyMasked("toy/masked", seed=seed, length=length, size=2, zeros=0.0)


def played(seed: int = 0, length: int = 6, **knobs: Any) -> tuple[Trace, ToyMasked, ToyPictureJudge]:
    target, judge = grid(length), ToyPictureJudge()
    return paint("verified_steps", [target, judge], seed=seed, **{"steps": 3} | knobs), target, judge


def test_one_candidate_is_the_plain_sampler() -> None:
    """Token by token, seed by seed, and nobody is asked."""
    for seed in range(12):
        ours, _, judge = played(seed, candidates=1)
        assert ours.written() == paint("confidence", [grid()], seed=seed, steps=3).written()
        assert judge.sessions[-1].calls == 0
        assert (ours.steps[-1].figures["chosen"], ours.steps[-1].figures["saved"]) == (0, 0)


def test_the_law_of_one_candidate_is_that_of_the_plain_sampler() -> None:
    target = grid(2)
    ours = painted_law("verified_steps", [target, ToyPictureJudge()], candidates=1, steps=2)
    plain = painted_law("confidence", [target], steps=2)
    assert ours == pytest.approx(plain)


def test_the_best_of_those_with_a_yes_is_written() -> None:
    """The toy's judge counts zeros: the picture has as many as the best candidate that passed midway."""
    for seed in range(12):
        trace, _, judge = played(seed, candidates=4, least=0.5, prune=False)
        midway, finished = judge.sessions[-1].asked
        passed = [n for n, canvas in enumerate(midway) if canvas.count(0) >= 3]
        most = max(finished[n].count(0) for n in passed) if passed else None
        chosen = int(trace.steps[-1].figures["chosen"])
        assert tuple(trace.written()) == finished[chosen]
        if passed:
            assert chosen in passed
            assert finished[chosen].count(0) == most
        else:
            assert midway[chosen].count(0) == max(canvas.count(0) for canvas in midway)


def test_without_a_yes_the_most_promising_is_painted_on() -> None:
    for prune in (True, False):
        trace, target, judge = played(candidates=3, least=1.0, length=8, prune=prune, judge_at=0.3)
        midway = judge.sessions[-1].asked[0]
        assert all(canvas.count(0) < 8 for canvas in midway)
        assert midway[int(trace.steps[-1].figures["chosen"])].count(0) == max(canvas.count(0) for canvas in midway)
        assert target.sessions[-1].calls == (3 + 2 if prune else 9)
        assert trace.steps[-1].figures["saved"] == (4 if prune else 0)


def test_calls_of_those_given_up_are_saved() -> None:
    for seed in range(6):
        trace, target, judge = played(seed, candidates=4, length=8, judge_at=0.0, least=0.5)
        lost = sum(not value for step in trace.steps for name, value in step.figures.items() if "passed" in name)
        given_up = min(lost, 3)
        assert trace.steps[-1].figures["saved"] == 2 * given_up
        assert target.sessions[-1].calls == 12 - 2 * given_up
        assert judge.sessions[-1].calls == (2 if given_up < 3 else 1)


def test_the_board_can_be_drawn_from_the_steps() -> None:
    trace, _, judge = played(candidates=3, prune=False)
    turns = [(step.figures["turn"], step.figures["candidate"]) for step in trace.steps if "turn" in step.figures]
    assert turns == [(turn, n) for turn in range(3) for n in range(3)]
    assert [step.calls["target"] for step in trace.steps if "turn" in step.figures] == [1] * 9
    shown = {s.figures["candidate"]: tuple(m.token for m in s.marks) for s in trace.steps if s.figures.get("turn") == 1}
    assert tuple(shown[n] for n in range(3)) == judge.sessions[-1].asked[0]
    assert all(0 <= mark.p <= 1 for mark in trace.steps[-1].marks if mark.p is not None)


# -------------------------------------------------------------------------------------------------- the real verifier
def verifier() -> PictureVerifier:
    torch.manual_seed(0)
    return PictureVerifier("toy/verifier", PortraitJudge((8, 8, 8, 32)).eval(), CODEC)


def test_the_verifier_is_the_geometric_mean_of_what_is_asked() -> None:
    model, meter = verifier(), Meter()
    prompt = CODEC.encode(PROMPT)
    session = model.open(PictureJudgeSession, prompt, Sampling(), meter, 256)
    canvases = [[7] * 256, list(range(128)) * 2, [-1] * 256]
    said = session.judge(canvases)
    assert (meter.calls, meter.rows) == (1, 3)
    for canvas, chance in zip(canvases[:2], said, strict=False):
        values = model.judge(torch.from_numpy(CODEC.tokenizer.decode(torch.tensor([canvas]).numpy())))
        asked = [(x.softmax(-1)[0], code) for x, code in zip(values, prompt.extras["conditions"], strict=True) if code]
        product = torch.stack([p[code - 1] for p, code in asked]).prod()
        assert chance == pytest.approx(float(product.detach() ** (1 / len(asked))), rel=1e-4)


def test_a_prompt_that_asks_for_nothing_cannot_be_verified() -> None:
    with pytest.raises(UserError, match="has nothing to check"):
        verifier().open(PictureJudgeSession, CODEC.encode("portrait"), Sampling(), Meter(), 256)
