"""Readers and makers of speech corpora."""
