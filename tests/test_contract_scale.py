"""What every model of maps must do: laws that sum to 1, sessions of their own, and pictures by every scale strategy.

The shipped models take part where they are installed, each alone and guided, by the catalog's own list.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from backend.catalog import Catalog
from backend.entries import entries
from backend.meter import Meter
from backend.models.scales import ScaleModel, guided
from backend.protocols import PROTOCOL_NAMES, FlexibleSession, RedrawingSession, ScaleSession, base
from backend.registry import Strategy, strategies
from backend.run import record
from backend.types import Fate, Request, Sampling
from tests.toys_raster import PROMPT, Painters
from tests.toys_scales import WARM, scales_model

KINDS = {name: protocol for protocol, name in PROTOCOL_NAMES.items()}
SHIPPED = [entry for entry in entries() if entry.available and base(KINDS[entry.protocol]) is ScaleSession]
assert SHIPPED, "none of these models is here, so nothing would be tested"
MODELS = [entry.id + guidance for entry in SHIPPED for guidance in ("", "@cfg=3")]
STRATEGIES = [s for s in strategies().values() if {*map(base, s.roles.values())} == {ScaleSession}]
OPTIONS: dict[type, dict[str, Any]] = {
    ScaleSession: {},
    FlexibleSession: {"kind": "flat"},
    RedrawingSession: {"kind": "flat", "markov": True, "redraws": 1},
}


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog(device="cpu", dtype="float32")


def loaded(catalog: Catalog, model_id: str) -> Any:
    return catalog.get(model_id)


def opened(model: Any, raw: Any = PROMPT, sampling: Sampling = WARM, meter: Meter | None = None) -> Any:
    return model.open(ScaleSession, model.codec.encode(raw), sampling, meter or Meter(), model.context)


def told(model: Any) -> list[list[int]]:
    """The maps of some canvas."""
    chance = torch.Generator().manual_seed(3)
    sizes = opened(model).sizes
    return [torch.randint(model.codec.size, (h * w,), generator=chance).tolist() for h, w in sizes]


def laws(model: Any, raw: Any = PROMPT, sampling: Sampling = WARM) -> list[torch.Tensor]:
    session, found = opened(model, raw, sampling), []
    for tokens in told(model):
        found.append(session.score().clone())
        session.commit(tokens)
    return found


# -------------------------------------------------------------------------------------------------------------- models
def test_the_catalog_offers_models_of_every_protocol() -> None:
    assert {KINDS[entry.protocol] for entry in SHIPPED} == {ScaleSession, FlexibleSession, RedrawingSession}


@pytest.mark.parametrize("model_id", MODELS)
@pytest.mark.parametrize("sampling", [WARM, Sampling(), Sampling(0.7, top_k=20, top_p=0.9)], ids=["1", "0", "filters"])
def test_rows_are_laws(catalog: Catalog, model_id: str, sampling: Sampling) -> None:
    model = loaded(catalog, model_id)
    for p_NV, tokens in zip(laws(model, sampling=sampling), told(model), strict=True):
        assert p_NV.shape == (len(tokens), model.codec.size)
        assert p_NV.dtype == torch.float32
        assert p_NV.min() >= 0
        torch.testing.assert_close(p_NV.sum(-1), torch.ones(len(tokens)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("model_id", MODELS)
def test_sessions_never_interact(catalog: Catalog, model_id: str) -> None:
    """The laws of one are the same, bit for bit, with another one written turn by turn beside it."""
    model = loaded(catalog, model_id)
    alone, other = laws(model), opened(model, "portrait")
    mixed = opened(model)
    for p_NV, tokens in zip(alone, told(model), strict=True):
        other.score()
        other.commit(tokens[::-1])
        assert torch.equal(mixed.score(), p_NV)
        mixed.commit(tokens)


@pytest.mark.parametrize("model_id", MODELS)
def test_maps_committed_unread_change_no_law(catalog: Catalog, model_id: str) -> None:
    model, parts = loaded(catalog, model_id), told(loaded(catalog, model_id))
    meter = Meter()
    late = opened(model, meter=meter)
    for tokens in parts[:-2]:
        late.commit(tokens)
    torch.testing.assert_close(late.score(), laws(model)[-2], atol=1e-4, rtol=0)
    assert meter.calls == 1


@pytest.mark.parametrize("model_id", MODELS)
def test_a_law_in_bfloat16_is_nearly_that_in_float32(catalog: Catalog, model_id: str) -> None:
    wide, narrow = laws(loaded(catalog, model_id)), laws(Catalog("cpu", "bfloat16").get(model_id))
    for p_NV, q_NV in zip(wide, narrow, strict=True):
        assert q_NV.dtype == torch.float32
        assert float((p_NV - q_NV).abs().sum(-1).mean()) / 2 < 0.1


@pytest.mark.parametrize("model_id", MODELS)
def test_a_model_that_can_redraw_does(catalog: Catalog, model_id: str) -> None:
    model = loaded(catalog, model_id)
    if RedrawingSession not in model.speaks:
        assert KINDS[next(e for e in SHIPPED if e.id == model_id.partition("@")[0]).protocol] is not RedrawingSession
        return
    session = model.open(RedrawingSession, model.codec.encode(PROMPT), WARM, Meter(), model.context)
    for tokens in told(model)[:4]:
        session.commit(tokens)
    tokens = [*told(model)[4][:9], *[-1] * (len(told(model)[4]) - 9)]
    p_NV = session.redraw(tokens)
    torch.testing.assert_close(p_NV.sum(-1), torch.ones(len(tokens)), atol=1e-5, rtol=0)
    assert p_NV.argmax(-1)[:9].tolist() == tokens[:9]
    assert (p_NV[:9].amax(-1) == 1).all()


@pytest.mark.parametrize("model_id", MODELS)
def test_the_picture_is_that_of_its_canvas(catalog: Catalog, model_id: str) -> None:
    model = loaded(catalog, model_id)
    trace = record(Request("next_scale", PROMPT, {"target": model_id}, {}, WARM, model.context, 3), catalog)
    canvas = trace.replay()
    assert len(canvas) == model.context
    last = np.asarray(canvas[-256:])[None]
    np.testing.assert_array_equal(model.codec.decode(canvas)[2::4, 2::4], model.codec.pyramid.palette.decode(last)[0])


# ---------------------------------------------------------------------------------------------------------- strategies
def painted(s: Strategy, models: Sequence[ScaleModel], seed: int = 3) -> Any:
    ids = dict(zip(s.roles, [model.id for model in models] * len(s.roles), strict=False))
    return record(Request(s.id, PROMPT, ids, {}, WARM, models[0].context, seed), Painters(*models))  # type: ignore[arg-type]


@pytest.mark.parametrize("s", [pytest.param(s, id=s.id) for s in STRATEGIES])
@pytest.mark.parametrize("scale", [None, 2.0], ids=["plain", "guided"])
def test_every_scale_strategy_paints_the_whole_canvas(s: Strategy, scale: float | None) -> None:
    """Its marks rebuild the canvas, every slot's last token stands, its seed repeats it."""
    model = scales_model(dtype=torch.float32, **OPTIONS[s.roles["target"]])
    used = model if scale is None else guided(model, scale)
    trace, again = painted(s, [used]), painted(s, [used])
    canvas = trace.replay()
    assert len(canvas) == model.context
    assert -1 not in canvas
    assert canvas == again.replay()
    stands = [-1] * model.context
    for step in trace.steps:
        for mark in step.marks:
            if mark.fate.commits or mark.fate is Fate.ERASED:
                stands[mark.slot] = -1 if mark.token is None else mark.token
    assert stands == list(canvas)
    assert sum(step.calls["target"] for step in trace.steps) > 0
    film = model.codec.film(canvas)
    assert len(film) == len(model.net.pyramid.sizes)
    np.testing.assert_array_equal(film[-1], model.codec.decode(canvas))


@pytest.mark.parametrize("s", [pytest.param(s, id=s.id) for s in STRATEGIES])
def test_only_models_that_can_are_offered(s: Strategy) -> None:
    for protocol, options in OPTIONS.items():
        speaks = scales_model(**options).speaks
        wanted = s.roles["target"]
        assert (wanted in speaks) == (wanted in (ScaleSession, protocol))
