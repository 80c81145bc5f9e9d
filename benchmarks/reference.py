"""Compare recordings that are stored with recordings that stay in their corpus: ``python -m benchmarks.reference``.

A pipeline of ingest and extract runs with each ``audio``, in turns and as whole processes, into new
stores. Then a stage reads the recordings again, as an ``extract`` with other parameters does. A busy
machine stretches wall time, so processor time is told. The mels must be the same, byte for byte.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import click

import melmill
from benchmarks.corpora import speech
from benchmarks.figure import Figure, table

_PIPELINE = """\
name: reference
store: unused
stages:
  speech: {{uses: librispeech, root: {root}}}
  mel:    {{uses: extract, from: speech, dtype: float16}}
  other:  {{uses: extract, from: speech, preset: hifigan, sr: 16000, fmax: 8000, dtype: float16}}
cluster: {{pools: {{cpu: {{workers: 1}}}}}}
"""
AUDIO = ("stored", "reference")


def processor_s(command: list[str], folder: Path) -> float:
    """Return the processor time of a process that ends well, with its children, s."""
    before = os.times()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    after = os.times()
    return after.children_user - before.children_user + after.children_system - before.children_system


def size(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def mels(store: Path) -> list[str]:
    """Return the hashes of the stored mels."""
    files = {path.parts[-2]: path for path in store.glob("mel/*/data/c/**/*") if path.is_file()}
    return [hashlib.sha256(files[slot].read_bytes()).hexdigest() for slot in sorted(files)]


def read_s(store: Path) -> float:
    """Return the processor time of reading all recordings, one by one, s."""
    view = melmill.open(store)["speech"]
    next(iter(view.values()))  # imports
    started_s = time.process_time()
    for _ in view.values():
        pass
    return time.process_time() - started_s


@click.command()
@click.option("--turns", default=3, show_default=True, type=click.IntRange(min=1))
def main(turns: int) -> None:
    """Print sizes, and medians of `turns` turns; exit with 1 if the mels differ."""
    taken: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        root, corpus = speech(folder / "corpus")
        (folder / "pipeline.yaml").write_text(_PIPELINE.format(root=root))
        for _ in range(turns):
            for audio in AUDIO:
                shutil.rmtree(folder / audio, ignore_errors=True)
                run = [sys.executable, "-m", "melmill", "run", "pipeline.yaml", "--store", audio]
                run += ["--set", f"speech.audio={audio}", "--until"]
                for what, until in (("ingest and extract", "mel"), ("another extract, later", "other")):
                    taken.setdefault(f"{what}, {audio}", []).append(processor_s([*run, until], folder))
                taken.setdefault(f"all recordings in Python, {audio}", []).append(read_s(folder / audio))
        hours = sum(one.duration_s for one in melmill.open(folder / "stored")["speech"].catalogue.utterances()) / 3600
        figures = [
            *(Figure(name=f"{name}, CPU", measured=median(times), unit="s") for name, times in taken.items()),
            *(
                Figure(
                    name=f"an hour of {node}, {audio}", measured=size(folder / audio / node) / hours / 1e6, unit="MB"
                )
                for node in ("speech", "mel")
                for audio in AUDIO
            ),
        ]
        same = mels(folder / "stored") == mels(folder / "reference") != []
    click.echo(f"{corpus}: {hours:.2f} h; the mels are {'the same' if same else 'NOT the same'}")
    click.echo(table(figures))
    sys.exit(not same)


if __name__ == "__main__":
    main()
