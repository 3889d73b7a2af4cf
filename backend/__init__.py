"""Decoding Lab's backend: every way of decoding a sequence model, as a library.

>>> from backend import Request, decode
>>> with decode(Request("speculative", "Name three rivers.")) as run:  # doctest: +SKIP
...     for step in run:
...         print(run.text)
"""

from typing import TYPE_CHECKING, Any

from backend.types import Request, Sampling

if TYPE_CHECKING:
    from backend.run import decode, record

__all__ = ["Request", "Sampling", "decode", "record"]


def __getattr__(name: str) -> Any:
    """`decode` and `record` bring torch along, so they are imported when they are asked for."""
    if name in ("decode", "record"):
        from backend import run

        return getattr(run, name)
    raise AttributeError(name)
