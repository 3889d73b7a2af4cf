"""Strategies whose target is a scale session: token maps written coarse to fine."""
