"""Suffix decoding: the trie counts endings, and drafts grow as text repeats."""

from backend.strategies.causal.suffix import Trie
from tests.strategies.causal.played import counting, play, same_text


def test_trie_follows_the_most_frequent_child() -> None:
    trie = Trie(depth=8)
    trie.extend([1, 2, 5, 1, 2, 6, 1, 2, 5, 9, 1, 2])
    match, draft = trie.propose(factor=1.0, floor=0.1)
    assert match == 2
    assert draft[0] == 5  # two of three times


def test_floor_and_factor_bound_the_draft() -> None:
    trie = Trie(depth=8)
    trie.extend([1, 2, 3, 4, 5, 1, 2, 3])
    assert trie.propose(1.0, 0.1) == (3, [4, 5, 1])
    assert trie.propose(2.0, 0.1) == (3, [4, 5, 1, 2, 3])  # what the trie remembers ends it
    assert len(trie.propose(0.25, 0.1)[1]) == 1
    assert Trie(4).propose(1.0, 0.1) == (0, [])


def test_drafts_grow_with_the_match() -> None:
    trace = play("suffix", [counting(3)], prompt="0 1 2 0", budget=30)
    kept = [sum(m.fate.value == "kept" for m in step.marks) for step in trace.steps]
    assert kept[0] < kept[2] < max(kept)


def test_prints_what_plain_decoding_prints() -> None:
    same_text("suffix")
