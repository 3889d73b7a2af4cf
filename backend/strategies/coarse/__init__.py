"""Strategies whose target is a coarse session: pictures in groups of codes first, then in codes."""
