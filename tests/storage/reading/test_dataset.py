"""Segments for training: aligned, equal in every process, and padded if an utterance is short."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from melmill.stages.numeric.melspec import MelSpec
from melmill.storage.arrays import ArraySpec
from melmill.storage.catalogue import Catalogue
from melmill.storage.errors import StoreError
from melmill.storage.product import ProductDescription
from melmill.storage.store import Manifest, NodeEntry, Store
from melmill.storage.utterance import silence

torch = pytest.importorskip("torch")

from torch.utils.data import DataLoader  # noqa: E402

from melmill.storage.reading.dataset import SegmentDataset, torch_dataset  # noqa: E402

HOP = 256


def test_segments_are_aligned(aligned_store: Store, catalogue: Catalogue) -> None:
    dataset = torch_dataset(aligned_store, segment_frames=16)
    assert len(dataset) == catalogue.n_utterances
    starts = set()
    for index in range(len(dataset)):
        M, y = dataset[index]
        assert (M.shape, y.shape) == ((4, 16), (16 * HOP,))
        assert (M.dtype, y.dtype) == (torch.float32, torch.float32)
        begin = HOP * float(M[0, 0])
        starts.add(begin)
        # The first frame of the segment is centred on its first sample.
        assert float(y[0]) * 32768 == 1 + begin // 8
        assert float(M[0, -1] - M[0, 0]) == 15
        # A segment has no padding if the utterance is long enough.
        assert float(y[-1]) > 0
    assert len(starts) > 5


def test_short_utterances_are_filled_up(aligned_store: Store) -> None:
    dataset = torch_dataset(aligned_store, segment_frames=200, ids=["a-0"])
    M, y = dataset[0]
    n_samples = 8000
    assert y[n_samples - 1] > 0
    assert not y[n_samples:].any()
    assert M[0, n_samples // HOP] == n_samples // HOP
    assert set(M[:, n_samples // HOP + 1 :].flatten().tolist()) == {float(np.float32(np.log(1e-5)))}


def test_the_epoch_and_the_seed_choose_the_segments(aligned_store: Store) -> None:
    def chosen(dataset: SegmentDataset) -> list[float]:
        return [float(dataset[index][0][0, 0]) for index in range(len(dataset))]

    dataset = torch_dataset(aligned_store.location.url, segment_frames=8)
    first = chosen(dataset)
    assert chosen(dataset) == first
    dataset.set_epoch(1)
    assert chosen(dataset) != first
    dataset.set_epoch(0)
    assert chosen(dataset) == chosen(pickle.loads(pickle.dumps(dataset))) == first
    assert chosen(torch_dataset(aligned_store, segment_frames=8, seed=1)) != first


def test_worker_processes_give_the_same_segments(aligned_store: Store) -> None:
    dataset = torch_dataset(aligned_store, segment_frames=8)
    loader = DataLoader(dataset, batch_size=4, num_workers=1, multiprocessing_context="spawn", persistent_workers=True)
    for epoch in (0, 1):
        dataset.set_epoch(epoch)
        batches = list(loader)
        assert torch.equal(
            torch.cat([M for M, _ in batches]), torch.stack([dataset[i][0] for i in range(len(dataset))])
        )


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ({"mel": "speech"}, r"mel='speech' makes utterances and audio='speech' makes utterances"),
        ({"audio": "mel"}, r"mel='mel' makes mel and audio='mel' makes mel: expected mel and"),
        ({"segment_frames": 0}, r"segment_frames must be at least 1, got 0"),
        ({"ids": ["a-0", "nobody"]}, r"1 of the ids are not in both 'mel' and 'speech', e.g. 'nobody'"),
    ],
)
def test_what_does_not_fit_is_refused(aligned_store: Store, nodes: dict[str, Any], message: str) -> None:
    with pytest.raises(StoreError, match=message):
        torch_dataset(aligned_store, **nodes)


def test_another_rate_is_refused(aligned_store: Store, describe: Callable[..., ProductDescription]) -> None:
    spec = ArraySpec(dtype="float32", sr=22050)
    aligned_store.product("gla", "k2").prepare(describe(spec, node="gla", key="k2", sr=22050), 1)
    entry = NodeEntry(folder="gla", key="k2", kind="waveform", stage="x", catalogues=(("speech", "k0"),))
    nodes = {**aligned_store.nodes, "gla": entry}
    aligned_store.publish_run("r2", Manifest(run_id="r2", project="test", started_at="2025", nodes=nodes))
    with pytest.raises(StoreError, match=r"'gla' is not the audio of 'mel': sr is 22050 Hz, not 16000 Hz"):
        torch_dataset(aligned_store, audio="gla")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, 0.0),
        ({"compression": 0.3}, 0.0),
        ({"log": "ln", "floor": 1e-5}, np.log(1e-5)),
        ({"log": "log10", "floor": 1e-3}, -3.0),
        ({"log": "db", "floor": 1e-5, "power": 2.0}, -50.0),
        ({"log": "db", "floor": 1e-5, "shift": 100.0, "scale": 0.01}, 0.0),
        ({"log": "log10", "floor": 1e-5, "clip": (-4.0, 4.0)}, -4.0),
    ],
)
def test_silence_follows_the_spec(fields: dict[str, Any], expected: float) -> None:
    assert silence(MelSpec(**fields).as_dict()) == pytest.approx(expected)
