"""Damaged recordings, and what metrics make of them."""
