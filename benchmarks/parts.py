"""The parts of the pipeline benchmark, each measured in processes of its own, with their goals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median

from benchmarks.child import Measured, measure
from benchmarks.figure import Figure

REPEATS = 3
GIB = 2**30
SHARD_S = 300.0
N_ITER = 4

Say = Callable[[str], None]


def extract(folder: str, say: Say) -> list[Figure]:
    """Ingest and extract on one core, as multiples of real time, from FLAC to records on disk."""
    corpus = measure("benchmarks.workloads:make_speech", folder=folder, at_least_s=600).result
    say(f"extract: on {corpus['name']}, shards of {SHARD_S:g} s, serial executor, stores flushed to the disk")
    runs = measure("benchmarks.workloads:extract", folder=folder, root=corpus["root"], repeats=REPEATS).result
    split = measure("benchmarks.workloads:split", folder=folder, root=corpus["root"]).result
    audio_s = runs["audio_s"][0]
    wall_s, cpu_s = median(runs["wall_s"]), median(runs["cpu_s"])
    named = {"decode FLAC": "decode_s", "mel": "mel_s", "encode waveforms and mels": "encode_s"}
    return [
        Figure(name="ingest + extract, one core", measured=audio_s / wall_s, unit="x", goal=500, at_least=True),
        Figure(name="  by CPU time", measured=audio_s / cpu_s, unit="x"),
        *(Figure(name=f"  {name} alone", measured=audio_s / split[key], unit="x") for name, key in named.items()),
    ]


def plan(folder: str, say: Say) -> list[Figure]:
    """Plan 1,000 hours that are new to the store."""
    _thousand_hours(folder, say)
    return _scale("plan of 1,000 h", [measure("benchmarks.thousand_hours:plan", folder=folder) for _ in range(REPEATS)])


def resume(folder: str, say: Say) -> list[Figure]:
    """Resume a run over 1,000 hours that has nothing left to do."""
    _thousand_hours(folder, say)
    say("resume: real records, whose data files are links to one of 1,000 bytes for each node")
    measure("benchmarks.thousand_hours:make_store", folder=folder)
    runs = [measure("benchmarks.thousand_hours:resume", folder=folder) for _ in range(REPEATS)]
    if runs[-1].result["n_run"]:
        raise RuntimeError(f"{runs[-1].result['n_run']} tasks ran, expected none")
    return _scale("resume of 1,000 h with nothing to do", runs)


def _thousand_hours(folder: str, say: Say) -> None:
    """Make the corpus of 1,000 hours unless another part has made it."""
    if not (Path(folder) / "corpus").exists():
        say(
            "1,000 h: a tree of 300,000 files with real names, transcripts and FLAC headers but no audio; those "
            "of the same length are links to one file; read from the page cache"
        )
        measure("benchmarks.thousand_hours:make_corpus", folder=folder)


def _scale(name: str, runs: list[Measured]) -> list[Figure]:
    return [
        Figure(name=f"{name}, whole process", measured=median(r.process_s for r in runs), unit="s", goal=10),
        Figure(name="  by CPU time, imports left out", measured=median(r.cpu_s for r in runs), unit="s"),
        Figure(name="  peak memory", measured=max(r.peak_bytes for r in runs) / GIB, unit="GiB", goal=1),
    ]


def overhead(folder: str, say: Say) -> list[Figure]:
    """Run the demo pipeline on Dask. Return its wall time as a multiple of the time of its stages."""
    say("overhead: pipeline.yaml on the demo corpus, 2 Dask workers; a first run fills the cache of compiled code")
    root = measure("benchmarks.workloads:make_demo", folder=folder).result["root"]
    overrides = [f"speech.root={root}"]
    runs = [
        measure("benchmarks.workloads:pipeline", folder=folder, name=f"demo-{i}", overrides=overrides).result
        for i in range(REPEATS + 1)
    ][1:]
    workers = runs[0]["workers"]
    starts = [measure("benchmarks.workloads:start_cluster", workers=workers).result for _ in range(REPEATS)]
    start_s = median(s["start_s"] for s in starts)
    stop_s = median(s["stop_s"] for s in starts)
    ideal = [run["compute_s"] / workers for run in runs]
    whole = median(run["wall_s"] / least for run, least in zip(runs, ideal, strict=True))
    inner = median((run["wall_s"] - start_s - stop_s) / least for run, least in zip(runs, ideal, strict=True))
    return [
        Figure(name="wall time of the demo over its compute time", measured=whole, unit="x", goal=1.12),
        Figure(name="  without starting and stopping the cluster", measured=inner, unit="x"),
        Figure(name="  demo pipeline, wall time", measured=median(run["wall_s"] for run in runs), unit="s"),
        Figure(name="  compute time over workers", measured=median(ideal), unit="s"),
        Figure(name="  starting the cluster", measured=start_s, unit="s"),
        Figure(name="  stopping it", measured=stop_s, unit="s"),
    ]


def memory(folder: str, say: Say) -> list[Figure]:
    """Peak memory of a worker with shards of 300 s, over two shards and over all."""
    corpus = measure("benchmarks.workloads:make_speech", folder=folder, at_least_s=8 * SHARD_S).result
    part = measure("benchmarks.workloads:make_part", folder=folder, root=corpus["root"], duration_s=1.5 * SHARD_S)
    say(
        f"memory: pipeline.yaml on {corpus['name']}, shards of {SHARD_S:g} s, 2 Dask workers; the largest process; "
        f"inverters make {N_ITER} iterations, as more take longer in the same memory"
    )
    settings = [f"shard_duration_s={SHARD_S}", *(f"{name}.n_iter={N_ITER}" for name in ("gla", "ipalm", "admm"))]
    few, all_ = (
        measure("benchmarks.workloads:pipeline", folder=folder, name=name, overrides=[f"speech.root={root}", *settings])
        for name, root in (("part", part.result["root"]), ("all", corpus["root"]))
    )
    n_few, n_all = few.result["n_shards"], all_.result["n_shards"]
    few_bytes, all_bytes = (max(run.children_peak_bytes, run.result["peak_mem_bytes"]) for run in (few, all_))
    return [
        Figure(name=f"largest worker over {n_all} shards", measured=all_bytes / GIB, unit="GiB", goal=1.5),
        Figure(name=f"  over {n_few} shards", measured=few_bytes / GIB, unit="GiB"),
        Figure(
            name=f"  {n_all} shards over {n_few}",
            measured=all_bytes / few_bytes,
            unit="x",
            goal=1.15,
        ),
        Figure(name="  driver", measured=all_.peak_bytes / GIB, unit="GiB"),
    ]


PARTS = {"extract": extract, "plan": plan, "resume": resume, "overhead": overhead, "memory": memory}
