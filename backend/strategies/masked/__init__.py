"""Strategies whose target is a masked session: a canvas whose slots are filled in any order."""
