"""Tests of metrics that have one value for a whole set."""
