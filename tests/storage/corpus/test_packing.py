"""Packing: no utterance is lost or crosses a shard's end, and packed ones keep their place."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melmill.storage.arrays import ArraySpec
from melmill.storage.catalogue import Catalogue
from melmill.storage.corpus.packing import MAX_UTTERANCES, length_class, length_classes
from melmill.storage.errors import CatalogueError
from melmill.storage.utterance import Shard, Utterance, resampled_length

SR = 16000
DURATION_S = 4.0
CAPACITY = int(SR * DURATION_S)

Maker = Callable[..., Utterance]
lengths = st.lists(st.one_of(st.just(0), st.integers(1, 40_000), st.integers(40_000, 400_000)), max_size=40)
framings = st.builds(
    ArraySpec,
    dtype=st.just("float32"),
    sr=st.sampled_from([8000, 16000, 22050, 24000, 44100, 48000]),
    n_mels=st.sampled_from([None, 1, 80]),
    n_fft=st.integers(1, 4096),
    hop_length=st.integers(1, 2048),
    pad=st.integers(0, 3000),
)


def corpus(utterance: Maker, sizes: list[int], prefix: str = "u") -> list[Utterance]:
    return [utterance(f"{prefix}{i:04d}", n) for i, n in enumerate(sizes)]


def pack(utterances: list[Utterance]) -> list[Shard]:
    catalogue = Catalogue.empty(SR, DURATION_S).extended(utterances)
    return [catalogue.shard(index) for index in range(catalogue.n_shards)]


@given(st.lists(st.integers(0, 2**40), max_size=40))
def test_classes_of_lengths_are_those_of_each_length(sizes: list[int]) -> None:
    steps = [2**i for i in range(1, 41)]
    near = [max(0, n + d) for n in sizes + steps for d in (-1, 0, 1)]
    assert length_classes(np.array(near)).tolist() == [length_class(n) for n in near]


@given(lengths)
def test_every_utterance_lies_whole_in_one_shard(utterance: Maker, sizes: list[int]) -> None:
    made = corpus(utterance, sizes)
    packed = pack(made)
    assert sorted(u.utterance_id for one in packed for u in one.utterances) == [u.utterance_id for u in made]
    for one in packed:
        total = sum(u.n_samples for u in one.utterances)
        assert one.n_slots == max(1, -(-total // CAPACITY))
        assert one.n_slots == 1 or len(one.utterances) == 1
        assert 1 <= len(one.utterances) <= MAX_UTTERANCES


@given(lengths, st.randoms(use_true_random=False))
def test_packing_does_not_depend_on_the_order_given(utterance: Maker, sizes: list[int], random: st.DataObject) -> None:
    made = corpus(utterance, sizes)
    shuffled = list(made)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert pack(made) == pack(shuffled)


def test_a_shard_holds_no_more_than_its_share_of_utterances(utterance: Maker) -> None:
    counts = [len(one.utterances) for one in pack(corpus(utterance, [1] * 2500))]
    assert counts == [MAX_UTTERANCES, MAX_UTTERANCES, 2500 - 2 * MAX_UTTERANCES]


def test_shards_hold_utterances_of_like_length(utterance: Maker) -> None:
    packed = pack(corpus(utterance, [20_000, 3000] * 100))
    classes = [{length_class(u.n_samples) for u in one.utterances} for one in packed]
    assert sum(len(found) > 1 for found in classes) <= 1


@given(lengths, lengths)
def test_extending_moves_nothing(utterance: Maker, first: list[int], second: list[int]) -> None:
    old = Catalogue.empty(SR, DURATION_S).extended(corpus(utterance, first))
    new = old.extended(corpus(utterance, second, prefix="v"))
    assert new.table.slice(0, old.n_utterances).equals(old.table)
    assert [new.shard(i) for i in range(old.n_shards)] == [old.shard(i) for i in range(old.n_shards)]
    assert new.n_utterances == len(first) + len(second)


@given(lengths)
def test_slots_follow_one_another(utterance: Maker, sizes: list[int]) -> None:
    catalogue = Catalogue.empty(SR, DURATION_S).extended(corpus(utterance, sizes))
    shards = [catalogue.shard(i) for i in range(catalogue.n_shards)]
    assert [shard.slot for shard in shards] == [sum(s.n_slots for s in shards[:i]) for i in range(len(shards))]
    assert catalogue.n_slots == sum(shard.n_slots for shard in shards)
    for row in catalogue.table.to_pylist():
        before = [u.n_samples for u in shards[row["shard"]].utterances]
        ids = [u.utterance_id for u in shards[row["shard"]].utterances]
        assert row["start"] == sum(before[: ids.index(row["utterance_id"])])
        assert catalogue.shard_of(row["utterance_id"]) == row["shard"]


@given(lengths, framings)
def test_every_framing_finds_room(utterance: Maker, sizes: list[int], spec: ArraySpec) -> None:
    catalogue = Catalogue.empty(SR, DURATION_S).extended(corpus(utterance, sizes))
    room = spec.slot_length(DURATION_S)
    assert room % spec.chunk_length == 0
    for index in range(catalogue.n_shards):
        shard = catalogue.shard(index)
        spans = list(spec.spans(shard).values())
        assert spans[-1].stop <= shard.n_slots * room
        assert [span.start for span in spans] == [0, *(span.stop for span in spans[:-1])]


@given(st.integers(1, MAX_UTTERANCES), framings)
def test_a_shard_of_the_most_utterances_finds_room(utterance: Maker, n_samples: int, spec: ArraySpec) -> None:
    # Many short utterances are the worst case: each adds its rounding and its padding.
    n = min(CAPACITY // n_samples, MAX_UTTERANCES)
    assert n * spec.length(utterance("u", n_samples)) <= spec.slot_length(DURATION_S)


@given(st.integers(1, 200_000), st.sampled_from([256, 300, 441]))
def test_frames_are_those_that_fit(utterance: Maker, n_samples: int, hop_length: int) -> None:
    spec = ArraySpec(dtype="float32", sr=22050, n_mels=80, n_fft=1024, hop_length=hop_length, pad=512)
    n_frames = spec.length(utterance("u", n_samples))
    padded = resampled_length(n_samples, SR, 22050) + 1024
    assert (n_frames - 1) * hop_length + 1024 <= padded < n_frames * hop_length + 1024


def test_unreadable_headers_take_no_room(utterance: Maker, mel_spec: ArraySpec) -> None:
    shard = Catalogue.empty(SR, DURATION_S).extended([utterance("a", 0), utterance("b", 16000)]).shard(0)
    assert mel_spec.spans(shard) == {"a": slice(0, 0), "b": slice(0, 63)}


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ([("a", {"path": "x/a.flac"}), ("a", {"path": "y/a.flac"})], r"two files are called 'a': x/a.flac and y/a"),
        ([("old", {"path": "new/old.flac"})], r"two files are called 'old': dev/old.flac and new/old.flac"),
        ([("b", {"sr": 8000})], r"dev/b.flac: sr is 8000 Hz, the catalogue's is 16000 Hz"),
    ],
    ids=["twice among the new", "there already", "another rate"],
)
def test_what_contradicts_the_catalogue_is_refused(
    utterance: Maker, added: list[tuple[str, dict[str, str]]], message: str
) -> None:
    catalogue = Catalogue.empty(SR, DURATION_S).extended([utterance("old", 100)])
    with pytest.raises(CatalogueError, match=message):
        catalogue.extended([utterance(name, 100, **fields) for name, fields in added])


def test_a_shard_must_hold_something() -> None:
    with pytest.raises(CatalogueError, match="a shard of 0 s at 16000 Hz holds no sample"):
        Catalogue.empty(SR, 0)
