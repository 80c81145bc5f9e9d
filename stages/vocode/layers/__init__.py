"""Layers and loops that several vocoder families share."""
