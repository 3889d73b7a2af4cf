"""The datastore: its suffix array, its law of what followed, its file, and what the shipped one may not hold."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models

from backend.catalog import ASSETS, CODEC, STORE, Catalog
from backend.chance import Ask, Seeded
from backend.codecs.text import TextCodec
from backend.errors import UserError
from backend.meter import Meter
from backend.models.house.datastore import (
    LONGEST,
    Datastore,
    StoreModel,
    StoreSession,
    load_datastore,
    save_datastore,
    suffix_order,
)
from backend.protocols import CausalSession, Prompt
from backend.sampling import distribution
from backend.strategies.causal.retrieval import retrieval
from backend.train.smollm2_corpus import Corpus
from backend.train.smollm2_datastore import answers, fill
from backend.train.smollm2_text import GIVEN, GREEDY, SAMPLED
from backend.types import Sampling

VOCAB = 6
WARM = Sampling(temperature=1.0)


def store_of(ids: list[int]) -> Datastore:
    ids_P = np.array(ids, np.uint16)
    return Datastore(ids_P, suffix_order(ids_P), VOCAB)


def model_of(ids: list[int], model_id: str = "tiny/store") -> StoreModel:
    codec = TextCodec(Tokenizer(models.WordLevel({str(i): i for i in range(VOCAB)}, unk_token="0")))
    store = store_of(ids)
    return StoreModel(model_id, store, codec)


def open_store(
    ids: list[int], prompt: list[int], sampling: Sampling = WARM, meter: Meter | None = None
) -> StoreSession:
    return model_of(ids).open(CausalSession, Prompt(tuple(prompt)), sampling, meter or Meter(), room=32)


def counted(ids: list[int], text: list[int]) -> dict[int, float]:
    """The law by its definition: what followed the longest ending, found by looking everywhere."""
    for m in range(min(LONGEST, len(text)), -1, -1):
        ending = text[len(text) - m :]
        after = Counter(ids[i + m] for i in range(len(ids) - m) if ids[i : i + m] == ending)
        if after:
            return {token: n / after.total() for token, n in after.items()}
    raise AssertionError("an empty store")


def random_ids(seed: int, size: int) -> list[int]:
    rng = Random(seed)
    return [rng.randrange(VOCAB - 1) for _ in range(size)]


@pytest.mark.parametrize("ids", [[3], [1, 1, 1, 1], [2, 1, 2, 1, 2], random_ids(0, 300), [1, 2, 3] * 60])
def test_suffix_array_is_sorted(ids: list[int]) -> None:
    order = suffix_order(np.array(ids, np.uint16)).tolist()
    assert order == sorted(range(len(ids)), key=lambda i: ids[i:])


@pytest.mark.parametrize("seed", range(5))
def test_law_is_what_followed_the_longest_ending(seed: int) -> None:
    ids = random_ids(seed, 200)
    texts = [random_ids(100 + i, 1 + i % 9) for i in range(30)] + [ids[-4:], ids[20:60], [VOCAB - 1], [1, VOCAB - 1]]
    for text in texts:
        p_V = open_store(ids, text).score().p_NV[0]
        expected = counted(ids, text)
        assert p_V.tolist() == pytest.approx([expected.get(token, 0.0) for token in range(VOCAB)])


def test_rows_of_chains_and_trees_equal_one_by_one() -> None:
    """The same rows in one call, and commits from the middle of a tree."""
    ids = random_ids(7, 400)
    session = open_store(ids, [1, 2])
    tokens, parents = [3, 4, 0, 1, 2, 2], [-1, -1, 0, 2, 1, 0]
    rows = session.score(tokens, parents).p_NV
    for i in range(len(tokens)):
        path, at = list[int](), i
        while at >= 0:
            path.insert(0, tokens[at])
            at = parents[at]
        assert torch.equal(rows[i + 1], open_store(ids, [1, 2, *path]).score().p_NV[0])
    session.commit([3, 2, 4])
    assert torch.equal(session.score([0]).p_NV[1], open_store(ids, [1, 2, 3, 2, 4, 0]).score().p_NV[0])


def test_calls_and_filters_are_those_of_any_model() -> None:
    meter = Meter()
    session = open_store([1, 2, 1, 2, 1, 3], [0, 1], Sampling(temperature=0.0), meter)
    scores = session.score([2])
    assert scores.p_NV[0].tolist() == [0, 0, 1, 0, 0, 0]
    assert scores.options(0, 3) == ((2, pytest.approx(2 / 3)), (3, pytest.approx(1 / 3)))  # before temperature
    assert (meter.calls, meter.rows) == (1, 2), "a row is an ending looked up"
    session.score([2])
    session.commit([2])
    session.score()
    assert meter.calls == 1, "nothing is looked up twice"


def test_rows_that_are_read_are_those_of_any_session() -> None:
    """Filters and the penalty for what the text and the drafted path hold, against the same logits in a table."""
    sampling = Sampling(temperature=0.7, top_p=0.9, repetition_penalty=1.5)
    ids = random_ids(3, 300)
    scores = open_store(ids, [1, 2], sampling).score([3, 4, 0], [-1, 0, -1])
    paths = [[1, 2], [1, 2, 3], [1, 2, 3, 4], [1, 2, 0]]
    assert torch.equal(scores.p_NV, distribution(scores.raw_NV, sampling, paths))
    for row, path in enumerate(paths):
        wanted = counted(ids, path)
        assert dict(scores.options(row, VOCAB)) == pytest.approx(wanted, abs=1e-6)
        assert scores.raw_NV[row].softmax(0).tolist() == pytest.approx([wanted.get(t, 0.0) for t in range(VOCAB)])


def test_unknown_tokens_are_refused() -> None:
    for prompt in ([], [VOCAB]):
        with pytest.raises(UserError, match="tiny/store knows tokens 0 to 5"):
            open_store([1, 2], prompt)


def test_a_file_round_trip_and_a_missing_file(tmp_path: Path) -> None:
    ids_P = np.array(random_ids(1, 500), np.uint16)
    save_datastore(tmp_path / "store.npz", ids_P, VOCAB)
    store = load_datastore(tmp_path / "store.npz")
    assert (store.ids_P == ids_P).all()
    assert (store.order_P == suffix_order(ids_P)).all()
    assert store.vocab_size == VOCAB
    with pytest.raises(UserError, match=r"no datastore at .*python -m backend\.train\.smollm2_datastore"):
        load_datastore(tmp_path / "none.npz")


def test_retrieval_drafts_the_stores_own_text_whole() -> None:
    """Target and store agree on a text whose pairs never repeat: one call writes it to the end of the budget."""
    text = [1, 2, 3, 4, 1, 3, 2, 4, 4, 5]
    target, store = (open_store(ids, text[:3], Sampling()) for ids in ([*text, *text], text))
    steps = list(retrieval(target, store, Ask(6, Seeded(0))))
    assert target.tokens == store.tokens == text[:9]
    assert len(steps) == 1


def test_only_answers_that_were_not_held_out_are_stored() -> None:
    ids = np.array([2, 5, 5, 7, 8, 2, 2, 5, 9, 9, 2, 5, 6, 6, 6], np.uint16)
    roles = np.array([GIVEN] * 3 + [GREEDY] * 3 + [GIVEN] * 2 + [GREEDY] * 2 + [GIVEN] * 2 + [SAMPLED] * 3, np.uint8)
    none = np.zeros(0)
    bounds, held = np.array([0, 6, 10, 15]), np.array([False, True, False])
    corpus = Corpus(ids, roles, none, none, bounds, held, before=(1,), between=(2, 4))
    assert [text.tolist() for text in answers(corpus)] == [[2, 4, 7, 8], [2, 4, 6, 6, 6]]
    assert fill(corpus, 8)[0].tolist() == [2, 4, 7, 8]
    assert fill(corpus, 9)[1] == 2


@pytest.mark.skipif(not (ASSETS / f"{STORE}.npz").exists(), reason="the datastore is not built")
def test_the_shipped_store() -> None:
    """Small, whole, of the target's vocabulary, and without the bench's prompts."""
    path = ASSETS / f"{STORE}.npz"
    assert path.stat().st_size < 2_000_000
    store = load_datastore(path)
    card = json.loads(path.with_suffix(".json").read_text())
    assert card["tokens"] == len(store.ids_P) == store.num_params
    assert sorted(store.order_P.tolist()) == list(range(len(store.ids_P)))
    rng = Random(0)
    for _ in range(200):
        i = rng.randrange(len(store.order_P) - 1)
        a, b = (store.ids_P[place : place + 400].tolist() for place in store.order_P[i : i + 2])
        assert a < b
    codec = TextCodec.from_folder(CODEC)
    assert store.vocab_size == codec.size
    for line in (ASSETS / "prompts.jsonl").read_text().splitlines():
        words = codec.encode({"text": json.loads(line)["prompt"], "chat": False}).tokens
        assert len(store.find(words)) == 0
    catalog = Catalog(device="cpu")
    assert catalog.default("store", "local/smollm2-135m") == STORE
    assert catalog.get(STORE).num_params == card["num_params"]
    assert next(entry for entry in catalog.entries() if entry.id == STORE).available
