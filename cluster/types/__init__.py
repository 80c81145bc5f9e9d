"""A module for each type of cluster."""
