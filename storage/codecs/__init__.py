"""Inner chunks and shards as bytes, those of Zarr, and codecs of our own. Encoding FLAC imports numba."""
