"""Benchmarks, and a campaign of faults, run by hand from a checkout.

Each module with a command says in its first line how to run it.
"""
