"""Loaded models: `house` (our own modules), `hub` (families of published weights), `local` (found in a package)."""
