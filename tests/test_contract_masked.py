"""What every masked model must do: denoise purely, with laws that sum to 1, and let every masked strategy paint.

The shipped models take part where they are installed, each alone and guided, by the catalog's own list.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from backend.catalog import Catalog
from backend.entries import entries
from backend.meter import Meter
from backend.models.masked import MaskedModel, guided
from backend.protocols import PROTOCOL_NAMES, GridSession, MaskedSession, base
from backend.registry import Strategy, strategies
from backend.run import record
from backend.types import Fate, Request, Sampling
from tests.toys_masked import WARM, mural
from tests.toys_raster import PROMPT, Painters, prompt_for

KINDS = {name: protocol for protocol, name in PROTOCOL_NAMES.items()}
SHIPPED = [  # of pictures; those of series are in test_series_tokens
    entry
    for entry in entries()
    if entry.available and entry.modality == "image" and base(KINDS[entry.protocol]) is MaskedSession
]
assert SHIPPED, "none of these models is here, so nothing would be tested"
MODELS = [entry.id + guidance for entry in SHIPPED for guidance in ("", "@cfg=3")]
STRATEGIES = [s for s in strategies().values() if {*map(base, s.roles.values())} == {MaskedSession}]
GIVEN = 8  # slots known at first


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog(device="cpu", dtype="float32")


def loaded(catalog: Catalog, model_id: str) -> Any:
    return catalog.get(model_id)


def canvases(model: Any) -> list[list[int]]:
    """One that is empty, one of which some is known, one with a single open slot."""
    chance = torch.Generator().manual_seed(3)
    told = torch.randint(model.codec.size, (model.context,), generator=chance).tolist()
    return [[-1] * model.context, [*told[:GIVEN], *[-1] * (model.context - GIVEN)], [*told[:-1], -1]]


def denoised(model: Any, wanted: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    session = model.open(MaskedSession, model.codec.encode(prompt_for(model.id)), WARM, Meter(), model.context)
    return [session.denoise(canvas) for canvas in wanted]


@pytest.mark.parametrize("model_id", MODELS)
def test_denoising_is_pure(catalog: Catalog, model_id: str) -> None:
    """The order of calls and a session beside it change nothing, neither do they the canvas that is handed in."""
    model = loaded(catalog, model_id)
    wanted = canvases(model)
    before = [list(canvas) for canvas in wanted]
    there, back = denoised(model, wanted), denoised(model, wanted[::-1])[::-1]
    assert wanted == before
    assert all(torch.equal(a, b) for a, b in zip(there, back, strict=True))
    prompt, other = model.codec.encode(prompt_for(model.id)), model.codec.encode("portrait")
    left, right = (model.open(MaskedSession, p, WARM, Meter(), 1) for p in (prompt, other))
    mixed = []
    for canvas in wanted:
        right.denoise(wanted[1])
        mixed.append(left.denoise(canvas))
    assert all(torch.equal(a, b) for a, b in zip(there, mixed, strict=True))
    assert list(left.canvas_L) == list(model.codec.encode(prompt_for(model.id)).extras["canvas"])


@pytest.mark.parametrize("model_id", MODELS)
@pytest.mark.parametrize("sampling", [WARM, Sampling(), Sampling(0.7, top_k=20, top_p=0.9)], ids=["1", "0", "filters"])
def test_rows_are_laws_and_known_slots_one_hot(catalog: Catalog, model_id: str, sampling: Sampling) -> None:
    model = loaded(catalog, model_id)
    meter = Meter()
    session = model.open(MaskedSession, model.codec.encode(prompt_for(model.id)), sampling, meter, model.context)
    wanted = canvases(model)
    for canvas in wanted:
        p_LV = session.denoise(canvas)
        assert p_LV.shape == (model.context, model.codec.size)
        assert p_LV.min() >= 0
        torch.testing.assert_close(p_LV.sum(-1), torch.ones(model.context), atol=1e-5, rtol=0)
        told = torch.tensor(canvas)
        assert p_LV.argmax(-1)[told >= 0].tolist() == told[told >= 0].tolist()
        assert (p_LV.amax(-1)[told >= 0] == 1).all()
    assert meter.calls == len(wanted)
    assert meter.rows == len(wanted) * model.context * (2 if "@cfg" in model_id else 1)


@pytest.mark.parametrize("model_id", MODELS)
def test_a_law_in_bfloat16_is_nearly_that_in_float32(catalog: Catalog, model_id: str) -> None:
    model = loaded(catalog, model_id)
    wide, narrow = (denoised(m, canvases(model)) for m in (model, Catalog("cpu", "bfloat16").get(model_id)))
    for p_LV, q_LV in zip(wide, narrow, strict=True):
        assert q_LV.dtype == torch.float32
        assert float((p_LV - q_LV).abs().sum(-1).mean()) / 2 < 0.05


def test_a_model_that_is_asked_for_by_grid_knows_it(catalog: Catalog) -> None:
    for entry in SHIPPED:
        if entry.available and KINDS[entry.protocol] is GridSession:
            model = catalog.get(entry.id)
            session = model.open(GridSession, model.codec.encode(prompt_for(model.id)), WARM, Meter(), 1)
            assert session.grid[0] * session.grid[1] == model.context


# ---------------------------------------------------------------------------------------------------------- strategies
def painted(s: Strategy, models: Sequence[MaskedModel], seed: int = 3) -> Any:
    """A run over the whole canvas, with few calls where the strategy has a knob for it."""
    ids = dict(zip(s.roles, [model.id for model in models] * len(s.roles), strict=False))
    few = {"steps": 6, "bound": 64.0}
    knobs = {name: value for name, value in few.items() if name in s.knobs}
    return record(Request(s.id, PROMPT, ids, knobs, WARM, 256, seed), Painters(*models))  # type: ignore[arg-type]


@pytest.mark.parametrize("s", [pytest.param(s, id=s.id) for s in STRATEGIES])
@pytest.mark.parametrize("scale", [None, 2.0], ids=["plain", "guided"])
def test_every_masked_strategy_paints_the_whole_canvas(s: Strategy, scale: float | None) -> None:
    """Its marks rebuild the canvas that it ends with, its calls are those that were made, its seed repeats it."""
    model = mural(dtype=torch.float32)
    used = model if scale is None else guided(model, scale)
    trace, again = painted(s, [used]), painted(s, [used])
    canvas = trace.replay()
    assert len(canvas) == 256
    assert -1 not in canvas
    assert canvas == again.replay()
    told = [-1] * 256
    for step in trace.steps:
        for mark in step.marks:
            if mark.fate in (Fate.BONUS, Fate.FIXED, Fate.KEPT):
                told[mark.slot] = mark.token
            elif mark.fate is Fate.ERASED:
                told[mark.slot] = -1
    assert told == list(canvas)
    rows = sum(step.rows["target"] for step in trace.steps)
    assert rows == trace.summary().num_target_calls * 256 * (1 if scale is None else 2)
