"""Readers of recordings that files describe: every one that a module here defines is registered."""
