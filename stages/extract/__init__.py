"""Mels of recordings, and mels of another kind made of mels."""
