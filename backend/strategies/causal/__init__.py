"""Strategies whose target is a causal session: text, and every other sequence that is written left to right."""
