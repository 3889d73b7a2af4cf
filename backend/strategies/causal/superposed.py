"""Superposed decoding: k drafts grow in lockstep, and one call a token reads the last tokens of all of them at once.

Shen et al. 2024 (2405.18400). The input of a call is the sum of the drafts' last embeddings, weighted by how good the
drafts are, so that one cache serves them all. What the mixture blurs is sharpened draft by draft: the law d of its
likeliest tokens is interpolated, (1 - a) log d + a log n-gram, with counts from the text, the draft itself and a store
of texts. The best `k` of all extensions live on, beside those of the best that have ended; the best draft is committed.
No exact sampling, whatever the temperature of the request.
Show: k completions for the calls of one; the weights of the mixture; how drafts fade as they get longer.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import exp, inf, log
from typing import Annotated

from backend.chance import Ask
from backend.protocols import CausalSession, MixingSession, Scores
from backend.registry import strategy
from backend.trees import depths, merge
from backend.types import Fate, Guarantee, Knob, Mark, Step

ORDERS = {2: 0.01, 3: 0.04, 4: 0.15, 5: 0.18, 6: 0.12}  # the paper's weights of n-grams; they count the text
STORED = 0.5  # weight of the store, whose endings may be longer
UNSUPPORTED = -200.0  # added to a draft that no n-gram continues, the paper's number


@dataclass(frozen=True)
class Draft:
    """A draft: its tokens and their scores, added up."""

    tokens: tuple[int, ...] = ()
    score: float = 0.0


@strategy(paper="2405.18400", guarantee=Guarantee.GREEDY_EXACT, family="several drafts", only={"k": 1, "a": 0.0})
def superposed(
    target: MixingSession,
    store: CausalSession,
    ask: Ask,
    *,
    k: Annotated[int, Knob(1, 10, "drafts that grow together")] = 3,
    m: Annotated[int, Knob(1, 30, "likeliest tokens that may continue a draft")] = 9,
    temp: Annotated[float, Knob(0.02, 1.0, "temperature of the law of these tokens")] = 0.06,
    a: Annotated[float, Knob(0.0, 0.9, "weight of the n-grams")] = 0.54,
    length: Annotated[int, Knob(1, 32, "tokens of a draft before the best one is committed")] = 12,
) -> Iterator[Step]:
    """Yield one step per target call: the drafts as they stand; then one step that commits the best of them."""
    while ask.open:
        slot = len(target.tokens)
        alive, ended = [Draft()], list[Draft]()
        for depth in range(min(length, ask.left)):
            weights = mixture(alive)
            scores = target.blend([draft.tokens[-1] for draft in alive], weights) if depth else target.score()
            sharp = a if depth else 0.0  # the first tokens are the target's own
            grown = extend(target.tokens, alive, likeliest(scores, m, temp), store, sharp)[: 2 * k]
            ended += [draft for draft in grown[:k] if draft.tokens[-1] in ask.stop]
            alive = [draft for draft in grown if draft.tokens[-1] not in ask.stop][:k]
            figures = {f"weight {i + 1}": round(weight, 4) for i, weight in enumerate(weights)}
            yield Step(shown(slot, [*alive, *ended]), note=f"{len(alive)} drafts", figures=figures)
            best = max([*ended, *alive], key=lambda draft: draft.score)
            if best in ended:  # scores only fall, so no draft that is alive can pass it
                break
        kept = ask.take(best.tokens)
        target.commit(kept)
        store.commit(kept)
        marks = tuple(Mark(slot + i, token, Fate.BONUS) for i, token in enumerate(kept))
        yield Step(marks, note=f"the best of {len(alive) + len(ended)} drafts")


def mixture(alive: Sequence[Draft]) -> list[float]:
    """Weights of the drafts: the softmax of their scores."""
    best = max(draft.score for draft in alive)
    shares = [exp(draft.score - best) for draft in alive]
    return [share / sum(shares) for share in shares]


def likeliest(scores: Scores, m: int, temp: float) -> dict[int, float]:
    """log d of the m likeliest tokens, d being their law at temperature `temp`; none that is impossible."""
    raw_V = scores.p_NV[0].log() if scores.raw_NV is None else scores.raw_NV[0]
    top = raw_V.topk(min(m, len(raw_V)))
    logs = (top.values / temp).log_softmax(dim=0).tolist()
    return {token: d for token, d in zip(top.indices.tolist(), logs, strict=True) if d > -inf}


def extend(
    text: Sequence[int], alive: Sequence[Draft], logs: Mapping[int, float], store: CausalSession, a: float
) -> list[Draft]:
    """Every draft with every token of `logs` behind it, best score first. Tokens without n-grams fall out."""
    grown = []
    for draft, known in zip(alive, stored(store, alive, list(logs)) if a else [{}] * len(alive), strict=True):
        grams = ngrams([*text, *draft.tokens], known) if a else {}
        for token, d in logs.items():
            share = grams.get(token, 0.0)
            if not a or share or not sum(grams.values()):
                more = a * log(share) if share else UNSUPPORTED if a else 0.0
                grown.append(Draft((*draft.tokens, token), draft.score + (1 - a) * d + more))
    return sorted(grown, key=lambda draft: -draft.score)


def ngrams(text: Sequence[int], known: Mapping[int, float]) -> dict[int, float]:
    """What n-grams of the text and the store's chances `known` say about the next token, for the tokens of `known`."""
    shares = {token: STORED * chance for token, chance in known.items()}
    for n, weight in ORDERS.items():
        ending = list(text[len(text) - n + 1 :])
        next_tokens = [text[i] for i in range(n - 1, len(text)) if list(text[i - n + 1 : i]) == ending]
        for token in known:
            if token in next_tokens:
                shares[token] += weight * next_tokens.count(token) / len(next_tokens)
    return shares


def stored(store: CausalSession, alive: Sequence[Draft], tokens: Sequence[int]) -> list[dict[int, float]]:
    """The store's chance of each token behind each draft."""
    x = [token for draft in alive for token in draft.tokens]
    size = len(alive[0].tokens)  # they are all as long
    laws = store.score(x, [i - 1 if i % size else -1 for i in range(len(x))])
    rows = (laws.plain(size * (i + 1))[list(tokens)].tolist() for i in range(len(alive)))
    return [dict(zip(tokens, row, strict=True)) for row in rows]


def shown(slot: int, drafts: Sequence[Draft]) -> tuple[Mark, ...]:
    """Marks of the tree that the drafts form."""
    x, parents = merge([draft.tokens for draft in drafts])
    at = zip(depths(parents), x, parents, strict=True)
    return tuple(Mark(slot + i, token, Fate.GUESS, parent=up if up >= 0 else None) for i, token, up in at)
