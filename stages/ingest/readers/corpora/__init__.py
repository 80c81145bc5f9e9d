"""Readers of published corpora: every one that a module here defines is registered."""
