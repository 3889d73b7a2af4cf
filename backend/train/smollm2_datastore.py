"""Build `house/smollm2-datastore`, what retrieval drafts from: `python -m backend.train.smollm2_datastore`.

The store holds answers that SmolLM2 itself wrote for the training of its draft (`smollm2_text`), each behind the
template's tokens that open an answer, and their suffix array. Conversations that were held out, those on the bench's
prompts among them, stay outside. Takes seconds; `python -m backend.train.smollm2_draft` writes the conversations.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from backend.models.house.datastore import LONGEST, save_datastore
from backend.models.local import load_smollm2
from backend.train.smollm2_corpus import ROOT, Corpus, read_corpus
from backend.train.smollm2_text import END, GREEDY

TOKENS = 300_000
OUT = ROOT / "assets" / "house" / "smollm2-datastore.npz"


def answers(corpus: Corpus) -> Iterator[np.ndarray]:
    """The answers of the conversations that were not held out, each behind the template's opening, without its end.

    The opening starts with the token that ends a turn, so that the next answer's opening ends this one.
    """
    opening = np.array(corpus.between, corpus.ids.dtype)
    for (start, stop), held in zip(pairwise(corpus.bounds), corpus.held, strict=True):
        own = corpus.ids[start:stop][corpus.roles[start:stop] >= GREEDY]
        own = own[:-1] if len(own) and own[-1] == END else own
        if not held and len(own):
            yield np.concatenate([opening, own])


def fill(corpus: Corpus, tokens: int) -> tuple[np.ndarray, int]:
    """The first answers, at most `tokens` tokens together, and how many they are."""
    texts: list[np.ndarray] = []
    size = 0
    for text in answers(corpus):
        if size + len(text) > tokens:
            break
        texts.append(text)
        size += len(text)
    return np.concatenate(texts), len(texts)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: read the conversations, write the store and its card."""
    parser = argparse.ArgumentParser(prog="python -m backend.train.smollm2_datastore", description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT / "train-data" / "smollm2-text")
    parser.add_argument("--tokens", type=int, default=TOKENS, help="most tokens of the store")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args(argv)
    tokenizer = Tokenizer.from_file(str(load_smollm2() / "tokenizer.json"))
    ids_P, count = fill(read_corpus(args.data, tokenizer), args.tokens)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_datastore(args.out, ids_P, tokenizer.get_vocab_size())
    card = {
        "id": "house/smollm2-datastore",
        "what": "Answers that SmolLM2-135M-Instruct wrote, with a suffix array: the datastore that retrieval searches.",
        "license": "Apache-2.0",
        "num_params": len(ids_P),
        "tokens": len(ids_P),
        "answers": count,
        "longest_ending": LONGEST,
        "data": "Answers of conversations written by SmolLM2-135M-Instruct itself (Apache-2.0), the users' turns by "
        "the model or by a grammar of our own. No other text; none on the bench's prompts or on held-out turns.",
        "recipe": {"tokens": args.tokens},
    }
    args.out.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")
    print(f"{count:,} answers, {len(ids_P):,} tokens, {args.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
