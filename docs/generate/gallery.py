"""The gallery: every utterance of a run by every method, to listen to."""

from __future__ import annotations

import html
import math
import posixpath
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

import melmill
from melmill.stages.contract import as_float
from melmill.storage.errors import StoreError

# Scores that stand beside a clip: column, name, decimals.
_SHOWN = (("pesq_wb", "PESQ", 2), ("estoi", "ESTOI", 3), ("scm_db", "SCM", 1))
FOLDER = "gallery"


class NoRun(Exception):
    """There is no run to play."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """An utterance as one node made it, as MP3; `caption` holds its scores."""

    utterance: str
    text: str
    node: str
    caption: str
    mp3: bytes

    @property
    def path(self) -> str:
        """Where it lies in the site."""
        name = "".join(c if c.isalnum() or c in "-_" else "-" for c in f"{self.utterance}-{self.node}").strip("-")
        return posixpath.join(FOLDER, f"{name}.mp3")


def clips(url: str) -> list[Clip]:
    """Return the clips of a store's last run by utterance, the recording first.

    Raises
    ------
    NoRun
        There is no store at `url`, or none of a run with scores.
    """
    try:
        store = melmill.open(url)
    except StoreError as error:
        raise NoRun(str(error)) from error
    scores, utterances = store.scores(), store.utterances()
    if scores.empty:
        raise NoRun(f"the last run in {url!r} has no scores")
    rows = {(row["utterance_id"], row["node"]): row for row in scores.to_dict("records")}
    nodes = {node: store[node] for node in dict.fromkeys(scores["node"])}
    made = []
    for row in utterances.sort_values("utterance_id").to_dict("records"):
        utterance, recording = row["utterance_id"], store[row["node"]]
        for name, view in {row["node"]: recording, **nodes}.items():
            if utterance in view:
                scored = rows.get((utterance, name))
                caption = _caption(scored) if scored else "the recording"
                mp3 = _mp3(as_float(view[utterance]), view.description.sr or recording.description.sr or 0)
                made.append(Clip(utterance=utterance, text=row["text"], node=name, caption=caption, mp3=mp3))
    return made


def page(clips: Sequence[Clip]) -> str:
    """Return the players as Markdown with HTML in it, a heading an utterance."""
    by_utterance: dict[str, list[Clip]] = {}
    for clip in clips:
        by_utterance.setdefault(clip.utterance, []).append(clip)
    return "\n\n".join(
        f'## {utterance}\n\n{html.escape(mine[0].text)}\n\n<div class="clips">\n'
        + "\n".join(map(_player, mine))
        + "\n</div>"
        for utterance, mine in by_utterance.items()
    )


def _player(clip: Clip) -> str:
    return (
        f"<figure><figcaption><code>{html.escape(clip.node)}</code> {html.escape(clip.caption)}</figcaption>"
        f'<audio controls preload="none" src="{html.escape(clip.path)}"></audio></figure>'
    )


def _caption(row: Mapping[Hashable, Any]) -> str:
    shown = [(name, row[column], digits) for column, name, digits in _SHOWN if column in row]
    return ", ".join(f"{name} {value:.{digits}f}" for name, value, digits in shown if math.isfinite(value))


def _mp3(y: NDArray[np.float32], sr: int) -> bytes:
    buffer = BytesIO()
    soundfile.write(buffer, np.clip(y, -1, 1), sr, format="MP3", subtype="MPEG_LAYER_III")
    return buffer.getvalue()
