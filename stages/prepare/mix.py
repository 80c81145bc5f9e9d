"""Stage `mix`: recordings with noise, or with other speech, at a chosen SNR."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from melmill.stages.contract import Input, Item, Kind, Outcome, Product, Stage, Waveform, each
from melmill.stages.numeric.checks import check_float, check_int
from melmill.stages.numeric.errors import ContractError, ParameterError, StageError
from melmill.stages.numeric.resample import resample
from melmill.stages.prepare.prepare import Prepare, as_stored, floats, waveform, whole
from melmill.stages.score.contract import Pairing
from melmill.storage.utterance import Utterance

MISSING, SILENT = "nothing to mix with", "silent, so that it has no SNR"

_LEAST_POWER = 1e-12


@dataclass(frozen=True, kw_only=True)
class Mix(Prepare):
    """Add to each recording one of another corpus, such as noise, at a chosen SNR.

    Which one, which part of it and how loud follows from the seed and the recording's id alone, so a
    corpus that grows changes nothing, and the result does not depend on where it is computed. What is
    too short is repeated. A mixture past full scale is turned down as a whole. The table of the node
    has the SNR and the gain, and its partners say what was added.

    Parameters
    ----------
    snr_db : tuple of float
        SNR, dB: one number, or the ends of a range of which each recording gets one.
    seed : int
        Another seed mixes with others.
    """

    uses: ClassVar[str] = "mix"
    inputs: ClassVar[Mapping[str, Input]] = {
        "from": Input(kinds=frozenset({Kind.WAVEFORM})),
        "with": Input(kinds=frozenset({Kind.WAVEFORM}), other_corpus=True, absent_ok=True),
    }
    pairs: ClassVar[str | None] = None

    snr_db: tuple[float, ...] = (20.0,)
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the fields."""
        if len(self.snr_db) not in (1, 2):
            raise ParameterError("snr_db", f"must be a number, or the two ends of a range, got {list(self.snr_db)}")
        for number in self.snr_db:
            check_float("snr_db", number, at_least=-100.0, at_most=100.0)
        if self.snr_db[0] > self.snr_db[-1]:
            raise ParameterError("snr_db", f"must be a range from low to high, got {list(self.snr_db)}")
        check_int("seed", self.seed, at_least=0)

    def with_pairs(self, data: bytes) -> Stage:
        """Raise StageError: no table says what is mixed; see `PairingStage`."""
        del data
        raise StageError("mix draws what it mixes: it takes no table of pairs")

    def pair(
        self,
        utterances: Sequence[Utterance],
        others: Sequence[Utterance],
        inputs: Mapping[str, Product],
        table: bytes | None,
    ) -> Pairing:
        """Return which recording of the other corpus is added to each; see `PairingStage`."""
        del inputs, table
        usable = [one.utterance_id for one in others if one.n_samples]
        if not usable:
            raise StageError("there is no recording to mix with")
        # The one whose hash with the recording's id is least: others that come or go change few pairs.
        return Pairing(partners={one.utterance_id: self._partner(one.utterance_id, usable) for one in utterances})

    def _partner(self, utterance_id: str, others: Sequence[str]) -> str:
        drawn = int.from_bytes(hashlib.sha256(f"{self.seed} {utterance_id}".encode()).digest()[:8], "big")
        return others[drawn % len(others)]

    def process(self, items: Sequence[Item], inputs: Mapping[str, Product], product: Product) -> Sequence[Outcome]:
        """Return each recording with what is added."""
        source, made = waveform(self.uses, [inputs["from"]]), waveform(self.uses, [product])
        other = waveform(self.uses, [inputs["with"]])
        return each(items, lambda item: self._mixed(item, source, other, made))

    def prepared(self, item: Item, source: Waveform, made: Waveform) -> Outcome:
        """Raise ContractError: `process` knows what is added."""
        raise ContractError("mix needs what is added: use `process`")

    def _mixed(self, item: Item, source: Waveform, other: Waveform, made: Waveform) -> Outcome:
        stored = item.inputs["from"]
        if "with" not in item.inputs:
            return Outcome(spans=whole(stored, reason=MISSING))
        rng = np.random.default_rng([item.seed, self.seed])
        y = floats(stored).astype(np.float64)
        added = _part(resample(item.inputs["with"], other.sr, source.sr), y.size, rng)
        snr_db = float(rng.uniform(self.snr_db[0], self.snr_db[-1])) if len(self.snr_db) > 1 else self.snr_db[0]
        powers = float(np.mean(y**2)), float(np.mean(added**2))
        for power, which in zip(powers, ("it", "what is added"), strict=True):
            if power < _LEAST_POWER:
                return Outcome(spans=whole(stored, reason=SILENT, detail=f"{which} is silent"))
        mixed = y + added * np.sqrt(powers[0] / powers[1] * 10.0 ** (-snr_db / 10.0))
        # int16 ends one step below 1.
        gain = min(1.0, (1.0 - 2.0**-15) / float(np.abs(mixed).max()))
        row = {"snr_db": snr_db, "gain_db": float(20.0 * np.log10(gain))}
        return Outcome(row=row, spans=whole(stored, as_stored(mixed * gain, made)))


def _part(y: NDArray[np.float32], length: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return `length` samples of a recording from any place on; a shorter one is repeated."""
    if y.size > length:
        start = int(rng.integers(y.size - length + 1))
        return y[start : start + length].astype(np.float64)
    return np.resize(np.roll(y, -int(rng.integers(max(1, y.size)))), length).astype(np.float64)
