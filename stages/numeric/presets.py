"""Named mel specs: the paper's, and those of published vocoders, acoustic models and libraries.

They are read from each project's own mel code and configuration, and stand in ``mels/presets.json``.
Many differ in their values alone, not in their shape; see `melmill.stages.numeric.contract`.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

from melmill.stages.numeric.errors import ParameterError
from melmill.stages.numeric.melspec import MelSpec

_FILE = Path(__file__).parent / "mels" / "presets.json"

# What a preset's mel needs beside the preset: a statistics file, or gains of its bands.
Need = Literal["", "stats", "band_gain"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A named spec, and where it is from.

    Parameters
    ----------
    name : str
    spec : MelSpec
    project : str
        Short name of the project.
    source : str
        Repository, commit, and the file in which its mel is made.
    note : str
        What its mel is like, and what people trip over.
    feeds : str
        The vocoders that take such a mel. Empty where `note` says it.
    recipe : sequence of str
        What the project's recipe does before, outside its mel function. The spec does none of it.
    needs : {"", "stats", "band_gain"}
        Numbers of bands that the project keeps in a file, without which the spec is incomplete.
    """

    name: str
    spec: MelSpec
    project: str
    source: str
    note: str
    feeds: str = ""
    recipe: Sequence[str] = ()
    needs: Need = ""

    @property
    def searched(self) -> str:
        """All its text, in lower case."""
        return " ".join((self.name, self.project, self.source, self.note, self.feeds, *self.recipe)).lower()


# Other names of presets.
_ALIASES = {"whisper": "whisper_80"}

# Asked for by name often enough to deserve a reason.
_LWS = "its frames are those of lws: another window and other padding"
_INEXPRESSIBLE = {
    "wavenet_r9y9_2018": _LWS,
    "deepvoice3_r9y9": _LWS,
    "qwen2_5_omni": "its transform and bank are not in its repository, as its reference mels ship with the checkpoint",
}


@cache
def _presets() -> dict[str, Preset]:
    entries = json.loads(_FILE.read_text(encoding="utf-8"))
    return {
        name: Preset(
            name=name,
            spec=MelSpec.from_dict(entry.pop("spec")),
            recipe=tuple(entry.pop("recipe", ())),
            **entry,
        )
        for name, entry in entries.items()
    }


def preset(name: str) -> MelSpec:
    """Return the spec called `name`.

    Raises
    ------
    ParameterError
        There is none; the message has the nearest name.

    >>> preset("hifigan").log
    'ln'
    """
    return preset_of(name).spec


def preset_note(name: str) -> str:
    """Return what a preset's mel is like, and what people trip over."""
    return preset_of(name).note


def preset_names() -> list[str]:
    """Return the names of all presets, sorted."""
    return sorted(_presets())


def preset_of(name: str) -> Preset:
    """Return the preset called `name`, with its source; raise as `preset`."""
    if not isinstance(name, str):
        raise ParameterError("preset", f"must be the name of a preset, got {name!r}")
    known = _presets()
    if name in known or name in _ALIASES:
        return known[_ALIASES.get(name, name)]
    # Projects write their own names with dashes.
    alike = name.replace("-", "_")
    if alike in known:
        return known[alike]
    if alike in _INEXPRESSIBLE:
        raise ParameterError("preset", f"can't be {name!r}: {_INEXPRESSIBLE[alike]}, which a mel spec can't say")
    near = difflib.get_close_matches(alike, known, n=1)
    within = [other for other in sorted(known) if alike and alike in other]
    hint = f"; did you mean {near[0]!r}?" if near else f" (`melmill mel show` lists all {len(known)})"
    if not near and within:
        hint = f"; did you mean {' or '.join(map(repr, within[:3]))}?"
    raise ParameterError("preset", f"{name!r} does not exist{hint}")


def find_presets(
    text: str = "", *, project: str | None = None, sr: int | None = None, n_mels: int | None = None
) -> list[Preset]:
    """Return the presets that fit all that is asked for, by name.

    Parameters
    ----------
    text : str
        Words, each of which is in the name, the project, the source or the notes.
    project : str or None
        Part of the project's name or of its repository's.
    sr : int or None
        Sampling rate, Hz.
    n_mels : int or None
        Number of bands.

    >>> [found.name for found in find_presets("whisper", n_mels=128)]
    ['whisper_128']
    """
    words = text.lower().split()
    wanted = None if project is None else project.lower()
    return [
        known
        for _, known in sorted(_presets().items())
        if all(word in known.searched for word in words)
        and (wanted is None or wanted in f"{known.project} {known.source.partition('@')[0]}".lower())
        and (sr is None or known.spec.sr == sr)
        and (n_mels is None or known.spec.n_mels == n_mels)
    ]


def equal_presets(spec: MelSpec) -> list[str]:
    """Return the names of all presets that have a spec. ``fmax: null`` is half the rate.

    >>> "grad_tts" in equal_presets(preset("hifigan"))
    True
    """
    wanted = replace(spec, fmax=spec.top_hz)
    return [name for name, known in sorted(_presets().items()) if replace(known.spec, fmax=known.spec.top_hz) == wanted]
