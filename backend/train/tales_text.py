"""Short stories that SmolLM2 writes by itself, and the tokenizer learned from them: what house/tales is trained on.

Each story answers an instruction of a small grammar of our own; for half of them the grammar also writes the first
words. SmolLM2 rarely finds an end, so behind the first paragraph that reaches CLOSE tokens the grammar begins a last
one. Many stories advance together, one token each per step (see `smollm2_text`). One that turns in circles is given
up, and one that is still open at the end of its room is cut behind its last full sentence and marked as not ended.
Shards are numbered .jsonl files, and writing resumes behind the last one.

Letters: B stories in flight.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from backend.models.house.llama import Llama
from backend.train.smollm2_text import ASKED, ASSISTANT, END, GIVEN, SLOTS, TOP, USER, BatchDecoder

VOCAB = 2048
END_OF_STORY = "<|end|>"
TEMPERATURE = 0.7
LOOP, LEAST = 40, 16  # a story whose last LOOP tokens hold fewer than LEAST different ones turns in circles
CLOSE = 130  # tokens from which on a paragraph's end is followed by the last one
NEWLINE = 198  # SmolLM2's token
ASKED_FOR = re.compile(r"\b(story|fable|legend|novel)\b")  # of older conversations
SHORTEST = 60  # words of a story that is kept

HEROES = """a little fox|a small mouse|a young rabbit|a brown bear|a curious cat|a brave dog|a shy owl|a tiny bird
an old turtle|a lonely dragon|a small robot|a farmer|a baker|a fisherman|a young girl|a young boy|a grandmother
a pair of twins|a sailor|a king|a princess|a gardener|a painter|a shepherd|a squirrel|a duck|a horse|a hedgehog"""
NAMES = "Mia|Tom|Lily|Max|Luna|Ben|Ella|Sam|Nora|Leo|Ruby|Finn|Clara|Oscar|Rosie|Jack|Anna|Theo|Maya|Hugo"
GOALS = """finds a red ball|loses a golden key|wants to learn to fly|makes a new friend|finds an old map
is afraid of the dark|wants to win a race|hears a strange sound at night|plants a magic seed|builds a small boat
gets lost in the forest|wants to help a friend|finds a hidden door|saves the village from a flood|bakes a big cake
wants to see the sea|learns to share|finds a lost kitten|cannot sleep|wants to build a house|loves to sing
waits for the snow|meets a friendly giant|finds a shiny stone|tells a small lie|wants to catch a star
has to cross the river|opens a little shop|looks after a sick bird|gives away a warm coat"""
PLACES = """in the forest|by the sea|in a small village|on a farm|in the mountains|on a winter day|in the garden
on an island|near the river|in the rain|on a summer night|in a big city||||"""
CLOSINGS = """From that day on,|In the end,|And so,|That night,|At last,|After that,|The next morning,
When it was all over,|Everyone was happy, because|Now"""
TIMES = "One day|One morning|Once upon a time|One sunny morning|Long ago|One winter night|Every day|In the spring"


def _pick(rng: Random, choices: str) -> str:
    return rng.choice([choice for line in choices.split("\n") for choice in line.split("|")])


def story_task(rng: Random) -> tuple[str, str]:
    """An instruction, and the first words of its story or "" where the model finds them."""
    hero, goal, place, name = _pick(rng, HEROES), _pick(rng, GOALS), _pick(rng, PLACES), _pick(rng, NAMES)
    named = f"{hero} named {name}" if rng.random() < 0.7 else hero
    about = f"{named} who {goal} {place}".strip()
    asked = rng.choice(("Write a short story about {}.", "Tell a short story for children about {}.")).format(about)
    time_ = _pick(rng, TIMES)
    there = f"there was {named}" if time_ in ("Once upon a time", "Long ago") else named
    return asked, rng.choice(("", f"{time_}, {there}"))


@dataclass
class Draft:
    """A story while it is written: its tokens with the instruction's, those still to be given, where it begins."""

    rng: Random
    asked: str
    ids: list[int]
    forced: list[int]
    start: int
    closing: bool = False

    @property
    def circles(self) -> bool:
        """Whether the last tokens repeat a few."""
        tail = self.ids[self.start :][-LOOP:]
        return len(tail) == LOOP and len(set(tail)) < LEAST


class StoryWriter:
    """Writes stories and yields them finished.

    Args:
        model: SmolLM2, packed. tokenizer: its own. seed: of all choices. batch: B.
    """

    def __init__(self, model: Llama, tokenizer: Tokenizer, seed: int, batch: int) -> None:
        self.tokenizer, self.seed, self.number, self.device = tokenizer, seed, 0, model.device
        self.prefix = tokenizer.encode(USER).ids
        self.decoder = BatchDecoder(model, batch, self.prefix)
        self.running = [self._open() for _ in range(batch)]

    def _open(self) -> Draft:
        self.number += 1
        rng = Random(f"{self.seed}/{self.number}")
        asked, opening = story_task(rng)
        turn, first = (self.tokenizer.encode(text).ids for text in (asked + ASSISTANT, opening))
        return Draft(rng, asked, list(self.prefix), turn + first, len(self.prefix) + len(turn))

    def step(self) -> Iterator[dict[str, Any]]:
        """Advance every story by one token; yield those that end and open others in their places."""
        ids_B = torch.tensor([d.ids[-1] for d in self.running], device=self.device)
        slots_B = torch.tensor([len(d.ids) - 1 for d in self.running], device=self.device)
        top_BK, logp_BK = (x.cpu().numpy() for x in self.decoder.step(ids_B, slots_B))
        for b, draft in enumerate(self.running):
            self._advance(draft, top_BK[b], logp_BK[b])
            if draft.circles:
                self.running[b] = self._open()
            elif self._ended(draft) or len(draft.ids) == SLOTS:
                if story := self._finish(draft):
                    yield story
                self.running[b] = self._open()

    def _advance(self, draft: Draft, top_K: np.ndarray, logp_K: np.ndarray) -> None:
        """Append the next token, given or drawn."""
        if draft.forced:
            draft.ids.append(draft.forced.pop(0))
            return
        odds = np.exp(logp_K.astype(np.float64) / TEMPERATURE)
        at = np.searchsorted(np.cumsum(odds / odds.sum()), draft.rng.random()).clip(max=TOP - 1)
        draft.ids.append(int(top_K[at]))
        written = draft.ids[draft.start :]
        if not draft.closing and len(written) >= CLOSE and written[-2:] == [NEWLINE, NEWLINE]:
            draft.closing, draft.forced = True, self.tokenizer.encode(_pick(draft.rng, CLOSINGS)).ids

    @staticmethod
    def _ended(draft: Draft) -> bool:
        """Whether the model ended it, or the last paragraph."""
        told = len(draft.ids) > draft.start and not draft.forced
        return told and (draft.ids[-1] == END or (draft.closing and draft.ids[-1] == NEWLINE))

    def _finish(self, draft: Draft) -> dict[str, Any] | None:
        """The story as it is stored, or None if it is too short."""
        text = self.tokenizer.decode(draft.ids[draft.start :], skip_special_tokens=True).strip()
        ended = self._ended(draft)
        if not ended:
            text = full_sentences(text)
        told = {"asked": draft.asked, "text": text, "ended": ended, "tokens": len(draft.ids) - draft.start}
        return told if len(text.split()) >= SHORTEST else None


def write_stories(
    model: Llama, tokenizer: Tokenizer, folder: Path, tokens: int, seed: int, batch: int, shard: int = 50
) -> None:
    """Write shards of about `shard` stories until the folder holds stories of `tokens` tokens of SmolLM2's."""
    folder.mkdir(parents=True, exist_ok=True)
    made = sorted(folder.glob("[0-9]*.jsonl"))
    held, index = written(folder), len(made)
    writer = StoryWriter(model, tokenizer, seed + index, batch)
    stories: list[dict[str, Any]] = []
    began, steps = time.monotonic(), 0
    while held < tokens:
        stories.extend(writer.step())
        steps += 1
        if len(stories) >= shard:
            _save(folder / f"{index:05d}.jsonl", stories)
            held += sum(story["tokens"] for story in stories)
            index, stories = index + 1, []
            speed = steps * batch / (time.monotonic() - began)
            print(f"{held:,} of {tokens:,} tokens in stories, {speed:.0f} a second", flush=True)


def written(folder: Path) -> int:
    """Tokens of SmolLM2's in the shards of a folder."""
    paths = sorted(folder.glob("[0-9]*.jsonl"))
    return sum(json.loads(line)["tokens"] for path in paths for line in path.read_text(encoding="utf-8").splitlines())


def _save(path: Path, stories: Sequence[dict[str, Any]]) -> None:
    scratch = path.with_suffix(".part")
    scratch.write_text("".join(json.dumps(story) + "\n" for story in stories), encoding="utf-8")
    scratch.rename(path)


@dataclass(frozen=True)
class Story:
    """A written story. ended: it has an end. held: it is kept for measuring."""

    text: str
    ended: bool
    held: bool


def read_stories(folder: Path) -> list[Story]:
    """All stories of the shards; about one instruction in 16 is held out with everything written for it."""
    out = []
    for path in sorted(folder.glob("*/[0-9]*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            told = json.loads(line)
            held = hashlib.sha256(told["asked"].encode()).digest()[0] < 16
            out.append(Story(told["text"], told["ended"], held))
    return out


def copy_stories(conversations: Path, tokenizer: Tokenizer, folder: Path) -> None:
    """Write a shard of the stories among the conversations of `smollm2_text`, if there are any; most have no end."""
    stories: list[dict[str, Any]] = []
    for path in sorted(conversations.glob("*/[0-9]*.npz")):
        shard = np.load(path)
        bounds = [*shard["starts"].tolist(), len(shard["ids"])]
        for kind, start, end in zip(shard["kinds"], bounds[:-1], bounds[1:], strict=True):
            ids, roles = shard["ids"][start:end], shard["roles"][start:end]
            asked = tokenizer.decode(ids[roles == GIVEN].tolist())
            if kind != "story" or not ASKED_FOR.search(asked):
                continue
            answer = ids[roles > ASKED].tolist()
            text = full_sentences(tokenizer.decode(answer))
            if len(text.split()) >= SHORTEST // 2 and len(set(answer[-LOOP:])) >= LEAST:
                stories.append({"asked": asked, "text": text, "ended": answer[-1] == END, "tokens": len(answer)})
    if stories:
        folder.mkdir(parents=True, exist_ok=True)
        _save(folder / "00000.jsonl", stories)


def full_sentences(text: str) -> str:
    """The text up to its last full sentence."""
    marks = (". ", "! ", "? ", '." ', '!" ', '?" ', ".\n", '"\n')
    ends = [f"{text} ".rfind(mark) + len(mark) - 1 for mark in marks if mark in f"{text} "]
    return text[: max(ends, default=0)].strip()


def learn_tokenizer(stories: Sequence[Story]) -> Tokenizer:
    """A byte-level BPE of VOCAB tokens, learned from the stories that are trained on; token 0 ends a story."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=[END_OF_STORY],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((story.text for story in stories if not story.held), trainer)
    return tokenizer


def save_codec(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the folder that `TextCodec.from_folder` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"eos_token": END_OF_STORY, "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
