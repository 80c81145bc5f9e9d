"""A solver's iterations on a batch: a step on complex spectra, made again and again.

A step is given Z, the projection of the spectrum that comes first in the state. It overwrites the
state. It is element-wise but for the products with the bank, so that it compiles to one kernel,
which reads what it needs of a bin and writes it once.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from melmill.stages.numeric.batched.device import Placement
from melmill.stages.numeric.batched.projection import Projection
from melmill.stages.numeric.compiled.misfit import TINY
from melmill.stages.numeric.errors import ParameterError
from melmill.stages.numeric.filterbank import Bank
from melmill.stages.numeric.solver import Solver

_LOW = 0xFFFFFFFF


class Start(NamedTuple):
    """What a solver starts from; its state may take over any of these tensors.

    Parameters
    ----------
    X, Z : Tensor, complex, shape (B, T, F)
        The start and its projection.
    Y : Tensor, shape (B, T, F)
        Magnitude of X.
    M : Tensor, shape (B, T, n_mels)
        Linear mels divided by the bank's norm.
    """

    X: Tensor
    Z: Tensor
    Y: Tensor
    M: Tensor


@dataclass(frozen=True, kw_only=True)
class Iteration:
    """A solver at work on a batch.

    Parameters
    ----------
    step : callable
        Called with Z, the state, the rest, and its row of `parameters`; overwrites the state.
    state : tuple of Tensor
        Its first is the spectrum that is projected next.
    rest : tuple
        What a step only reads: magnitude or mels, and the bank.
    parameters : Tensor, shape (n_iter, n_parameters)
        The solver's own, for every iteration. They are no constants, so that other values need no
        other kernel.
    """

    step: Callable[..., None]
    state: tuple[Tensor, ...]
    rest: tuple[Any, ...]
    parameters: Tensor


class BatchedForm(Protocol):
    """What a module has that computes a solver on a GPU."""

    def begin(self, solver: Any, n_iter: int, start: Start, bank: Bank, place: Placement) -> Iteration:  # noqa: ANN401 - each solver has its own type
        """Return the solver about to make the first of `n_iter` iterations."""
        ...


def iteration(solver: Solver, n_iter: int, start: Start, bank: Bank, place: Placement) -> Iteration:
    """Return a solver about to make the first of `n_iter` iterations.

    Raises
    ------
    ParameterError
        The solver has no form for a GPU.
    """
    if solver.batched is None:
        raise ParameterError("device", f"must be 'cpu': {solver.name!r} has no form for a GPU")
    return cast(BatchedForm, importlib.import_module(solver.batched)).begin(solver, n_iter, start, bank, place)


def each_iteration(n_iter: int, place: Placement, *columns: ArrayLike) -> Tensor:
    """Return parameters ``(n_iter, n_parameters)`` on the device.

    Parameters
    ----------
    n_iter : int
    place : Placement
    *columns : array_like
        Each is a constant, or a value for each iteration.
    """
    return place.tensor(np.stack([np.broadcast_to(column, n_iter) for column in columns], axis=1))


def iterate(
    loop: Iteration, projection: Projection, place: Placement, measure: Callable[[], None] | None = None
) -> None:
    """Make all iterations on the projection's signals; `measure` is called after every one.

    On CUDA the second iteration is recorded as a graph, which is launched for all that follow.
    """
    step = place.kernel(loop.step)
    state = [packed(part) if place.fused and part.is_complex() else part for part in loop.state]
    now = loop.parameters.new_empty(loop.parameters.shape[1])

    def once() -> None:
        Z = projection.analyse()
        step(packed(Z) if place.fused else Z, *state, *loop.rest, now)
        del Z
        projection.synthesise(loop.state[0])

    again = once
    for done, parameters in enumerate(loop.parameters):
        now.copy_(parameters)
        if done == 1 and place.device.type == "cuda":
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                once()  # recorded alone: its kernels were compiled when it ran before
            again = graph.replay
        again()
        if measure is not None:
            measure()


@dataclass(frozen=True)
class Pair:
    """Hold a complex tensor as its real and imaginary parts, which torch's compiler can fuse."""

    real: Tensor
    imag: Tensor

    def __add__(self, other: Pair) -> Pair:
        """Add bin by bin."""
        return Pair(self.real + other.real, self.imag + other.imag)

    def __sub__(self, other: Pair) -> Pair:
        """Subtract bin by bin."""
        return Pair(self.real - other.real, self.imag - other.imag)

    def times(self, factor: Tensor) -> Pair:
        """Scale by reals."""
        return Pair(self.real * factor, self.imag * factor)

    def modulus(self) -> Tensor:
        """Return the absolute value, at least the root of `TINY`, so that 0 divided by it is 0."""
        return torch.sqrt(self.real * self.real + self.imag * self.imag + TINY)


def packed(spectrum: Tensor) -> Tensor:
    """View a complex64 tensor as int64, so that a kernel has one index a bin."""
    return spectrum.view(torch.int64)


def parts(spectrum: Tensor) -> Pair:
    """Return the parts of a complex tensor, views of it, or those of a packed one.

    >>> parts(packed(torch.tensor([1 - 2j])))
    Pair(real=tensor([1.]), imag=tensor([-2.]))
    """
    if spectrum.is_complex():
        return Pair(spectrum.real, spectrum.imag)
    low, high = (spectrum & _LOW).to(torch.int32), (spectrum >> 32).to(torch.int32)
    return Pair(low.view(torch.float32), high.view(torch.float32))


def store(spectrum: Tensor, value: Pair) -> None:
    """Overwrite a complex or packed tensor."""
    if spectrum.is_complex():
        spectrum.real.copy_(value.real)
        spectrum.imag.copy_(value.imag)
        return
    low, high = (part.view(torch.int32).to(torch.int64) for part in (value.real, value.imag))
    spectrum.copy_((high << 32) | (low & _LOW))
