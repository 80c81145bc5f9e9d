"""Codecs of our own for Zarr arrays. Encoding imports numba, and decoding does not."""
