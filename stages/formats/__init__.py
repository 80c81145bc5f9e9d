"""Formats of files: audio and arrays decoded, and exchange formats that other programs read."""
