"""A form as a link and back: `?v=1&tab=text&c=<base64url(zlib(json))>`. Unknown values are ignored, nothing runs."""

from __future__ import annotations

import base64
import binascii
import json
import os
import zlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

VERSION = "1"
LONGEST = 4000  # characters of `c`; servers and chat programs cut longer links
LARGEST = 20_000  # bytes after unpacking


def make_link(tab: str, form: Mapping[str, Any], view: str = "") -> str:
    """The query of a link to this form, or the full address where the app runs as a Space. "" if it is too long.

    view: a part of the tab that is scrolled to.
    """
    text = json.dumps(form, separators=(",", ":"), ensure_ascii=False)
    packed = base64.urlsafe_b64encode(zlib.compress(text.encode(), 9)).decode().rstrip("=")
    if len(packed) > LONGEST:
        return ""
    space = os.environ.get("SPACE_ID", "")
    start = f"https://huggingface.co/spaces/{space}" if space else ""
    query = {"v": VERSION, "tab": tab, "c": packed} | ({"view": view} if view else {})
    return f"{start}?{urlencode(query)}"


def read_link(query: Mapping[str, str]) -> dict[str, Any]:
    """The form in a query; {} where there is none or it cannot be read."""
    packed = query.get("c", "")
    if query.get("v") != VERSION or not packed or len(packed) > LONGEST:
        return {}
    try:
        raw = base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4))
        text = zlib.decompressobj().decompress(raw, LARGEST)
        form = json.loads(text)
    except (ValueError, binascii.Error, zlib.error):
        return {}
    return form if isinstance(form, dict) else {}


def number(form: Mapping[str, Any], name: str, low: float, high: float, default: float) -> float:
    """A number of the form, clamped to its range; the default where it is missing or no number."""
    value = form.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        return default
    clamped = min(max(value, low), high)
    return int(clamped) if isinstance(default, int) else float(clamped)
