"""Bytes of audio and array files, decoded and encoded."""
