"""Strategies whose target is a forecast session: series continued as sample paths or bands."""
