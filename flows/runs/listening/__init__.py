"""Listening tests: a page for listeners from what a run made, and their answers back into the store."""
