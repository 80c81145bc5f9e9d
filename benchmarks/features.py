"""Pitch beside WORLD's on real speech, how fast features are made, and what lint says of clean corpora.

``python -m benchmarks.features pitch CORPORA`` compares the methods of the stage `f0`: agreement on
which frames are voiced, gross errors, and speed. ``python -m benchmarks.features lint CORPORA`` lints
each folder of clean speech, and then copies with a planted fault. ``python -m benchmarks.features stats``
sums up mels in a store of its own.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import soundfile
from numpy.typing import NDArray

from melmill.flows.scoring.lint import LintRequest, lint
from melmill.stages.extract.features.aligned import Frames
from melmill.stages.extract.features.f0 import F0
from melmill.stages.extract.lint.facts import facts
from melmill.stages.extract.lint.findings import Rules, findings
from melmill.stages.numeric.presets import preset
from melmill.stages.numeric.resample import resample

CLEAN = ("LibriSpeech", "LibriTTS", "LJSpeech", "VCTK")
METHODS: tuple[Literal["autocorrelation", "dio", "harvest"], ...] = ("autocorrelation", "dio", "harvest")
_GROSS = 0.2  # a pitch that is farther off is wrong

Samples = NDArray[np.float32]


def recordings(folder: Path, most: int) -> Iterator[tuple[Samples, int]]:
    """Yield recordings below a folder, evenly spread, as mono of full scale 1."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".flac", ".wav"))
    for path in paths[:: max(1, len(paths) // most)][:most]:
        y, sr = soundfile.read(path, dtype="float32", always_2d=True)
        yield y.mean(axis=1), sr


def pitch(corpora: Path, most: int) -> list[dict[str, Any]]:
    """Return, by corpus and method, how it agrees with harvest, and its speed."""
    spec = preset("paper")
    rows = []
    for corpus in CLEAN:
        made: dict[str, list[NDArray[np.float64]]] = {method: [] for method in METHODS}
        took, audio_s = Counter[str](), 0.0
        for y, sr in recordings(corpora / corpus, most):
            n_frames = spec.n_frames(-(-y.size * spec.sr // sr))
            frames = Frames(spec, n_frames, n_frames)
            audio_s += y.size / sr
            for method in METHODS:
                started = time.process_time()
                made[method].append(F0(method=method).pitch(y, sr, frames))
                took[method] += time.process_time() - started
        judge = np.concatenate(made["harvest"])
        for method in METHODS:
            found = np.concatenate(made[method])
            both = (found > 0) & (judge > 0)
            ratio = found[both] / judge[both]
            rows.append(
                {
                    "corpus": corpus,
                    "method": method,
                    "minutes": round(audio_s / 60, 1),
                    "voiced": float((found > 0).mean()),
                    "voicing_differs": float(((found > 0) != (judge > 0)).mean()),
                    "gross_errors": float((np.abs(ratio - 1) > _GROSS).mean()),
                    "median_cents": float(np.median(np.abs(1200 * np.log2(ratio)))),
                    "times_real_time": audio_s / took[method],
                }
            )
    return rows


def _clipped(y: Samples, sr: int) -> Samples:
    del sr
    top = 0.4 * float(np.abs(y).max())
    return np.clip(y, -top, top)


def _band_limited(y: Samples, sr: int) -> Samples:
    return resample(resample(y, sr, sr // 2), sr // 2, sr)[: y.size]


def _humming(y: Samples, sr: int) -> Samples:
    t = np.arange(y.size) / sr
    level = float(np.sqrt(np.mean(y * y)))
    return np.asarray(y + level * 0.1 * sum(np.sin(2 * np.pi * 50 * k * t) / k for k in range(1, 5)), dtype=np.float32)


PLANTED: dict[str, Callable[[Samples, int], Samples]] = {
    "clipped": _clipped,
    "band_limited": _band_limited,
    "hum": _humming,
}


def accused(corpora: Path, jobs: int) -> list[dict[str, Any]]:
    """Return the findings of `melmill lint` on each corpus of clean speech."""
    rows = []
    for corpus in CLEAN:
        with tempfile.TemporaryDirectory(prefix="melmill-lint-") as folder:
            started = time.process_time()
            request = LintRequest(place=str(corpora / corpus), output=Path(folder, "page"), rules={}, jobs=jobs)
            made = lint(request)
            corpus_facts = made.corpus
            rows.append(
                {
                    "corpus": corpus,
                    "recordings": corpus_facts["recordings"],
                    "minutes": round(corpus_facts["hours"] * 60, 1),
                    **corpus_facts["findings"],
                    "took_s": round(time.process_time() - started, 1),
                }
            )
            rows[-1] |= _swapped(pd.read_csv(Path(folder, "page", "recordings.csv")))
            table = pd.read_csv(Path(folder, "page", "findings.csv"))
            for row in table.to_dict("records"):
                print(f"  {corpus} {row['kind']}: {row['utterance_id']}: {row['detail']}")
    return rows


def _swapped(facts: pd.DataFrame) -> dict[str, str]:
    """Return how many texts are found that were exchanged, of every fifth recording, and how many of the others."""
    texts = facts["text"].astype(object).where(facts["text"].notna(), "").astype(str)
    if (texts == "").all():
        return {"swapped": "", "others": ""}
    at = facts.index[::5]
    facts = facts.assign(text=texts)
    # By chance, as recordings of like length lie together.
    facts.loc[at, "text"] = np.random.default_rng(0).permutation(texts[at].to_numpy())
    seen = findings(facts, pd.DataFrame(columns=["utterance_id", "reason"]), Rules())
    ids = set(seen["utterance_id"][seen["kind"] == "text"])
    wrong = set(facts["utterance_id"][at])
    return {
        "swapped": f"{len(ids & wrong)} of {len(wrong)}",
        "others": f"{len(ids - wrong)} of {len(facts) - len(wrong)}",
    }


def found(corpora: Path, most: int) -> list[dict[str, Any]]:
    """Return how many recordings with a planted fault are found."""
    rows = []
    for corpus in CLEAN:
        row: dict[str, Any] = {"corpus": corpus}
        clips = list(recordings(corpora / corpus, most))
        for kind, plant in PLANTED.items():
            table = pd.DataFrame(
                [
                    {
                        "utterance_id": str(at),
                        "speaker_id": "",
                        "text": "",
                        "duration_s": y.size / sr,
                        "rate_hz": sr,
                        **facts(_as_stored(plant(y, sr)), sr),
                    }
                    for at, (y, sr) in enumerate(clips)
                ]
            )
            seen = findings(table, pd.DataFrame(columns=["utterance_id", "reason"]), Rules())
            row[kind] = f"{int((seen['kind'] == kind).sum())} of {len(clips)}"
        rows.append(row)
    return rows


def _as_stored(y: Samples) -> NDArray[np.int16]:
    return np.clip(np.rint(y * 32768.0), -32768, 32767).astype(np.int16)


def summed_up(minutes: int) -> dict[str, Any]:
    """Return how fast the stage `stats` reads and sums up mels of noise from a store, on one core."""
    import melmill

    with tempfile.TemporaryDirectory(prefix="melmill-stats-") as folder:
        rng = np.random.default_rng(0)
        root = Path(folder, "corpus")
        root.mkdir()
        for at in range(minutes * 6):
            soundfile.write(root / f"{at:05d}.wav", rng.normal(0, 0.1, 10 * 22050), 22050, subtype="PCM_16")
        text = (
            f"name: stats\nstore: {folder}/store\nstages:\n"
            f"  speech: {{uses: audio_folder, root: {root}, sr: 22050}}\n"
            "  mel: {uses: extract, from: speech, preset: hifigan}\n"
            "  half: {uses: extract, from: speech, preset: hifigan, dtype: float16}\n"
            "  stats: {uses: stats, from: mel}\n  of_half: {uses: stats, from: half}\n"
        )
        path = Path(folder, "pipeline.yaml")
        path.write_text(text)
        melmill.run(path, executor="serial")
        store = melmill.open(f"{folder}/store")
        took = {}
        for node in ("stats", "of_half"):
            entry = store.nodes[node]
            (record,) = store.product(entry.folder, entry.key).records().values()
            took[node] = minutes * 60 / record.compute_s
    return {"minutes": minutes, "float32": took["stats"], "float16": took["of_half"]}


def main() -> None:
    """Print what was measured as tables, and as JSON with --json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("pitch", "lint", "stats"))
    parser.add_argument("corpora", type=Path, nargs="?", help="folder of LibriSpeech/, LibriTTS/, LJSpeech/ and VCTK/")
    parser.add_argument("--most", type=int, default=20, help="recordings of each corpus")
    parser.add_argument("--minutes", type=int, default=20, help="audio that stats sums up")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if asked.what != "stats" and asked.corpora is None:
        parser.error("name the folder of corpora")
    if asked.what == "pitch":
        tables: list[Any] = [pitch(asked.corpora, asked.most)]
    elif asked.what == "lint":
        tables = [accused(asked.corpora, asked.jobs), found(asked.corpora, asked.most)]
    else:
        tables = [[summed_up(asked.minutes)]]
    if asked.json:
        print(json.dumps(tables))
        return
    for table in tables:
        print(pd.DataFrame(table).round(4).to_string(index=False))


if __name__ == "__main__":
    main()
