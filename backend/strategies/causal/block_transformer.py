"""Block transformer: one global call reads the last block of tokens, then small local calls write the next one.

Ho et al. 2024 (2406.02657), section 2. The global model attends between blocks; the local one sees the global model's
word on the text so far and the tokens of its own block, so its keys and values never grow. It is sampled from its own
law. Where the paper pads a prompt to whole blocks on the left, the first block is gone on with from where it ends.
Show: a timeline with two levels; keys and values read a token, beside a plain model of equal loss, as the text grows.
"""

from collections.abc import Iterator

from backend.chance import Ask
from backend.protocols import TwoLevelSession
from backend.registry import strategy
from backend.sampling import judged
from backend.types import Guarantee, Mark, Step


@strategy(paper="2406.02657", guarantee=Guarantee.LOSSLESS, family="architecture")
def block_transformer(target: TwoLevelSession, ask: Ask) -> Iterator[Step]:
    """Yield one step a block. figures: bytes of keys and values read in it, and that a plain twin would have read."""
    while ask.open:
        slot, before = len(target.tokens), target.kv_bytes
        places = min(target.think(), ask.left)  # one global call
        block: list[int] = []
        marks: list[Mark] = []
        while len(block) < places and not (block and block[-1] in ask.stop):
            at = slot + len(block)
            scores = target.write(block)  # one local call
            token = ask.chance.pick(scores.p_NV[0], at)
            marks.extend(judged(at, [], 0, [token], scores))
            block.append(token)
        plain = sum(target.plain_bytes(slot + i) for i in range(len(block)))
        target.commit(ask.take(block))
        figures = {"kv_bytes": float(target.kv_bytes - before), "plain_kv_bytes": float(plain)}
        yield Step(tuple(marks), f"a block of {len(block)}", figures=figures)
