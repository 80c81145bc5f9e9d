"""Measures of how close a reconstruction is, each value with a status."""
