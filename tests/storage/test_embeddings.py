"""Arrays with one entry an utterance, such as vectors of voices."""

from __future__ import annotations

import numpy as np

from melmill.storage.arrays import ArraySpec, array_slots, decode, encode, metadata
from melmill.storage.corpus.packing import MAX_UTTERANCES
from melmill.storage.utterance import Shard, Utterance

SPEC = ArraySpec(dtype="float32", sr=16000, n_mels=5, frames="one")


def _utterance(name: str, n_samples: int) -> Utterance:
    return Utterance(
        utterance_id=name,
        subset="",
        speaker_id="",
        chapter_id="",
        text="",
        path=name,
        size_bytes=0,
        mtime_ns=0,
        source_sr=16000,
        source_n_samples=n_samples,
        sr=16000,
        n_samples=n_samples,
    )


def test_a_slot_has_room_for_every_utterance_of_a_shard() -> None:
    assert SPEC.slot_length(300.0) >= MAX_UTTERANCES
    assert SPEC.slot_length(300.0) % SPEC.chunk_length == 0
    assert [SPEC.length(_utterance("a", n)) for n in (0, 1, 10**7)] == [0, 1, 1]
    assert array_slots(metadata(SPEC, SPEC.slot_length(300.0), 3), SPEC.slot_length(300.0)) == 3


def test_vectors_come_back_as_they_were() -> None:
    utterances = tuple(_utterance(f"u{i}", 1000 * i) for i in range(6))
    shard = Shard(index=0, slot=2, n_slots=1, utterances=utterances)
    vectors = {f"u{i}": np.full((5, 1), i, dtype=np.float32) for i in (1, 2, 4, 5)}
    length = SPEC.slot_length(300.0)
    files = encode(SPEC, length, shard, vectors)
    read = decode(SPEC, length, shard, files, list(vectors), "here")
    assert read.keys() == vectors.keys()
    for name, vector in vectors.items():
        np.testing.assert_array_equal(read[name], vector)
    assert ArraySpec.from_dict(SPEC.as_dict()) == SPEC
