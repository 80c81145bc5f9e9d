"""What an inverter is: a solver, which describes itself, and the recipe and problem it is given.

A solver's own module says its parameters and equations. Two more modules compute it, one for each
engine; a solver names them, so that numba and torch are imported when they are first needed.
`solver_names` and `solver_class` find the solvers, ours and those of other packages.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric import solvers
from melmill.stages.numeric.checks import MAX_N_ITER, check_bool, check_choice, check_int
from melmill.stages.numeric.errors import ParameterError
from melmill.stages.numeric.melspec import Precision
from melmill.stages.numeric.prior import Prior

GROUP = "melmill.inverters"

# Rules for the starting phase.
STARTS = ("random", "zero", "pghi")
MAGNITUDES = ("nnls", "pinv")

MagnitudeStart = Literal["nnls", "pinv"]
Seed = int | Sequence[int]


@dataclass(frozen=True, kw_only=True)
class Solver:
    """Describe an inverter: its parameters and equations, and the modules that compute it.

    A subclass is a frozen dataclass of the solver's parameters, which it checks. Its docstring has
    the equations. A stage of the same name is made from it.

    Attributes
    ----------
    name : str
        Name of the solver, as ``melmill.invert(method=...)`` takes it.
    uses : str
        Name of its stage; by default `name`.
    version : int
        Added to the version that all inverters share. Raise it whenever results change.
    compiled : str
        Module of the CPU engine's form, which defines the results; it has
        `melmill.stages.numeric.compiled.inverter.CompiledForm`'s functions.
    batched : str or None
        Module of the GPU engine's form, which has
        `melmill.stages.numeric.batched.iteration.BatchedForm`'s functions. None: CPU only.
    default_n_iter : int or None
        Number of iterations that it makes by default. 0 for a solver that does not iterate. None
        where its parameters decide.
    starts : tuple of str
        Rules for the starting phase that its stage offers. Empty where it starts in one way only.
    default_start : str
        The rule that its stage follows by default.
    default_prior : {"none", "auto"}
        Whether it takes a learned prior where the user names none: ``"auto"`` takes the one that
        comes with melmill and fits the mel.
    """

    name: ClassVar[str]
    uses: ClassVar[str]
    version: ClassVar[int] = 0
    compiled: ClassVar[str]
    batched: ClassVar[str | None] = None
    default_n_iter: ClassVar[int | None] = 100
    starts: ClassVar[tuple[str, ...]] = STARTS
    default_start: ClassVar[str] = "random"
    default_prior: ClassVar[str] = "none"

    def __init_subclass__(cls) -> None:
        """Name the stage after the solver unless the subclass names it."""
        if "uses" not in vars(cls):
            cls.uses = cls.name

    def resolved(self, n_iter: int | None, *, guided: bool = False) -> tuple[Solver | None, int]:
        """Return the solver that iterates, None where none does, and how many iterations it makes.

        Parameters
        ----------
        n_iter : int or None
            Iterations that the user asked for; None for the default.
        guided : bool
            Whether a prior guesses the starting magnitude.
        """
        if n_iter is None:
            assert self.default_n_iter is not None
            n_iter = self.default_n_iter
        return self, n_iter


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Say how a mel is inverted, apart from the mel.

    Parameters
    ----------
    method : Solver or None
        None keeps the starting phase and makes no iterations.
    n_iter : int
        Number of iterations, at least 0. The projection of the start is iteration 0.
    start : {"random", "zero", "pghi"} or ndarray of float32 or float64, shape (n_samples,)
        Starting phase: a rule, or a waveform that has it.
    magnitude : {"nnls", "pinv"}
        Starting magnitude without a prior.
    prior : Prior or None
        Network that guesses the starting magnitude; it fits the mel.
    fallback_n_iter : int or None
        Number of iterations where the prior would lose and `magnitude` is taken in its place, as
        `melmill.stages.numeric.compiled.start` judges. None: the prior is taken wherever it leads.
    seed : int or sequence of int
        Seed of random phases; none is negative.
    trace : bool
        Measure every iteration.
    dtype : {"float32", "float64"}
        Precision of all computations and of the result.

    Raises
    ------
    ParameterError
        A parameter has a wrong type or lies outside its range.
    """

    method: Solver | None
    n_iter: int = 100
    start: str | NDArray[np.floating] = "pghi"
    magnitude: MagnitudeStart = "nnls"
    prior: Prior | None = None
    fallback_n_iter: int | None = None
    seed: Seed = 0
    trace: bool = False
    dtype: Precision = "float32"

    def __post_init__(self) -> None:
        """Check the parameters; the solver has checked its own."""
        check_int("n_iter", self.n_iter, at_least=0, at_most=MAX_N_ITER)
        if not isinstance(self.start, np.ndarray) and self.start not in STARTS:
            raise ParameterError("start", f"must be one of {', '.join(STARTS)} or a waveform, got {self.start!r}")
        check_choice("magnitude", self.magnitude, MAGNITUDES)
        if not isinstance(self.prior, Prior | None):
            raise ParameterError("prior", f"must be what melmill.load_prior returns, or None, got {self.prior!r}")
        if self.fallback_n_iter is not None:
            check_int("fallback_n_iter", self.fallback_n_iter, at_least=0, at_most=MAX_N_ITER)
        for seed in self.seed if isinstance(self.seed, tuple | list) else (self.seed,):
            check_int("seed", seed, at_least=0)
        check_bool("trace", self.trace)
        check_choice("dtype", self.dtype, ("float32", "float64"))

    def iterations(self, *, guided: bool) -> int:
        """Return the number of iterations from the prior's magnitude, or from one without it."""
        return self.n_iter if guided or self.fallback_n_iter is None else self.fallback_n_iter


class Answer(NamedTuple):
    """What an engine made of a problem.

    Parameters
    ----------
    y : ndarray of the recipe's dtype, shape (n_samples,)
        The signal whose STFT is the method's last consistent spectrum Z; for ADMM ``iSTFT(X - V)``.
    misfits : list of float
        SCM's numerator (eq. 21) at the start and after every iteration, in the unit of the linear
        mel. Empty unless the recipe asks for a trace.
    guided : bool
        Whether it started from the prior's magnitude.
    """

    y: NDArray[np.floating]
    misfits: list[float]
    guided: bool


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A mel that can be inverted, and how.

    Parameters
    ----------
    linear : ndarray of float32, shape (n_mels, n_frames)
        ``E |X|**power``, finite, of as many frames as `length` samples have.
    recipe : Recipe
        A waveform to start from has `length` finite samples.
    length : int
        Samples of the result.
    """

    linear: NDArray[np.float32]
    recipe: Recipe
    length: int


def solver_names() -> list[str]:
    """Return the names of all solvers, with those of the entry-point group `melmill.inverters`."""
    return sorted({*_built_in(), *_installed()})


def solver_class(name: str) -> type[Solver]:
    """Return the solver called `name`.

    Raises
    ------
    ParameterError
        There is none; the message has the nearest name.

    >>> solver_class("raar").default_n_iter
    100
    """
    if not isinstance(name, str):
        raise ParameterError("method", f"must be the name of a solver, got {name!r}")
    if name in _built_in():
        return _built_in()[name]
    if name in _installed():
        loaded = _installed()[name].load()
        if not (isinstance(loaded, type) and issubclass(loaded, Solver) and loaded.name == name):
            raise ParameterError("method", f"{name!r} is registered as {loaded!r}: expected a Solver of that name")
        return loaded
    near = difflib.get_close_matches(str(name), solver_names(), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ParameterError("method", f"must be one of {', '.join(solver_names())}, got {name!r}{hint}")


def solver_of_stage(uses: str) -> type[Solver] | None:
    """Return the solver whose stage has a name; None where no solver makes that stage."""
    built_in = {solver.uses: solver for solver in _built_in().values()}
    if uses in built_in:
        return built_in[uses]
    return solver_class(uses) if uses in _installed() else None


def solver_stages() -> list[str]:
    """Return the names of the stages that are made from solvers."""
    return sorted({*(solver.uses for solver in _built_in().values()), *_installed()})


@cache
def _built_in() -> dict[str, type[Solver]]:
    """Return the solvers of the modules in `solvers/`: each is light, and describes one."""
    modules = [
        importlib.import_module(f"{solvers.__name__}.{module.name}")
        for module in pkgutil.iter_modules(solvers.__path__)
    ]
    described = (value for module in modules for value in vars(module).values() if isinstance(value, type))
    return {solver.name: solver for solver in described if issubclass(solver, Solver) and solver is not Solver}


@cache
def _installed() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}
