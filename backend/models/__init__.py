"""Loaded models: `house` (our own modules), `hub` (families of published weights) and `local` (weights found in a package)."""
