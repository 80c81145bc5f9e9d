"""Predictors of one's own: programs that judge a waveform, named in the pipeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from melmill.stages.contract import StageFile
from melmill.stages.numeric.checks import MAX_SR, check_int
from melmill.stages.numeric.errors import ParameterError
from melmill.stages.score.metric import PREDICTED, Metric, metric
from melmill.stages.score.pair import Pair
from melmill.stages.score.status import Measured, Status

if TYPE_CHECKING:
    from torch import nn

MOST_OUTPUTS = 1_000_000

T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """Describe a program that judges a waveform.

    It takes float32 samples ``(1, n_samples)`` with full scale 1, for any number of samples. What it
    returns, a tensor or several, is read as one list of numbers. A higher number is better. A program
    is code: name only those that you trust.

    Parameters
    ----------
    file : str
        TorchScript, a torch.export archive (``.pt2``) or ONNX (``.onnx``), a path or URL.
    sr : int
        Rate that it hears, Hz.
    output : int
        Which of the numbers is the value, from 0.
    """

    file: str = field(metadata={"place": True, "example": "utmos.ts"})
    sr: int = field(metadata={"example": 16000})
    output: int = 0

    def __post_init__(self) -> None:
        """Check the fields."""
        if not self.file:
            raise ParameterError("file", "must be a path or URL, got ''")
        check_int("sr", self.sr, at_least=1, at_most=MAX_SR)
        check_int("output", self.output, at_least=0, at_most=MOST_OUTPUTS)

    def described(self, name: str) -> Metric:
        """Return the metric that `metrics` names, without its program."""
        return replace(metric(PREDICTED + name), name=name, lowest_sr=self.sr)

    def opened(self, name: str, file: StageFile) -> Metric:
        """Return the metric that computes with the program in a file.

        Raises
        ------
        StageError
            The file is no program, or can't be read.
        """
        return replace(self.described(name), compute=partial(_measured, Program(file), self))

    def checked(self, name: str, file: StageFile) -> None:
        """Raise StageError if the program in a file gives no such output for a second of noise."""
        values = _tried(name, file, self.sr, Program(file).values)
        if self.output >= values.size:
            raise ParameterError(
                "predictors",
                f"{name}: {file.name} gives {values.size} numbers, and output {self.output} is not among them",
            )

    def embedder(self, file: StageFile) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
        """Return the embedding that the program in a file computes: signals to ``(n_parts, n_dimensions)``.

        Raises
        ------
        StageError
            The file is no program, or can't be read.
        """
        return Program(file).rows

    def embeds(self, name: str, file: StageFile) -> None:
        """Raise StageError if the program in a file gives no embedding for a second of noise."""
        parts = _tried(name, file, self.sr, Program(file).rows)
        if parts.size == 0 or parts.shape[1] < 2:
            raise ParameterError(
                "predictors",
                f"{name}: the last axis of what {file.name} gives has no two numbers, so it is no embedding",
            )


class Program:
    """Run an exported program on waveforms, one at a time, on the CPU.

    Parameters
    ----------
    file : StageFile
        TorchScript, a torch.export archive or ONNX.

    Raises
    ------
    StageError
        The file is no program, or can't be read.
    """

    def __init__(self, file: StageFile) -> None:
        from melmill.stages.vocode.families.exported.program import module  # here, as it imports torch
        from melmill.stages.vocode.files.checkpoint import read

        self._module: nn.Module = module(read(file.name, file.data))

    def values(self, y: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return all numbers that the program gives for a waveform ``(n_samples,)``."""
        return np.array(list(_flat(self._given(y))), dtype=np.float64)

    def rows(self, y: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the first tensor that it gives for a waveform, as rows along its last axis: ``(n_rows, n)``."""
        import torch

        given = self._given(y)
        while isinstance(given, (Mapping, tuple, list)) and len(given):
            given = next(iter(given.values() if isinstance(given, Mapping) else given))
        if not isinstance(given, torch.Tensor) or not given.ndim:
            return np.empty((0, 0), dtype=np.float32)
        return np.asarray(given.detach().to(torch.float32).reshape(-1, given.shape[-1]).numpy())

    def _given(self, y: NDArray[np.float32]) -> Any:  # noqa: ANN401 - a program may give anything
        import torch

        with torch.no_grad():
            return self._module(torch.from_numpy(y)[np.newaxis])


def noise(n_samples: int) -> NDArray[np.float32]:
    """Return noise ``(n_samples,)`` that a program is tried on."""
    return (0.1 * np.random.default_rng(0).standard_normal(n_samples)).astype(np.float32)


def _flat(given: Any) -> list[float]:  # noqa: ANN401 - a program may give anything
    """Return the numbers of a tensor, or of tensors in tuples, lists and mappings."""
    import torch

    if isinstance(given, torch.Tensor):
        return [float(value) for value in given.detach().flatten().tolist()]
    parts = given.values() if isinstance(given, Mapping) else given if isinstance(given, (tuple, list)) else [given]
    return [float(value) for part in parts for value in (_flat(part) if not isinstance(part, (int, float)) else [part])]


def _tried(name: str, file: StageFile, sr: int, run: Callable[[NDArray[np.float32]], NDArray[T]]) -> NDArray[T]:
    """Return what a program gives for a second of noise; raise ParameterError if it takes none."""
    try:
        return run(noise(sr))
    except Exception as error:  # programs raise what they like
        if isinstance(error, ParameterError):
            raise
        raise ParameterError(
            "predictors",
            f"{name}: {file.name} does not take float32 samples (1, {sr}): {_line(error)}. Export it for a "
            "waveform alone, with the last axis dynamic",
        ) from error


def _measured(program: Program, predictor: Predictor, pair: Pair) -> Measured:
    try:
        values = program.values(pair.estimate_at(predictor.sr))
    except MemoryError:
        raise
    except Exception:  # such as a signal too short for its layers
        return Measured.failed(Status.ERROR)
    if predictor.output >= values.size:
        return Measured.failed(Status.ERROR)
    return Measured.of(float(values[predictor.output]))


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
