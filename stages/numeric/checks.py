"""Checks of parameters: type, finiteness and range, with one line of error for each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from melmill.stages.numeric.errors import ParameterError


def check_int(field: str, value: object, *, at_least: int | None = None) -> None:
    """Raise ParameterError unless a value is a whole number, and no less than `at_least`.

    >>> check_int("n_iter", 0, at_least=1)
    Traceback (most recent call last):
    melmill.stages.numeric.errors.ParameterError: n_iter must be at least 1, got 0
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ParameterError(field, f"must be a whole number, got {value!r}")
    if at_least is not None and value < at_least:
        raise ParameterError(field, f"{_lower_bound(at_least, strict=False)}, got {value!r}")


def check_float(
    field: str,
    value: object,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
) -> None:
    """Raise ParameterError unless a value is a finite number within its bounds.

    Parameters
    ----------
    field : str
        Name of the parameter.
    value : object
    above, at_least : float or None
        Lower bound, excluded or included; None for both where there is none.
    below, at_most : float or None
        Upper bound, likewise.

    >>> check_float("momentum", 1.5, at_least=0, below=1)
    Traceback (most recent call last):
    melmill.stages.numeric.errors.ParameterError: momentum must be in [0, 1), got 1.5
    """
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise ParameterError(field, f"must be a number, got {value!r}")
    number = float(value)
    low = above if above is not None else at_least
    high = below if below is not None else at_most
    inside = (
        (above is None or number > above)
        and (at_least is None or number >= at_least)
        and (below is None or number < below)
        and (at_most is None or number <= at_most)
    )
    if inside and math.isfinite(number):
        return
    if inside or (low is None and high is None):
        expected = "must be finite"
    elif low is not None and high is not None:
        left, right = "[" if above is None else "(", "]" if below is None else ")"
        expected = f"must be in {left}{low:g}, {high:g}{right}"
    elif low is not None:
        expected = _lower_bound(low, strict=above is not None)
    else:
        expected = f"must be {'at most' if below is None else 'below'} {high:g}"
    raise ParameterError(field, f"{expected}, got {value!r}")


def check_choice(field: str, value: object, choices: Sequence[str]) -> None:
    """Raise ParameterError unless a value is one of some words.

    >>> check_choice("device", "gpu", ("cpu", "cuda"))
    Traceback (most recent call last):
    melmill.stages.numeric.errors.ParameterError: device must be 'cpu' or 'cuda', got 'gpu'
    """
    if not isinstance(value, str) or value not in choices:
        words = [repr(choice) for choice in choices]
        expected = " or ".join(words) if len(words) < 3 else f"one of {', '.join(words)}"
        raise ParameterError(field, f"must be {expected}, got {value!r}")


def check_bool(field: str, value: object) -> None:
    """Raise ParameterError unless a value is True or False."""
    if not isinstance(value, bool | np.bool_):
        raise ParameterError(field, f"must be true or false, got {value!r}")


def as_array(field: str, values: ArrayLike) -> NDArray[Any]:
    """Return an array of numbers, from an array, a list or a tensor on any device.

    Raises
    ------
    ParameterError
        The values are no numbers, or lists of several lengths.

    >>> as_array("y", [[0.5, 1.0]]).shape
    (1, 2)
    """
    detach = getattr(values, "detach", None)
    try:
        array = np.asarray(values if detach is None else detach().cpu())
    except (TypeError, ValueError) as error:
        raise ParameterError(field, f"can't be read as an array: {error}") from error
    if array.dtype.kind not in "biuf":
        raise ParameterError(field, f"must hold real numbers, got {array.dtype} in {type(values).__name__}")
    return array


def _lower_bound(bound: float, *, strict: bool) -> str:
    if bound == 0:
        return "must be positive" if strict else "must not be negative"
    return f"must be {'more than' if strict else 'at least'} {bound:g}"
