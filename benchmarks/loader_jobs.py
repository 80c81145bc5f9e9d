"""The same job by several tools: random segments of mels and audio for a training, in batches.

`benchmarks.loader` runs this in processes of its own: ``python -m benchmarks.loader_jobs TOOL JOB``.
The mels and recordings are those of one store. The other tools read what `melmill export` makes of
it: tars of FLAC and ``.npy`` for WebDataset, and tars of FLAC alone for Lhotse Shar.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import psutil

from benchmarks.child import MARK

MISSING = 3
# Batches before the clock runs: everything is imported, compiled and cached by then.
WARM = 30


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a tool is to load.

    Parameters
    ----------
    store : str
        The store, with nodes `mel` and `audio`.
    webdataset, shar : str
        Folders of its exports.
    mel, audio : str
    segment_frames, hop_length, sr, batch_size, workers : int
    seconds : float
        For how long it is measured.
    """

    store: str
    webdataset: str
    shar: str
    mel: str
    audio: str
    segment_frames: int
    hop_length: int
    sr: int
    batch_size: int
    workers: int
    seconds: float

    @property
    def segment_samples(self) -> int:
        """Length of a segment, samples."""
        return self.segment_frames * self.hop_length


# Yields how many segments each batch has, without end.
Load = Callable[[Job], Iterator[int]]


def _loader(job: Job, dataset: Any, **options: Any) -> Any:  # noqa: ANN401 - a DataLoader
    from torch.utils.data import DataLoader

    more: dict[str, Any] = {"persistent_workers": True, "multiprocessing_context": "fork"} if job.workers else {}
    return DataLoader(dataset, num_workers=job.workers, **more, **options)


def by_stream(job: Job, *, in_batches: bool = True, **options: Any) -> Iterator[int]:  # noqa: ANN401
    """Read ``melmill.torch_stream``, which makes the batches, or leaves that to the DataLoader."""
    import melmill

    size: dict[str, Any] = {"batch_size": job.batch_size} if in_batches else {}
    stream = melmill.torch_stream(job.store, job.mel, job.audio, segment_frames=job.segment_frames, **size, **options)
    loader = _loader(job, stream, batch_size=None if in_batches else job.batch_size)
    for epoch in count():
        stream.set_epoch(epoch)
        for batch in loader:
            yield len(batch["audio"])


def by_dataset(job: Job) -> Iterator[int]:
    """Read ``melmill.torch_dataset`` in random order."""
    import melmill

    dataset = melmill.torch_dataset(job.store, job.mel, job.audio, segment_frames=job.segment_frames)
    loader = _loader(job, dataset, batch_size=job.batch_size, shuffle=True)
    for epoch in count():
        dataset.set_epoch(epoch)
        for _, audio in loader:
            yield len(audio)


def by_training(job: Job, **options: Any) -> Iterator[int]:  # noqa: ANN401
    """Draw segments as a training of melmill does, in this process and a thread that reads."""
    import melmill
    from melmill.storage.reading.segments import Segments

    store = melmill.open(job.store)
    segments = Segments(store[job.mel], store[job.audio], **options)
    ids = [utterance.utterance_id for utterance in segments.utterances]
    batches = segments.batches(ids, segment_frames=job.segment_frames, batch_size=job.batch_size, seed=0)
    return (len(audio) for _, audio in batches)


def by_webdataset(job: Job) -> Iterator[int]:
    """Read tars, each worker some of them, through a buffer of as many items as the stream's.

    Of an utterance's FLAC no more is decoded than the segment takes.
    """
    import webdataset

    urls = sorted(str(file) for file in Path(job.webdataset).glob("*.tar"))
    dataset = webdataset.DataPipeline(
        webdataset.ResampledShards(urls),
        webdataset.tarfile_to_samples(),
        webdataset.shuffle(1024),
        webdataset.map(partial(_cut_sample, job)),
        webdataset.batched(job.batch_size, partial=False),
    )
    for _, audio in _loader(job, dataset, batch_size=None):
        yield len(audio)


def _cut_sample(job: Job, sample: Mapping[str, bytes]) -> tuple[Any, Any]:
    import numpy as np
    import soundfile

    M = np.load(io.BytesIO(sample["mel.npy"]))
    start = random.randrange(max(1, M.shape[1] - job.segment_frames))
    with soundfile.SoundFile(io.BytesIO(sample["flac"])) as file:
        file.seek(start * job.hop_length)
        y = file.read(job.segment_samples, dtype="float32")
    M = M[:, start : start + job.segment_frames]
    return (
        np.pad(M, ((0, 0), (0, job.segment_frames - M.shape[1])), constant_values=M.min()),
        np.pad(y, (0, job.segment_samples - len(y))),
    )


def by_shar(job: Job) -> Iterator[int]:
    """Read cuts from Shar, each worker some of the shards, and load the audio of a part of each.

    There are no mels, so this is less work than that of the others.
    """
    import torch
    from lhotse import CutSet
    from lhotse.dataset import DynamicCutSampler
    from lhotse.dataset.iterable_dataset import IterableDatasetWrapper

    class Segments(torch.utils.data.Dataset[Any]):
        def __getitem__(self, cuts: CutSet) -> Any:  # noqa: ANN401
            whole = torch.zeros(len(cuts), job.segment_samples)
            for i, cut in enumerate(cuts):
                last = max(0.0, cut.duration - job.segment_samples / job.sr)
                part = cut.truncate(
                    offset=round(random.uniform(0, last), 3),
                    duration=min(cut.duration, job.segment_samples / job.sr),
                )
                y = part.load_audio()[0, : job.segment_samples]
                whole[i, : len(y)] = torch.from_numpy(y)
            return whole

    folders = sorted(str(file.parent) for file in Path(job.shar).glob("*/cuts.000000.jsonl.gz"))
    cuts = CutSet.from_shar(
        in_dir=folders[0], shuffle_shards=True, stateful_shuffle=True, seed=0, split_for_dataloading=True
    )
    sampler = DynamicCutSampler(cuts.repeat(), max_cuts=job.batch_size, shuffle=True, shuffle_buffer_size=1024)
    for audio in _loader(job, IterableDatasetWrapper(Segments(), sampler), batch_size=None):
        yield len(audio)


# By tool: the packages that it takes, and the job.
TOOLS: dict[str, tuple[tuple[str, ...], Load]] = {
    "torch_stream": ((), by_stream),
    "torch_stream, segments to fill each utterance": ((), partial(by_stream, segments_per_utterance="length")),
    "torch_stream, batches by the DataLoader": ((), partial(by_stream, in_batches=False)),
    "torch_dataset": ((), by_dataset),
    "a training's own, all shards in memory": ((), by_training),
    # As with a corpus that is larger than memory: each shard is read for what is drawn from it, and no other stays.
    "a training's own, a shard at a time": ((), partial(by_training, group_bytes=0)),
    "webdataset": (("webdataset",), by_webdataset),
    "lhotse shar, audio alone": (("lhotse",), by_shar),
}


def main() -> None:
    """Load batches for a while, and print how many segments came, in all and while the clock ran.

    Exit with `MISSING` if a package is not installed, or can't be imported.
    """
    tool, job = sys.argv[1], Job(**json.loads(sys.argv[2]))
    packages, load = TOOLS[tool]
    try:
        for package in packages:
            importlib.import_module(package)
    except (ImportError, OSError) as error:
        sys.stdout.write(f"{package}: {type(error).__name__}: {str(error).splitlines()[0]}\n")
        sys.exit(MISSING)
    import torch

    torch.set_num_threads(1)
    batches = load(job)
    n_before = sum(next(batches) for _ in range(WARM))
    n_segments, started, cpu_s = 0, time.perf_counter(), _cpu_s()
    while (inside_s := time.perf_counter() - started) < job.seconds:
        n_segments += next(batches)
    measured = {
        "n_segments": n_segments,
        "inside_s": inside_s,
        "inside_cpu_s": _cpu_s() - cpu_s,
        "n_whole": n_before + n_segments,
    }
    sys.stdout.write(f"{MARK}{json.dumps(measured)}\n")
    sys.stdout.flush()
    # Workers have read ahead, and would be waited for.
    os._exit(0)


def _cpu_s() -> float:
    """Return the processor time of this process and of its workers, s."""
    own = psutil.Process()
    return sum(sum(one.cpu_times()[:2]) for one in (own, *own.children(recursive=True)))


if __name__ == "__main__":
    main()
