"""Relaxed speculation: how far a law is off at every place, what the released rule breaks, what moving mass gains."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from backend.chance import Ask, Chance
from backend.meter import Meter
from backend.protocols import PictureSession
from backend.registry import find
from backend.relaxing import lent, moved_towards
from backend.types import Guarantee
from tests.exact import ancestral, law, total_variation
from tests.strategies.causal.played import COLD, WARM, play
from tests.toys import ToyCausal, causal_pair, random_law
from tests.toys_picture import ToyPicture, ToyPictureSession
from tests.toys_raster import CODEC, PROMPT, paint, painter

LOSSLESS = {"delta": 0.0, "lam": 0.0, "rule": "moved"}


def shades(size: int) -> ToyPictureSession:
    return ToyPictureSession(ToyPicture(size=size), (0,), WARM, Meter())


def distance(a_V: Tensor, b_V: Tensor) -> float:
    return float((a_V - b_V).abs().sum() / 2)


def games(models: list[ToyCausal], length: int, **knobs: Any) -> dict[tuple[int, ...], float]:
    """The law of what is written, every random branch enumerated."""

    def game(chance: Chance) -> tuple[int, ...]:
        target, draft = (model.make(model.codec.encode("0"), WARM, Meter(), length) for model in models)
        for _ in find("relaxed").run(target, draft, Ask(length, chance), **find("relaxed").settle(knobs)):
            pass
        return tuple(target.tokens[1:])

    return law(game)


# ------------------------------------------------------------------------------------------------------ one place's law
def test_zeroed_is_off_by_what_is_moved_and_released_by_more() -> None:
    """x 0.30, its look-alikes 0.15 and 0.10, delta 0.2: only the first may be used; the second is thrown out, too."""
    p_V = torch.tensor([0.3, 0.15, 0.1, 0.45], dtype=torch.float64)
    zeroed, released = (lent(p_V, [0], shades(4), 2, 0.2, 0.0, which) for which in (False, True))
    assert zeroed.tolist() == pytest.approx([0.45, 0.0, 0.1, 0.45])
    assert released.tolist() == pytest.approx([0.45, 0.0, 0.0, 0.55])
    assert (distance(zeroed, p_V), distance(released, p_V)) == (pytest.approx(0.15), pytest.approx(0.25))


def test_no_candidates_move_more_than_delta_or_lambda_allow() -> None:
    session = shades(6)
    for seed in range(40):
        p_V = random_law(seed, 6, 0.2)
        for x in ([0], [3], [5, 4], [2, 0, 3]):
            for delta in (0.0, 0.1, 0.3):
                used_V = lent(p_V, x, session, 3, delta, 0.0, released=False)
                assert float(used_V.sum()) == pytest.approx(1.0)
                assert float(used_V.min()) >= 0
                assert distance(used_V, p_V) <= delta + 1e-12
        used_V = lent(p_V, [3], session, 5, 0.0, 3.0, released=False)
        assert distance(used_V, p_V) <= 2 * float(p_V[3]) + 1e-12
        assert float(used_V[3]) >= float(p_V[3])


def test_what_is_moved_towards_the_draft_is_kept_more_often() -> None:
    """sum(min(p', q)) - sum(min(p, q)) is the distance of p' from p."""
    session, most = shades(6), 0.0
    for seed in range(40):
        p_V, q_V = random_law(seed, 6, 0.2), random_law(seed + 500, 6, 0.2)
        for delta in (0.0, 0.1, 0.5):
            used_V = moved_towards(p_V, q_V, session, 2, delta)
            off = distance(used_V, p_V)
            gain = float(torch.minimum(used_V, q_V).sum() - torch.minimum(p_V, q_V).sum())
            assert off <= delta + 1e-12
            assert gain == pytest.approx(off, abs=1e-12)
            assert float(used_V.sum()) == pytest.approx(1.0)
            most = max(most, off)
    assert most > 0.3


# ---------------------------------------------------------------------------------------------------- the law of a text
@pytest.mark.parametrize("rule", ["zeroed", "released", "moved"])
def test_the_law_of_a_place_is_the_one_told(rule: str) -> None:
    """Enumerated: of every draft's candidate the law that it leads to, weighed by the draft; at most delta away."""
    for seed in range(2):
        models = list(causal_pair(seed=seed, kind=ToyPicture))
        p_V, q_V = (model.law((0,)) for model in models)
        if rule == "moved":
            told_V = moved_towards(p_V, q_V, shades(3), 1, 0.3)
        else:
            told_V = lent(p_V, [int(q_V.argmax())], shades(3), 1, 0.3, 0.0, rule == "released")
        got_V = torch.zeros(3, dtype=torch.float64)
        for text, weight in games(models, 2, depth=1, k=1, delta=0.3, rule=rule).items():
            got_V[text[0]] += weight
        torch.testing.assert_close(got_V, told_V, atol=1e-9, rtol=0)
        if rule != "released":
            assert distance(got_V, p_V) <= 0.3


@pytest.mark.parametrize(("rule", "branch"), [("zeroed", 1), ("zeroed", 3), ("moved", 2)])
def test_delta_0_is_lossless(rule: str, branch: int) -> None:
    models = list(causal_pair(seed=2, size=2, kind=ToyPicture))
    texts = games(models, 3, depth=2, branch=branch, delta=0.0, rule=rule)
    assert total_variation(texts, ancestral(models[0], (0,), 3, WARM)) < 1e-9
    assert find("relaxed").promises(LOSSLESS) is Guarantee.LOSSLESS
    assert find("relaxed").promises({}) is Guarantee.LOSSY


def test_delta_0_prints_what_plain_decoding_prints() -> None:
    for seed in range(6):
        models = list(causal_pair(seed=seed, size=5, kind=ToyPicture))
        ours = play("relaxed", models, seed=seed, branch=2, delta=0.0, rule="zeroed")
        plain = ToyCausal("toy/plain", seed=seed, size=5)
        assert ours.replay() == play("autoregressive", [plain], seed=seed).replay()


def test_at_temperature_0_nothing_can_be_moved() -> None:
    models = list(causal_pair(seed=3, size=5, kind=ToyPicture))
    plain = play("autoregressive", [ToyCausal("toy/plain", seed=3, size=5)], sampling=COLD).replay()
    for rule in ("zeroed", "moved"):
        ours = play("relaxed", models, sampling=COLD, delta=0.4, rule=rule)
        assert ours.replay() == plain
        assert all(step.figures["moved"] == 0 for step in ours.steps)


def test_more_delta_keeps_more_and_stays_within_its_bound() -> None:
    kept = {}
    for delta in (0.0, 0.6):
        runs = [
            play("relaxed", list(causal_pair(seed=seed, size=5, kind=ToyPicture)), budget=30, delta=delta)
            for seed in range(8)
        ]
        kept[delta] = sum(run.summary().mean_acceptance_length for run in runs)
        steps = [step for run in runs for step in run.steps]
        assert all(step.figures["moved"] <= step.figures["bound"] + 1e-6 for step in steps)
        assert all(step.figures["mean_moved"] <= step.figures["moved"] + 1e-9 for step in steps)
    assert kept[0.6] > kept[0.0]


# ------------------------------------------------------------------------------------------------------------ pictures
def test_neighbours_of_a_colour_are_the_nearest_colours() -> None:
    session = painter().open(PictureSession, CODEC.encode(PROMPT), WARM, Meter(), 8)
    colours_VC = torch.tensor(CODEC.tokenizer.decode(torch.arange(256)[None].numpy() % 128)[0].reshape(256, 3)[:128])
    far_VV = torch.cdist(colours_VC.double(), colours_VC.double())
    assert session.grid == (16, 16)
    for token in (0, 17, 127):
        codes_N, far_N = session.neighbours(token)
        assert sorted(codes_N.tolist()) == [code for code in range(128) if code != token]
        torch.testing.assert_close(far_N, far_VV[token, codes_N] / far_VV.max(), atol=1e-6, rtol=1e-6)
        assert (far_N.diff() >= 0).all()


def test_a_picture_is_painted_with_every_rule() -> None:
    models = [painter(), painter("toy/draft", seed=5)]
    for rule in ("zeroed", "released", "moved"):
        trace = paint("relaxed", models, budget=8, sampling=WARM, rule=rule, k=8)
        assert len(trace.written()) == 8
