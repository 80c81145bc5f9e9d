"""Hand tasks out, in one process or on a Dask cluster."""
