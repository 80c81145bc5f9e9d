"""Time what ingest does to a FLAC file: ``python -m benchmarks.decoding``.

Processor time of one pass over all files of LibriSpeech, or of the demo corpus, is printed. The
contenders take turns, and the median of the turns counts.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import soundfile

from benchmarks.corpora import SR, speech
from benchmarks.figure import Figure, table
from benchmarks.timing import in_turns
from melmill.flac_frames import decoded
from melmill.stages.formats.audio import decode
from melmill.stages.ingest.levels import check_sound
from melmill.stages.numeric.mel import mel_spectrogram
from melmill.stages.numeric.presets import preset

REPEATS = 5


@click.command()
def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as made:
        root, corpus = speech(Path(made))
        files = [file.read_bytes() for file in sorted(root.rglob("*.flac"))]
    waves = [decode(file)[0][:, 0] for file in files]
    spec = preset("paper")
    contenders: dict[str, Callable[[], object]] = {
        "FLAC by libsndfile": lambda: [soundfile.read(io.BytesIO(file), dtype="int16") for file in files],
        "FLAC by compiled code": lambda: [decoded(file) for file in files],
        "MD5 of the samples": lambda: [hashlib.md5(y.data).digest() for y in waves],
        "SHA-256 of the files": lambda: [hashlib.sha256(file).digest() for file in files],
        "all that reading a file checks": lambda: [decode(file) for file in files],
        "levels": lambda: [check_sound(y, SR) for y in waves],
        "mels of the preset paper": lambda: [mel_spectrogram(y, spec) for y in waves],
    }
    taken = in_turns(contenders, REPEATS, time.process_time)
    click.echo(f"{corpus}: {len(files)} files, {sum(map(len, waves)) / SR / 60:.1f} minutes")
    click.echo(table([Figure(name=name, measured=taken_s, unit="s") for name, taken_s in taken.items()]))


if __name__ == "__main__":
    main()
