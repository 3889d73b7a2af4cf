"""Families of published weights, a file each; loaded with the family's own library, safetensors only, never its code."""
