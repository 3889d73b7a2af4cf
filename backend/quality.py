"""What a finished text is worth to the model that wrote it: the price that lossy decoding pays for its speed."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from backend.catalog import Catalog
from backend.meter import Meter
from backend.protocols import CausalSession
from backend.registry import strategies
from backend.trace import Trace
from backend.types import Guarantee, Request, Sampling

AT_ONCE = 64  # tokens a call


def is_lossy(request: Request) -> bool:
    """Whether the strategy, with these knobs, promises nothing about the law of its output."""
    known = strategies().get(request.strategy)
    return known is not None and known.promises(request.knobs) is Guarantee.LOSSY


def weighed(trace: Trace, catalog: Catalog) -> Trace:
    """The trace with what its output is worth to the target, as far as that can be said."""
    worth = log_likelihood(trace, catalog)
    return trace if worth is None else replace(trace, worth={"log_likelihood": worth})


def log_likelihood(trace: Trace, catalog: Catalog) -> float | None:
    """Mean log probability, in nats a token, of what was written, under the target at temperature 1 without filters.

    Not part of any timed run. None where nothing was written, or where the target gives no such law.
    """
    model = catalog.get(trace.request.models["target"])
    written = trace.written()
    if CausalSession not in model.speaks or not written or -1 in written:
        return None
    prompt = replace(model.codec.encode(trace.request.prompt), tokens=trace.prompt)  # with the codec's conditions
    session = model.open(CausalSession, prompt, Sampling(temperature=1.0), Meter(), len(written))
    total = 0.0
    for start in range(0, len(written), AT_ONCE):
        tokens = written[start : start + AT_ONCE]
        p_NV = session.score(tokens).p_NV[:-1]
        chances_N = p_NV[range(len(tokens)), tokens].clamp_min(torch.finfo(p_NV.dtype).tiny)
        total += float(chances_N.double().log().sum())
        session.commit(tokens)
    return total / len(written) if math.isfinite(total) else None
