"""The screen: one module a tab, each with ID, TITLE and build(lab). Only tabs that work are listed."""

from __future__ import annotations

from types import ModuleType

from demos import about, forecasting, gallery, image, text

TABS: tuple[ModuleType, ...] = (text, image, forecasting, gallery)
ASIDE: tuple[ModuleType, ...] = (about,)  # at the right end of the tab line
