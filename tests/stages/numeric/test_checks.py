"""Every wrong parameter is one line that says what was expected and what was got."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from melmill.stages.numeric.checks import as_array, check_bool, check_choice, check_float, check_int
from melmill.stages.numeric.errors import ParameterError


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda: check_int("n", True), "n must be a whole number, got True"),
        (lambda: check_int("n", 2.0), "n must be a whole number, got 2.0"),
        (lambda: check_int("n", "2"), "n must be a whole number, got '2'"),
        (lambda: check_int("n", -1, at_least=0), "n must not be negative, got -1"),
        (lambda: check_int("n", 0, at_least=1), "n must be at least 1, got 0"),
        (lambda: check_int("n", 2**63), "n must be at most 9223372036854775807, got 9223372036854775808"),
        (lambda: check_int("n", 11, at_most=10), "n must be at most 10, got 11"),
        (lambda: check_int("n", 10**5000, at_most=10), "n must be at most 10, got a whole number of 16,610 bits"),
        (lambda: check_float("x", 10**400), r"x must be finite, got 10+\.\.\."),
        (lambda: check_float("x", -1e31), r"x must be at most 1e\+30 in size, got -1e\+31"),
        (lambda: check_float("x", 1e-39), "x must be 0 or at least 1e-38 in size, got 1e-39"),
        (lambda: check_float("x", None), "x must be a number, got None"),
        (lambda: check_float("x", False), "x must be a number, got False"),
        (lambda: check_float("x", np.nan), "x must be finite, got nan"),
        (lambda: check_float("x", np.inf), "x must be finite, got inf"),
        (lambda: check_float("x", np.inf, above=0), "x must be finite, got inf"),
        (lambda: check_float("x", 0.0, above=0), "x must be positive, got 0.0"),
        (lambda: check_float("x", -0.1, at_least=0), "x must not be negative, got -0.1"),
        (lambda: check_float("x", 1, above=2), "x must be more than 2, got 1"),
        (lambda: check_float("x", 1, at_least=0, below=1), r"x must be in \[0, 1\), got 1"),
        (lambda: check_float("x", 0, above=0, at_most=1), r"x must be in \(0, 1\], got 0"),
        (lambda: check_float("x", 2, at_most=1), "x must be at most 1, got 2"),
        (lambda: check_float("x", 1, below=1), "x must be below 1, got 1"),
        (lambda: check_choice("w", "c", ("a", "b")), "w must be 'a' or 'b', got 'c'"),
        (lambda: check_choice("w", 3, ("a", "b", "c")), "w must be one of 'a', 'b', 'c', got 3"),
        (lambda: check_bool("b", 0), "b must be true or false, got 0"),
        (lambda: as_array("y", ["a"]), "y must hold real numbers, got <U1 in list"),
    ],
)
def test_a_wrong_value_is_named(check: Callable[[], object], message: str) -> None:
    with pytest.raises(ParameterError, match=f"^{message}$"):
        check()


def test_right_values_pass() -> None:
    check_int("n", np.int64(3), at_least=3)
    check_float("x", np.float32(0.5), at_least=0, below=1)
    check_float("x", 1, above=0)
    check_choice("w", "a", ("a", "b"))
    check_bool("b", False)


def test_arrays_are_made_of_what_holds_numbers() -> None:
    assert as_array("y", [[1, 2]]).shape == (1, 2)
    assert as_array("y", torch.ones(3, requires_grad=True)).tolist() == [1.0, 1.0, 1.0]
    y = np.zeros(4, dtype=np.int16)
    assert as_array("y", y) is y
