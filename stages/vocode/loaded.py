"""A vocoder that is ready: NumPy mels in, NumPy waveforms out.

A batch takes three steps, so that the host can work on one batch while the device works on another:
*stage* it in the host's memory, *launch* it on the device, and *finish* its waveforms.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn.functional import pad

from melmill.stages.numeric.checks import as_array, check_int
from melmill.stages.numeric.errors import MelRangeWarning, Unusable
from melmill.stages.numeric.mel import range_found, range_problem
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.network import Checkpoint, Noise, Vocoder
from melmill.stages.vocode.registry import family as find_family
from melmill.stages.vocode.registry import recognise

_HOST_THREADS = 8
# Of torch's generators.
_LARGEST_SEED = 2**64 - 1


def load(checkpoint: Checkpoint, family: str | None = None, device: str = "cpu") -> LoadedVocoder:
    """Make the vocoder of a checkpoint.

    Parameters
    ----------
    checkpoint : Checkpoint
    family : str or None
        Name of its family; None: recognise it.
    device : str
        Torch device that it computes on.

    Raises
    ------
    VocoderError
        No family recognises it, or not the one named. Or its tensors, its configuration and its mel
        don't fit.
    """
    recognised = recognise(checkpoint) if family is None else find_family(family)
    if not recognised.recognises(checkpoint):
        raise VocoderError(
            f"{checkpoint.name}: is no {recognised.name} checkpoint: its tensors are called "
            f"{', '.join(map(repr, list(checkpoint.state)[:3])) or 'nothing'}. Leave family out to have it told by them"
        )
    return LoadedVocoder(model=recognised.build(checkpoint).to(device), name=checkpoint.name, device=device)


class Stopwatch:
    """Measure how long the processor works between the start, which is its making, and `stop`."""

    def __init__(self) -> None:
        self._began = self._ended = time.perf_counter()

    def stop(self) -> None:
        """Stop the clock."""
        self._ended = time.perf_counter()

    def wait(self) -> float:
        """Wait until the device reaches `stop`; return the time, s."""
        return self._ended - self._began


class _CudaStopwatch(Stopwatch):
    """Measure the same on a CUDA device, which does later what it is given now."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.current_stream(device)
        self._first, self._last = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        self._first.record(self._stream)

    def stop(self) -> None:
        self._last.record(self._stream)

    def wait(self) -> float:
        self._last.synchronize()
        return float(self._first.elapsed_time(self._last)) / 1e3


@dataclass(frozen=True, kw_only=True, eq=False)
class Staged:
    """Hold a padded batch in the host's memory.

    It is pinned where a CUDA device copies it while it computes.

    Parameters
    ----------
    mels : sequence of Tensor of float32, shape (n_mels, n_frames)
        The mels of the batch, with their context.
    draws : sequence of tuple of Tensor
        The noise of each, as `Vocoder.drawn` gives it.
    mel : Tensor of float32, shape (batch, n_mels, n_frames)
    lengths : Tensor of int64, shape (batch,), or None
        Frames of each; None: all have the same.
    noise : sequence of Tensor, shape (batch, ...)
    """

    mels: Sequence[Tensor]
    draws: Sequence[Noise]
    mel: Tensor
    lengths: Tensor | None
    noise: Sequence[Tensor]

    @property
    def n_frames(self) -> list[int]:
        """Frames of each mel."""
        return [mel.shape[1] for mel in self.mels]


@dataclass(frozen=True, kw_only=True, eq=False)
class Launched:
    """Hold the waveforms of a batch; they are whole after waiting for `clock`.

    Parameters
    ----------
    y : Tensor of float32, shape (batch, n_samples)
        In the host's memory.
    n_frames : sequence of int
        Frames of each mel.
    clock : Stopwatch
        Of the device.
    """

    y: Tensor
    n_frames: Sequence[int]
    clock: Stopwatch


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedVocoder:
    """Turn mels into waveforms; the same mel, seed and device give the same bytes.

    Parameters
    ----------
    model : Vocoder
    name : str
        File name of its checkpoint.
    device : str
        Torch device that `model` is on.
    """

    model: Vocoder
    name: str
    device: str

    @property
    def spec(self) -> MelSpec:
        """The mel that it needs."""
        return self.model.spec

    @property
    def family(self) -> str:
        """Name of its family."""
        return self.model.family

    def __call__(self, M: ArrayLike, seed: int = 0, noise: Sequence[ArrayLike] | None = None) -> NDArray[np.float32]:
        """Return the waveform of a mel.

        Parameters
        ----------
        M : array_like of float, shape (n_mels, n_frames)
            Made by `spec`: an array, lists or a tensor.
        seed : int
            Seed of what a stochastic vocoder draws; others ignore it. Not negative.
        noise : sequence of array_like or None
            The draws themselves, in the official order and shapes, with or without a batch axis of
            1.

        Returns
        -------
        ndarray of float32, shape (n_samples,)
            What the recipe did to recordings before training is undone.

        Raises
        ------
        VocoderError
            `M` has other bands, no frames, or values that are not finite. Or `noise` has other
            shapes.
        ParameterError
            `M` or `noise` holds no numbers, or `seed` is none.
        Unusable
            `M` has fewer frames than the vocoder takes, or the result overflows.

        Warns
        -----
        MelRangeWarning
            The range of `M`'s values shows that it was made otherwise than by `spec`.
        """
        array = as_array("M", M)
        _check_seed("seed", seed)
        mel = self._checked(array)
        self._warn_of_range(array)
        draws = self._drawn(mel, seed) if noise is None else self._given(mel, noise)
        return self.check_result(self._alone(mel, draws), array, self.spec)

    def batch(
        self, mels: Sequence[ArrayLike] | NDArray[Any], seed: int | Sequence[int] | NDArray[np.integer] = 0
    ) -> list[NDArray[np.float32]]:
        """Return the waveforms of mels of any lengths.

        Each equals what its mel gives alone, to rounding.

        A GPU works on all together. The CPU works on one after the other, as padding would only
        cost time.

        Parameters
        ----------
        mels : sequence of array_like of float, shape (n_mels, n_frames)
        seed : int or sequence of int
            One for all, or one for each.

        Raises
        ------
        VocoderError, ParameterError, Unusable
            As for one mel. The message names which.

        Warns
        -----
        MelRangeWarning
            As for one mel.
        """
        arrays = [as_array(f"mels[{i}]", M) for i, M in enumerate(mels)]
        seeds = list(seed) if isinstance(seed, Sequence | np.ndarray) else [seed] * len(arrays)
        if len(seeds) != len(arrays):
            raise VocoderError(f"seed must be one or one for each of {len(arrays)} mels, got {len(seeds)}")
        for i, each in enumerate(seeds):
            _check_seed("seed" if each is seed else f"seed[{i}]", each)
        checked = [self._checked(M, f"mels[{i}]") for i, M in enumerate(arrays)]
        if self.device != "cpu":
            waves = self.together(arrays, seeds)
        else:
            waves = [self._alone(mel, self._drawn(mel, each)) for mel, each in zip(checked, seeds, strict=True)]
        for i, M in enumerate(arrays):
            self._warn_of_range(M, f"mels[{i}]: ")
        return [
            self.check_result(y, M, self.spec, f"mels[{i}]: ")
            for i, (y, M) in enumerate(zip(waves, arrays, strict=True))
        ]

    def _warn_of_range(self, M: NDArray[Any], which: str = "") -> None:
        problem = range_problem(M, self.spec)
        if problem:
            warnings.warn(f"{self.name}: {which}{problem}", MelRangeWarning, stacklevel=3)

    def check_result(
        self, y: NDArray[np.float32], M: NDArray[Any], spec: MelSpec, which: str = ""
    ) -> NDArray[np.float32]:
        """Return the waveform of a mel made by `spec`; raise Unusable if a sample is not finite."""
        n_bad = y.size - int(np.count_nonzero(np.isfinite(y)))
        if n_bad:
            raise Unusable(
                f"{which}{self.name} gave {n_bad:,} of {y.size:,} samples that are not finite; {range_found(M, spec)}"
            )
        return y

    def together(self, mels: Sequence[NDArray[Any]], seeds: Sequence[int]) -> list[NDArray[np.float32]]:
        """Return the waveforms of one padded batch; see `batch`."""
        return self.waves(self.launched(self.staged(mels, seeds)))[0] if mels else []

    def staged(self, mels: Sequence[NDArray[Any]], seeds: Sequence[int]) -> Staged:
        """Return a padded batch with its noise in the host's memory: the first of three steps.

        It checks the mels.
        """
        checked = [self._checked(M) for M in mels]
        if self.device == "cpu":
            return self._staged(checked, [self._drawn(mel, seed) for mel, seed in zip(checked, seeds, strict=True)])
        # A start that signal processing makes may take a core longer than the rest takes the
        # device.
        with ThreadPoolExecutor(_HOST_THREADS) as pool:
            return self._staged(checked, list(pool.map(self._drawn, checked, seeds)))

    def part(self, staged: Staged, rows: Sequence[int]) -> Staged:
        """Return some rows of a batch, padded anew."""
        return self._staged([staged.mels[row] for row in rows], [staged.draws[row] for row in rows])

    def launched(self, staged: Staged) -> Launched:
        """Give a batch to the device: the second step.

        The device may still compute when this returns.
        """
        device = torch.device(self.device)
        clock = _CudaStopwatch(device) if device.type == "cuda" else Stopwatch()
        mel = staged.mel.to(device, non_blocking=True)
        lengths = None if staged.lengths is None else staged.lengths.to(device, non_blocking=True)
        noise = [draws.to(device, non_blocking=True) for draws in staged.noise]
        # Reduced precision is the default of convolutions on newer GPUs, and 1e-3 off.
        with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False, deterministic=True, benchmark=False):
            y = _to_host(self.model(mel, lengths, noise))
        clock.stop()
        return Launched(y=y, n_frames=staged.n_frames, clock=clock)

    def waves(self, launched: Launched) -> tuple[list[NDArray[np.float32]], float]:
        """Wait for the device; return the waveforms and the time that it worked, s.

        This is the last step.
        """
        busy_s = launched.clock.wait()
        rows = zip(launched.y, launched.n_frames, strict=True)
        return [self.model.restored(row[: self.model.n_samples(n)].clone()).numpy() for row, n in rows], busy_s

    def _checked(self, M: NDArray[Any], name: str = "M") -> Tensor:
        n_mels = self.spec.n_mels
        if M.ndim != 2 or M.shape[0] != n_mels or M.shape[1] == 0:
            raise VocoderError(f"{self.name}: {name} must have shape ({n_mels}, n_frames), got {M.shape!r}")
        try:
            self.model.check_length(M.shape[1])
        except Unusable as error:
            raise Unusable(f"{self.name}: {name}: {error}") from error
        with np.errstate(over="ignore"):
            mel = torch.from_numpy(np.ascontiguousarray(M, dtype=np.float32))
        if not torch.isfinite(mel).all():
            raise VocoderError(f"{self.name}: {name} holds values that are not finite")
        return self._with_context(mel)

    def _with_context(self, mel: Tensor) -> Tensor:
        """Repeat the first and the last frame as far as the network looks beyond a mel's ends."""
        context = self.model.context
        return pad(mel[None], (context, context), mode="replicate")[0] if context else mel

    def _drawn(self, mel: Tensor, seed: int) -> Noise:
        return self.model.drawn(mel, torch.Generator().manual_seed(int(seed)))

    def _given(self, mel: Tensor, noise: Sequence[ArrayLike]) -> Noise:
        wanted = self._drawn(mel, 0)
        arrays = [as_array(f"noise[{i}]", draw) for i, draw in enumerate(noise)]
        given = [torch.from_numpy(np.ascontiguousarray(draw, dtype=np.float32)) for draw in arrays]
        draws = tuple(_without_batch(draw, want.ndim) for draw, want in zip(given, wanted, strict=False))
        if len(given) != len(wanted) or not self.model.takes(mel.shape[1], draws):
            raise VocoderError(f"{self.name}: noise must have the shapes {_shapes(wanted)}, got {_shapes(given)}")
        return draws

    def _staged(self, mels: Sequence[Tensor], draws: Sequence[Noise]) -> Staged:
        return _padded(mels, draws, self.model.silence, torch.device(self.device))

    def _alone(self, mel: Tensor, draws: Noise) -> NDArray[np.float32]:
        return self.waves(self.launched(self._staged([mel], [draws])))[0][0]


def _check_seed(field: str, seed: object) -> None:
    check_int(field, seed, at_least=0, at_most=_LARGEST_SEED)


def _padded(
    mels: Sequence[Tensor], draws: Sequence[Noise], silence: float | NDArray[np.float64], device: torch.device
) -> Staged:
    """Pad mels with `silence`, and noise with zeros, to a batch that the device can copy."""
    pinned = device.type == "cuda"
    n_frames = [mel.shape[1] for mel in mels]
    lengths = None if len(set(n_frames)) == 1 else torch.tensor(n_frames, pin_memory=pinned)
    return Staged(
        mels=mels,
        draws=draws,
        mel=_stacked(mels, silence, pinned),
        lengths=lengths,
        noise=[_stacked(kind, 0.0, pinned) for kind in zip(*draws, strict=True)],
    )


def _to_host(y: Tensor) -> Tensor:
    """Return a tensor as float32 in the host's memory.

    From CUDA it arrives when the device is done.
    """
    if y.device.type != "cuda":
        return y.float()
    return torch.empty(y.shape, dtype=torch.float32, pin_memory=True).copy_(y, non_blocking=True)


def _stacked(tensors: Sequence[Tensor], filling: float | NDArray[np.float64], pinned: bool) -> Tensor:
    """Stack tensors of one rank, each padded at the ends of its axes to the largest."""
    shape = [max(sizes) for sizes in zip(*(tensor.shape for tensor in tensors), strict=True)]
    stacked = torch.empty((len(tensors), *shape), dtype=tensors[0].dtype, pin_memory=pinned)
    stacked[:] = torch.as_tensor(filling, dtype=stacked.dtype)
    for row, tensor in zip(stacked, tensors, strict=True):
        row[tuple(slice(size) for size in tensor.shape)] = tensor
    return stacked


def _without_batch(draw: Tensor, n_axes: int) -> Tensor:
    """Return a tensor without leading axes of 1 beyond `n_axes`."""
    while draw.ndim > n_axes and draw.shape[0] == 1:
        draw = draw[0]
    return draw


def _shapes(draws: Sequence[Tensor]) -> str:
    """Return shapes as text. Equal ones in a row are counted.

    >>> _shapes([torch.ones(8), torch.ones(8), torch.ones(2, 4)])
    '[2 x (8,), (2, 4)]'
    """
    runs = [(len(list(run)), shape) for shape, run in groupby(tuple(draw.shape) for draw in draws)]
    return "[" + ", ".join(f"{n} x {shape}" if n > 1 else f"{shape}" for n, shape in runs) + "]"
