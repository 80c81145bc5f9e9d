"""Stages that invert mel spectrograms by signal processing alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from melmill.stages.contract import Input, Item, Kind, Mel, Outcome, Product, Waveform, as_float, each, stored
from melmill.stages.invert.inversion import DEVICES, Device, Inversion, pose, solve_all
from melmill.stages.numeric import solvers
from melmill.stages.numeric.errors import ContractError, ParameterError
from melmill.stages.numeric.mel import to_linear
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.recipe import START_WORDS, MagnitudeStart, Problem, Recipe
from melmill.storage.utterance import resampled_length

_MEL = Input(kinds=frozenset({Kind.MEL}))
_START = Input(kinds=frozenset({Kind.WAVEFORM}), words=START_WORDS, optional=True)


@dataclass(frozen=True, kw_only=True)
class _Inverter(ABC):
    """What all inverters share.

    Parameters
    ----------
    magnitude : {"nnls", "pinv"}
        Starting magnitude: non-negative least squares, or the clipped pseudo-inverse.
    seed : int
        Combined with each utterance's own, for random phases.
    trace : bool
        Store the SCM of every iteration.
    dtype : {"float32", "int16"}
        What is stored; int16 is ``32768 y`` rounded to even and clipped to [-32768, 32767].
    device : {"cpu", "cuda"}
        Where it is computed; the results are the same but for rounding.
    """

    uses: ClassVar[str]
    version: ClassVar[int] = 3
    inputs: ClassVar[Mapping[str, Input]] = {"from": _MEL, "start": _START}

    magnitude: MagnitudeStart = "nnls"
    seed: int = 0
    trace: bool = False
    dtype: Literal["float32", "int16"] = "float32"
    device: Device = "cpu"

    def __post_init__(self) -> None:
        """Check the parameters; the method checks its own."""
        if self.device not in DEVICES:
            raise ParameterError("device", f"must be one of {', '.join(DEVICES)}, got {self.device!r}")
        if self.dtype not in ("float32", "int16"):
            raise ParameterError("dtype", f"must be 'float32' or 'int16', got {self.dtype!r}")
        if self.seed < 0:
            raise ParameterError("seed", f"must not be negative, got {self.seed!r}")
        Recipe(method=None, magnitude=self.magnitude)

    @abstractmethod
    def recipe(self, start: NDArray[Any] | None, seed: int) -> Recipe:
        """Return how to invert an utterance of that seed, with the waveform at its port `start`."""

    def identity(self) -> Mapping[str, Any]:
        """Return all parameters but the device."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "device"}

    def produces(self, inputs: Mapping[str, Sequence[Product]]) -> Product:
        """Check the mel and the starting waveform; return waveforms at the mel's rate."""
        spec = _mel_spec(inputs["from"][0])
        for start in inputs.get("start", ()):
            if not isinstance(start, Waveform):
                raise ContractError(f"'start' must be a waveform, got {start!r}")
            if start.sr != spec.sr:
                raise ContractError(
                    f"'start' is at {start.sr} Hz but the mel is of audio at {spec.sr} Hz: "
                    "start from a node whose waveforms have the mel's rate"
                )
        return Waveform(sr=spec.sr, dtype=self.dtype, mel=spec)

    def process(self, items: Sequence[Item], inputs: Mapping[str, Product], product: Product) -> Sequence[Outcome]:
        """Invert mels: on the CPU each by itself, on a GPU in padded batches, which changes outcomes by rounding alone.

        Raises
        ------
        DeviceMissing
            This process lacks the device.
        """
        del product
        spec = _mel_spec(inputs["from"])
        if self.device == "cpu":
            return each(items, lambda item: self._outcome(solve_all([self._problem(item, spec)], spec)[0]))
        return self._batched(items, spec)

    def _batched(self, items: Sequence[Item], spec: MelSpec) -> list[Outcome]:
        problems = []

        def posed(item: Item) -> Outcome:
            problems.append(self._problem(item, spec))
            return Outcome()

        outcomes = each(items, posed)
        results = iter(solve_all(problems, spec, self.device))
        return [outcome if outcome.rejected else self._outcome(next(results)) for outcome in outcomes]

    def _problem(self, item: Item, spec: MelSpec) -> Problem:
        utterance, start = item.utterance, item.inputs.get("start")
        length = resampled_length(utterance.n_samples, utterance.sr, spec.sr)
        recipe = self.recipe(None if start is None else as_float(start), item.seed)
        return pose(item.inputs["from"], spec, recipe, length)

    def _outcome(self, result: Inversion) -> Outcome:
        return Outcome(array=stored(result.y, self.dtype), trace=result.trace)


@dataclass(frozen=True, kw_only=True)
class _Iterative(_Inverter):
    """An inverter that iterates.

    Parameters
    ----------
    n_iter : int
        Number of iterations, at least 1.
    start : {"random", "zero", "pghi"}
        Starting phase, unless waveforms at the port `start` give it.
    """

    n_iter: int = 100
    start: str = "random"

    def __post_init__(self) -> None:
        """Check the parameters."""
        if self.n_iter < 1:
            raise ParameterError("n_iter", f"must be at least 1, got {self.n_iter!r}")
        if self.start not in START_WORDS:
            raise ParameterError("start", f"must be one of {', '.join(START_WORDS)} or a node, got {self.start!r}")
        _ = self.method
        super().__post_init__()

    @property
    @abstractmethod
    def method(self) -> solvers.Method:
        """The method with its parameters."""

    def recipe(self, start: NDArray[Any] | None, seed: int) -> Recipe:
        """Return how to invert an utterance of that seed, with the waveform at its port `start`."""
        return Recipe(
            method=self.method,
            n_iter=self.n_iter,
            start=self.start if start is None else start,
            magnitude=self.magnitude,
            seed=(seed, self.seed),
            trace=self.trace,
        )


@dataclass(frozen=True, kw_only=True)
class Invert(_Inverter):
    """The best inversion for its time: at present ADMM from PGHI's phase with a swinging penalty.

    Parameters
    ----------
    quality : {"draft", "good", "best"}
        What to spend: 20, 50 or 200 iterations.
    n_iter : int or None
        Iterations in place of the quality's.
    start : {"pghi"}
        Starting phase, unless waveforms at the port `start` give it, such as a vocoder's.
    """

    uses: ClassVar[str] = "invert"
    inputs: ClassVar[Mapping[str, Input]] = {"from": _MEL, "start": replace(_START, words=("pghi",))}
    quality: solvers.Quality = "good"
    n_iter: int | None = None
    start: str = "pghi"

    def __post_init__(self) -> None:
        """Check the parameters."""
        solvers.auto(self.quality)
        if self.n_iter is not None and self.n_iter < 1:
            raise ParameterError("n_iter", f"must be at least 1, got {self.n_iter!r}")
        if self.start != "pghi":
            raise ParameterError("start", f"must be 'pghi' or a node, got {self.start!r}")
        super().__post_init__()

    def recipe(self, start: NDArray[Any] | None, seed: int) -> Recipe:
        """Return how to invert an utterance of that seed, with the waveform at its port `start`."""
        method, n_iter = solvers.auto(self.quality)
        return Recipe(
            method=method,
            n_iter=n_iter if self.n_iter is None else self.n_iter,
            start=self.start if start is None else start,
            magnitude=self.magnitude,
            seed=(seed, self.seed),
            trace=self.trace,
        )


@dataclass(frozen=True, kw_only=True)
class GriffinLim(_Iterative):
    """Griffin-Lim on a fixed magnitude; with `momentum` (0.99) the fast variant."""

    uses: ClassVar[str] = "griffin_lim"
    momentum: float = 0.0

    @property
    def method(self) -> solvers.Method:
        """The method with its parameters."""
        return solvers.GriffinLim(momentum=self.momentum)


@dataclass(frozen=True, kw_only=True)
class AdmmGla(_Iterative):
    """ADMM on a fixed magnitude (Masuyama 2019); `rho` lets the magnitude give way."""

    uses: ClassVar[str] = "admm_gla"
    rho: float = solvers.AdmmGla.rho

    @property
    def method(self) -> solvers.Method:
        """The method with its parameters."""
        return solvers.AdmmGla(rho=self.rho)


@dataclass(frozen=True, kw_only=True)
class Raar(_Iterative):
    """Relaxed averaged alternating reflections on a fixed magnitude (Peer 2022), relaxed by `beta`."""

    uses: ClassVar[str] = "raar"
    beta: float = solvers.Raar.beta

    @property
    def method(self) -> solvers.Method:
        """The method with its parameters."""
        return solvers.Raar(beta=self.beta)


@dataclass(frozen=True, kw_only=True)
class Ipalm(_Iterative):
    """iPALM on magnitude and phase (Masuyama 2023), with inertia `alpha` and the mel's weight `lam`."""

    uses: ClassVar[str] = "ipalm"
    alpha: float = solvers.Ipalm.alpha
    lam: float = solvers.Ipalm.lam

    @property
    def method(self) -> solvers.Method:
        """The method with its parameters."""
        return solvers.Ipalm(alpha=self.alpha, lam=self.lam)


@dataclass(frozen=True, kw_only=True)
class Admm(_Iterative):
    """ADMM on magnitude and phase (Masuyama 2024).

    `lam` is for a bank of unit spectral norm: multiply a paper's by ``||E||_2^2``. By default it starts from PGHI's
    phase, which saves half the iterations; ``schedule: swing`` with ``lam: 85.8`` halves them again by PESQ and SC, and
    saves less by ESTOI and SCM.
    """

    uses: ClassVar[str] = "admm"
    start: str = "pghi"
    lam: float = solvers.Admm.lam
    rho: float = solvers.Admm.rho
    schedule: Literal["constant", "swing"] = solvers.Admm.schedule

    @property
    def method(self) -> solvers.Method:
        """The method with its parameters."""
        return solvers.Admm(lam=self.lam, rho=self.rho, schedule=self.schedule)


@dataclass(frozen=True, kw_only=True)
class Pghi(_Inverter):
    """Phase-gradient heap integration (Prusa 2017): one pass, no iterations."""

    uses: ClassVar[str] = "pghi"
    inputs: ClassVar[Mapping[str, Input]] = {"from": _MEL}

    def recipe(self, start: NDArray[Any] | None, seed: int) -> Recipe:
        """Return how to invert an utterance of that seed; there is no port `start`."""
        del start
        return Recipe(
            method=None, n_iter=0, start="pghi", magnitude=self.magnitude, seed=(seed, self.seed), trace=self.trace
        )


def _mel_spec(product: Product) -> MelSpec:
    if not isinstance(product, Mel):
        raise ContractError(f"'from' must be a mel, got {product!r}")
    to_linear(np.empty((product.spec.n_mels, 0)), product.spec)  # raises where no mel of this spec can be undone
    return product.spec
