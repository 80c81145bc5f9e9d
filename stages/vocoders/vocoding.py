"""The utterances of a shard through a vocoder, in batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from melmill.stages.dsp.batched.batches import batches, in_halves
from melmill.stages.dsp.contract import convert
from melmill.stages.dsp.melspec import MelSpec
from melmill.stages.errors import ContractError, Unusable
from melmill.stages.stage import Item, Mel, Outcome, Product, each, stored
from melmill.stages.vocoders.loaded import LoadedVocoder
from melmill.stages.vocoders.wavenet_network import WaveNet
from melmill.storage.utterance import resampled_length

Precision = Literal["float32", "bfloat16", "float16"]

_BATCH_BYTES = 2 * 2**30

# Memory that a sample of output takes on its way at the published sizes, bytes: measured on the CPU, rounded up.
_SAMPLE_BYTES = {"univnet": 4000, "waveglow": 3000, "wavegrad": 8000, "diffwave": 6000, "bigvgan": 4000}
_USUAL_BYTES = 2000


@dataclass(frozen=True, kw_only=True, eq=False)
class Vocoding:
    """Turn mels into waveforms of their recordings' lengths.

    Parameters
    ----------
    voc : LoadedVocoder
    seed : int
        Combined with each utterance's own.
    dtype : {"float32", "int16"}
        What is stored.
    precision : {"float32", "bfloat16", "float16"}
        Of convolutions and products of matrices.
    allow_lossy : bool
        Convert mels even where something is lost.
    """

    voc: LoadedVocoder
    seed: int = 0
    dtype: Literal["float32", "int16"] = "float32"
    precision: Precision = "float32"
    allow_lossy: bool = False

    def process(self, items: Sequence[Item], inputs: Mapping[str, Product], product: Product) -> Sequence[Outcome]:
        """Make the waveform of every mel: on a GPU those of like length together, by the shard alone."""
        del product
        made = inputs["from"]
        if not isinstance(made, Mel):
            raise ContractError(f"'from' must be a mel, got {made!r}")
        mels: dict[int, NDArray[np.float32]] = {}

        def posed(item: Item) -> Outcome:
            mels[id(item)] = self._needed(item.inputs["from"], made.spec, self._length(item))
            return Outcome()

        outcomes = each(items, posed)
        good = [item for item, outcome in zip(items, outcomes, strict=True) if outcome.rejected is None]
        waves = iter(self._waves([mels[id(item)] for item in good], [self._seed(item) for item in good]))
        finished = iter(each(good, lambda item: self._outcome(item, next(waves))))
        return [outcome if outcome.rejected else next(finished) for outcome in outcomes]

    def _length(self, item: Item) -> int:
        return resampled_length(item.utterance.n_samples, item.utterance.sr, self.voc.spec.sr)

    def _needed(self, M: NDArray[Any], spec: MelSpec, length: int) -> NDArray[np.float32]:
        """Return the mel that the vocoder needs, with the context that it hears beyond its ends."""
        if M.shape[1] == 0:
            raise Unusable("the mel has no frames: the recording is shorter than a window")
        if not np.isfinite(M).all():
            raise Unusable(f"{int((~np.isfinite(M)).sum())} values of the mel are not finite")
        M = convert(M, spec, self.voc.spec, allow_lossy=self.allow_lossy)
        M = np.pad(M, ((0, 0), _lacking(M.shape[1], spec, self.voc.spec, length)), mode="edge")
        context = self.voc.model.context if isinstance(self.voc.model, WaveNet) else 0
        return np.pad(M, ((0, 0), (context, context)), mode="edge")

    def _seed(self, item: Item) -> int:
        return int(np.random.SeedSequence((item.seed, self.seed)).generate_state(1, np.uint64)[0])

    def _waves(self, mels: Sequence[NDArray[np.float32]], seeds: Sequence[int]) -> list[NDArray[np.float32]]:
        waves: dict[int, NDArray[np.float32]] = {}

        def run(batch: Sequence[int]) -> list[NDArray[np.float32]]:
            with self._precision():
                return self.voc.batch([mels[i] for i in batch], [seeds[i] for i in batch])

        for batch in batches([M.shape[1] for M in mels], self._most_frames()):
            waves.update(zip(batch, in_halves(run, batch), strict=True))
        return [waves[i] for i in range(len(mels))]

    def _most_frames(self) -> int:
        sample_bytes = _SAMPLE_BYTES.get(self.voc.family, _USUAL_BYTES)
        return max(1, _BATCH_BYTES // (sample_bytes * self.voc.spec.hop_length))

    def _precision(self) -> torch.autocast:
        device = torch.device(self.voc.device).type
        if self.precision == "float32":
            return torch.autocast(device, enabled=False)
        return torch.autocast(device, dtype=getattr(torch, self.precision))

    def _outcome(self, item: Item, y: NDArray[np.float32]) -> Outcome:
        if isinstance(self.voc.model, WaveNet):
            y = self.voc.model.restored(torch.from_numpy(y)).numpy()
        if not np.isfinite(y).all():
            raise Unusable(f"{self.voc.name} gave {int((~np.isfinite(y)).sum())} samples that are not finite")
        length, spec = self._length(item), self.voc.spec
        if abs(y.size - length) > spec.hop_length:
            raise Unusable(
                f"the vocoder gave {y.size} samples, the recording has {length}: they may differ by a hop "
                f"({spec.hop_length}) at most"
            )
        return Outcome(array=stored(np.pad(y[:length], (0, max(0, length - y.size))), self.dtype))


def _lacking(n_frames: int, made: MelSpec, needed: MelSpec, length: int) -> tuple[int, int]:
    """Return how many frames a mel that was framed with less padding lacks at each end, to the nearest below."""
    if made.stft.pad >= needed.stft.pad:
        return 0, 0
    before = (needed.stft.pad - made.stft.pad) // needed.hop_length
    return before, max(0, needed.n_frames(length) - n_frames - before)
