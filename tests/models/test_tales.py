"""Short stories: their grammar, their tokenizer, how they become batches, what is learned from them and measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from torch.nn import functional as F

from backend.catalog import ASSETS, TALES, Catalog
from backend.codecs.text import TextCodec
from backend.errors import UserError
from backend.models.house.llama import Llama, LlamaConfig
from backend.models.house.own import load_own
from backend.models.house.two_level import TwoLevel, TwoLevelConfig
from backend.registry import strategies
from backend.run import record
from backend.train import tales
from backend.train.smollm2_text import ASKED, GIVEN, GREEDY
from backend.train.tales_measure import agreement, distinct, held_out_loss
from backend.train.tales_text import (
    Draft,
    Story,
    copy_stories,
    full_sentences,
    learn_tokenizer,
    read_stories,
    save_codec,
    story_task,
)
from backend.types import Request, Sampling

SMALL = {
    "llama": LlamaConfig(40, 16, 1, 2, 2, 8, 24, 64),
    "two-level": TwoLevelConfig(40, 16, 1, 2, 24, 64),
}
RECIPE = replace(tales.RECIPES["cpu"]["tales"], trainers=1, steps=6, batch_tokens=64, rate=1e-2)


def shelf(count: int = 30, held: int = 4) -> tales.Shelf:
    stream = np.random.default_rng(1)
    told = [stream.integers(1, 40, stream.integers(5, 30)).tolist() for _ in range(count)]
    tokenizer = learn_tokenizer([Story("a fox ran home. " * 9, True, False)])
    return tales.Shelf(tokenizer, told[held:], told[:held])


def test_tasks_are_sentences_of_many_kinds() -> None:
    tasks = [story_task(Random(seed)) for seed in range(300)]
    assert all(asked.endswith(".") and "  " not in asked and " ." not in asked for asked, _ in tasks)
    assert 100 < sum(opening == "" for _, opening in tasks) < 200
    assert len(set(tasks)) > 290


def test_a_story_that_turns_in_circles_is_seen() -> None:
    def draft(ids: list[int]) -> Draft:
        return Draft(Random(1), "", [7] * 50 + ids, [], 50)

    assert draft([1, 2, 3] * 20).circles
    assert not draft(list(range(60))).circles
    assert not draft([1, 2, 3]).circles


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("He ran. She sat down and", "He ran."),
        ('"Come!" he said. "No', '"Come!" he said.'),
        ('He asked: "Why?" Then', 'He asked: "Why?"'),
        ("He ran.", "He ran."),
        ("no end", ""),
    ],
)
def test_full_sentences(text: str, kept: str) -> None:
    assert full_sentences(text) == kept


def test_any_text_can_be_encoded(tmp_path: Path) -> None:
    """Bytes that no story holds have tokens too; the folder is one that the text codec reads, and 0 ends a story."""
    save_codec(learn_tokenizer([Story("a fox ran home. " * 9, True, False)]), tmp_path)
    codec = TextCodec.from_folder(tmp_path)
    text = "Ærø — 日本 ☃ \n\t x"
    assert codec.decode(codec.encode(text).tokens) == text
    assert codec.end == {0}
    assert codec.piece(0) == "<|end|>"


def test_stories_of_conversations_are_copied(tmp_path: Path) -> None:
    """Those that were asked for as stories, their answers only, as far as they are full sentences."""
    tokenizer = learn_tokenizer([Story("Tell me a story. Write code. One day a fox ran home and slept.", True, False)])
    told = "One day a fox ran home and slept. " * 3 + " ".join("abcdefghijklmnopqrstuvwxyz") + ". One"
    ids, roles, starts, kinds = [], [], [], []
    for kind, asked in (("story", "Tell me a story."), ("story", "Write a poem."), ("code", "Tell me a story.")):
        starts.append(len(ids))
        kinds.append(kind)
        for text, role in ((asked, GIVEN), ("no", ASKED), (told, GREEDY)):
            new = tokenizer.encode(text).ids
            ids += new
            roles += [role] * len(new)
    (tmp_path / "talks" / "0").mkdir(parents=True)
    np.savez(
        tmp_path / "talks" / "0" / "00000.npz",
        ids=np.array(ids, np.uint16), roles=np.array(roles, np.uint8), starts=np.array(starts), kinds=np.array(kinds),
    )  # fmt: skip
    copy_stories(tmp_path / "talks", tokenizer, tmp_path / "stories" / "before")
    [story] = read_stories(tmp_path / "stories")
    assert story.text == told.removesuffix(" One")
    assert not story.ended


def test_trainers_share_the_batches_and_go_on_where_they_were() -> None:
    """Two trainers see every story once an epoch; a later start gives the later batches."""
    books = shelf()
    recipe = replace(RECIPE, trainers=2)

    def batches(rank: int, step: int, count: int) -> list[torch.Tensor]:
        source = books.batches(recipe, rank, step)
        return [next(source) for _ in range(count)]

    both = [batch for pair in zip(batches(0, 0, 40), batches(1, 0, 40), strict=True) for batch in pair]
    seen: list[tuple[int, ...]] = []
    while len(seen) < len(books.told):
        seen += [tuple(t for t in row if t != tales.GONE) for row in both.pop(0).tolist()]
    assert sorted(seen) == sorted(map(tuple, books.told))
    for late, early in zip(batches(1, 7, 5), batches(1, 0, 12)[7:], strict=True):
        assert torch.equal(late, early)


def test_batches_are_whole_blocks() -> None:
    ids_BT = tales.padded([[1, 2, 3, 4, 5], [6]])
    assert ids_BT.shape == (2, 8)
    assert ids_BT[1].tolist() == [6, *[tales.GONE] * 7]


@pytest.mark.parametrize("kind", SMALL)
def test_both_kinds_of_model_are_judged_on_the_same_tokens(kind: str) -> None:
    """All but the first of each story, each by the law that stands before it; padding changes nothing."""
    torch.manual_seed(2)
    model = tales.new_model(SMALL[kind])
    stories = [[5, 6, 7, 8, 9], [1, 2, 3]]
    logits_MV, target_M = tales.laws_of(model, tales.padded(stories))
    assert target_M.tolist() == [6, 7, 8, 9, 2, 3]
    alone = torch.cat([tales.laws_of(model, tales.padded([story]))[0] for story in stories])
    torch.testing.assert_close(logits_MV, alone, atol=0.02, rtol=0.02)


def test_held_out_loss_and_agreement() -> None:
    books = shelf()
    models = [tales.new_model(config) for config in SMALL.values()]
    for model in models:
        told = held_out_loss(model, books, tales.laws_of)
        nats = torch.cat(
            [F.cross_entropy(*tales.laws_of(model, tales.padded([s])), reduction="none") for s in books.held]
        )
        assert told["nats_per_token"] == pytest.approx(nats.mean().item(), abs=1e-3)
        assert told["tokens"] == sum(len(story) - 1 for story in books.held)
    same = agreement(models[0], models[0], books, tales.laws_of)
    assert same == {"agreement": 1.0, "overlap_temperature_1": pytest.approx(1.0, abs=1e-4)}


def test_distinct() -> None:
    assert distinct([[1, 2, 1, 2, 1]], 2) == 0.5
    assert distinct([[1, 2, 3], [1, 1, 1]], 1) == round((1 + 1 / 3) / 2, 3)


@pytest.mark.parametrize("kind", SMALL)
def test_training_learns_and_resumes(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after four steps and gone on with, it ends as if it had never stopped."""
    books = shelf()
    whole, halves = (tales.TaleJob(RECIPE, "cpu", tmp_path, name, tmp_path) for name in ("tales", "block"))

    def fresh() -> Llama | TwoLevel:
        torch.manual_seed(3)
        return tales.new_model(SMALL[kind])

    once = fresh()
    before = held_out_loss(once, books, tales.laws_of)["nats_per_token"]
    train_loss = tales.loss_of(once, tales.padded(books.told[:8]), None).item()
    tales.train(whole, once, books, None, 0)
    assert tales.loss_of(once, tales.padded(books.told[:8]), None).item() < train_loss
    assert before > 0
    monkeypatch.setattr(tales, "SAVED_EVERY", 2)
    stopped = books.batches

    def four(*args: object) -> object:
        source = stopped(*args)  # type: ignore[arg-type]
        for _ in range(4):
            yield next(source)
        raise KeyboardInterrupt

    monkeypatch.setattr(books, "batches", four)
    with pytest.raises(KeyboardInterrupt):
        tales.train(halves, fresh(), books, None, 0)
    monkeypatch.setattr(books, "batches", stopped)
    again = fresh()
    tales.train(halves, again, books, None, 0)
    for name, weight in again.state_dict().items():
        torch.testing.assert_close(weight, once.state_dict()[name])


# ------------------------------------------------------------------------------------------------------- what ships
SHIPPED = [name for name in TALES if (ASSETS / f"{name}.json").exists()]


@pytest.mark.parametrize("model_id", SHIPPED)
def test_shipped_cards_tell_the_truth(model_id: str) -> None:
    card = json.loads((ASSETS / f"{model_id}.json").read_text())
    model = load_own(ASSETS / f"{model_id}.safetensors", torch.float32)
    assert card["num_params"] == model.num_params
    assert card["held_out"]["nats_per_token"] > 0
    tokenizer = Tokenizer.from_file(str(ASSETS / "house" / "tales-codec" / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == model.vocab_size


@pytest.mark.skipif(len(SHIPPED) < len(TALES), reason="the models of short stories are not here")
def test_losses_can_be_compared() -> None:
    """The block transformer and its twin were measured on the same tokens, and neither is far from the other."""
    block, twin = (
        json.loads((ASSETS / f"house/tales-{name}.json").read_text())["held_out"] for name in ("block", "twin")
    )
    assert (block["stories"], block["tokens"]) == (twin["stories"], twin["tokens"])
    assert abs(block["nats_per_token"] / twin["nats_per_token"] - 1) < 0.1


@pytest.mark.skipif(len(SHIPPED) < len(TALES), reason="the models of short stories are not here")
@pytest.mark.parametrize("model_id", ["house/tales", "house/tales-block"])
def test_strategies_run_on_it_with_its_own_draft(model_id: str) -> None:
    """Greedy text is plain decoding's; roles that belong to SmolLM2 are refused in a sentence."""
    catalog = Catalog("cpu", "float32")
    prompt = "One sunny morning, a little fox named Finn"

    def text(strategy: str) -> list[int]:
        return record(
            Request(strategy, prompt, {"target": model_id}, sampling=Sampling(), budget=24), catalog
        ).written()

    assert catalog.default("draft", model_id) == "house/tales-draft"
    assert text("speculative") == text("prompt_lookup") == text("autoregressive")
    if model_id == "house/tales-block":
        assert text("block_transformer") == text("autoregressive")
    role = next(role for role in strategies()["medusa"].roles if role != "target")
    with pytest.raises(UserError, match=f"no {role.replace('_', ' ')} model for {model_id}"):
        text("medusa")
