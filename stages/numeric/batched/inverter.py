"""Many mels to as many waveforms, batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from melmill.stages.numeric.batched.bands import bands_of, misfit_energies
from melmill.stages.numeric.batched.device import Placement, batches, device_lock, full_precision, in_halves, placement
from melmill.stages.numeric.batched.iteration import Start, iterate, iteration
from melmill.stages.numeric.batched.magnitude import estimate_magnitude
from melmill.stages.numeric.batched.projection import Projection
from melmill.stages.numeric.compiled.magnitude import starting_magnitude
from melmill.stages.numeric.compiled.phase import start_phase
from melmill.stages.numeric.compiled.start import started as started_on_host
from melmill.stages.numeric.filterbank import bank_of
from melmill.stages.numeric.lanes.sweep import from_lanes
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.solver import Answer, Problem, Recipe

# Half an hour of speech; more makes no iteration faster. It is a constant, so that batches and
# their rounding depend on the utterances alone, on any device that has the room.
_BATCH_BYTES = 4 * 2**30
_SHARE_OF_FREE = 0.8

# At most, in single precision: state, spectrum and frames, those of a graph and those of the
# iteration before it, and the next batch's magnitude.
_BYTES_A_BIN = 80

# Integrating phase takes one core about as long as the iterations take the device.
_HOST_THREADS = 8


def invert_linears(
    problems: Sequence[Problem], spec: MelSpec, device: str, memory_bytes: int | None = None
) -> list[Answer]:
    """Return a waveform for each of several linear mels, computed on one device.

    Every result is that of `melmill.stages.numeric.compiled.inverter.invert_linear` but for
    rounding, whatever else is in its batch. While the device iterates on one batch, the host
    computes the starting phases of the next.

    Parameters
    ----------
    problems : sequence of Problem
        Their recipes differ in start and seed alone.
    spec : MelSpec
        Of the framing and the bank.
    device : str
        ``"cuda"`` or ``"cpu"``, as torch names them.
    memory_bytes : int, optional
        Memory of the device that a batch may take. By default 4 GiB, on CUDA at most 80 % of what
        is free.

    Returns
    -------
    list of Answer
        As of `invert_linear`.

    Raises
    ------
    DeviceMissing
        There is no such device.
    """
    if not problems:
        return []
    recipe, *others = {replace(p.recipe, start="zero", seed=0) for p in problems}
    if others:
        raise ValueError(f"recipes of one call may differ in start and seed alone, got {recipe!r} and {others[0]!r}")
    place = placement(device, recipe.dtype)
    with device_lock(place.device), full_precision(), ThreadPoolExecutor(_HOST_THREADS) as pool:
        work = _Work(problems, spec, recipe, place, pool)
        return work.answers(memory_bytes or _memory_bytes(place.device))


@dataclass(frozen=True, kw_only=True)
class _Started:
    """A batch whose start is being computed on the host.

    `M` is on the device and `phase` on the host, both ``(B, T, .)``. `Y` is known, and on the
    device. With a prior it is on the host, and being computed too. `under_way` will say whether the
    prior guessed it.
    """

    batch: Sequence[int]
    M: Tensor
    Y: Tensor
    phase: Tensor
    under_way: list[Future[bool]]


@dataclass(frozen=True)
class _Work:
    problems: Sequence[Problem]
    spec: MelSpec
    recipe: Recipe
    place: Placement
    pool: ThreadPoolExecutor

    def answers(self, memory_bytes: int) -> list[Answer]:
        """Return the answer to each problem. A batch starts while the one before it iterates."""
        frame_bytes = _BYTES_A_BIN * self.spec.stft.n_bins * self.place.dtype.itemsize // 4
        todo = batches([p.linear.shape[1] for p in self.problems], memory_bytes // frame_bytes)
        answers: dict[int, Answer] = {}
        waiting: list[_Started] = []
        for batch in [*todo, []]:
            following = in_halves(self._started, batch) if batch else []
            for started in waiting:
                rows = range(len(started.batch))
                answers.update(zip(started.batch, in_halves(partial(self._finished, started), rows), strict=True))
            waiting = following
        return [answers[i] for i in range(len(self.problems))]

    def _started(self, batch: Sequence[int]) -> list[_Started]:
        problems, bank = [self.problems[i] for i in batch], bank_of(self.spec)
        n_frames = [p.linear.shape[1] for p in problems]
        host = self._on_host(len(batch), max(n_frames), self.spec.n_mels)
        for row, p, n in zip(host.numpy(), problems, n_frames, strict=True):
            row[:n] = (p.linear / bank.norm).T
        M = host.to(self.place.device, non_blocking=True)
        shape = len(batch), max(n_frames), self.spec.stft.n_bins
        phase = self._on_host(*shape)
        if self.recipe.prior is None:
            Y, guesses = estimate_magnitude(M, bank, self.recipe.magnitude, self.place), [None] * len(batch)
        else:
            Y = self._on_host(*shape)
            guesses = [row[:n] for row, n in zip(Y.numpy(), n_frames, strict=True)]
        under_way = [
            self.pool.submit(_fill_start, p, self.spec, row[:n], guess)
            for p, n, row, guess in zip(problems, n_frames, phase.numpy(), guesses, strict=True)
        ]
        return [_Started(batch=batch, M=M, Y=Y, phase=phase, under_way=under_way)]

    def _finished(self, started: _Started, rows: Sequence[int]) -> list[Answer]:
        guided = [done.result() for done in started.under_way]
        n_iters = {row: self.recipe.iterations(guided=guided[row]) for row in rows}
        answers: dict[int, tuple[NDArray[np.floating], list[float]]] = {}
        for n_iter in sorted(set(n_iters.values())):
            alike = [row for row in rows if n_iters[row] == n_iter]
            answers.update(zip(alike, self._iterated(started, alike, n_iter), strict=True))
        return [Answer(*answers[row], guided[row]) for row in rows]

    def _iterated(
        self, started: _Started, rows: Sequence[int], n_iter: int
    ) -> list[tuple[NDArray[np.floating], list[float]]]:
        """Return the signals and misfits of some rows of a batch, after as many iterations."""
        whole = len(rows) == rows[-1] + 1 - rows[0]
        part, bank = slice(rows[0], rows[-1] + 1) if whole else list(rows), bank_of(self.spec)
        lengths = [self.problems[started.batch[row]].length for row in rows]
        projection = Projection(self.spec.stft, lengths, self.place)
        n_frames = projection.framing.own.shape[1]
        # A copy, as the iterations overwrite it and halves may be begun again.
        given = started.Y[part, :n_frames]
        Y = torch.empty_like(given, device=self.place.device, memory_format=torch.contiguous_format)
        Y.copy_(given, non_blocking=True)
        del given
        M = started.M[part, :n_frames].contiguous()
        X = torch.polar(Y, started.phase[part, :n_frames].to(self.place.device, non_blocking=True))
        projection.synthesise(X.clone())
        misfits: list[Tensor] = []

        def measure() -> None:
            misfits.append(misfit_energies(projection.analyse(), M, bands_of(bank, self.place), bank.power))

        if self.recipe.trace:
            measure()
        if self.recipe.method is not None:
            start = Start(X, projection.analyse(), Y, M)
            loop = iteration(self.recipe.method, n_iter, start, bank, self.place)
            del X, Y, start
            iterate(loop, projection, self.place, measure if self.recipe.trace else None)
        scaled = (torch.stack(misfits, 1) * bank.norm**2).tolist() if misfits else [[] for _ in rows]
        return list(zip(projection.samples, scaled, strict=True))

    def _on_host(self, *shape: int) -> Tensor:
        """Return zeros that a CUDA device reads and writes without another copy."""
        return torch.zeros(*shape, dtype=self.place.dtype, pin_memory=self.place.device.type == "cuda")


def _memory_bytes(device: torch.device) -> int:
    if device.type != "cuda":
        return _BATCH_BYTES
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return min(_BATCH_BYTES, int(_SHARE_OF_FREE * (torch.cuda.mem_get_info(device)[0] + unused)))


def _fill_start(
    problem: Problem, spec: MelSpec, phase: NDArray[np.floating], magnitude: NDArray[np.floating] | None
) -> bool:
    """Write the starting phase of one utterance, rad, to the rows ``(T, F)`` of its own frames.

    Return whether the prior guessed its magnitude.

    PGHI follows the compiled engine's magnitude, not the device's. A rounding that makes another
    bin the louder would lead it another way. So a prior computes here too, and the magnitude
    goes to `magnitude`, which is None without a prior.
    """
    recipe, length = problem.recipe, problem.length
    if magnitude is None:
        found = start_phase(recipe, spec.stft, length, partial(starting_magnitude, problem.linear, spec, recipe))
        phase[:] = from_lanes(found, len(phase)).T
        return False
    start = started_on_host(problem.linear, spec, recipe, length)
    magnitude[:] = from_lanes(start.Y, len(magnitude)).T
    phase[:] = from_lanes(start.phase, len(phase)).T
    return start.guided
