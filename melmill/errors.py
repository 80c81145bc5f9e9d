"""The root of melmill's errors. This module imports nothing, so every layer may import it."""

from __future__ import annotations


class Error(Exception):
    """Root of all errors that melmill raises on purpose.

    A message says where the problem is, what it is, what was got and expected, and how to fix it.
    """
