"""The data of a training: aligned, in proportion to duration, and the same after any resume."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from melmill.storage.catalogue import Catalogue
from melmill.storage.errors import DamagedData, StoreError
from melmill.storage.product import ProductFolder
from melmill.storage.reading.segments import Batch, EpochOrder, Segments, ShardPart
from melmill.storage.store import Store

HOP = 256
# A second of mels and audio takes some 34 kB here, so a group has one or two shards.
GROUP_BYTES = 400_000


@pytest.fixture
def segments(aligned_store: Store) -> Segments:
    return Segments(aligned_store["mel"], aligned_store["speech"], group_bytes=GROUP_BYTES)


def all_ids(segments: Segments) -> list[str]:
    return [utterance.utterance_id for utterance in segments.utterances]


def taken(segments: Segments, n: int, **options: Any) -> list[Batch]:
    chosen = {"segment_frames": 16, "batch_size": 4, "seed": 0} | options
    ids = chosen.pop("ids", all_ids(segments))
    return list(islice(segments.batches(ids, **chosen), n))


def same(a: list[Batch], b: list[Batch]) -> bool:
    return len(a) == len(b) and all(
        np.array_equal(M, N) and np.array_equal(y, z) for (M, y), (N, z) in zip(a, b, strict=True)
    )


def test_segments_are_aligned(segments: Segments) -> None:
    begins = set()
    for mels, audio in taken(segments, 30):
        assert (mels.shape, audio.shape) == ((4, 4, 16), (4, 16 * HOP))
        assert mels.dtype == audio.dtype == np.dtype(np.float32)
        for M, y in zip(mels, audio, strict=True):
            assert float(y[0]) * 32768 == 1 + HOP * float(M[0, 0]) // 8
            assert M[0, -1] - M[0, 0] == 15
            assert y[-1] > 0
            begins.add(float(M[0, 0]))
    assert len(begins) > 40


def test_whole_utterances_are_what_is_stored(segments: Segments, aligned_store: Store) -> None:
    M, y = segments.whole("a-3")
    assert M.dtype == y.dtype == np.dtype(np.float32)
    np.testing.assert_array_equal(M, aligned_store["mel"]["a-3"])
    np.testing.assert_array_equal(y * 32768, aligned_store["speech"]["a-3"])


def test_what_an_utterance_lacks_to_a_segment_is_silence(segments: Segments) -> None:
    ((mels, audio),) = taken(segments, 1, ids=["a-0"], segment_frames=200)
    n_samples = 8000
    assert audio[0, n_samples - 1] > 0
    assert not audio[:, n_samples:].any()
    assert set(mels[:, :, n_samples // HOP + 1 :].flatten().tolist()) == {float(np.float32(np.log(1e-5)))}


def test_any_batch_is_reached_alone(segments: Segments) -> None:
    """Twenty batches are several epochs of several groups."""
    whole = taken(segments, 20, segment_frames=50)
    for first in range(20):
        assert same(taken(segments, 2, segment_frames=50, first=first)[:1], whole[first : first + 1])
    assert same(taken(segments, 12, segment_frames=50, first=8), whole[8:])


def test_batches_depend_on_what_they_are_asked_for_alone(segments: Segments) -> None:
    ids = all_ids(segments)
    first = taken(segments, 8)
    assert same(taken(segments, 8, ids=frozenset(ids)), first)
    assert not same(taken(segments, 8, seed=1), first)
    assert not same(taken(segments, 8, ids=[name for name in ids if name != "a-6"]), first)
    assert not same(first[:4], first[4:])


def test_utterances_come_in_proportion_to_their_length(segments: Segments, catalogue: Catalogue) -> None:
    """Draw one segment per frame of an epoch: those of 9 s come more often than those of 3 s."""
    n_batches = round(sum(u.n_samples // HOP for u in catalogue.utterances()) / 8)
    batches = taken(segments, n_batches, segment_frames=1, batch_size=8)
    begins = [float(y[0]) * 32768 * 8 for _, audio in batches for y in audio]
    # All other utterances are shorter.
    late = np.mean([begin > 3.3 * 16000 for begin in begins])
    expected = (9 - 3.3) / catalogue.duration_s
    assert late == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / len(begins)))


def test_each_shard_is_read_once_an_epoch_and_a_group_at_a_time(
    segments: Segments, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[str, int]] = []
    plain = ProductFolder.read_arrays

    def counted(folder: ProductFolder, shard: Any, ids: Any = None) -> dict[str, NDArray[Any]]:
        read.append((folder.description.kind, shard.index))
        return plain(folder, shard, ids)

    monkeypatch.setattr(ProductFolder, "read_arrays", counted)
    n_batches = round(sum(u.n_samples // HOP for u in catalogue.utterances()) / (16 * 4))
    taken(segments, n_batches)
    counts = Counter(index for kind, index in read if kind == "mel")
    assert set(counts) == set(range(catalogue.n_shards))
    # The only group that is read beyond the epoch is the first of the next epoch.
    assert sum(counts.values()) <= catalogue.n_shards + 3
    assert len(read) == 2 * sum(counts.values())
    read.clear()
    # To reach a batch far ahead, nothing before it is read.
    taken(segments, 1, first=1000 * n_batches)
    assert len(read) <= 2 * 6


def test_a_corpus_that_fits_into_memory_is_read_once(aligned_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    segments = Segments(aligned_store["mel"], aligned_store["speech"])
    n_read = 0
    plain = ProductFolder.read_arrays

    def counted(*arguments: Any) -> dict[str, NDArray[Any]]:
        nonlocal n_read
        n_read += 1
        return plain(*arguments)

    monkeypatch.setattr(ProductFolder, "read_arrays", counted)
    taken(segments, 200)
    assert n_read == 2 * aligned_store["mel"].catalogue.n_shards


def test_absent_utterances_are_left_out(aligned_store: Store, segments: Segments) -> None:
    held = Segments(aligned_store["mel"], aligned_store["speech"], ids=["a-0", "b-1", "gone"])
    assert all_ids(held) == [name for name in all_ids(segments) if name in ("a-0", "b-1")]
    with pytest.raises(StoreError, match=r"1 of the ids have no mel or no audio, e.g. 'a-3'"):
        held.batches(["a-0", "a-3"], segment_frames=4, batch_size=1, seed=0)


def test_damage_reaches_who_draws(segments: Segments, aligned_store: Store) -> None:
    file = aligned_store.product("mel", "k1").location
    name = next(name for name in file.tree() if name.startswith("data/c/"))
    data = bytearray(file.read(name))
    data[len(data) // 2] ^= 1
    file.replace(name, bytes(data))
    with pytest.raises(DamagedData, match="node 'mel'"):
        taken(segments, 200)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"segment_frames": 0}, "segment_frames must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"ids": []}, "there is nothing to draw segments from"),
    ],
)
def test_what_can_not_be_drawn_is_refused(segments: Segments, options: dict[str, Any], message: str) -> None:
    with pytest.raises(StoreError, match=message):
        taken(segments, 1, **options)


@pytest.mark.parametrize(
    ("frames", "epoch_batches"),
    [
        pytest.param([40, 40, 40], 6, id="whole batches"),
        pytest.param([3, 1, 2], 1, id="less than a batch"),
        pytest.param([0, 50, 0, 31], 4, id="shards without a frame"),
    ],
)
def test_an_epoch_is_shared_out_whole(frames: list[int], epoch_batches: int) -> None:
    parts = [ShardPart(shard=i, ids=(f"u{i}",), n_frames=(n,), n_bytes=1) for i, n in enumerate(frames)]
    order = EpochOrder(parts, segment_frames=5, batch_size=4, seed=3, group_bytes=1)
    assert order.epoch_batches == epoch_batches
    found: list[tuple[int, int]] = []
    groups = order.groups(0)
    while len(found) < 3 * epoch_batches:
        group = next(groups)
        assert sum(map(sum, (part.n_frames for part in group.parts))) > 0
        found += [(group.epoch, number) for number in group.numbers]
    assert found == [(epoch, number) for epoch in range(3) for number in range(epoch_batches)]


def test_orders_differ_between_epochs() -> None:
    parts = [ShardPart(shard=i, ids=(f"u{i}",), n_frames=(40,), n_bytes=1) for i in range(20)]
    order = EpochOrder(parts, segment_frames=5, batch_size=4, seed=3, group_bytes=1)
    orders = [[group.parts[0].shard for group in islice(order.groups(epoch * 40), 20)] for epoch in range(2)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(20))
    assert orders[0] != orders[1]


def test_another_corpus_is_refused(aligned_store: Store) -> None:
    speech = aligned_store["speech"]
    other = replace(speech.description, catalogue=("elsewhere", "k9"))
    make: Callable[..., Any] = lambda: other  # noqa: E731
    speech.folder.__dict__["description"] = make()
    with pytest.raises(StoreError, match="or it is of another corpus"):
        Segments(aligned_store["mel"], speech)
