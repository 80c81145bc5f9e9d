"""Choose what priors are trained with: ``python -m benchmarks.prior_corpus FOLDER``.

It makes a folder of links for each sampling rate, and ``held_out.tsv``, the list of recordings that
are kept to judge by.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections import defaultdict
from pathlib import Path

import click

from melmill.stages.formats.audio import read_header

# A recording serves for every rate that its own reaches.
RATES = (16_000, 22_050, 24_000, 44_100)
CORPORA = ("LibriSpeech", "LibriTTS", "VCTK", "LJSpeech")
# Nothing of it is trained with.
JUDGES = "test-other"
UNKNOWN = ("unknown", "unknown_speaker")
HELD_OUT = "held_out.tsv"
_DEFAULT = Path(__file__).parents[2] / "shared"
# Headers of WAV and FLAC files lie here.
_HEAD_BYTES = 2**16


def speaker(corpus: str, file: Path) -> str:
    """Return the speaker of a recording of one of `CORPORA`, by its folders."""
    if corpus == "LJSpeech":
        return "LJ"
    above = file.parts[file.parts.index(corpus) + 1 : -1]
    return above[1] if above[0].startswith(("train-", "test-", "dev-")) else above[0]


def held_out(corpus: str, names: set[str]) -> set[str]:
    """Return the speakers of a corpus that are kept to judge by: a third, by a hash of the name."""
    order = sorted(names, key=lambda one: hashlib.sha256(f"{corpus} {one}".encode()).digest())
    return set(order[: max(1, len(order) // 3)])


def choose(roots: list[Path]) -> tuple[list[tuple[str, str, Path]], list[tuple[str, str, Path]]]:
    """Return recordings to train with and recordings to judge by: corpus, speaker and file.

    The first root holds judges whose speaker is not known. In others such recordings may be of
    anybody, and are left out.
    """
    found: dict[str, list[tuple[str, Path]]] = defaultdict(list)
    train, held = [], []
    for root in roots:
        for corpus in CORPORA:
            for file in sorted((root / corpus).rglob("*")):
                if file.suffix not in (".flac", ".wav"):
                    continue
                name = speaker(corpus, file)
                if JUDGES in file.parts or (name in UNKNOWN and root == roots[0]):
                    held.append((corpus, name, file))
                elif name not in UNKNOWN:
                    found[corpus].append((name, file))
    for corpus, recordings in found.items():
        kept = held_out(corpus, {name for name, _ in recordings})
        for name, file in recordings:
            (held if name in kept else train).append((corpus, name, file))
    return train, held


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--root", "roots", multiple=True, type=click.Path(path_type=Path, exists=True), help="May be repeated.")
def main(folder: Path, roots: tuple[Path, ...]) -> None:
    """Link what to train with into FOLDER, by rate, corpus and speaker.

    Without --root it takes `corpora` and `corpora-more` of $MELMILL_REAL_DATA.
    """
    base = Path(os.environ.get("MELMILL_REAL_DATA", _DEFAULT))
    train, held = choose([root.resolve() for root in roots or (base / "corpora", base / "corpora-more")])
    if not train:
        sys.exit(f"no recording of {', '.join(CORPORA)} below {', '.join(map(str, roots)) or base}")
    minutes, speakers = defaultdict(float), defaultdict(set)
    for corpus, name, file in train:
        with file.open("rb") as opened:
            header = read_header(opened.read(_HEAD_BYTES), file.stat().st_size)
        for rate in (rate for rate in RATES if header.sr >= rate):
            link = folder / str(rate) / corpus / name / file.name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(file)
            minutes[rate] += header.n_samples / header.sr / 60
            speakers[rate].add((corpus, name))
    lines = [f"{corpus}\t{name}\t{file}\n" for corpus, name, file in held]
    (folder / HELD_OUT).write_text("".join(lines))
    for rate in RATES:
        print(f"{rate} Hz: {minutes[rate]:.1f} min of {len(speakers[rate])} speakers to train with")
    print(f"{len(held)} recordings of {len({one[:2] for one in held})} speakers are held out")


if __name__ == "__main__":
    main()
