"""A module for each type of cluster, called as in `cluster: {type: ...}`.

Importing one is cheap. What starts a cluster imports Dask and others when it is called.
"""
