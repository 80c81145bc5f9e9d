"""The stage `paired_mels`: mels made elsewhere, joined with the recordings that they belong to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from melmill.stages.contract import Input, Item, Kind, Mel, Outcome, Product, Waveform, each
from melmill.stages.numeric.checks import check_float, check_int
from melmill.stages.numeric.errors import ContractError, ParameterError, Unusable
from melmill.stages.numeric.mel import mel_spectrogram
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.score.contract import Pairing
from melmill.stages.score.pairing import Side, joined, named, pairs_digest
from melmill.storage.utterance import Utterance

# Frames by which a pair is searched for a shift, and by how much that must raise the correlation.
_MOST_LAG, _CLEARLY = 50, 0.02
# Fewer frames correlate by chance.
_FEWEST_FRAMES = 16
_COUNTED = "frames_trimmed"


@dataclass(frozen=True, kw_only=True)
class PairedMels:
    """Join mels of a folder with the recordings that they belong to, by id, name or a table.

    Predicted mels become a node of the recordings' corpus. So they can be scored, vocoded and
    trained with like extracted ones. A pair is checked: its lengths, and whether the mel follows
    its recording in time. ``mel_folder`` with a field `audio` is this stage and the folder in one.

    Parameters
    ----------
    pairs : str or None
        Table of pairs, with the columns ``estimate`` (the mel) and ``reference`` (the recording), a
        path or URL. None: pairs have the same ids, or paths that end alike.
    trim_frames : int
        A mel may have so many frames more or fewer than its recording. What is over is cut off,
        and the last frame is repeated for what lacks. A pair that differs by more is quarantined.
    least_correlation : float
        A mel that correlates less with that of its recording, band by band over time, is of
        another utterance, and is quarantined.
    """

    uses: ClassVar[str] = "paired_mels"
    version: ClassVar[int] = 1
    inputs: ClassVar[Mapping[str, Input]] = {
        "audio": Input(kinds=frozenset({Kind.WAVEFORM})),
        "from": Input(kinds=frozenset({Kind.MEL}), other_corpus=True),
    }

    pairs: str | None = field(default=None, metadata={"place": True})
    trim_frames: int = 2
    least_correlation: float = 0.5
    _pairs_digest: str = field(default="", init=False)

    def __post_init__(self) -> None:
        """Check the fields."""
        if self.pairs == "":
            raise ParameterError("pairs", "must be the path of a table, or be left out, got ''")
        check_int("trim_frames", self.trim_frames, at_least=0, at_most=1000)
        check_float("least_correlation", self.least_correlation, at_least=-1, below=1)

    def identity(self) -> Mapping[str, Any]:
        """Return what decides the mels; a table of pairs counts by its content."""
        identity = {"trim_frames": self.trim_frames, "least_correlation": float(self.least_correlation)}
        return {**identity, "pairs": self._pairs_digest} if self._pairs_digest else identity

    def produces(self, inputs: Mapping[str, Sequence[Product]]) -> Mel:
        """Describe the mels.

        Raises
        ------
        ContractError
            The recordings have another rate than the mels.
        """
        (made,), (audio,) = inputs["from"], inputs["audio"]
        if not isinstance(made, Mel) or not isinstance(audio, Waveform):
            raise ContractError(f"'from' must be mels and 'audio' recordings, got {made.kind} and {audio.kind}")
        if audio.sr != made.sr:
            raise ContractError(
                f"'audio' has {audio.sr} Hz, but the mels are of {made.sr} Hz: ingest the recordings at sr: {made.sr}"
            )
        return Mel(spec=made.spec)

    def with_pairs(self, data: bytes) -> PairedMels:
        """Return the stage that knows its table of pairs; see `PairingStage`."""
        stage = copy(self)
        object.__setattr__(stage, "_pairs_digest", pairs_digest(data))
        return stage

    def pair(
        self,
        utterances: Sequence[Utterance],
        others: Sequence[Utterance],
        inputs: Mapping[str, Product],
        table: bytes | None,
    ) -> Pairing:
        """Return which mel belongs to which recording, with notes on lengths that differ."""
        made, audio = cast("Mel", inputs["from"]), cast("Waveform", inputs["audio"])
        references, mels = Side(audio.node, utterances), Side(made.node, others)
        found, notes = joined(references, mels, table, ("get no mel", "are not used"))
        lengths = {one.utterance_id: made.spec.n_frames(one.n_samples) for one in others}
        far = [
            f"{one.utterance_id} ({lengths[found[one.utterance_id]]} frames for {made.spec.n_frames(one.n_samples)})"
            for one in utterances
            if one.utterance_id in found
            and one.n_samples
            and abs(lengths[found[one.utterance_id]] - made.spec.n_frames(one.n_samples)) > self.trim_frames
        ]
        if far:
            notes.append(
                f"{len(far):,} of {len(found):,} mels differ from their recordings by more than {self.trim_frames} "
                f"frames, and will be quarantined: {named(far)}"
            )
        return Pairing(partners=found, notes=tuple(notes))

    def process(self, items: Sequence[Item], inputs: Mapping[str, Product], product: Product) -> Sequence[Outcome]:
        """Return the mel of each recording, with its correlation and how it was trimmed."""
        spec = cast("Mel", product).spec
        return each(items, lambda item: self._joined(item.inputs["from"], item.inputs["audio"], spec))

    def _joined(self, M: NDArray[Any], y: NDArray[Any], spec: MelSpec) -> Outcome:
        own = mel_spectrogram(y, spec)
        n_frames, differ = own.shape[1], M.shape[1] - own.shape[1]
        if abs(differ) > self.trim_frames:
            raise Unusable(
                f"its mel has {M.shape[1]:,} frames and its recording {n_frames:,}, a difference of {differ:+,}: at "
                f"most {self.trim_frames} are trimmed (trim_frames)"
            )
        values = np.pad(M[:, :n_frames], ((0, 0), (0, max(0, -differ))), mode="edge").astype(np.float32)
        at_zero, best, lag = correlations(values, own, spec)
        if lag and best > at_zero + _CLEARLY and best >= self.least_correlation:
            late = "late" if lag < 0 else "early"
            raise Unusable(
                f"its mel is {abs(lag)} frames too {late}: shifted so it correlates with its recording by {best:.2f}, "
                f"as it is by {at_zero:.2f}"
            )
        if at_zero < self.least_correlation:
            raise Unusable(
                f"its mel does not follow its recording (correlation {at_zero:.2f}, least_correlation is "
                f"{self.least_correlation:g}): it is of another utterance, or made otherwise than its spec says"
            )
        return Outcome(array=values, row={"correlation": at_zero, _COUNTED: differ})

    def counts(self, rows: Sequence[Mapping[str, object]]) -> Mapping[str, int]:
        """Return how many mels were trimmed; see `CountingStage`."""
        return {"trimmed": sum(bool(row.get(_COUNTED)) for row in rows), "mels": len(rows)}

    def notes(self, counts: Mapping[str, int]) -> Sequence[str]:
        """Say how many mels were trimmed."""
        n = counts.get("trimmed", 0)
        return [f"{n:,} of {counts['mels']:,} mels differ by {self.trim_frames} frames at most, and were trimmed"] * (
            n > 0
        )


def correlations(M: NDArray[np.floating], own: NDArray[np.floating], spec: MelSpec) -> tuple[float, float, int]:
    """Return how a mel correlates with another, at best with a lag, and that lag.

    The correlation is that of all values less their band's mean. Mels without a log are compared by
    logs. Of fewer than 16 frames, or of silence, nothing can be said, and the correlation is 1.

    Parameters
    ----------
    M, own : ndarray of float, shape (n_mels, n_frames)
    spec : MelSpec
        Of both.

    Returns
    -------
    at_zero, best : float
        Correlation as they are, and at the lag.
    lag : int
        Frames by which the first is early: ``M[:, t]`` belongs to ``own[:, t + lag]``.

    >>> own = np.cumsum(np.random.default_rng(0).normal(size=(4, 99)), axis=1)
    >>> correlations(own[:, 5:], own[:, :-5], MelSpec(n_mels=4, log="ln", floor=1e-5))[2]
    5
    """
    n_frames = M.shape[1]
    a, b = (_compared(X, spec) for X in (M, own))
    if n_frames < _FEWEST_FRAMES or not a.any() or not b.any():
        return 1.0, 1.0, 0
    scores = dict(_by_lag(a, b, min(_MOST_LAG, n_frames // 3)))
    lag = max(scores, key=lambda one: scores[one])
    return scores[0], scores[lag], lag


def _by_lag(a: NDArray[np.float64], b: NDArray[np.float64], most: int) -> Iterator[tuple[int, float]]:
    n = a.shape[1]
    for lag in range(-most, most + 1):
        x, y = a[:, max(0, -lag) : n - max(0, lag)], b[:, max(0, lag) : n - max(0, -lag)]
        norm = float(np.sqrt((x**2).sum() * (y**2).sum()))
        yield lag, float((x * y).sum()) / norm if norm > 0 else 0.0


def _compared(M: NDArray[np.floating], spec: MelSpec) -> NDArray[np.float64]:
    """Return a mel's logs less their band's mean."""
    values = M.astype(np.float64)
    if spec.log is None and spec.pcen is None:
        values = np.log(np.maximum(values, 0.0) + 1e-5 * max(1e-30, float(values.max())))
    return np.asarray(values - values.mean(axis=1, keepdims=True))
