"""Stage `recombine`: the magnitude of one signal or mel with the phase of another signal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, cast

import numpy as np
from numpy.typing import NDArray

from melmill.stages.contract import Input, Item, Kind, Mel, OneOf, Outcome, Product, Waveform, as_float, each, stored
from melmill.stages.numeric.checks import MAX_N_ITER, check_choice, check_int
from melmill.stages.numeric.errors import ContractError, ParameterError, Unusable
from melmill.stages.numeric.mel import magnitude_spec, to_linear
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.presets import preset, preset_names
from melmill.stages.numeric.solver import MAGNITUDES, MagnitudeStart, Recipe
from melmill.stages.numeric.stft import Stft
from melmill.storage.utterance import resampled_length

MOMENTUM = 0.99
"""Of fast Griffin-Lim (Perraudin, Balazs, Soendergaard, 2013)."""

_WORDS = ("random", "zero")
_TINY = 1e-12

Signal = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Recombine:
    """Put the magnitude of one signal or mel and the phase of another signal together.

    So the halves of an inversion can be told apart. With the recordings' phase a mel shows what its
    bands lost. With the recordings' magnitude an inversion shows what its phase is worth.

    Parameters
    ----------
    phase : str
        Where the phase comes from: a node of waveforms, ``random`` or ``zero``.
    n_iter : int
        Iterations of fast Griffin-Lim that keep the magnitude and improve the phase. Mels take none.
    magnitude : {"nnls", "pinv"}
        How a mel's magnitude is guessed: non-negative least squares, or the clipped pseudo-inverse.
    preset : str or None
        STFT in which two signals are put together. None: that of the mel that the signal at `from`
        was made from, else that of ``paper`` at its rate. A mel has its own.
    seed : int
        Seed of random phases, combined with each utterance's own.
    dtype : {"float32", "int16"}
        Type that is stored.
    """

    uses: ClassVar[str] = "recombine"
    version: ClassVar[int] = 1
    inputs: ClassVar[Mapping[str, Input]] = {
        "from": Input(kinds=frozenset({Kind.WAVEFORM, Kind.MEL})),
        "phase": Input(kinds=frozenset({Kind.WAVEFORM}), words=_WORDS, optional=True),
    }

    phase: str = "random"
    n_iter: int = 0
    magnitude: MagnitudeStart = "nnls"
    preset: Annotated[str, OneOf(preset_names)] | None = None
    seed: int = 0
    dtype: Literal["float32", "int16"] = "float32"

    def __post_init__(self) -> None:
        """Check the fields."""
        if self.phase not in _WORDS:
            raise ParameterError("phase", f"must be {' or '.join(_WORDS)}, or a node, got {self.phase!r}")
        check_int("n_iter", self.n_iter, at_least=0, at_most=MAX_N_ITER)
        check_choice("magnitude", self.magnitude, MAGNITUDES)
        check_int("seed", self.seed, at_least=0)
        check_choice("dtype", self.dtype, ("float32", "int16"))
        if self.preset is not None:
            preset(self.preset)

    def identity(self) -> Mapping[str, Any]:
        """Return every field; a preset counts by its STFT."""
        return {
            "phase": self.phase,
            "n_iter": self.n_iter,
            "magnitude": self.magnitude,
            "spec": None if self.preset is None else preset(self.preset).as_dict(),
            "seed": self.seed,
            "dtype": self.dtype,
        }

    def produces(self, inputs: Mapping[str, Sequence[Product]]) -> Waveform:
        """Check the rates; return waveforms at that of the magnitude.

        Raises
        ------
        ContractError
            The two have different rates, or a mel is to be iterated on.
        """
        source = inputs["from"][0]
        if not isinstance(source, Mel | Waveform):
            raise ContractError(f"recombine takes waveforms or mels, got {source.kind}: name a node that makes them")
        if isinstance(source, Mel) and self.n_iter:
            raise ContractError(
                f"n_iter must be 0 for a mel, got {self.n_iter}: use an inverter, whose start takes this phase"
            )
        for phase in inputs.get("phase", ()):
            if cast("Waveform", phase).sr != source.sr:
                raise ContractError(
                    f"the magnitude is of audio at {source.sr} Hz and the phase of audio at "
                    f"{cast('Waveform', phase).sr} Hz: they must have one rate"
                )
        spec = self._spec(source)
        if spec.sr != source.sr:
            raise ContractError(f"the preset is for {spec.sr} Hz and the signals have {source.sr}: choose another")
        return Waveform(sr=source.sr, dtype=self.dtype, mel=source.spec if isinstance(source, Mel) else source.mel)

    def process(self, items: Sequence[Item], inputs: Mapping[str, Product], product: Product) -> Sequence[Outcome]:
        """Return the signal of every utterance."""
        source = cast("Mel | Waveform", inputs["from"])
        return each(items, lambda item: Outcome(array=stored(self._recombined(item, source), self.dtype)))

    def _spec(self, source: Mel | Waveform) -> MelSpec:
        if isinstance(source, Mel):
            return source.spec
        if self.preset is not None:
            return preset(self.preset)
        return source.mel or replace(preset("paper"), sr=source.sr)

    def _recombined(self, item: Item, source: Mel | Waveform) -> Signal:
        given, spec = item.inputs["from"], self._spec(source)
        phase = as_float(item.inputs["phase"]) if "phase" in item.inputs else self.phase
        seed = (self.seed + item.seed) % 2**63
        if isinstance(source, Mel):
            return _of_mel(
                given,
                spec,
                phase,
                self.magnitude,
                seed,
                resampled_length(item.utterance.n_samples, item.utterance.sr, spec.sr),
            )
        return recombined(as_float(given), phase, spec, n_iter=self.n_iter, seed=seed)


def _of_mel(
    M: NDArray[Any], spec: MelSpec, phase: Signal | str, magnitude: MagnitudeStart, seed: int, length: int
) -> Signal:
    from melmill.stages.numeric.compiled.inverter import invert_linear  # here, as it imports numba

    if isinstance(phase, np.ndarray):
        phase = _of_length(phase, length)
    recipe = Recipe(method=None, n_iter=0, start=phase, magnitude=magnitude, seed=seed)
    return np.asarray(invert_linear(to_linear(M, spec), spec, recipe, length).y, dtype=np.float32)


def recombined(y: Signal, phase: Signal | str, spec: MelSpec, *, n_iter: int = 0, seed: int = 0) -> Signal:
    """Return the signal nearest to the magnitude of one signal and the phase of another.

    Parameters
    ----------
    y : ndarray of float32, shape (n_samples,)
        Has the magnitude.
    phase : ndarray of float32, shape (n_samples,), or {"random", "zero"}
        Has the phase. Longer or shorter ones are cut or filled up with zeros.
    spec : MelSpec
        Its STFT counts.
    n_iter : int
        Iterations of fast Griffin-Lim.
    seed : int

    Returns
    -------
    ndarray of float32, shape (n_samples,)

    References
    ----------
    Griffin, Lim, "Signal estimation from modified short-time Fourier transform", 1984; Perraudin,
    Balazs, Soendergaard, "A fast Griffin-Lim algorithm", 2013, algorithm 2.
    """
    stft = Stft(magnitude_spec(spec).stft, np.float64)
    A = np.abs(stft.forward(y))
    if not A.size:
        raise Unusable(f"{y.size} samples are shorter than one frame of {spec.n_fft}")
    if isinstance(phase, np.ndarray):
        unit = _unit(stft.forward(_of_length(phase, y.size)))
    elif phase == "zero":
        unit = np.ones_like(A, dtype=np.complex128)
    else:
        unit = np.exp(2j * np.pi * np.random.default_rng(seed).random(A.shape))
    x = stft.inverse(A * unit, y.size)
    previous: NDArray[np.complexfloating] = np.zeros_like(A, dtype=np.complex128)
    for _ in range(n_iter):
        D = stft.forward(x)
        x = stft.inverse(A * _unit(D + MOMENTUM * (D - previous)), y.size)
        previous = D
    return np.asarray(x, dtype=np.float32)


def _unit(D: NDArray[np.complexfloating]) -> NDArray[np.complexfloating]:
    return np.asarray(D / np.maximum(np.abs(D), _TINY))


def _of_length(y: Signal, n: int) -> Signal:
    return y[:n] if y.size >= n else np.pad(y, (0, n - y.size))
