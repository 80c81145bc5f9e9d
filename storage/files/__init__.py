"""Files wherever they lie: on a disk, in an object store, or behind fsspec."""
