"""FFN skipping: once a feed-forward net has barely turned the hidden state, the nets above it are left out.

FFN-SkipLLM, Jaiswal et al. 2024 (2404.03865). Attention always runs, so the cache stays whole. For each token after a
warm-up, the nets of a middle region run until one leaves the state at a cosine of at least `similarity` to what it
was; the rest of the region is skipped. Nets at both ends of the model always run, and so does everything in a prompt.
The paper's large models lose little up to a quarter skipped. SmolLM2-135M does not: its mean cosines rise nowhere (0.94
to 0.98 over layers 1 to 28, 0.06 and 0.80 at the ends), and in bfloat16 on four chat prompts of 40 greedy tokens its
negative log-likelihood a token grows from 0.77 to 0.87 with 4 % of the nets skipped, and to 2.3 with 24 %.
Show: which layers were skipped for which token; likelihood under the whole model against the fraction skipped.
"""

from collections.abc import Iterator
from typing import Annotated

from backend.chance import Ask
from backend.protocols import SkippingSession
from backend.registry import strategy
from backend.sampling import shorten
from backend.types import Fate, Guarantee, Knob, Mark, Step


@strategy(paper="2404.03865", guarantee=Guarantee.LOSSLESS, family="own layers", only={"similarity": 1.0})
def ffn_skip(
    target: SkippingSession,
    ask: Ask,
    *,
    similarity: Annotated[float, Knob(0.95, 1.0, "cosine from which the nets behind are skipped; 1 skips none")] = 0.98,
    warmup: Annotated[int, Knob(0, 50, "new tokens that are written with all nets first")] = 10,
    first: Annotated[int, Knob(0, 24, "layers at the bottom whose nets always run")] = 20,
    last: Annotated[int, Knob(0, 24, "layers at the top whose nets always run")] = 3,
) -> Iterator[Step]:
    """Yield one step a token."""
    region = range(first, max(first, target.num_layers - last))
    start, whole = len(target.tokens), True
    while ask.open:
        slot = len(target.tokens)
        whole_row = slot - start < warmup or similarity == 1.0
        scores, cosines = (target.score(), ()) if whole_row else target.skim(similarity, region)
        skipped = region[len(cosines) :] if cosines else region[:0]
        whole = whole and not skipped
        kept = ask.take([ask.chance.pick(scores.p_NV[0], slot)])
        target.commit(kept)
        chance = shorten(scores.p_NV[0, kept[0]])
        p, q = (chance, None) if whole else (None, chance)  # from the first skipped net on it is not the target's law
        figures = {"skipped": len(skipped) / target.num_layers}
        if skipped:
            figures |= {"first_skipped": skipped[0], "last_skipped": skipped[-1], "cosine": round(cosines[-1], 5)}
        note = f"nets {skipped[0]} to {skipped[-1]} skipped" if skipped else ""
        yield Step((Mark(slot, kept[0], Fate.BONUS, p, q, None, scores.options(0)),), note=note, figures=figures)
