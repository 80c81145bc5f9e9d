"""Pairs of recording and reconstruction, and what the field's own code answered for them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import soundfile

from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.score.pair import Pair


@dataclass(frozen=True)
class GoldenPair:
    name: str
    kind: str
    sr: int
    files: tuple[Path, Path]
    values: dict[str, float | None]
    text: str

    @cached_property
    def pair(self) -> Pair:
        """The pair, kept, as metrics share what is slow: CREPE hears each signal once for all of them."""
        reference, estimate = (soundfile.read(file, dtype="float32")[0] for file in self.files)
        return Pair(
            reference=reference,
            reference_sr=self.sr,
            estimate=estimate,
            estimate_sr=self.sr,
            spec=MelSpec(sr=self.sr),
            cut=True,
            text=self.text,
        )


@lru_cache(maxsize=1)
def golden_pairs(real_data: Path) -> list[GoldenPair]:
    folder = real_data / "golden" / "metrics"
    found: list[dict[str, Any]] = json.loads((folder / "values.json").read_text())["pairs"]
    return [
        GoldenPair(
            name=one["id"],
            kind=one["kind"],
            sr=one["sr"],
            files=(folder / "audio" / one["recording"], folder / "audio" / one["estimate"]),
            values=one["values"],
            text=one.get("transcript", ""),
        )
        for one in found
    ]
