"""Codecs: the only code that knows a modality. raw input <-> flat canvas of tokens."""
