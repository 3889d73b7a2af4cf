"""Strategies whose target is a distilled session: whole pictures told from noise."""
