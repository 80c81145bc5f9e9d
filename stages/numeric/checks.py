"""Checks of parameters: type, finiteness and range, with one line of error for each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from melmill.stages.numeric.errors import ParameterError, Unusable

# No parameter is sensibly larger. What is larger has a typing error, fits no 64 bits, asks for more
# memory than there is, or overflows float32 in the middle of a run.
LARGEST_INT = 2**63 - 1
LARGEST_FLOAT, SMALLEST_FLOAT = 1e30, 1e-38
MAX_SR = 10_000_000
MAX_N_FFT = 65_536
MAX_N_MELS = 4_096
MAX_N_ITER = 1_000_000

_SHOWN = 80


def check_int(field: str, value: object, *, at_least: int | None = None, at_most: int = LARGEST_INT) -> None:
    """Raise ParameterError unless a value is a whole number within its bounds.

    >>> check_int("n_iter", 0, at_least=1)
    Traceback (most recent call last):
    melmill.stages.numeric.errors.ParameterError: n_iter must be at least 1, got 0
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ParameterError(field, f"must be a whole number, got {shown(value)}")
    if at_least is not None and value < at_least:
        raise ParameterError(field, f"{_lower_bound(at_least, strict=False)}, got {shown(value)}")
    if value > at_most:
        raise ParameterError(field, f"must be at most {at_most}, got {shown(value)}")


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

    Without bounds of its own it must lie within what float32 computes with: in size it is 0, or
    from 1e-38 to 1e30.

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
        raise ParameterError(field, f"must be a number, got {shown(value)}")
    number = _as_float(value)
    low = above if above is not None else at_least
    high = below if below is not None else at_most
    inside = (
        (above is None or number > above)
        and (at_least is None or number >= at_least)
        and (below is None or number < below)
        and (at_most is None or number <= at_most)
    )
    if not inside and low is not None and high is not None:
        left, right = "[" if above is None else "(", "]" if below is None else ")"
        expected = f"must be in {left}{low:g}, {high:g}{right}"
    elif not inside and low is not None:
        expected = _lower_bound(low, strict=above is not None)
    elif not inside and high is not None:
        expected = f"must be {'at most' if below is None else 'below'} {high:g}"
    elif not math.isfinite(number):
        expected = "must be finite"
    elif abs(number) > LARGEST_FLOAT:
        expected = f"must be at most {LARGEST_FLOAT:g} in size"
    elif number and abs(number) < SMALLEST_FLOAT:
        expected = f"must be 0 or at least {SMALLEST_FLOAT:g} in size"
    else:
        return
    raise ParameterError(field, f"{expected}, got {shown(value)}")


def _as_float(value: float | np.integer | np.floating) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number of hundreds of digits
        return math.inf if value > 0 else -math.inf


def shown(value: object) -> str:
    """Return a value for a message, shortened where it is long.

    >>> shown(10**400)[-6:]
    '000...'
    """
    try:
        text = repr(value)
    except ValueError:  # Python does not write out whole numbers of thousands of digits
        text = f"a whole number of {int(value).bit_length():,} bits" if isinstance(value, int) else "a value"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def check_choice(field: str, value: object, choices: Sequence[str]) -> None:
    """Raise ParameterError unless a value is one of some words.

    >>> check_choice("device", "gpu", ("cpu", "cuda"))
    Traceback (most recent call last):
    melmill.stages.numeric.errors.ParameterError: device must be 'cpu' or 'cuda', got 'gpu'
    """
    if not isinstance(value, str) or value not in choices:
        words = [repr(choice) for choice in choices]
        expected = " or ".join(words) if len(words) < 3 else f"one of {', '.join(words)}"
        raise ParameterError(field, f"must be {expected}, got {shown(value)}")


def check_bool(field: str, value: object) -> None:
    """Raise ParameterError unless a value is True or False."""
    if not isinstance(value, bool | np.bool_):
        raise ParameterError(field, f"must be true or false, got {shown(value)}")


def check_texts(field: str, value: object, example: str) -> None:
    """Raise ParameterError unless a value is a list or a tuple of texts.

    >>> check_texts("files", "*.wav", "*.flac")
    Traceback (most recent call last):
    melmill.stages.numeric.errors.ParameterError: files must be a list of texts such as ['*.flac'], got '*.wav'
    """
    if not isinstance(value, list | tuple) or not all(isinstance(text, str) for text in value):
        raise ParameterError(field, f"must be a list of texts such as {[example]}, got {shown(value)}")


_HIGHEST_PEAK = 2.0
_INTEGER_BITS = (8, 16, 24, 32)
_RESAMPLED = 1.5  # filters make peaks overshoot


def check_full_scale(y: NDArray[Any]) -> None:
    """Raise Unusable if floats are far past full scale, as integers stored as floats are.

    Parameters
    ----------
    y : ndarray
        Samples of any shape. Only finite floats are looked at. Their full scale is 1, and their
        peak may be 2, or +6 dBFS.

    >>> check_full_scale(np.array([0.0, 1200.0, -12345.0]))
    Traceback (most recent call last):
    melmill.stages.numeric.errors.Unusable: past full scale: the peak is 12345, floats lie in [-1, 1]; \
they look like 16-bit integers stored as floats: divide by 32768
    """
    if y.dtype.kind != "f" or y.size == 0:
        return
    peak = float(np.max(np.abs(y)))
    if not math.isfinite(peak):
        return
    whole = bool((y == np.rint(y)).all())
    n_zeros = y.size - np.count_nonzero(y)
    # Integers of a silent recording are small. A square wave has no zeros, and clicks hardly others.
    near_silence = whole and 0.3 * y.size < n_zeros < 0.99 * y.size
    if peak <= _HIGHEST_PEAK and not near_silence:
        return
    low, high = float(y.min()), float(y.max())
    found = f"the peak is {peak:.6g}" if peak > _HIGHEST_PEAK else f"all samples are whole, {low:g} to {high:g}"
    raise Unusable(f"past full scale: {found}, floats lie in [-1, 1]; {_integers_of(peak, whole, low)}")


def _integers_of(peak: float, whole: bool, low: float) -> str:
    """Return what integers floats with such a peak look like, and what to do."""
    if whole and low >= 0 and 128 < peak < 256:
        return "they look like unsigned 8-bit integers stored as floats: subtract 128 and divide by 128"
    if whole and peak <= _HIGHEST_PEAK:
        return "they look like integers of a silent recording stored as floats: divide by 32768"
    slack = 1.0 if whole else _RESAMPLED
    bits = next((bits for bits in _INTEGER_BITS if peak <= slack * 2 ** (bits - 1)), None)
    if bits is None or (bits == 8 and not whole):
        return f"divide by {peak:.4g} or more"
    advice = f"they look like {bits}-bit integers stored as floats: divide by {2 ** (bits - 1)}"
    return f"{advice}, or by 32768 if they were 16-bit ones of a quiet recording" if bits == 8 else advice


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
