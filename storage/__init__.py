"""The store: the only code that knows Zarr, Parquet and fsspec."""
