"""Several sequences in one call: rows equal those of each sequence alone, whatever their places and lengths."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from backend.meter import Meter
from backend.models.causal import CausalModel
from backend.models.fleet import Fleet
from backend.models.house.fleet import FleetCache, forward_fleet
from backend.models.house.llama import Llama
from backend.protocols import CausalSession, FleetSession, Prompt
from backend.types import Sampling
from tests.models.test_llama import make
from tests.toys_fleet import tiny_llama

PROMPTS = ([5, 17, 3, 44], [9], [60, 2, 2, 31, 7, 11, 90, 8, 1], [13, 13])


@pytest.fixture(scope="module", params=["llama", "llama-tied-with-biases", "qwen3"])
def model(request: pytest.FixtureRequest) -> Llama:
    return make(request.param)[0].pack(torch.float64)


def alone(model: Llama, tokens: list[int]) -> Tensor:
    """The logits behind a text, from an empty cache."""
    ids_N = torch.tensor(tokens)
    return model.forward_rows(ids_N, torch.arange(len(tokens)), model.open_cache(len(tokens)), last=1)[0][0]


def admit(model: Llama, cache: FleetCache, place: int, tokens: list[int]) -> None:
    model.forward_rows(torch.tensor(tokens), torch.arange(len(tokens)), cache.at(place), last=1)


def check(rows_AV: Tensor, model: Llama, texts: list[list[int]]) -> None:
    for row_V, text in zip(rows_AV, texts, strict=True):
        torch.testing.assert_close(row_V, alone(model, text), atol=1e-9, rtol=0)


def test_rows_equal_sequences_alone(model: Llama) -> None:
    """Texts of four lengths grow side by side for three calls."""
    cache = FleetCache(model, 4, 16)
    texts = [list(prompt) for prompt in PROMPTS]
    for place, text in enumerate(texts):
        admit(model, cache, place, text)
    for token in (7, 21, 50):
        for text in texts:
            text.append(token + len(text))
        check(forward_fleet(model, [text[-1] for text in texts], cache, 0, [True] * 4), model, texts)
    assert cache.lengths == [len(text) for text in texts]


def test_a_run_of_places_leaves_the_others_alone(model: Llama) -> None:
    cache = FleetCache(model, 4, 16)
    for place, text in enumerate(PROMPTS):
        admit(model, cache, place, text)
    before = cache.kv_LAZHSD.clone()
    rows_AV = forward_fleet(model, [4, 6], cache, 1, [True, True])
    check(rows_AV, model, [[*PROMPTS[1], 4], [*PROMPTS[2], 6]])
    assert torch.equal(cache.kv_LAZHSD[:, [0, 3]], before[:, [0, 3]])
    assert cache.lengths == [4, 2, 10, 2]


def test_padding_is_not_kept(model: Llama) -> None:
    """A free place, and one whose text has ended, stand between two that go on; then they are used again."""
    cache = FleetCache(model, 4, 10)
    for place in (0, 2, 3):
        admit(model, cache, place, PROMPTS[place])
    rows_AV = forward_fleet(model, [4, 0, 0, 6], cache, 0, [True, False, False, True])
    check(rows_AV[[0, 3]], model, [[*PROMPTS[0], 4], [*PROMPTS[3], 6]])
    assert cache.lengths == [5, 0, 9, 3]
    admit(model, cache, 1, PROMPTS[1])
    rows_AV = forward_fleet(model, [1, 2, 3, 4], cache, 0, [True] * 4)
    check(rows_AV, model, [[*PROMPTS[0], 4, 1], [*PROMPTS[1], 2], [*PROMPTS[2], 3], [*PROMPTS[3], 6, 4]])


def test_a_full_place_is_refused_unless_it_is_padding(model: Llama) -> None:
    cache = FleetCache(model, 2, 4)
    admit(model, cache, 0, PROMPTS[0])
    admit(model, cache, 1, PROMPTS[1])
    with pytest.raises(ValueError, match="place 0 holds 4 slots"):
        forward_fleet(model, [1, 1], cache, 0, [True, True])
    assert cache.lengths == [4, 1]
    rows_AV = forward_fleet(model, [1, 1], cache, 0, [False, True])
    check(rows_AV[1:], model, [[*PROMPTS[1], 1]])


def test_moved_sequences_go_on(model: Llama) -> None:
    cache = FleetCache(model, 4, 16)
    admit(model, cache, 3, PROMPTS[0])
    admit(model, cache, 1, PROMPTS[2])
    cache.move(3, 0)
    assert cache.lengths == [4, 9, 0, 0]
    check(forward_fleet(model, [8, 9], cache, 0, [True, True]), model, [[*PROMPTS[0], 8], [*PROMPTS[2], 9]])


def test_bfloat16_is_near() -> None:
    near, exact = (make("llama")[0].pack(dtype) for dtype in (torch.bfloat16, torch.float32))
    rows = []
    for model in (near, exact):
        cache = FleetCache(model, 4, 16)
        for place, text in enumerate(PROMPTS):
            admit(model, cache, place, text)
        rows.append(forward_fleet(model, [1, 2, 3, 4], cache, 0, [True] * 4))
    assert rows[0].dtype == torch.float32
    assert float((rows[0] - rows[1]).norm() / rows[1].norm()) < 0.03


def fleet(sampling: Sampling, meter: Meter) -> tuple[Fleet, CausalModel]:
    model = tiny_llama()
    prompt = Prompt(tuple(t for text in PROMPTS for t in text), {"texts": tuple(map(tuple, PROMPTS))})
    session = model.open(FleetSession, prompt, sampling, meter, 32)
    assert isinstance(session, FleetSession)
    return session, model


@pytest.mark.parametrize("sampling", [Sampling(1.0, top_k=9), Sampling(0.7, repetition_penalty=1.4), Sampling()])
def test_laws_equal_those_of_a_causal_session(sampling: Sampling) -> None:
    """Filters and penalties too; one place, several places, and padding; calls and rows as they were made."""
    meter = Meter()
    session, model = fleet(sampling, meter)
    session.reserve(4, 6)

    def law(text: int) -> Tensor:
        other = model.open(CausalSession, Prompt(tuple(session.texts[text])), sampling, Meter(), 1)
        return other.score().p_NV[0]

    torch.testing.assert_close(session.admit(0, 2).p_NV, law(0)[None], atol=1e-9, rtol=0)
    session.commit(2, 5)
    torch.testing.assert_close(session.score(range(2, 3)).p_NV, law(0)[None], atol=1e-9, rtol=0)
    session.commit(2, 6)
    session.admit(2, 0)
    session.commit(0, 7)
    p_NV = session.score(range(3)).p_NV
    torch.testing.assert_close(p_NV[[0, 2]], torch.stack([law(2), law(0)]), atol=1e-9, rtol=0)
    assert (meter.calls, meter.rows) == (4, 4 + 1 + 9 + 3)
    session.retire(0)
    session.move(2, 0)
    session.commit(0, 8)
    session.admit(1, 1)
    session.commit(1, 3)
    torch.testing.assert_close(session.score(range(2)).p_NV, torch.stack([law(0), law(1)]), atol=1e-9, rtol=0)
    assert session.texts[0] == [*PROMPTS[0], 5, 6, 8]


@pytest.mark.gpu
def test_cuda_equals_cpu() -> None:
    here = make("llama")[0]
    there = make("llama")[0].to("cuda").pack(torch.float32)
    cache = FleetCache(there, 4, 16)
    for place, text in enumerate(PROMPTS):
        there.forward_rows(
            torch.tensor(text, device="cuda"), torch.arange(len(text), device="cuda"), cache.at(place), last=1
        )
    rows_AV = forward_fleet(there, [1, 2, 3, 4], cache, 0, [True] * 4).cpu()
    for row_V, text, token in zip(rows_AV, PROMPTS, (1, 2, 3, 4), strict=True):
        torch.testing.assert_close(row_V, alone(here, [*text, token]), atol=1e-3, rtol=0)
