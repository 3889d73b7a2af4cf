"""Which models of series a strategy can continue with: read off the catalog's entries, without loading one."""

from __future__ import annotations

from collections.abc import Sequence

from backend import forecasters
from backend.entries import Entry, entries
from backend.errors import UserError
from backend.protocols import PROTOCOL_NAMES, BandSession, ReorderingPathSession
from backend.registry import Strategy, strategies

BY_NAME = {name: protocol for protocol, name in PROTOCOL_NAMES.items()}


def series_models(strategy: Strategy, known: Sequence[Entry] | None = None) -> list[str]:
    """Ids of the models of series, here or buildable, that can be its target and have models for its other roles."""
    return [entry.id for entry in series_entries(known) if _can(strategy, entry)]


def strategies_for(entry: Entry) -> list[Strategy]:
    """The strategies that a model of series can be the target of."""
    return [s for s in strategies().values() if _can(s, entry)]


def series_entries(known: Sequence[Entry] | None = None, modality: str = "series") -> list[Entry]:
    """The models of series, or of events, that are targets: those that draft for another are left out."""
    drafts = set(forecasters.PARTNERS.values())
    return [e for e in (entries() if known is None else known) if e.modality == modality and e.id not in drafts]


def spoken(entry: Entry) -> frozenset[type]:
    """The protocols that a model of series speaks: that of its entry, and what it can do beside."""
    if entry.protocol == "causal":
        from backend.models.causal import SESSIONS
        from backend.models.house.llama import Llama

        return frozenset(protocol for protocol, (_, needs) in SESSIONS.items() if issubclass(Llama, needs))
    more = (BandSession, ReorderingPathSession) if entry.protocol == "lookahead" else ()  # our forecasters do all that
    return frozenset((*BY_NAME[entry.protocol].__mro__, *more))


def _can(strategy: Strategy, entry: Entry) -> bool:
    if strategy.protocol not in spoken(entry):
        return False
    try:
        return all(forecasters.partner(role, entry.id) for role in strategy.roles if role != "target")
    except UserError:
        return False
