"""How a mel is inverted, apart from the mel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from melmill.stages.numeric.errors import ParameterError
from melmill.stages.numeric.melspec import Precision
from melmill.stages.numeric.solvers import Method

START_WORDS = ("random", "zero", "pghi")

MagnitudeStart = Literal["nnls", "pinv"]
Seed = int | Sequence[int]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Say how a mel is inverted, apart from the mel.

    Parameters
    ----------
    method : Method or None
        None keeps the starting phase: no iterations.
    n_iter : int
        Number of iterations, at least 0. The projection of the start is iteration 0.
    start : {"random", "zero", "pghi"} or ndarray (n_samples,)
        Starting phase: a rule, or that of a waveform.
    magnitude : {"nnls", "pinv"}
        Starting magnitude.
    seed : int or sequence of int
        Of the random phases.
    trace : bool
        Measure every iteration.
    dtype : {"float32", "float64"}
        Precision of all that is computed and of the result.
    """

    method: Method | None
    n_iter: int = 100
    start: str | NDArray[Any] = "pghi"
    magnitude: MagnitudeStart = "nnls"
    seed: Seed = 0
    trace: bool = False
    dtype: Precision = "float32"

    def __post_init__(self) -> None:
        """Check the parameters; the method has checked its own."""
        if self.n_iter < 0:
            raise ParameterError("n_iter", f"must not be negative, got {self.n_iter!r}")
        if isinstance(self.start, str) and self.start not in START_WORDS:
            raise ParameterError("start", f"must be one of {', '.join(START_WORDS)} or a waveform, got {self.start!r}")
        if self.magnitude not in ("nnls", "pinv"):
            raise ParameterError("magnitude", f"must be 'nnls' or 'pinv', got {self.magnitude!r}")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A mel that was found fit to be inverted, and how.

    Parameters
    ----------
    linear : ndarray of float32, shape (n_mels, n_frames)
        ``E |X|**power``, finite, of as many frames as `length` samples have.
    recipe : Recipe
        A waveform to start from has `length` finite samples.
    length : int
        Samples of the result.
    """

    linear: NDArray[Any]
    recipe: Recipe
    length: int
