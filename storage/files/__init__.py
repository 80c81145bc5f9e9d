"""Files on a disk, in an object store, or behind fsspec."""
