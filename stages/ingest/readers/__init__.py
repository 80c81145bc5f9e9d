"""Readers that come with melmill: every `Reader` that a module here defines is a stage."""
