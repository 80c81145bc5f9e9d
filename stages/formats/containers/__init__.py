"""Containers of audio: where their samples lie, and how many there are in fact."""
