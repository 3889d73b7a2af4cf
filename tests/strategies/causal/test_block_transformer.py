"""Block transformer: which calls it makes where a prompt ends inside a block, and what a step says it has read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from backend.run import record
from backend.types import Fate, Request, Sampling
from tests.toys import ToyCatalog, ToyCausal
from tests.toys_two_level import LENGTH, ToyTwoLevel

WARM = Sampling(temperature=1.0)


def request(prompt: str, budget: int = 7) -> Request:
    return Request("block_transformer", prompt, {"target": "toy/target"}, sampling=WARM, budget=budget, seed=5)


@pytest.mark.parametrize(("prompt", "first"), [("0", 1), ("0 1", 2), ("0 1 2", 1), ("0 1 2 1", 2)])
def test_the_first_block_is_gone_on_with(prompt: str, first: int) -> None:
    """One global call a block, one local call a token; a prompt of odd length leaves one place of its block."""
    toy = ToyTwoLevel()
    trace = record(request(prompt), ToyCatalog([toy]))
    sizes = [len(step.marks) for step in trace.steps]
    assert sizes[0] == first
    assert sum(sizes) == 7
    assert all(size == LENGTH for size in sizes[1:-1])
    assert all(mark.fate is Fate.BONUS for step in trace.steps for mark in step.marks)
    assert [step.calls["target"] for step in trace.steps] == [1] * len(sizes)
    assert [step.calls["target.tokens"] for step in trace.steps] == sizes
    assert toy.sessions[-1].local.calls == 7
    assert trace.steps[0].rows["target"] == len(prompt.split()) // LENGTH + 1


def test_the_budget_can_end_inside_a_block() -> None:
    toy = ToyTwoLevel()
    assert [len(step.marks) for step in record(request("0 1", 3), ToyCatalog([toy])).steps] == [2, 1]


def test_nothing_is_written_behind_an_end_token() -> None:
    """The local model is not called once the text has ended, though its block has places left."""
    toy = ToyTwoLevel(seed=4, end=frozenset({2}))
    for seed in range(12):
        trace = record(replace(request("0 1", 16), seed=seed), ToyCatalog([toy]))
        assert toy.sessions[-1].local.calls == len(trace.written())


def test_the_text_is_that_of_plain_decoding_with_the_same_seed() -> None:
    plain = record(replace(request("0 1 2", 9), strategy="autoregressive"), ToyCatalog([ToyCausal()]))
    assert record(request("0 1 2", 9), ToyCatalog([ToyTwoLevel()])).written() == plain.written()


def test_what_was_read_is_told_beside_what_a_plain_model_reads() -> None:
    """In the toy a byte is a row: a global call at block k reads k + 1, local calls read 1 and 2, a plain one all."""
    trace = record(request("0 1 2 0", 6), ToyCatalog([ToyTwoLevel()]))
    assert [step.figures["kv_bytes"] for step in trace.steps] == [3 + 1 + 2, 4 + 1 + 2, 5 + 1 + 2]
    assert [step.figures["plain_kv_bytes"] for step in trace.steps] == [4 + 5, 6 + 7, 8 + 9]
