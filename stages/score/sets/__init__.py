"""Distances between two sets of recordings: what metrics that have one value for a whole set compute."""
