"""The specs that a mel may have been made by: the presets, each distinct one once."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cache

from melmill.stages.numeric.mel import magnitude_spec
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.presets import preset, preset_names


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Hold a spec and the names of all presets that are equal to it."""

    names: tuple[str, ...]
    spec: MelSpec


@cache
def candidates() -> tuple[Candidate, ...]:
    """Return all distinct specs of presets, in alphabetical order of their first names."""
    groups: dict[str, list[str]] = {}
    for name in preset_names():
        groups.setdefault(fingerprint(preset(name)), []).append(name)
    return tuple(Candidate(names=tuple(names), spec=preset(names[0])) for names in groups.values())


def fingerprint(spec: MelSpec) -> str:
    """Return a text that equal specs share: ``fmax: null`` is half the rate."""
    return json.dumps(replace(spec, fmax=spec.top_hz).as_dict(), sort_keys=True)


def band_numbers() -> list[int]:
    """Return the numbers of bands of all presets, in ascending order."""
    return sorted({candidate.spec.n_mels for candidate in candidates()})


def bands_of(spec: MelSpec) -> MelSpec:
    """Return the spec of what the bank gives, before any log or normalisation."""
    return replace(magnitude_spec(spec), normalized=spec.normalized, wave=spec.wave, frames=spec.frames)
