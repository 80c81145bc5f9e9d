"""Stage `dedupe`: each recording once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from melmill.stages.contract import Input, Item, Kind, Outcome, Product, Waveform, each
from melmill.stages.numeric.checks import check_bool, check_float
from melmill.stages.numeric.errors import ContractError
from melmill.stages.prepare.fingerprint import N_BANDS, N_BITS, N_TIMES
from melmill.stages.prepare.prepare import Prepare, waveform, whole

SAME, NEAR = "same samples", "near-same audio"

_CHUNK = 15
_LENGTHS_APART = 0.1


@dataclass(frozen=True, kw_only=True)
class Dedupe(Prepare):
    """Keep the first of recordings that are the same, in the order of the store.

    Files of the same bytes have the same samples. Near-same audio is the same take at another level,
    in another coding or with other silence around it. A drop names the recording that was kept.
    Whether a recording is kept depends on those before it alone, so a corpus that grows changes
    nothing.

    Parameters
    ----------
    near : bool
        Whether near-same audio is dropped too, or only the same samples.
    max_difference : float
        Largest share of the fingerprint's 496 bits in which near-same audio differs. Half of them
        differ between unrelated recordings.
    """

    uses: ClassVar[str] = "dedupe"
    inputs: ClassVar[Mapping[str, Input]] = {
        "from": Input(kinds=frozenset({Kind.WAVEFORM})),
        "prints": Input(kinds=frozenset({Kind.PRINTS}), optional=True),  # a node is made where none is named
    }

    near: bool = True
    max_difference: float = 0.25

    def __post_init__(self) -> None:
        """Check the fields."""
        check_bool("near", self.near)
        check_float("max_difference", self.max_difference, at_least=0.0, at_most=0.35)

    def prepared(self, item: Item, source: Waveform, made: Waveform) -> Outcome:
        """Raise ContractError: what is the same is not known here."""
        raise ContractError("dedupe compares with other recordings: use what `knowing` returns")

    def knowing(self, columns: Mapping[str, Sequence[Any]]) -> KnowingDedupe:
        """Return what processes utterances, given the rows of `fingerprint`; see `PrintsStage`."""
        ids = columns.get("utterance_id", ())
        same = duplicates(
            columns.get("samples_sha256", ()),
            columns.get("bits", ()) if self.near else [""] * len(ids),
            columns.get("sound_s", ()),
            self.max_difference,
        )
        return KnowingDedupe(stage=self, same={ids[i]: (reason, ids[first]) for i, (reason, first) in same.items()})


@dataclass(frozen=True, kw_only=True)
class KnowingDedupe:
    """Dedupe with what it knows of a corpus: by id, why an utterance is dropped, and what is kept for it."""

    stage: Dedupe
    same: Mapping[str, tuple[str, str]]

    def process(self, items: Sequence[Item], inputs: Mapping[str, Product], product: Product) -> Sequence[Outcome]:
        """Return what is kept of each recording, and what is dropped."""
        del product
        waveform(self.stage.uses, [inputs["from"]])
        return each(items, self._outcome)

    def _outcome(self, item: Item) -> Outcome:
        y = item.inputs["from"]
        found = self.same.get(item.utterance.utterance_id)
        if found is None:
            return Outcome(spans=whole(y, y.copy()))
        reason, first = found
        return Outcome(row={"reason": reason, "same_as": first}, spans=whole(y, reason=reason, detail=f"as {first}"))


def duplicates(
    hashes: Sequence[str], prints: Sequence[str], lengths_s: Sequence[float], max_difference: float
) -> dict[int, tuple[str, int]]:
    """Return why recordings are dropped, and which one is kept for them, by number.

    Parameters
    ----------
    hashes : sequence of str
        Of the samples of each recording.
    prints : sequence of str
        Its fingerprint in hexadecimal; empty for none.
    lengths_s : sequence of float
        How long its sound is, s.
    max_difference : float
        Largest share of bits in which near-same recordings differ.
    """
    found: dict[int, tuple[str, int]] = {}
    by_hash: dict[str, int] = {}
    by_chunk: dict[tuple[int, int], list[int]] = {}
    bits = np.zeros((len(prints), N_BITS), np.bool_)
    for i, (samples, text) in enumerate(zip(hashes, prints, strict=True)):
        if samples in by_hash:
            found[i] = SAME, by_hash[samples]
            continue
        by_hash[samples] = i
        if not text:
            continue
        bits[i] = np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8))[:N_BITS]
        chunks = _chunks(bits[i])
        near = {other for chunk in chunks for other in by_chunk.get(chunk, ())}
        first = _nearest(i, near, bits, lengths_s, max_difference)
        if first is not None:
            found[i] = NEAR, first
            # Another copy has the same samples as this one, and is the same as the first.
            by_hash[samples] = first
            continue
        for chunk in chunks:
            by_chunk.setdefault(chunk, []).append(i)
    return found


def _nearest(
    i: int, others: Iterable[int], bits: NDArray[np.bool_], lengths_s: Sequence[float], max_difference: float
) -> int | None:
    """Return the recording that is most like another, the first of several; None if none is near enough."""
    alike = sorted(one for one in others if abs(lengths_s[one] - lengths_s[i]) <= _LENGTHS_APART * lengths_s[i])
    if not alike:
        return None
    differing = np.count_nonzero(bits[alike] != bits[i], axis=1) / N_BITS
    best = int(np.argmin(differing))
    return alike[best] if differing[best] <= max_difference else None


def _chunks(bits: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return groups of bits that near-same recordings share some of: those of a time, and of a band."""
    table = bits.reshape(N_TIMES - 1, N_BANDS - 1)
    groups = [*table[:, :_CHUNK], *table.T[:, :_CHUNK], *table.T[:, _CHUNK : 2 * _CHUNK]]
    weights = 1 << np.arange(_CHUNK)
    values = [int(group @ weights) for group in groups]
    # A group without any change would be shared by all that is silent there.
    return [(number, value) for number, value in enumerate(values) if value not in (0, (1 << _CHUNK) - 1)]
