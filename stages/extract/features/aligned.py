"""What stages share whose numbers follow the frames of a mel: ports, product, and where frames lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from melmill.stages.contract import Features, Input, Item, Kind, Mel, Product, Waveform, as_float
from melmill.stages.numeric.errors import ContractError, Unusable
from melmill.stages.numeric.mel import chosen_frames
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.resample import resample
from melmill.storage.utterance import resampled_length

Floats = NDArray[np.float64]

PORTS: Mapping[str, Input] = {
    "from": Input(kinds=frozenset({Kind.WAVEFORM})),
    "mel": Input(kinds=frozenset({Kind.MEL})),
}
"""Waveforms, and the mels whose frames count."""


class Frames(NamedTuple):
    """Say where the frames of one utterance's mel lie.

    Parameters
    ----------
    spec : MelSpec
        Of the mel.
    n_frames : int
        All frames.
    n_sounding : int
        Those that are of the waveform. The mel's spec may add others to fill up a multiple.
    """

    spec: MelSpec
    n_frames: int
    n_sounding: int

    def centres(self, sr: int) -> Floats:
        """Return the middle of the window of each frame that sounds, in samples at `sr` Hz."""
        stft = self.spec.stft
        return np.asarray((stft.centre + stft.hop_length * np.arange(self.n_sounding)) * (sr / self.spec.sr))

    def filled(self, values: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return rows ``(n_rows, n_sounding)`` with zeros in the frames that were added."""
        rows = np.atleast_2d(values)
        return np.pad(rows, ((0, 0), (0, self.n_frames - rows.shape[1]))).astype(np.float32)


def frames_of(item: Item, inputs: Mapping[str, Product]) -> Frames:
    """Return where the frames of an utterance lie.

    Raises
    ------
    Unusable
        The mel is not that of a waveform of such a length.
    """
    y, n_frames = item.inputs["from"], item.inputs["mel"].shape[1]
    sr, spec = waveform(inputs).sr, mel_spec(inputs)
    n_samples = resampled_length(y.size, sr, spec.sr)
    if spec.n_frames(n_samples) != n_frames:
        raise Unusable(
            f"the mel has {n_frames} frames, but a waveform of {n_samples} samples at {spec.sr} Hz has "
            f"{spec.n_frames(n_samples)}"
        )
    plain = replace(spec, frame_multiple=1, last_frame=None)
    return Frames(spec, n_frames, plain.n_frames(n_samples))


def at_mel_rate(item: Item, inputs: Mapping[str, Product]) -> NDArray[np.float32]:
    """Return the waveform at the rate of the mel, full scale 1."""
    y, sr = item.inputs["from"], waveform(inputs).sr
    return as_float(y) if sr == mel_spec(inputs).sr else resample(y, sr, mel_spec(inputs).sr)


def chosen(rows: NDArray[np.floating], frames: Frames, n_samples: int) -> NDArray[np.float32]:
    """Return those of the transform's frames ``(n_rows, n)`` that the mel has, zeros where frames were added."""
    return frames.filled(chosen_frames(rows.astype(np.float32), frames.spec, n_samples))


def aligned(uses: str, inputs: Mapping[str, Sequence[Product]], rows: Sequence[str]) -> Features:
    """Describe rows that follow the frames of the mel at the port ``mel``.

    Raises
    ------
    ContractError
        The inputs are not waveforms and mels.
    """
    audio, mel = inputs["from"][0], inputs["mel"][0]
    if not isinstance(audio, Waveform):
        raise ContractError(f"{uses} takes waveforms at 'from', got {audio.kind}: name a node that makes waveforms")
    if not isinstance(mel, Mel):
        raise ContractError(f"{uses} takes mels at 'mel', got {mel.kind}: name the node whose frames it follows")
    return Features(spec=mel.spec, rows=tuple(rows))


def mel_spec(inputs: Mapping[str, Product]) -> MelSpec:
    """Return the spec of the mel whose frames count."""
    mel = inputs["mel"]
    if not isinstance(mel, Mel):
        raise ContractError(f"'mel' must be mels, got {mel.kind}")
    return mel.spec


def waveform(inputs: Mapping[str, Product]) -> Waveform:
    """Return the product at the port of waveforms."""
    audio = inputs["from"]
    if not isinstance(audio, Waveform):
        raise ContractError(f"'from' must be waveforms, got {audio.kind}")
    return audio
