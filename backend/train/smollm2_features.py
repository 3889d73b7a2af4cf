"""What SmolLM2 thought at every position of its own text: the final hidden states that draft heads start from.

`python -m backend.train.smollm2_features` runs random conversations of the corpus (`smollm2_text`) through SmolLM2 in
bfloat16 and keeps what `Llama.forward_rows` shows as hidden states. Several conversations share a call as branches
behind the template that all of them begin with. Writing resumes behind the last shard; a shard holds `talks`, indices
of conversations in `read_corpus`, and `features` float16, their positions one conversation behind the other.

Letters: N rows of a call, P positions of a shard, C features of SmolLM2, S slots.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from backend.models.house.llama import Llama
from backend.models.local import load_llama, load_smollm2
from backend.train.smollm2_corpus import ROOT, Corpus, read_corpus

ROWS = {"cpu": 512, "cuda": 8192}  # most rows of a call, unless one conversation is longer
SHARD = 16_384  # positions of a shard, about


def choose_talks(corpus: Corpus, positions: int, held_positions: int, seed: int) -> np.ndarray:
    """Random conversations: held-out ones of about `held_positions`, then others up to `positions` in all."""
    order = np.random.default_rng(seed).permutation(len(corpus.held))
    lengths = np.diff(corpus.bounds)
    chosen = []
    for held, wanted in ((True, held_positions), (False, positions - held_positions)):
        talks = order[corpus.held[order] == held]
        chosen.append(talks[np.cumsum(lengths[talks]) <= wanted])
    return np.concatenate(chosen)


class Reader:
    """Runs conversations that begin with the same tokens, many in one call.

    Args:
        model: SmolLM2, packed. prefix: tokens that every conversation begins with; run once.
    """

    def __init__(self, model: Llama, prefix: Sequence[int], rows: int) -> None:
        self.model, self.rows, self.lead = model, rows, len(prefix)
        self.cache = model.open_cache(self.lead + 2 * rows)
        ids_N = torch.tensor(prefix, device=model.device)
        _, self.lead_PC = model.forward_rows(ids_N, torch.arange(self.lead, device=model.device), self.cache, last=1)

    def read(self, talks: Sequence[np.ndarray]) -> list[Tensor]:
        """Hidden states [T, C] float16 of each conversation, given as its token ids, prefix included."""
        bounds = np.cumsum([0, *(len(ids) - self.lead for ids in talks)])
        ids_N = torch.from_numpy(np.concatenate([ids[self.lead :] for ids in talks]).astype(np.int64))
        slots_N = torch.cat([torch.arange(self.lead, len(ids)) for ids in talks])
        visible_NS = torch.zeros(len(ids_N), self.lead + len(ids_N), dtype=torch.bool)
        visible_NS[:, : self.lead] = True
        for start, end in pairwise(bounds):
            visible_NS[start:end, self.lead + start : self.lead + end] = True
        visible_NS[:, self.lead :].tril_()
        ids_N, slots_N, visible_NS = (x.to(self.model.device) for x in (ids_N, slots_N, visible_NS))
        _, hidden_NC = self.model.forward_rows(ids_N, slots_N, self.cache, visible_NS, last=1)
        self.cache.truncate(self.lead)
        return [torch.cat((self.lead_PC, hidden_NC[s:e])).to(torch.float16).cpu() for s, e in pairwise(bounds)]

    def groups(self, lengths: Sequence[int]) -> list[list[int]]:
        """Indices of the given lengths in calls of at most `rows` rows."""
        groups: list[list[int]] = [[]]
        used = 0
        for i, length in enumerate(lengths):
            if groups[-1] and used + length - self.lead > self.rows:
                groups.append([])
                used = 0
            groups[-1].append(i)
            used += length - self.lead
        return groups


def write_features(reader: Reader, corpus: Corpus, talks: np.ndarray, folder: Path) -> None:
    """Write shards until all `talks` are in the folder, in their order."""
    folder.mkdir(parents=True, exist_ok=True)
    made = sorted(folder.glob("[0-9]*.npz"))
    done = sum(len(np.load(path)["talks"]) for path in made)
    texts = {int(talk): corpus.ids[corpus.bounds[talk] : corpus.bounds[talk + 1]] for talk in talks}
    began, fresh, index = time.monotonic(), 0, len(made)
    pending: list[tuple[int, Tensor]] = []
    left = [int(talk) for talk in talks[done:]]
    for group in reader.groups([len(texts[talk]) for talk in left]):
        those = [left[i] for i in group]
        pending += zip(those, reader.read([texts[talk] for talk in those]), strict=True)
        size = sum(len(features) for _, features in pending)
        if size < SHARD and those[-1] != left[-1]:
            continue
        scratch = folder / f"{index:05d}.part"
        with scratch.open("wb") as file:
            features_PC = torch.cat([features for _, features in pending]).numpy()
            np.savez(file, talks=np.array([talk for talk, _ in pending]), features=features_PC)
        scratch.rename(scratch.with_suffix(".npz"))
        pending, index, fresh = [], index + 1, fresh + size
        print(f"{fresh:,} positions, {fresh / (time.monotonic() - began):.0f} a second", flush=True)


@dataclass(frozen=True)
class Features:
    """Conversations with SmolLM2's hidden states.

    Args:
        talks: indices of the conversations. offsets: of each in features_PC, and the end. features_PC: float16.
    """

    talks: np.ndarray
    offsets: np.ndarray
    features_PC: np.ndarray


def read_features(folder: Path, corpus: Corpus) -> Features:
    """Everything that `write_features` wrote."""
    shards = [np.load(path) for path in sorted(folder.glob("*/[0-9]*.npz"))]
    talks = np.concatenate([shard["talks"] for shard in shards])
    lengths = (corpus.bounds[1:] - corpus.bounds[:-1])[talks]
    features_PC = np.concatenate([shard["features"] for shard in shards])
    return Features(talks, np.cumsum([0, *lengths]), features_PC)


def _work(rank: int, args: argparse.Namespace) -> None:
    """One writing process with its share of the conversations. On a CPU it has one thread; see `smollm2_draft._run`."""
    if args.device == "cpu":
        torch.set_num_threads(1)
    source = load_smollm2()
    corpus = read_corpus(args.data, Tokenizer.from_file(str(source / "tokenizer.json")))
    talks = choose_talks(corpus, args.positions, args.held_positions, seed=1)[rank :: args.processes]
    reader = Reader(load_llama(source, torch.bfloat16, args.device), corpus.before, ROWS[args.device])
    write_features(reader, corpus, talks, args.out / str(rank))


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m backend.train.smollm2_features", description=__doc__)
    parser.add_argument("--device", choices=sorted(ROWS), default="cpu")
    parser.add_argument("--processes", type=int, default=2, help="writers side by side")
    parser.add_argument("--positions", type=int, default=1_600_000)
    parser.add_argument("--held-positions", type=int, default=10_000)
    parser.add_argument("--data", type=Path, default=ROOT / "train-data" / "smollm2-text")
    parser.add_argument("--out", type=Path, default=ROOT / "train-data" / "features")
    args = parser.parse_args(argv)
    running = [get_context("spawn").Process(target=_work, args=(rank, args)) for rank in range(args.processes)]
    for process in running:
        process.start()
    for process in running:
        process.join()
    if any(process.exitcode for process in running):
        raise RuntimeError("a process failed; run the same command again to go on from what is saved")


if __name__ == "__main__":
    main()
