r"""Draw the picture of the README: an utterance, its mel, and what methods make of it, from a real run.

    python -m docs.generate.picture runs/librispeech 1688-142285-0003 --nodes gla admm_pghi

It writes ``docs/assets/round-trip-light.png`` and ``round-trip-dark.png``. The first node is a baseline, the second
the one to show.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray

import melmill
from melmill.stages.contract import as_float

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ASSETS = Path(__file__).parents[1] / "assets"
_INK = {"light": "#24292f", "dark": "#d0d7de"}
_WAVE = {"light": "#3f51b5", "dark": "#8c9eff"}
_FLOOR_DB = -70.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the picture, light and dark."""
    parser = argparse.ArgumentParser(prog="python -m docs.generate.picture", description=__doc__)
    parser.add_argument("store")
    parser.add_argument("utterance")
    parser.add_argument("--nodes", nargs=2, required=True, metavar=("BASELINE", "NODE"))
    parser.add_argument("--titles", nargs=2, metavar=("BASELINE", "NODE"))
    given = parser.parse_args(arguments)
    columns = _columns(given.store, given.utterance, given.nodes, given.titles or given.nodes)
    for theme in _INK:
        path = ASSETS / f"round-trip-{theme}.png"
        _draw(columns, theme, path)
        print(f"{path}: {path.stat().st_size / 1024:.0f} KiB")


Column = tuple[str, str, NDArray[np.float32], int]


def _columns(url: str, utterance: str, nodes: Sequence[str], titles: Sequence[str]) -> list[Column]:
    """Return title, scores, waveform and rate: of the recording, then of each node."""
    store = melmill.open(url)
    table = store.scores()
    table = table[table["utterance_id"] == utterance]
    utterances = store.utterances()
    (name,) = utterances.loc[utterances["utterance_id"] == utterance, "node"]
    recording = store[name]
    columns = [("recording", utterance, as_float(recording[utterance]), recording.description.sr or 0)]
    for node, title in zip(nodes, titles, strict=True):
        (row,) = table[table["node"] == node].to_dict("records")
        scores = f"PESQ {row['pesq_wb']:.2f}   ESTOI {row['estoi']:.3f}   SC {row['sc_db']:.1f} dB"
        columns.append((title, scores, as_float(store[node][utterance]), store[node].description.sr or 0))
    return columns


def _draw(columns: Sequence[Column], theme: str, path: Path) -> None:
    ink = _INK[theme]
    plt.rcParams.update({"font.size": 9, "text.color": ink, "axes.labelcolor": ink, "axes.edgecolor": ink})
    figure, axes = plt.subplots(
        2, len(columns), figsize=(10, 3.4), sharex=True, sharey="row", height_ratios=(1, 2.2), layout="constrained"
    )
    for (title, scores, y, sr), (wave, mel) in zip(columns, axes.T, strict=True):
        wave.plot(np.arange(len(y)) / sr, y, color=_WAVE[theme], linewidth=0.3)
        wave.set_title(title, fontsize=11)
        wave.set_axis_off()
        M = melmill.mel(y, melmill.MelSpec(sr=sr))
        decibels = 20 * np.log10(np.maximum(M, 1e-6) / M.max())
        extent = (0.0, len(y) / sr, 0.0, float(len(M)))
        mel.imshow(decibels, origin="lower", aspect="auto", vmin=_FLOOR_DB, vmax=0, cmap="magma", extent=extent)
        mel.set_xlabel(scores, fontsize=10)
        mel.tick_params(left=False, bottom=False, labelleft=False, labelbottom=False)
        for spine in mel.spines.values():
            spine.set_visible(False)
    figure.savefig(path, dpi=160, transparent=True)
    plt.close(figure)
    _shrink(path)


def _shrink(path: Path) -> None:
    """Keep 128 colours: a third of the size, and the eye sees no difference."""
    from PIL import Image

    with Image.open(path) as image:
        small: Any = image.quantize(128, method=Image.Quantize.FASTOCTREE)
    small.save(path, optimize=True)


if __name__ == "__main__":
    main()
