"""Where the work runs: Dask clusters, worker pools and thread limits."""
