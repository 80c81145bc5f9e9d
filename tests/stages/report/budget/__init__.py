"""The error budget."""
