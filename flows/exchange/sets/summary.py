"""What is counted of a training set."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(kw_only=True)
class SetSummary:
    """Count what a training set holds; `melmill export --json` prints the fields.

    Parameters
    ----------
    store, folder, to : str
    nodes, keys : list of str
    written, kept, removed : int
        Files that were written, that were there and whole, and that were removed.
    utterances : int
    hours : float
    splits : dict of str to int
        Utterances by split.
    with_text, speakers : int
    quarantined, missing, left_out : int
        Utterances that a node could not process, that no run has processed yet, and that a list of splits
        does not name.
    clipped_samples : int
    licence : str
    duration_s : float
    """

    store: str
    folder: str
    to: str
    nodes: list[str]
    keys: list[str]
    written: int = 0
    kept: int = 0
    removed: int = 0
    utterances: int = 0
    hours: float = 0.0
    splits: dict[str, int] = field(default_factory=dict)
    with_text: int = 0
    speakers: int = 0
    quarantined: int = 0
    missing: int = 0
    left_out: int = 0
    clipped_samples: int = 0
    licence: str = ""
    duration_s: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)
