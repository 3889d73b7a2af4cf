"""Series as tokens: bins lose nothing but their width, and every strategy of text and of canvases runs on them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from backend.codecs.bins import BINS, CENTRES, CONTEXT, MISSING, REACH, SIZE, WIDTH, tokens_of, values_of
from backend.codecs.series_tokens import SeriesTokens
from backend.errors import UserError
from backend.meter import Meter
from backend.models.house import strip
from backend.models.house.own import save_own
from backend.models.series_tokens import SeriesMaskedModel, SeriesTokenModel, load_series_tokens
from backend.protocols import CausalSession, FleetSession, GridSession, MaskedSession, MixingSession, base
from backend.registry import Strategy, strategies
from backend.series.fans import fan_of, seeded
from backend.series.forecasts import filled_of, forecast_of
from backend.types import Guarantee, Request, Sampling
from tests.toys_series import GAPPED, HORIZON, PROMPT, WARM, WAVE, continued, continuer, filler, net

CODEC = SeriesTokens()
GREEDY = Sampling()
MODEL, OTHER = continuer(), continuer("toy/draft", 1, net(0), 0.8)
CAUSAL = [s for s in strategies().values() if {*s.roles.values()} <= MODEL.speaks]
MASKED = [s for s in strategies().values() if {*map(base, s.roles.values())} == {MaskedSession}]


# ---------------------------------------------------------------------------------------------------------------- bins
def test_a_value_comes_back_within_half_a_bin() -> None:
    z_T = np.linspace(-REACH, REACH, 9_999)
    tokens_T = tokens_of(z_T)
    assert np.abs(values_of(tokens_T) - z_T).max() <= WIDTH / 2 + 1e-12
    assert sorted(set(tokens_T.tolist())) == list(range(BINS))
    assert (tokens_of(CENTRES) == np.arange(BINS)).all()
    assert CENTRES[BINS // 2] == 0
    assert tokens_of(np.array([np.nan, 0.0])).tolist() == [MISSING, BINS // 2]
    assert np.isnan(values_of([MISSING, -1])).all()


@pytest.mark.parametrize("z", [REACH * 1.001, -REACH * 1.001, np.inf])
def test_nothing_is_clamped(z: float) -> None:
    with pytest.raises(ValueError, match="beyond the bins"):
        tokens_of(np.array([0.0, z]))


def test_no_context_reaches_beyond_the_bins() -> None:
    """One value far from all the others, which are equal, deviates by as many spreads as there are values."""
    for far in (1e-9, 1.0, 1e15):
        prompt = CODEC.encode({"y": [0.0] * (CONTEXT - 1) + [far]})
        assert set(prompt.tokens) == {BINS // 2, BINS - 1}
        assert CODEC.encode({"y": [0.0] * (CONTEXT - 1) + [-far]}).tokens[-1] == 0


# --------------------------------------------------------------------------------------------------------------- codec
def test_a_prompt_is_the_context_as_tokens() -> None:
    prompt = CODEC.encode(GAPPED)
    scale, told = prompt.extras["scale"], values_of(prompt.tokens, prompt.extras["scale"])
    assert prompt.extras["season"] == 8
    assert [t for t, token in enumerate(prompt.tokens) if token == MISSING] == [7, 20, 21, 22]
    known = np.isfinite(told)
    assert np.abs(scale.encode(told[known]) - np.array(prompt.extras["context"])[known]).max() <= WIDTH / 2 + 1e-12
    assert len(CODEC.encode({"y": [float(t % 7) for t in range(300)]}).tokens) == CONTEXT
    assert (CODEC.piece(BINS // 2), CODEC.piece(MISSING)) == ("+0", "missing")
    assert CODEC.decode([BINS - 1, 0]) == f"{CODEC.piece(BINS - 1)} {CODEC.piece(0)}"
    assert float(CODEC.piece(BINS - 1)) == pytest.approx(CONTEXT, rel=0.02)
    assert CODEC.vocabulary == continuer().codec.vocabulary == filler().codec.vocabulary


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"fill": 1}, "'fill' of a series prompt must be true or false"),
        ({"paths": 0}, "1 to 64 paths"),
        ({"paths": 2.0}, "1 to 64 paths"),
        ({"paths": 3, "fill": True}, "along one path"),
        ({"horizon": 3}, "no field 'horizon'"),
    ],
)
def test_prompts_that_are_refused(more: dict[str, Any], word: str) -> None:
    with pytest.raises(UserError, match=word):
        CODEC.encode({**PROMPT, **more})


# --------------------------------------------------------------------------------------------------------------- models
def test_a_missing_value_is_read_and_never_written() -> None:
    session = MODEL.open(CausalSession, CODEC.encode(GAPPED), WARM, Meter(), 8)
    scores = session.score([5, MISSING, 7])
    assert scores.p_NV.shape == (4, SIZE)
    assert (scores.p_NV[:, MISSING] == 0).all()
    torch.testing.assert_close(scores.p_NV.sum(1), torch.ones(4, dtype=torch.float64))
    masked = filler().open(MaskedSession, CODEC.encode(GAPPED), WARM, Meter(), 8)
    p_LV = masked.denoise(masked.canvas_L)
    assert p_LV[7, MISSING] == 1  # it is known that nothing is known there
    assert (p_LV[60:, MISSING] == 0).all()


def test_a_saved_model_is_what_it_was(tmp_path: Any) -> None:
    for made, kind in ((net(), SeriesTokenModel), (net(extra_inputs=1), SeriesMaskedModel)):
        path = tmp_path / "series.safetensors"
        save_own(path, made)
        model = load_series_tokens("house/series", path, "cpu")
        assert isinstance(model, kind)
        assert (model.num_params, model.context) == (made.num_params, 128)


def test_the_packed_strip_tells_what_training_computes() -> None:
    made = net(extra_inputs=1).double()
    canvas_BL = torch.randint(-1, SIZE, (3, 40))
    packed = strip.Strip(made.pack(torch.float64)).logits(canvas_BL)
    read_BL = torch.where(canvas_BL < 0, strip.mask_of(made), canvas_BL)
    trained = torch.nn.functional.linear(strip.features_of(made, read_BL), made.head_weight())
    torch.testing.assert_close(packed, trained, atol=1e-5, rtol=0)  # turns are made in float32 there
    assert strip.mask_of(made) == SIZE


# ---------------------------------------------------------------------------------------------------- causal strategies
def test_every_session_of_causal_models_can_be_opened() -> None:
    assert {CausalSession, FleetSession, MixingSession} <= MODEL.speaks
    assert len(CAUSAL) > 12
    assert {"speculative", "jacobi", "lookahead", "prompt_lookup", "suffix", "temporal_fusion"} <= {
        s.id for s in CAUSAL
    }


@pytest.mark.parametrize("s", [pytest.param(s, id=s.id) for s in CAUSAL])
def test_every_causal_strategy_continues_a_series(s: Strategy) -> None:
    """All of the horizon, in values; at temperature 0 plain decoding's, where that is promised."""
    drawn = continued(s.id, [MODEL, OTHER], GAPPED)
    assert forecast_of(drawn).values_SH.shape == (1, HORIZON)
    assert np.isfinite(forecast_of(drawn).values_SH).all()
    greedy = continued(s.id, [MODEL, OTHER], sampling=GREEDY)
    if s.promises({}) is not Guarantee.LOSSY:
        assert greedy.written() == continued("autoregressive", [MODEL], sampling=GREEDY).written()
    assert len(greedy.written()) == HORIZON


def test_a_draft_that_is_the_target_is_always_right() -> None:
    trace = continued("speculative", [MODEL, continuer("toy/same")], gamma=3)
    assert trace.summary().alpha == 1.0
    assert trace.summary().num_target_calls == HORIZON // 4


def test_gaps_are_not_for_those_who_write_forwards() -> None:
    with pytest.raises(UserError, match="cannot fill gaps of the past"):
        continued("autoregressive", [MODEL], {**GAPPED, "fill": True})


# ---------------------------------------------------------------------------------------------------- masked strategies
@pytest.mark.parametrize("s", [pytest.param(s, id=s.id) for s in MASKED])
@pytest.mark.parametrize("fill", [False, True], ids=["future", "gaps too"])
def test_every_masked_strategy_fills_the_future(s: Strategy, fill: bool) -> None:
    knobs = {name: value for name, value in {"steps": 6, "bound": 64.0}.items() if name in s.knobs}
    budget = HORIZON + 4 if fill else HORIZON
    trace, again = (continued(s.id, [filler()], {**GAPPED, "fill": fill}, budget, **knobs) for _ in range(2))
    scale = CODEC.encode(GAPPED).extras["scale"]
    forecast = forecast_of(trace, scale)
    assert forecast.values_SH.shape == (1, HORIZON)
    assert np.isfinite(forecast.values_SH).all()
    assert trace.replay() == again.replay()
    context_T = filled_of(trace, scale)
    assert np.isnan(context_T).sum() == (0 if fill else 4)
    known = [t for t, y in enumerate(GAPPED["y"]) if y is not None]  # type: ignore[arg-type,var-annotated]
    assert context_T[known] == pytest.approx(np.array(WAVE)[known], rel=0.01)
    assert np.isnan(forecast_of(trace, scale, 1).values_SH).any() == (len(trace.steps) > 1)


def test_only_gaps_can_be_filled() -> None:
    trace = continued("confidence", [filler()], {**GAPPED, "fill": True}, 4, steps=2)
    assert forecast_of(trace).values_SH.shape == (1, 0)
    assert np.isfinite(filled_of(trace)).all()
    with pytest.raises(UserError, match="4 gaps to fill, but the budget is 3"):
        continued("confidence", [filler()], {**GAPPED, "fill": True}, 3)
    with pytest.raises(UserError, match="fills one canvas"):
        continued("confidence", [filler()], {**PROMPT, "paths": 3}, 12)


def test_a_canvas_is_a_grid_of_one_row() -> None:
    session = filler().open(GridSession, CODEC.encode(PROMPT), WARM, Meter(), 5)
    assert session.grid == (1, 65)
    assert list(session.canvas_L) == [*CODEC.encode(PROMPT).tokens, *[-1] * 5]


# ---------------------------------------------------------------------------------------------------------------- fans
def test_a_fan_of_seeds_is_the_fan_of_one_run_on_a_fleet() -> None:
    request = Request("autoregressive", PROMPT, seed=3)
    assert [r.seed for r in seeded(request, 3)] == [3, 4, 5]
    traces = [continued("autoregressive", [MODEL], seed=r.seed) for r in seeded(request, 4)]
    whole = continued("temporal_fusion", [MODEL], {**PROMPT, "paths": 4}, 4 * HORIZON)
    scale = CODEC.encode(PROMPT).extras["scale"]
    one, other = fan_of(traces, scale), fan_of([whole], scale)
    assert one.paths_SH == pytest.approx(other.paths_SH)
    assert one.levels == (0.3, 0.4, 0.5, 0.6, 0.7)
    assert one.bands_QH == pytest.approx(np.quantile(one.paths_SH, one.levels, axis=0))
    assert whole.summary().num_target_calls < 2 * HORIZON < 4 * HORIZON


def test_a_single_path_has_no_bands() -> None:
    trace = continued("autoregressive", [MODEL])
    fan = fan_of([trace], num_steps=5)
    assert (fan.levels, fan.bands_QH.shape) == ((), (0, HORIZON))
    assert np.isfinite(fan.paths_SH).sum() == 5
    greedy = [continued("autoregressive", [MODEL], sampling=GREEDY, seed=seed) for seed in range(3)]
    assert fan_of(greedy).paths_SH.shape == (1, HORIZON)
    with pytest.raises(ValueError, match="one horizon"):
        fan_of([trace, continued("autoregressive", [MODEL], budget=5)])
    ten = fan_of([continued("autoregressive", [MODEL], budget=2, seed=seed) for seed in range(10)], num_steps=1)
    assert len(ten.levels) == 9
    assert np.isfinite(ten.bands_QH[:, 0]).all()
    assert np.isnan(ten.bands_QH[:, 1]).all()
