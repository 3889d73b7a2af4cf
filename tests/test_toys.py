"""The toys are what their closed forms say: everything else rests on that."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch

from backend.meter import Meter
from backend.protocols import (
    CausalSession,
    CoarseSession,
    ContinuousSession,
    DenoiserSession,
    DistilledSession,
    FlexibleSession,
    ForecastSession,
    GridSession,
    MaskedSession,
    Prompt,
    RedrawingSession,
    ScaleSession,
)
from backend.types import Sampling
from tests.toys import Toy, ToyCausal, ToyCausalSession, ToyMasked, ToyScale, canvases, causal_pair
from tests.toys_coarse import ToyCoarse
from tests.toys_continuous import ToyContinuous, ToyDenoiser, ToyForecaster, clean
from tests.toys_distilled import ToyDistilled
from tests.toys_image import ToyFlexible, ToyGrid, ToyRedrawing

PLAIN = Sampling(temperature=1.0)


@pytest.mark.parametrize(
    ("toy", "protocol"),
    [
        (ToyCausal(), CausalSession),
        (ToyMasked(), MaskedSession),
        (ToyGrid(), GridSession),
        (ToyScale(), ScaleSession),
        (ToyFlexible(), FlexibleSession),
        (ToyRedrawing(), RedrawingSession),
        (ToyDistilled(), DistilledSession),
        (ToyCoarse(), CoarseSession),
        (ToyContinuous(), ContinuousSession),
        (ToyDenoiser(), DenoiserSession),
        (ToyForecaster(), ForecastSession),
    ],
)
def test_sessions_speak_their_protocol(toy: Toy, protocol: type) -> None:
    session = toy.open(protocol, Prompt((1,) if protocol is CausalSession else ()), PLAIN, Meter(), 8)
    assert isinstance(session, protocol)
    assert toy.sessions == [session]


# ----------------------------------------------------------------------------------------------------------- causal
def open_causal(toy: ToyCausal, sampling: Sampling = PLAIN) -> tuple[ToyCausalSession, Meter]:
    meter = Meter()
    return toy.make(Prompt((0, 1)), sampling, meter, 9), meter


def test_causal_laws_are_laws_with_zeros_and_depend_on_the_whole_text() -> None:
    target, draft = causal_pair()
    rows = [model.law(prefix) for model in (target, draft) for n in range(1, 5) for prefix in canvases(3, n)]
    assert all(abs(float(row.sum()) - 1) < 1e-12 for row in rows)
    assert any((row == 0).any() for row in rows)
    assert not torch.equal(target.law((0, 1, 1)), target.law((1, 1, 1)))
    differences = [(target.law(c) > 0, draft.law(c) > 0) for c in canvases(3, 4)]
    assert any((p & ~q).any() for p, q in differences), "p > 0 where q = 0"
    assert any((q & ~p).any() for p, q in differences), "q > 0 where p = 0"


def test_causal_order_limits_what_the_law_sees() -> None:
    toy = ToyCausal(order=1)
    assert torch.equal(toy.law((0, 1, 2)), toy.law((2, 2, 2)))


def test_tree_rows_are_chain_rows() -> None:
    tree, _ = open_causal(ToyCausal())
    chain, _ = open_causal(ToyCausal())
    rows_NV = tree.score([1, 2, 0, 1], [-1, -1, 0, 2]).p_NV  # 1-0-1 and 2
    assert torch.equal(rows_NV[[0, 1, 3, 4]], chain.score([1, 0, 1]).p_NV)
    assert torch.equal(rows_NV[[0, 2]], chain.score([2]).p_NV)


def test_causal_counts_nothing_twice() -> None:
    session, meter = open_causal(ToyCausal())
    session.score([1])
    assert (meter.calls, meter.rows) == (1, 3)  # the prompt and the guess
    session.score([1, 2])
    assert (meter.calls, meter.rows) == (2, 4)
    session.score([1])
    assert meter.calls == 2  # known already
    session.commit([1, 0])
    session.score([2])
    assert (meter.calls, meter.rows) == (3, 6)  # the 0 that nobody evaluated, and the guess
    assert (session.calls, session.rows) == (meter.calls, meter.rows)
    assert session.tokens == [0, 1, 1, 0]


def test_causal_scoring_commits_nothing() -> None:
    session, _ = open_causal(ToyCausal())
    before = session.score().p_NV[0]
    session.score([2, 2, 2])
    assert session.tokens == [0, 1]
    assert torch.equal(session.score().p_NV[0], before)


def test_causal_temperature_zero_is_one_hot() -> None:
    toy = ToyCausal()
    session, _ = open_causal(toy, Sampling(temperature=0.0))
    row_V = session.score().p_NV[0]
    assert row_V.tolist() == [float(i == int(toy.law((0, 1)).argmax())) for i in range(3)]


def test_causal_refuses_more_than_its_room() -> None:
    session, _ = open_causal(ToyCausal())
    with pytest.raises(AssertionError, match="more than the session was opened for"):
        session.commit([0] * 10)


# ----------------------------------------------------------------------------------------------- masked and scale
def test_masked_conditionals_multiply_to_the_joint_in_any_order() -> None:
    toy = ToyMasked()
    assert (toy.joint == 0).any()
    for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
        for canvas in canvases(3, 3):
            known, weight = [-1, -1, -1], 1.0
            for slot in order:
                weight *= float(toy.given(known)[slot, canvas[slot]])
                known[slot] = canvas[slot]
                if weight == 0:
                    break
            assert weight == pytest.approx(float(toy.joint[canvas]), abs=1e-12)


def test_masked_known_slots_are_one_hot_and_impossible_ones_leave_an_even_law() -> None:
    toy = ToyMasked(zeros=0.6)
    impossible = next(c for c in canvases(3, 2) if toy.joint[c].sum() == 0)
    assert toy.given([*impossible, -1])[2].tolist() == pytest.approx([1 / 3] * 3)
    assert toy.given([2, -1, -1])[0].tolist() == [0, 0, 1]


def test_masked_session_starts_from_the_prompt() -> None:
    session = ToyMasked().make(Prompt((2,)), PLAIN, Meter(), 2)
    assert list(session.canvas_L) == [2, -1, -1]


def test_scale_rows_are_marginals_of_the_map_given_coarser_maps() -> None:
    toy = ToyScale()
    session = toy.make(Prompt(), PLAIN, Meter(), 7)
    seen = []
    while session.at < len(session.sizes):
        h, w = session.sizes[session.at]
        p_NV = session.score()
        assert p_NV.shape == (h * w, 2)
        assert p_NV.sum(1).tolist() == pytest.approx([1.0] * (h * w))
        seen.append(p_NV)
        session.commit([1] * (h * w))
    assert session.written == [1] * 7
    assert not torch.equal(toy.given((0,), 1), toy.given((1,), 1))
    assert toy.given((1,), 1, [0, -1])[0].tolist() == [1.0, 0.0]


# ------------------------------------------------------------------------------------------ vectors, pixels, series
def posterior_mean(x: float, alpha: float, sigma: float, mean: float, spread: float) -> float:
    """E[x_0 | x_t = x] by summing over a fine grid."""
    grid = torch.linspace(mean - 12 * spread, mean + 12 * spread, 20_001, dtype=torch.float64)
    log_w = -((grid - mean) ** 2) / (2 * spread**2) - (x - alpha * grid) ** 2 / (2 * sigma**2)
    w = torch.softmax(log_w, 0)
    return float((w * grid).sum())


@pytest.mark.parametrize("predicts", ["eps", "v", "x0", "flow"])
@pytest.mark.parametrize("t", [0.2, 0.5, 0.9])
def test_denoiser_predicts_posterior_means(predicts: Literal["eps", "v", "x0", "flow"], t: float) -> None:
    toy = ToyDenoiser(predicts)
    a, s = toy.schedule.alpha(t), toy.schedule.sigma(t)
    for x in (-1.0, 0.3, 2.5):
        x0 = posterior_mean(x, a, s, toy.mean, toy.spread)
        eps = (x - a * x0) / s
        truth = {"x0": x0, "eps": eps, "v": a * eps - s * x0, "flow": eps - x0}[predicts]
        assert float(toy.prediction(torch.full((2, 2), x), t)[0, 0]) == pytest.approx(truth, abs=1e-6)


def test_denoiser_flow_arrives_where_euler_goes() -> None:
    toy = ToyDenoiser("flow")
    start = torch.tensor([[-1.0, 0.0], [0.5, 2.0]]).double()
    session, x, steps = toy.make(Prompt(), PLAIN, Meter(), 4), start, 4000
    for i in range(steps, 0, -1):
        x = x - session.predict(x, i / steps) / steps
    assert torch.allclose(x, toy.arrives(start), atol=2e-3)
    assert session.calls == steps


@pytest.mark.parametrize("predicts", ["eps", "v", "x0"])
def test_denoiser_ddim_arrives_at_the_same_place(predicts: Literal["eps", "v", "x0"]) -> None:
    toy = ToyDenoiser(predicts)
    start = torch.tensor([[-1.0, 0.0], [0.5, 2.0]]).double()
    x, steps = start, 4000
    for i in range(steps, 0, -1):
        a, s = toy.schedule.alpha(i / steps), toy.schedule.sigma(i / steps)
        out = toy.prediction(x, i / steps)
        x0 = {"x0": out, "eps": (x - s * out) / a, "v": a * x - s * out}[predicts]
        eps = {"x0": (x - a * x0) / s, "eps": out, "v": s * x + a * out}[predicts]
        x = toy.schedule.alpha((i - 1) / steps) * x0 + toy.schedule.sigma((i - 1) / steps) * eps
    assert torch.allclose(x, toy.arrives(start), atol=5e-3)


def test_continuous_head_is_the_posterior_mean_and_conditions_follow_what_is_written() -> None:
    toy = ToyContinuous()
    session = toy.make(Prompt(), PLAIN, Meter(), 3)
    z_NC = session.condition([1])
    got = session.head(torch.tensor([[0.4, -0.2]]), 0.6, z_NC)[0]
    for d, x in enumerate((0.4, -0.2)):
        assert float(got[d]) == pytest.approx(posterior_mean(x, 0.4, 0.6, float(z_NC[0, d]), toy.spread), abs=1e-6)
    session.commit([0], torch.tensor([[1.0, 1.0]]))
    assert torch.allclose(session.condition([1]), z_NC + toy.pull)
    assert (session.calls, session.head_calls) == (3, 1)


def test_clean_is_the_data_without_noise_and_the_mean_without_data() -> None:
    x = torch.tensor([3.0])
    assert float(clean(x, 1.0, 0.0, 1.0, 0.5)) == pytest.approx(3.0)
    assert float(clean(x, 0.0, 1.0, 1.0, 0.5)) == pytest.approx(1.0)


def test_forecaster_quantiles_are_normal_quantiles_of_the_simulated_process() -> None:
    toy = ToyForecaster()
    band = toy.make(Prompt(extras={"raw": [2.0, 3.0]}), PLAIN, Meter(), 4).predict(4)
    assert band.values_SH.shape == (5, 4)
    mean, variance = 3.0, 0.0
    for h in range(4):  # the recursion of mean and variance, beside the closed form
        mean, variance = toy.level + toy.phi * (mean - toy.level), toy.phi**2 * variance + toy.spread**2
        for level, value in zip(band.levels, band.values_SH[:, h].tolist(), strict=True):
            below = 0.5 * (1 + math.erf((value - mean) / math.sqrt(2 * variance)))
            assert below == pytest.approx(level, abs=1e-9)


def test_forecaster_paths_have_the_same_moments() -> None:
    toy = ToyForecaster(paths=40_000)
    session = toy.make(Prompt(extras={"raw": [3.0]}), PLAIN, Meter(), 3)
    values_SH = session.predict(3).values_SH
    mean_H, spread_H = toy.moments(3.0, 3)
    assert torch.equal(values_SH, session.predict(3).values_SH), "a forecaster is a function of its series"
    assert torch.allclose(values_SH.mean(0), mean_H, atol=5 * float(spread_H.max()) / 200)  # 5 standard errors
    assert torch.allclose(values_SH.std(0), spread_H, rtol=0.02)
    session.extend(torch.tensor([[1.0, 2.5]]))
    assert session.series_CT.tolist() == [[3.0, 1.0, 2.5]]
