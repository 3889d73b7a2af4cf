"""The exactness tests tested: rules with one mistake, each of them seen in public code, must fail them clearly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from backend.chance import Ask, Chance
from backend.protocols import CausalSession
from backend.types import Step
from tests.exact import TooManyGamesError, ancestral, expected, greedy, law, plain_filters, total_variation
from tests.test_contract_strategies import PLAIN, strategy_law, target_law
from tests.toys import Toy, ToyCausal, causal_pair


def drafting(bug: str) -> Any:
    """Speculative sampling with one mistake, each of them seen in public code. "" is the correct rule."""

    def run(target: CausalSession, draft: CausalSession, ask: Ask, gamma: int = 2) -> Iterator[Step]:
        while ask.open:
            x: list[int] = []
            q: list[torch.Tensor] = []
            for _ in range(min(gamma, ask.left - 1)):
                q_V = draft.score(x).p_NV[-1]
                x.append(draw(q_V, ask.chance))
                q.append(q_V)
            p = target.score(x).p_NV
            n = 0
            while n < len(x) and (
                (bug == "first token unchecked" and n == 0) or ask.chance.flip(min(1.0, float(p[n, x[n]] / q[n][x[n]])))
            ):
                n += 1
            last = ask.chance.pick(p[n] if n == len(x) else rest(p[n], q[n]))
            kept = ask.take([*x[:n], last])
            target.commit(kept)
            draft.commit(kept)
            yield Step(())

    def draw(q_V: torch.Tensor, chance: Chance) -> int:
        if bug == "argmax draft, softmax ratio":
            return int(q_V.argmax())
        if bug == "other processors":  # drafts from its two best, but hands over the whole law
            best_V = q_V.masked_fill(q_V < q_V.topk(2).values[-1], 0.0)
            return chance.pick(best_V / best_V.sum())
        return chance.pick(q_V)

    def rest(p_V: torch.Tensor, q_V: torch.Tensor) -> torch.Tensor:
        if bug == "residual forgotten":
            return p_V
        rest_V = (p_V - q_V).abs() if bug == "absolute residual" else (p_V - q_V).clamp_min(0.0)
        return rest_V / rest_V.sum() if rest_V.sum() > 0 else p_V

    return run


def block(stop_at_first_no: bool) -> Any:
    """Block verification of two tokens; the mistake is to stop at the first failed trial."""

    def run(target: CausalSession, draft: CausalSession, ask: Ask) -> Iterator[Step]:
        while ask.open:
            x: list[int] = []
            q: list[torch.Tensor] = []
            for _ in range(min(2, ask.left - 1)):
                q.append(draft.score(x).p_NV[-1])
                x.append(ask.chance.pick(q[-1]))
            p = target.score(x).p_NV
            carry, n = [1.0], 0
            for i, token in enumerate(x):
                carry.append(min(1.0, carry[-1] * float(p[i, token] / q[i][token])))
            for i in range(1, len(x) + 1):
                z = float((carry[i] * p[i] - q[i]).clamp_min(0.0).sum()) if i < len(x) else 0.0
                h = carry[i] if i == len(x) else z / (z + 1 - carry[i]) if z > 0 else 0.0
                if ask.chance.flip(h):
                    n = i
                elif stop_at_first_no:
                    break
            rest_V = p[n] if n == len(x) else (carry[n] * p[n] - q[n]).clamp_min(0.0)
            last = ask.chance.pick(rest_V / rest_V.sum() if rest_V.sum() > 0 else p[n])
            kept = ask.take([*x[:n], last])
            target.commit(kept)
            draft.commit(kept)
            yield Step(())

    return run


def leaves(separately: bool) -> Any:
    """Two candidates for the next token; the mistake is to sample the target once for each leaf."""

    def run(target: CausalSession, draft: CausalSession, ask: Ask) -> Iterator[Step]:
        while ask.open:
            p_V = target.score().p_NV[0]
            token = ask.chance.pick(p_V)
            if separately and token != 0 and ask.chance.pick(p_V) != 1:
                token = ask.chance.pick(p_V)
            elif separately and token != 0:
                token = 1
            kept = ask.take([token])
            target.commit(kept)
            draft.commit(kept)
            yield Step(())

    return run


BUGS = {
    "residual forgotten": drafting("residual forgotten"),
    "absolute residual": drafting("absolute residual"),
    "argmax draft, softmax ratio": drafting("argmax draft, softmax ratio"),
    "first token unchecked": drafting("first token unchecked"),
    "other processors": drafting("other processors"),
    "first failed trial": block(stop_at_first_no=True),
    "sampled for each leaf": leaves(separately=True),
}
CURES = {"chain": drafting(""), "block": block(stop_at_first_no=False), "leaves": leaves(separately=False)}


def distance_of(run: Any) -> float:
    target, draft = causal_pair(seed=12, zeros=0.0)
    models: dict[str, Toy] = {"target": target, "draft": draft}
    return total_variation(strategy_law(run, models, {}, PLAIN, 3), target_law(target, 3, PLAIN))


@pytest.mark.parametrize("bug", BUGS)
def test_the_kit_catches(bug: str) -> None:
    """A wrong rule is far from the target's law: no tolerance can hide it."""
    assert distance_of(BUGS[bug]) > 1e-3


@pytest.mark.parametrize("cure", CURES)
def test_the_kit_passes_the_correct_rule(cure: str) -> None:
    """The same code without the mistake is exact, so it is the mistake that was caught."""
    assert distance_of(CURES[cure]) < 1e-12


def test_an_argmax_draft_can_swallow_every_other_token() -> None:
    """p = (.5, .3, .2), q = (.5, .25, .25): token 0 is always drafted and always accepted."""
    models: dict[str, Toy] = {
        "target": ToyCausal(fixed=(0.5, 0.3, 0.2)),
        "draft": ToyCausal("toy/draft", fixed=(0.5, 0.25, 0.25)),
    }
    got = strategy_law(drafting("argmax draft, softmax ratio"), models, {"gamma": 1}, PLAIN, 2)
    assert sum(weight for text, weight in got.items() if text[0] == 0) == pytest.approx(1.0)


def test_sampling_each_leaf_makes_the_first_one_likelier() -> None:
    """p = (.5, .5) and both tokens are candidates: the first comes out with 0.625."""
    models: dict[str, Toy] = {"target": ToyCausal(size=2, fixed=(0.5, 0.5)), "draft": ToyCausal(size=2)}
    assert strategy_law(leaves(separately=True), models, {}, PLAIN, 1)[(0,)] == pytest.approx(0.625)


def test_law_enumerates_every_game_once() -> None:
    """A pick and a flip that depends on it."""

    def run(chance: Chance) -> tuple[int, bool]:
        token = chance.pick(torch.tensor([0.5, 0.0, 0.5]))
        return token, chance.flip(0.25) if token else False

    assert law(run) == {(0, False): 0.5, (2, True): 0.125, (2, False): 0.375}


def test_law_refuses_what_cannot_be_enumerated() -> None:
    with pytest.raises(TooManyGamesError, match="more than 100 games"):
        law(lambda chance: tuple(chance.flip(0.5) for _ in range(10)), max_games=100)


def test_measures_of_laws() -> None:
    assert total_variation({"a": 0.5, "b": 0.5}, {"a": 0.25, "c": 0.75}) == 0.75
    assert expected({1: 0.25, 3: 0.75}) == 2.5
    assert expected({(1, 1): 0.5, (): 0.5}, len) == 1.0


def test_ancestral_law_and_greedy_text_of_a_fixed_table() -> None:
    toy = ToyCausal(size=2, fixed=(0.25, 0.75), end=frozenset({0}))
    assert ancestral(toy, (1,), 2, PLAIN) == {(0,): 0.25, (1, 0): 0.1875, (1, 1): 0.5625}
    assert greedy(toy, (1,), 3) == [1, 1, 1]


def test_plain_filters_by_hand() -> None:
    p = [0.5, 0.3, 0.15, 0.05]
    assert plain_filters(p, replace(PLAIN, top_k=2)) == pytest.approx([0.625, 0.375, 0, 0])
    assert plain_filters(p, replace(PLAIN, top_p=0.79)) == pytest.approx([0.625, 0.375, 0, 0])
    assert plain_filters(p, replace(PLAIN, top_p=0.81)) == pytest.approx([0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0])
    assert plain_filters(p, replace(PLAIN, min_p=0.2)) == pytest.approx([0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0])
    assert plain_filters(p, replace(PLAIN, temperature=0.0)) == [1, 0, 0, 0]
