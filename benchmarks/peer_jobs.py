"""The same job by several tools: 80 log-mel bands of every FLAC file of a corpus, stored.

Frames are 25 ms long and 10 ms apart, as in Lhotse's ``Fbank``. `benchmarks.peers` runs this in
processes of its own: ``python -m benchmarks.peer_jobs TOOL ROOT OUT WORKERS``.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.child import MARK

MISSING = 3
SR, N_FFT, WIN_LENGTH, HOP_LENGTH, N_MELS, FLOOR = 16000, 512, 400, 160, 80, 1e-10

# Takes the root of a corpus, an empty folder and the number of workers.
Job = Callable[[Path, Path, int], None]

_PIPELINE = f"""\
name: peers
store: OUT
stages:
  speech: {{uses: librispeech, root: ROOT, audio: AUDIO}}
  mel: {{uses: extract, from: speech, preset: paper, n_fft: {N_FFT}, win_length: {WIN_LENGTH}, hop_length: {HOP_LENGTH},
        n_mels: {N_MELS}, fmin: 20, power: 2.0, log: ln, floor: {FLOOR}, dtype: DTYPE}}
cluster: {{pools: {{cpu: {{workers: WORKERS}}}}}}
"""


def by_melmill(root: Path, out: Path, workers: int, dtype: str = "float32", audio: str = "stored") -> None:
    """Run a pipeline that ingests and extracts: PCM, mels, tables and records, all flushed.

    With `audio` of ``"reference"`` no PCM is kept.
    """
    from melmill.flows.cli import cli

    pipeline = out / "pipeline.yaml"
    values = {"ROOT": str(root), "OUT": str(out / "store"), "DTYPE": dtype, "AUDIO": audio, "WORKERS": str(workers)}
    text = _PIPELINE
    for name, value in values.items():
        text = text.replace(name, value)
    pipeline.write_text(text)
    executor = "serial" if workers == 1 else "dask"
    code = cli.main(["run", str(pipeline), "--executor", executor], standalone_mode=False)
    if code:
        raise RuntimeError(f"melmill run ended with {code}")


def by_lhotse(root: Path, out: Path, workers: int) -> None:
    """Make manifests, and compute ``Fbank`` into Lhotse's own compressed storage."""
    from lhotse import CutSet, Fbank, Recording, RecordingSet

    recordings = RecordingSet.from_recordings(Recording.from_file(file) for file in _files(root))
    cuts = CutSet.from_manifests(recordings=recordings)
    stored = cuts.compute_and_store_features(Fbank(), storage_path=out / "fbank", num_jobs=workers, progress_bar=False)
    stored.to_file(out / "cuts.jsonl.gz")


def by_librosa(root: Path, out: Path, workers: int) -> None:
    """Call ``librosa.feature.melspectrogram``, and keep an ``.npy`` file each."""
    _each(partial(_keep, out, _mel_of_librosa), _files(root), workers)


def by_torchaudio(root: Path, out: Path, workers: int) -> None:
    """Call ``torchaudio.compliance.kaldi.fbank``, and keep an ``.npy`` file each."""
    _each(partial(_keep, out, _mel_of_torchaudio), _files(root), workers)


def by_datasets(root: Path, out: Path, workers: int) -> None:
    """Call `Dataset.map` with librosa's mel, into an Arrow file."""
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    dataset = Dataset.from_dict({"path": [str(file) for file in _files(root)]})
    dataset.map(
        lambda row: {"mel": _mel_of_librosa(Path(row["path"]))},
        num_proc=None if workers == 1 else workers,
        cache_file_name=str(out / "mel.arrow"),
        load_from_cache_file=False,
    )


def _files(root: Path) -> list[Path]:
    return sorted(root.rglob("*.flac"))


def _each(function: Callable[[Path], None], files: list[Path], workers: int) -> None:
    if workers == 1:
        for file in files:
            function(file)
        return
    with Pool(workers) as pool:
        pool.map(function, files, chunksize=8)


def _keep(out: Path, mel: Callable[[Path], NDArray[Any]], file: Path) -> None:
    np.save(out / f"{file.stem}.npy", mel(file))


def _mel_of_librosa(file: Path) -> NDArray[np.float32]:
    import librosa
    import soundfile

    y, sr = soundfile.read(file, dtype="float32")
    M = librosa.feature.melspectrogram(
        y=y, sr=sr, n_fft=N_FFT, win_length=WIN_LENGTH, hop_length=HOP_LENGTH, n_mels=N_MELS, fmin=20
    )
    return np.asarray(np.log(np.maximum(M, FLOOR)), dtype=np.float32)


def _mel_of_torchaudio(file: Path) -> NDArray[np.float32]:
    import soundfile
    import torch
    from torchaudio.compliance import kaldi

    y, sr = soundfile.read(file, dtype="float32")
    return np.asarray(kaldi.fbank(torch.from_numpy(y)[None], sample_frequency=sr, num_mel_bins=N_MELS))


# By tool: what it takes, and the job.
TOOLS: dict[str, tuple[tuple[str, ...], Job]] = {
    "melmill": (("melmill",), by_melmill),
    "melmill, mels of float16": (("melmill",), partial(by_melmill, dtype="float16")),
    "melmill, mels of float16 alone": (("melmill",), partial(by_melmill, dtype="float16", audio="reference")),
    "lhotse": (("torch", "lhotse"), by_lhotse),
    "torchaudio": (("torch", "torchaudio"), by_torchaudio),
    "librosa": (("librosa",), by_librosa),
    "datasets": (("datasets", "librosa"), by_datasets),
}


def main() -> None:
    """Do a job twice, each time into a new folder, and print what the second time took.

    Exit with `MISSING` if a package is not installed, or can't be imported.
    """
    tool, root, out, workers = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:workers])
    packages, job = TOOLS[tool]
    try:
        for package in packages:
            importlib.import_module(package)
    except (ImportError, OSError) as error:
        sys.stdout.write(f"{package}: {type(error).__name__}: {str(error).splitlines()[0]}\n")
        sys.exit(MISSING)
    if "torch" in packages:
        import torch

        torch.set_num_threads(1)
    for turn in ("first", "second"):
        (out / turn).mkdir(parents=True)
        started, before = time.perf_counter(), os.times()
        job(root, out / turn, workers)
        wall_s, after = time.perf_counter() - started, os.times()
    cpu_s = sum(after[:4]) - sum(before[:4])
    n_bytes = sum(file.stat().st_size for file in (out / "second").rglob("*") if file.is_file())
    sys.stdout.write(f"{MARK}{json.dumps({'wall_s': wall_s, 'cpu_s': cpu_s, 'n_bytes': n_bytes})}\n")


if __name__ == "__main__":
    main()
