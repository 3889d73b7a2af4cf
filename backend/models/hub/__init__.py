"""Families of published weights, a file each: loaded with the family's own library, safetensors only.

Code from a model's repository is never run.
"""
