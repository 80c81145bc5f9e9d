"""How presets fare: equal to the projects' own answers, how far apart, and how far off when transcoded.

``python -m benchmarks.mels --write`` measures and writes ``docs/assets/mels.json``, of which
docs/mels.md and docs/noise.md make their tables. It takes some minutes. ``--only vocoding`` measures
a part, and leaves the others as they are in the file. ``--data`` names the folder that holds
``corpora/`` and ``golden/mels/``.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

import melmill
from melmill.stages.extract.transcoding import transcode
from melmill.stages.numeric.errors import EmptyBandWarning
from melmill.stages.numeric.mel import mel_spectrogram
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.presets import preset, preset_names, preset_of
from melmill.stages.numeric.resample import resample
from melmill.stages.vocode.loaded import LoadedVocoder

ROOT = Path(__file__).parents[1]
FILE = ROOT / "docs" / "assets" / "mels.json"
# Presets between which mels are transcoded: those of the vocoders that are asked for most.
MAIN = ("hifigan", "tacotron2", "vits", "parallel_wavegan", "vocos_24khz", "bigvgan_v2_24khz_100band_256x")
# Those of which a vocoder at 16 kHz hears mels.
HEARD_OF = ("speecht5", "make_an_audio", "hifigan", "vocos_24khz")
SECONDS = 2
# One recording of each of these corpora, of 24 and of 48 kHz.
RECORDINGS = ("LibriTTS", "VCTK")
# Numbers of bands with which the projects' answers were computed.
NUMBERS = {
    "coqui_stats": ("mel_mean.npy", "mel_std.npy"),
    "parallel_wavegan_stats": ("mean.npy", "scale.npy"),
}

# The vocoder that hears mels of other kinds, as they are and transcoded, and whose recordings: so
# many speakers of these parts of LibriSpeech, of whom none trained it.
VOCODER, HEARD, SPEAKERS = "melmill-16k", ("dev-clean", "test-clean", "test-other"), 3
METRICS = ("pesq_wb", "estoi")

Signal = NDArray[np.float32]


def main() -> int:
    """Measure, print, and write the file that the docs read."""
    parts = {"golden": golden, "distances": distances, "transcoding": transcoding, "vocoding": vocoding}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--only", choices=parts, action="append", help="Measure this part. Repeatable.")
    parser.add_argument("--write", action="store_true", help=f"Write {FILE.relative_to(ROOT)}.")
    chosen = parser.parse_args()
    warnings.simplefilter("ignore", EmptyBandWarning)
    found: dict[str, Any] = json.loads(FILE.read_text()) if chosen.only else {}
    for name in chosen.only or parts:
        found[name] = parts[name](chosen.data)
        print(f"measured {name}", file=sys.stderr)
    text = json.dumps({name: found[name] for name in parts if name in found}, indent=1) + "\n"
    sys.stdout.write(text)
    if chosen.write:
        FILE.write_text(text)
    return 0


def recordings(data: Path) -> list[tuple[Signal, int]]:
    """Return the first recording of `SECONDS` or more of each corpus, with its rate."""
    return [first_of(data / "corpora" / corpus) for corpus in RECORDINGS]


def first_of(folder: Path) -> tuple[Signal, int]:
    """Return the beginning of the first recording of `SECONDS` or more in a folder, and its rate."""
    files = sorted(file for file in folder.rglob("*.*") if file.suffix in (".wav", ".flac"))
    file = next(file for file in files if soundfile.info(file).duration >= SECONDS)
    sr = soundfile.info(file).samplerate
    return soundfile.read(file, frames=SECONDS * sr, dtype="float32")[0], sr


def golden(data: Path) -> dict[str, list[float]]:
    """Return the relative error of each preset against its project's own answers: on speech, and with gaps."""
    folder = data / "golden" / "mels"
    found = {}
    for case in sorted(folder.glob("mel-*")):
        name = case.name.removeprefix("mel-").replace("-", "_")
        audio = Path(json.loads((case / "case.json").read_text())["audio"]).stem
        spec = preset(name)
        if name in NUMBERS:
            spec = spec.normalised(*(np.load(case / file) for file in NUMBERS[name]))
        errors = []
        for suffix in ("", "_gaps"):
            official = np.load(case / f"official_mel{suffix}.npy")
            M = mel_spectrogram(np.load(folder / f"{audio}{suffix}.npy"), spec)
            errors.append(float(np.linalg.norm(M - official) / np.linalg.norm(official)))
        found[name] = [float(f"{error:.2g}") for error in errors]
    return found


def distances(data: Path) -> dict[str, dict[str, Any]]:
    """Return for each preset the nearest that has its shape but other values, and how far that is in dB.

    That is how wrong a vocoder of the one hears a mel of the other, if it is given as it is.
    """
    sounds = recordings(data)
    complete = [name for name in preset_names() if not preset_of(name).needs]
    mels = {}
    for name in complete:
        spec = preset(name)
        mels[name] = [mel_spectrogram(resample(y, sr, spec.sr), spec) for y, sr in sounds]
    found: dict[str, dict[str, Any]] = {}
    for name in complete:
        spec = preset(name)
        alike = {
            other: distance_db(mels[other], mels[name], spec)
            for other in complete
            if other != name and shape(preset(other)) == shape(spec)
        }
        equal = sorted(other for other, db in alike.items() if db < 0.01)
        others = {other: db for other, db in alike.items() if db >= 0.01}
        nearest = min(others, key=others.__getitem__, default=None)
        found[name] = {
            "equal": equal,
            "nearest": nearest,
            "db": None if nearest is None else round(others[nearest], 2),
            "farthest_db": None if nearest is None else round(max(others.values()), 1),
            "alike": len(alike),
        }
    return found


def shape(spec: MelSpec) -> tuple[int, float]:
    """Return what a vocoder sees of a mel: its bands, and its frames per second."""
    return spec.n_mels, spec.sr / spec.hop_length


def distance_db(given: list[NDArray[np.float32]], needed: list[NDArray[np.float32]], spec: MelSpec) -> float:
    """Return the mean absolute difference of mels of the same sounds, in dB as the spec of `needed` reads it."""
    unit = {"ln": 20.0 / np.log(10.0) / spec.power, "log10": 20.0 / spec.power, "db": 1.0}.get(spec.log or "")
    errors = []
    for M, N in zip(given, needed, strict=True):
        n = min(M.shape[1], N.shape[1])
        if unit is None:  # linear values have no dB of their own
            M, N, scale = np.log10(np.maximum(M, 1e-5)), np.log10(np.maximum(N, 1e-5)), 20.0 / spec.power
        else:
            scale = unit / spec.scale
        errors.append(float(np.abs(M[:, :n] - N[:, :n]).mean()) * scale)
    return float(np.mean(errors))


def transcoding(data: Path) -> dict[str, dict[str, list[Any]]]:
    """Return the error of each pair of main presets: dB against the recording's own mel, way, bands guessed."""
    sounds = recordings(data)
    found: dict[str, dict[str, list[Any]]] = {}
    for a in MAIN:
        found[a] = {}
        for b in MAIN:
            if a == b:
                continue
            made = []
            for y, sr in sounds:
                signal = resample(y, sr, preset(a).sr)
                made.append(transcode(mel_spectrogram(signal, preset(a)), preset(a), preset(b), recording=signal))
            error_db = float(np.mean([one.error_db for one in made]))
            found[a][b] = [round(error_db, 2), made[0].via, len(made[0].unseen)]
            print(a, b, found[a][b], file=sys.stderr)
    return found


def vocoding(data: Path) -> dict[str, Any]:
    """Return what a vocoder scores on mels of other presets, given as they are and transcoded.

    A mel with as many bands as the vocoder's own is given as it is, whatever its values and rate
    mean. One with others can't be.
    """
    corpus = data / "corpora" / "LibriSpeech"
    folders = [speaker for subset in HEARD for speaker in sorted((corpus / subset).iterdir()) if speaker.is_dir()]
    sounds = [first_of(folder) for folder in folders[:SPEAKERS]]
    voc = melmill.load_vocoder(VOCODER)
    own = [scored(y, sr, voc, mel_spectrogram(resample(y, sr, voc.spec.sr), voc.spec)) for y, sr in sounds]
    found: dict[str, Any] = {"vocoder": VOCODER, "recordings": len(sounds), "own": mean(own), "others": {}}
    for name in HEARD_OF:
        spec, before, after = preset(name), [], []
        for y, sr in sounds:
            signal = resample(y, sr, spec.sr)
            M = mel_spectrogram(signal, spec)
            if spec.n_mels == voc.spec.n_mels:
                before.append(scored(y, sr, voc, M))
            after.append(scored(y, sr, voc, transcode(M, spec, voc.spec, length=signal.size).M))
        found["others"][name] = [mean(before) if before else None, mean(after)]
        print(name, *found["others"][name], file=sys.stderr)
    return found


def scored(y: Signal, sr: int, voc: LoadedVocoder, M: Signal) -> list[float]:
    """Return the scores of what a vocoder makes of a mel, as long as the recording."""
    reference = resample(y, sr, voc.spec.sr)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", melmill.MelRangeWarning)
        made = voc(M)[: reference.size]
    made = np.clip(np.pad(made, (0, reference.size - made.size)), -1.0, 1.0)
    values = melmill.score(reference, made, voc.spec.sr, metrics=METRICS)
    return [values[metric].value for metric in METRICS]


def mean(scores: list[list[float]]) -> list[float]:
    """Return the mean of each metric."""
    return [round(float(value), 3) for value in np.mean(scores, axis=0)]


if __name__ == "__main__":
    sys.exit(main())
