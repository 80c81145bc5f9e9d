"""Stage `transcode`: mels of one kind made of mels of another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from melmill.stages.contract import Input, Item, Kind, Mel, Outcome, Product, Waveform, each
from melmill.stages.extract.fields import MelFields
from melmill.stages.extract.transcoding import VERSION, VIAS, Via, route, transcode
from melmill.stages.invert.inversion import DEVICES, Device
from melmill.stages.numeric.checks import check_choice
from melmill.stages.numeric.errors import ContractError, Unusable
from melmill.stages.numeric.melspec import MelSpec
from melmill.storage.utterance import resampled_length

QUALITIES = ("draft", "good", "best")


@dataclass(frozen=True, kw_only=True)
class Transcode(MelFields):
    """Make mels of the kind that `preset` says of mels of another kind.

    What is a function of the same bands is exact. Mels of the same frames come from a magnitude that
    agrees with the mel, all others from a waveform. The table of the node has the error of each
    utterance (``error_db``, dB of magnitude): against the mel of the recording, where the port
    `audio` names it, else between the mel and that of what was made. For the fields that say the
    spec, see `melmill.stages.extract.fields.MelFields`.

    Parameters
    ----------
    via : {"auto", "magnitude", "waveform"}
        How, where it is not exact.
    quality : {"draft", "good", "best"}
        What an inversion spends.
    dtype : {"float32", "float16"}
        Type that is stored.
    device : {"cpu", "cuda"}
        Where inversions are computed. Results differ by rounding alone.
    """

    uses: ClassVar[str] = "transcode"
    version: ClassVar[int] = VERSION
    inputs: ClassVar[Mapping[str, Input]] = {
        "from": Input(kinds=frozenset({Kind.MEL})),
        "audio": Input(kinds=frozenset({Kind.WAVEFORM}), optional=True),
    }

    via: Via = "auto"
    quality: Literal["draft", "good", "best"] = "good"
    dtype: Literal["float32", "float16"] = "float32"
    device: Device = "cpu"

    def __post_init__(self) -> None:
        """Check the fields."""
        for name, choices in (
            ("via", VIAS),
            ("quality", QUALITIES),
            ("dtype", ("float32", "float16")),
            ("device", DEVICES),
        ):
            check_choice(name, getattr(self, name), choices)
        super().__post_init__()

    def identity(self) -> Mapping[str, Any]:
        """Return what decides the mels. The preset's name and the device do not matter."""
        return {"spec": self.spec.as_dict(), "via": self.via, "quality": self.quality, "dtype": self.dtype}

    def produces(self, inputs: Mapping[str, Sequence[Product]]) -> Mel:
        """Describe the mels.

        Raises
        ------
        ContractError
            The input is no mel, or one that can't be undone.
        """
        made = _mel(inputs["from"][0])
        route(made, self.spec, self.via)
        for audio in inputs.get("audio", ()):
            if not isinstance(audio, Waveform):
                raise ContractError(f"'audio' must be recordings, got {audio!r}: name a node that makes waveforms")
        return Mel(spec=self.spec, dtype=self.dtype)

    def process(self, items: Sequence[Item], inputs: Mapping[str, Product], product: Product) -> Sequence[Outcome]:
        """Return the mel of every mel, with its error."""
        del product
        made, audio = _mel(inputs["from"]), inputs.get("audio")
        sr = audio.sr if isinstance(audio, Waveform) else None
        return each(items, lambda item: self._outcome(item, made, sr))

    def _outcome(self, item: Item, made: MelSpec, sr: int | None) -> Outcome:
        utterance = item.utterance
        found = transcode(
            item.inputs["from"],
            made,
            self.spec,
            recording=item.inputs.get("audio"),
            sr=sr,
            length=resampled_length(utterance.n_samples, utterance.sr, made.sr),
            via=self.via,
            quality=self.quality,
            seed=item.seed,
            device=self.device,
        )
        n_frames = self.spec.n_frames(resampled_length(utterance.n_samples, utterance.sr, self.spec.sr))
        M = fitted(found.M, n_frames).astype(self.dtype)
        if not np.isfinite(M).all():
            raise Unusable("mel values exceed float16: use dtype: float32, or a log")
        row = {"error_db": found.error_db, "measured": found.measured, "via": found.via, "unseen": len(found.unseen)}
        return Outcome(array=M, row=row)

    def counts(self, rows: Sequence[Mapping[str, object]]) -> Mapping[str, int]:
        """Return how many utterances went which way; see `CountingStage`."""
        return dict(Counter(f"{row['via']}, {row['unseen']} bands guessed" for row in rows))

    def notes(self, counts: Mapping[str, int]) -> Sequence[str]:
        """Say if bands of the result are guessed."""
        return [f"{n:,} mels went by {way}" for way, n in counts.items() if not way.endswith(", 0 bands guessed")]


def fitted(M: NDArray[np.float32], n_frames: int) -> NDArray[np.float32]:
    """Return a mel of a number of frames: cut, or with its last frame repeated. Rates round lengths by one."""
    return np.pad(M[:, :n_frames], ((0, 0), (0, max(0, n_frames - M.shape[1]))), mode="edge")


def _mel(product: Product) -> MelSpec:
    if not isinstance(product, Mel):
        raise ContractError(f"transcode takes mels, got {product.kind}: name a node that makes mels")
    return product.spec
