"""Streams for training: what is in an item, who gets it, and how a stream goes on from its state."""

from __future__ import annotations

import copy
import json
import pickle
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import melmill
from melmill.stages.numeric.melspec import MelSpec
from melmill.storage.arrays import ArraySpec
from melmill.storage.catalogue import Catalogue
from melmill.storage.files.location import Location
from melmill.storage.product import Facts, ProductDescription, ProductFolder, ShardContents
from melmill.storage.reading.rows import Selection
from melmill.storage.store import Manifest, NodeEntry, Store
from melmill.storage.utterance import Shard

torch = pytest.importorskip("torch")

from torch.utils.data import DataLoader  # noqa: E402

HOP, SR = 256, 16000
FLOOR = float(np.float32(np.log(1e-5)))
Item = dict[str, Any]

# Nodes of `store` besides `mel` and `speech`: their layout, and the value of entry n.
TRACKS: dict[str, tuple[ArraySpec, Callable[[Any], Any]]] = {
    "f0": (ArraySpec(dtype="float32", sr=SR, n_fft=1024, hop_length=HOP, pad=512), lambda n: 100.0 + n),
    "fine": (ArraySpec(dtype="float32", sr=SR, n_mels=3, n_fft=512, hop_length=128, pad=256), lambda n: -1.0 * n),
    "wide": (ArraySpec(dtype="int16", sr=2 * SR), lambda n: 1 + n // 16),
    "odd": (ArraySpec(dtype="int16", sr=22050), lambda n: 1 + n // 16),
}


@pytest.fixture(scope="module")
def store(
    tmp_path_factory: pytest.TempPathFactory,
    aligned: Callable[..., Store],
    catalogue: Catalogue,
    describe: Callable[..., ProductDescription],
    facts: Facts,
) -> Store:
    """Return a store of aligned products, of other hops, rates and widths too, which no test changes."""
    made = aligned(tmp_path_factory.mktemp("streamed") / "store", catalogue, facts)
    nodes = dict(made.nodes)
    for name, (spec, value) in TRACKS.items():
        kind = "waveform" if spec.dtype == "int16" else "mel"
        mel = MelSpec(n_mels=3, log="ln", floor=1e-5).as_dict() if spec.n_mels else None
        folder = made.product(name, "k1")
        folder.prepare(describe(spec, node=name, kind=kind, sr=spec.sr, mel=mel), catalogue.n_slots)
        for index in range(catalogue.n_shards):
            shard = catalogue.shard(index)
            arrays = {
                u.utterance_id: np.broadcast_to(value(np.arange(spec.length(u))), spec.shape(u)).astype(spec.dtype)
                for u in shard.utterances
            }
            folder.commit(shard, ShardContents(arrays=arrays), facts)
        nodes[name] = NodeEntry(folder=name, key="k1", kind=kind, stage="x", catalogues=(("speech", "k0"),))
    spec = ArraySpec(dtype="int16", sr=SR)
    made.product("other", "k7").prepare(describe(spec, node="other", key="k7", catalogue=("there", "k6")), 1)
    nodes["other"] = NodeEntry(folder="other", key="k7", kind="waveform", stage="x", catalogues=(("speech", "k0"),))
    made.publish_run("r2", Manifest(run_id="r2", project="test", started_at="2025", nodes=nodes))
    return made


def check_item(item: Item, n_frames: int = 16) -> None:
    """Check that the parts of a segment begin together, by values that are positions."""
    M, y, start = item["mel"], item["audio"], int(item["start"])
    assert (M.shape, y.shape) == ((4, n_frames), (n_frames * HOP,))
    assert (M.dtype, y.dtype) == (torch.float32, torch.float32)
    assert float(M[0, 0]) == start
    assert float(y[0]) * 32768 == 1 + start * HOP // 8


def test_segments_are_aligned(store: Store, catalogue: Catalogue) -> None:
    stream = melmill.torch_stream(store, segment_frames=16, labels=["text", "speaker_id"])
    items = list(stream)
    assert len(items) == stream.n_items == catalogue.n_utterances
    for item in items:
        check_item(item)
        assert (int(item["mel_length"]), int(item["audio_length"])) == (16, 16 * HOP)
        assert (item["text"], item["speaker_id"]) == ("A WORD", item["id"][0])
    assert len({int(item["start"]) for item in items}) > 5
    assert {item["id"] for item in items} == set(store["mel"])


def test_all_products_are_cut_at_the_same_time(store: Store) -> None:
    stream = melmill.torch_stream(store, also=["f0", "fine", "wide"], segment_frames=8)
    for item in stream:
        check_item(item, 8)
        start = int(item["start"])
        assert item["f0"].tolist() == [100.0 + start + n for n in range(8)]
        assert item["fine"].shape == (3, 16)
        assert item["fine"][2].tolist() == [-2.0 * start - n for n in range(16)]
        assert item["wide"].shape == (16 * HOP,)
        assert float(item["wide"][0]) * 32768 == 1 + start * 2 * HOP // 16


def test_segments_of_the_finer_mel_begin_where_a_coarse_frame_does(store: Store) -> None:
    stream = melmill.torch_stream(store, "fine", also=["f0"], segment_frames=6)
    starts = {int(item["start"]) for item in stream}
    assert len(starts) > 3
    assert all(start % 2 == 0 for start in starts)
    for item in stream:
        assert item["f0"].tolist() == [100.0 + int(item["start"]) // 2 + n for n in range(3)]
        assert float(item["audio"][0]) * 32768 == 1 + int(item["start"]) * 128 // 8


def test_one_product_is_enough(store: Store) -> None:
    assert "mel" not in next(iter(melmill.torch_stream(store, mel=None, segment_frames=100)))
    assert next(iter(melmill.torch_stream(store, audio=None)))["mel"].shape == (4, 64)
    assert next(iter(melmill.torch_stream(store, None, None, also=["f0"])))["f0"].shape == (64,)


def test_short_utterances_are_filled_up(store: Store) -> None:
    (item,) = melmill.torch_stream(store, segment_frames=200, ids=["a-0"])
    n_samples = 8000
    assert (int(item["mel_length"]), int(item["audio_length"]), int(item["start"])) == (32, n_samples, 0)
    assert item["audio"][n_samples - 1] > 0
    assert not item["audio"][n_samples:].any()
    assert set(item["mel"][:, 32:].flatten().tolist()) == {FLOOR}


def test_whole_utterances_come_in_batches_of_like_length(store: Store) -> None:
    stream = melmill.torch_stream(
        store, also=["f0"], segment_frames=None, batch_size=4, batch_frames=500, buckets=3, labels=["text"]
    )
    batches = list(stream)
    ids = [name for batch in batches for name in batch["id"]]
    assert sorted(ids) == sorted(store["mel"])
    for batch in batches:
        longest = max(batch["mel_length"].tolist())
        assert batch["mel"].shape == (len(batch["id"]), 4, longest)
        assert batch["f0"].shape == (len(batch["id"]), longest)
        assert len(batch["id"]) <= 4
        # The frames of a batch count those that have audio of a whole hop.
        assert len(batch["id"]) == 1 or len(batch["id"]) * (longest - 1) <= 500
        assert batch["text"] == ["A WORD"] * len(batch["id"])
        for i, name in enumerate(batch["id"]):
            n, n_samples = int(batch["mel_length"][i]), int(batch["audio_length"][i])
            np.testing.assert_array_equal(batch["mel"][i, :, :n], store["mel"][name])
            np.testing.assert_array_equal(batch["audio"][i, :n_samples] * 32768, store["speech"][name])
            assert set(batch["mel"][i, :, n:].flatten().tolist()) <= {FLOOR}
            assert not batch["audio"][i, n_samples:].any()
    assert len({batch["mel"].shape[-1] for batch in batches}) > 2


def test_utterances_give_several_segments(store: Store, catalogue: Catalogue) -> None:
    twice = Counter(item["id"] for item in melmill.torch_stream(store, segments_per_utterance=2))
    assert set(twice.values()) == {2}
    filled = melmill.torch_stream(store, segment_frames=16, segments_per_utterance="length")
    counts = Counter(item["id"] for item in filled)
    assert counts == {u.utterance_id: max(1, round(u.n_samples // HOP / 16)) for u in catalogue.utterances()}
    starts = [int(item["start"]) for item in filled if item["id"] == "long"]
    assert len(set(starts)) > 5


@pytest.mark.parametrize("loaded", [False, True], ids=["alone", "in workers"])
def test_all_ranks_and_workers_have_every_item_once(store: Store, loaded: bool) -> None:
    found = []
    for rank in range(3):
        stream = melmill.torch_stream(store, segment_frames=8, rank=rank, world_size=3, batch_size=2)
        loader = DataLoader(stream, batch_size=None, num_workers=2, multiprocessing_context="fork")
        found.append([name for batch in (loader if loaded else stream) for name in batch["id"]])
    assert sorted(name for ids in found for name in ids) == sorted(store["mel"])
    assert sorted(map(len, found)) == [4, 4, 5]


def test_workers_that_live_on_follow_the_epoch(store: Store) -> None:
    stream = melmill.torch_stream(store, segment_frames=8)
    loader = DataLoader(stream, batch_size=4, num_workers=1, multiprocessing_context="fork", persistent_workers=True)
    epochs = []
    for epoch in (0, 1, 0):
        stream.set_epoch(epoch)
        epochs.append([pair for batch in loader for pair in zip(batch["id"], batch["start"].tolist(), strict=True)])
        assert epochs[-1] == [(item["id"], int(item["start"])) for item in stream]
    assert epochs[0] == epochs[2] != epochs[1]
    assert sorted(name for name, _ in epochs[0]) == sorted(name for name, _ in epochs[1])


def test_the_seed_chooses_and_where_a_segment_lies_depends_on_no_reader(store: Store) -> None:
    def starts(**fields: Any) -> dict[str, int]:
        return {item["id"]: int(item["start"]) for item in melmill.torch_stream(store, **fields)}

    parts = [starts(rank=rank, world_size=2) for rank in range(2)]
    assert {**parts[0], **parts[1]} == starts() != starts(seed=1)
    kept = [item["id"] for item in melmill.torch_stream(store, shuffle=False)]
    assert kept == [u.utterance_id for u in store["mel"].catalogue.utterances()]


@pytest.mark.parametrize("batching", [{}, {"segment_frames": None, "batch_size": 3, "buckets": 2}], ids=["", "batches"])
def test_a_stream_goes_on_from_its_state(store: Store, batching: dict[str, Any]) -> None:
    def made() -> Any:
        return melmill.torch_stream(store, seed=5, buffer=4, **batching)

    def seen(items: Iterator[Item]) -> list[Any]:
        return [(item["id"], item["start"].tolist(), item["audio"].sum().tolist()) for item in items]

    stream = made()
    stream.set_epoch(3)
    whole = seen(iter(stream))
    for n_done in (0, 1, len(whole) // 2, len(whole)):
        begun = iter(stream)
        for _ in range(n_done):
            next(begun)
        state = json.loads(json.dumps(stream.state_dict()))
        other = made()
        other.load_state_dict(state)
        assert other.state_dict() == state
        other.set_epoch(3)
        assert other.epoch == 3
        assert seen(iter(other)) == whole[n_done:]
        # The state counts for one iteration.
        assert seen(iter(other)) == whole
    other.load_state_dict(state)
    other.set_epoch(4)
    assert len(seen(iter(other))) == len(whole)


def test_a_stream_that_goes_on_reads_no_shard_that_is_done(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = melmill.torch_stream(store, shuffle=False)
    ids = [item["id"] for item in stream]
    stream.load_state_dict({**stream.state_dict(), "n_given": len(ids) - 1})
    read, whole = [], ProductFolder.read_parts

    def noted(self: ProductFolder, shard: Shard, parts: Any) -> Any:
        read.append((shard.index, len(parts)))
        return whole(self, shard, parts)

    monkeypatch.setattr(ProductFolder, "read_parts", noted)
    assert [item["id"] for item in stream] == ids[-1:]
    assert read == [(max(store["mel"].catalogue.current_shards), 1)] * 2


STATES = [
    ({"rank": 1}, "the state is of rank 0, and this is 1: give each process the state that it saved"),
    ({"world_size": 3}, "the state is of world_size 2, and this is 3: go on with as many processes, or begin an epoch"),
    ({"segment_frames": 32}, "the state is of a stream with segment_frames=64, and this has 32"),
    ({"seed": 1}, "the state is of a stream with seed=0, and this has 1"),
    ({"ids": ["a-0"]}, "the state is of n_items 13, and this is 1: the utterances were others"),
    ({"audio": None}, "the state is of nodes .*: the nodes were others, or were made otherwise"),
]


@pytest.mark.parametrize(
    ("fields", "message"), STATES, ids=lambda value: ",".join(value) if isinstance(value, dict) else ""
)
def test_a_state_of_another_stream_is_refused(store: Store, fields: dict[str, Any], message: str) -> None:
    place: dict[str, Any] = {"rank": 0, "world_size": 2}
    state = melmill.torch_stream(store, **place).state_dict()
    with pytest.raises(melmill.StoreError, match=message) as raised:
        melmill.torch_stream(store, **{**place, **fields}).load_state_dict(state)
    assert "\n" not in str(raised.value)


def test_a_state_of_other_workers_is_refused(store: Store) -> None:
    stream = melmill.torch_stream(store)
    with pytest.raises(melmill.StoreError, match="of n_workers 2, and this is 1: give the DataLoader as many workers"):
        stream.load_state_dict({**stream.state_dict(), "n_workers": 2})
    with pytest.raises(melmill.StoreError, match="the state has no 'n_items': it is not one of torch_stream"):
        stream.load_state_dict({name: value for name, value in stream.state_dict().items() if name != "n_items"})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mel": "mle"}, "the last run has no node 'mle'; did you mean 'mel'"),
        ({"also": ["nothing"]}, "the last run has no node 'nothing'"),
        ({"mel": "speech"}, "mel='speech' makes utterances: expected mel"),
        ({"audio": "mel"}, "audio='mel' makes mel: expected waveform or utterances"),
        ({"mel": None, "audio": None}, "there is nothing to stream: name a node"),
        ({"also": ["mel"]}, "also names 'mel', but an item has that already"),
        ({"also": ["odd"]}, r"segment_frames=64 of 'mel' \(16000 Hz, hop 256\) is no whole number of entries of 'odd'"),
        ({"audio": "other"}, r"'other' .* is of other utterances than 'mel' .*Name nodes of one corpus"),
        ({"ids": ["a-0", "nobody"]}, "1 of the ids are not in both 'mel' and 'speech', e.g. 'nobody'"),
        ({"labels": ["words"]}, "labels must be of text, speaker_id, .*, got 'words'"),
        ({"labels": "text"}, r"labels must be a sequence, got 'text': write \['text'\] for one"),
        ({"segment_frames": 0}, "segment_frames must be at least 1, got 0"),
        ({"buffer": 0}, "buffer must be at least 1, got 0"),
        ({"drop_last": True}, "drop_last is for batches that the stream makes: give batch_size too"),
        ({"segment_frames": None, "segments_per_utterance": 2}, "segments_per_utterance is for segments"),
        ({"rank": 2, "world_size": 2}, "rank must be less than world_size, got 2 of 2"),
        ({"rank": 2}, "rank and world_size go together, got 2 and None"),
        ({"uneven": "pad"}, "uneven must be one of 'keep', 'repeat', 'drop', got 'pad'"),
    ],
)
def test_what_does_not_fit_is_one_line(store: Store, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(melmill.Error, match=message) as raised:
        melmill.torch_stream(store, **fields)
    assert "\n" not in str(raised.value)


def test_utterances_that_a_node_lacks_are_left_out(aligned_store: Store, catalogue: Catalogue, facts: Facts) -> None:
    folder = aligned_store.product("mel", "k1")
    record = folder.record("000000")
    assert record is not None
    gone = catalogue.shard(0).utterances[0].utterance_id
    folder.drop("000000")
    folder.location.put("records/000000.json", replace(record, absent=(gone,)).to_json())
    folder.drop("000001")
    expected = {u.utterance_id for i in catalogue.current_shards if i != 1 for u in catalogue.shard(i).utterances}
    stream = melmill.torch_stream(aligned_store)
    assert {item["id"] for item in stream} == expected - {gone}
    with pytest.raises(melmill.StoreError, match="1 of the ids are not in"):
        melmill.torch_stream(aligned_store, ids=[gone])


def test_a_worker_is_sent_little(store: Store, catalogue: Catalogue) -> None:
    sent = pickle.dumps(melmill.torch_stream(store))
    assert len(sent) < 4000
    assert [item["id"] for item in pickle.loads(sent)] == [item["id"] for item in melmill.torch_stream(store)]
    million = Selection.of(Location("/there"), ("speech", "k0"), np.random.default_rng(0).random(10**6) < 0.99)
    assert len(pickle.dumps(million)) < 30_000


def test_ranks_are_those_of_the_environment_and_are_sent_along(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    stream = melmill.torch_stream(store)
    sent = pickle.dumps(stream)
    ids = [item["id"] for item in stream]
    monkeypatch.delenv("RANK")
    monkeypatch.delenv("WORLD_SIZE")
    explicit = melmill.torch_stream(store, rank=1, world_size=2)
    assert ids == [item["id"] for item in explicit] == [item["id"] for item in pickle.loads(sent)]
    assert len([*stream]) == 13


def test_damage_is_said_by_name(aligned_store: Store) -> None:
    folder = aligned_store.product("mel", "k1")
    name = min(name for name in (folder.location / "data").tree() if name.startswith("c/"))
    size = len((folder.location / "data").read(name))
    (folder.location / "data").replace(name, b"\xff" * size)
    with pytest.raises(melmill.DamagedData, match=r"node 'mel', record .*can't be decoded .*melmill repair"):
        list(melmill.torch_stream(aligned_store))


def test_a_store_of_objects_is_streamed(store: Store, bucket: str) -> None:
    there = Location(f"{bucket}/store")
    for name in store.location.tree():
        there.put(name, store.location.read(name))
    expected, got = (
        [(item["id"], item["mel"].tolist()) for item in melmill.torch_stream(place, segment_frames=8, read_ahead=3)]
        for place in (store, f"{bucket}/store")
    )
    assert got == expected


def test_leaving_early_ends_the_readers(store: Store, tmp_path: Path) -> None:
    import threading

    before = threading.active_count()
    stream = iter(melmill.torch_stream(store, buffer=1))
    next(stream)
    del stream
    assert threading.active_count() == before


def test_a_batch_travels_in_one_piece_with_what_was_put_into_it(store: Store) -> None:
    batch = next(iter(melmill.torch_stream(store, batch_size=4, labels=["text"])))
    memory = batch["mel"].untyped_storage().data_ptr()
    assert batch["audio"].untyped_storage().data_ptr() == memory
    for change in ({}, {"weights": torch.ones(4)}, {"mel": torch.zeros(4, 2)}, {"start": torch.zeros(4)}):
        batch = next(iter(melmill.torch_stream(store, batch_size=4, labels=["text"])))
        batch.update(change)
        for other in (pickle.loads(pickle.dumps(batch)), copy.copy(batch)):
            assert other.keys() == batch.keys()
            for name, value in batch.items():
                same = torch.equal(other[name], value) if isinstance(value, torch.Tensor) else other[name] == value
                assert same, name
                assert getattr(other[name], "dtype", None) == getattr(value, "dtype", None)


@pytest.mark.parametrize("n_workers", [0, 2])
@pytest.mark.parametrize("n_done", [1, 4])
def test_torchdata_goes_on_in_mid_epoch(store: Store, n_workers: int, n_done: int) -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader", reason="torchdata is not installed")

    def loader(epoch: int) -> Any:
        stream = melmill.torch_stream(store, segment_frames=8, batch_size=2)
        stream.set_epoch(epoch)
        context = "fork" if n_workers else None
        return stateful.StatefulDataLoader(
            stream, batch_size=None, num_workers=n_workers, multiprocessing_context=context
        )

    whole = [batch["id"] for batch in loader(1)]
    begun = loader(1)
    batches = iter(begun)
    first = [next(batches)["id"] for _ in range(n_done)]
    state = pickle.loads(pickle.dumps(begun.state_dict()))
    again = loader(1)
    again.load_state_dict(state)
    assert first + [batch["id"] for batch in again] == whole
    assert [batch["id"] for batch in again] == whole
    assert sorted(name for ids in whole for name in ids) == sorted(store["mel"])
