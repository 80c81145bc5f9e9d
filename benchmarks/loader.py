"""Measure how fast training segments arrive: from shards in memory, and one read each.

melmill run flows/preprocess.yaml --set speech.root=data/LibriSpeech --store runs/preprocess
python -m benchmarks.loader runs/preprocess --mel hifigan
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader, RandomSampler

from benchmarks.figure import Figure, table
from melmill.cluster.process import limit_threads
from melmill.storage.reading.dataset import torch_dataset
from melmill.storage.reading.segments import Segments
from melmill.storage.store import Store


def main() -> None:
    """Measure both ways and print batches a second."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", help="a store with mels and the audio that they are of")
    parser.add_argument("--mel", default="mel", help="node of the mels")
    parser.add_argument("--audio", default="speech", help="node of the audio")
    parser.add_argument("--segment-frames", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2, help="processes of the torch DataLoader")
    parser.add_argument("--seconds", type=float, default=20.0, help="for how long each is measured")
    options = parser.parse_args()
    limit_threads(1)
    store = Store.open(options.store)
    mel, audio = store[options.mel], store[options.audio]
    spec = mel.folder.array_spec
    batch_s = options.batch_size * options.segment_frames * spec.hop_length / spec.sr
    contenders = {
        "a training's segments, all shards in memory": _segments(Segments(mel, audio), options),
        # As with a corpus that is larger than memory: each shard is read for what is drawn from it, and no other stays.
        "a training's segments, a shard at a time": _segments(Segments(mel, audio, group_bytes=0), options),
        f"torch_dataset, DataLoader of {options.workers}": _endless(store, options),
    }
    figures = [
        Figure(name=name, measured=batch_s * _rate(batches, options.seconds), unit="x real time")
        for name, batches in contenders.items()
    ]
    print(table(figures))


def _segments(segments: Segments, options: argparse.Namespace) -> Iterator[Any]:
    ids = [utterance.utterance_id for utterance in segments.utterances]
    return segments.batches(ids, segment_frames=options.segment_frames, batch_size=options.batch_size, seed=0)


def _endless(store: Store, options: argparse.Namespace) -> Iterator[Any]:
    dataset = torch_dataset(store, options.mel, options.audio, segment_frames=options.segment_frames)
    sampler = RandomSampler(dataset, replacement=True, num_samples=10**9)
    yield from DataLoader(
        dataset,
        options.batch_size,
        sampler=sampler,
        num_workers=options.workers,
        multiprocessing_context="spawn" if options.workers else None,
    )


def _rate(batches: Iterator[Any], seconds: float) -> float:
    """Return batches a second, after the first few."""
    list(islice(batches, 10))
    started, n_batches = time.perf_counter(), 0
    while time.perf_counter() < started + seconds:
        next(batches)
        n_batches += 1
    return n_batches / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
