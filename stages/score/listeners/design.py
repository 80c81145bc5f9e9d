"""What a listening test asks: its systems, its utterances, and its trials under blind names."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from melmill.stages.numeric.errors import StageError
from melmill.stages.score.listeners.kinds import KINDS, REFERENCE, ListeningKind

FORMAT = 1
MOST_STIMULI = 12
"""More sounds than these a listener can't rate on one page (BS.1534-3, section 5.3)."""


@dataclass(frozen=True, kw_only=True)
class System:
    """Name a system of a test.

    Parameters
    ----------
    name : str
        Its node, as the run called it, or the name of an anchor or of the hidden reference.
    folder, key : str
        Of the node's product. Empty for anchors.
    """

    name: str
    folder: str = ""
    key: str = ""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Hold one page of a test.

    Parameters
    ----------
    name : str
        Number of the trial, four digits.
    utterance_id, speaker_id, subset : str
    stimuli : mapping of str to str
        The system of each sound by its blind name.
    """

    name: str
    utterance_id: str
    speaker_id: str = ""
    subset: str = ""
    stimuli: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Design:
    """Hold a whole test. The store keeps it, and listeners never see it.

    Parameters
    ----------
    kind : str
        See `KINDS`.
    project, run_id : str
        Of the store, and the run whose products are heard.
    seed : int
    reference : str
        Node of the recordings.
    systems : tuple of System
        All that is compared, the hidden reference and anchors too.
    trials : tuple of Trial
    settings : mapping
        ``n``, ``loudness_lufs``, ``longest_s``, and how utterances were chosen.
    notes : tuple of str
        What a person should know of the stimuli, a line each.
    """

    kind: str
    project: str
    run_id: str
    seed: int
    reference: str
    systems: tuple[System, ...]
    trials: tuple[Trial, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def test(self) -> ListeningKind:
        """The kind of test."""
        return KINDS[self.kind]

    @property
    def test_id(self) -> str:
        """Name of the test: its kind, and a hash of all that decides what is heard."""
        heard = {name: value for name, value in self.as_plain().items() if name not in ("run_id", "notes")}
        digest = hashlib.sha256(json.dumps(heard, sort_keys=True).encode()).hexdigest()
        return f"{self.kind}-{digest[:12]}"

    def as_plain(self) -> dict[str, Any]:
        """Return plain values, which JSON can hold."""
        return {"format": FORMAT, **asdict(self), "systems": [asdict(one) for one in self.systems],
                "trials": [asdict(one) for one in self.trials], "notes": list(self.notes)}  # fmt: skip

    @classmethod
    def from_plain(cls, fields: Mapping[str, Any]) -> Design:
        """Return the design of plain values; raise KeyError, TypeError or ValueError for others."""
        if fields["format"] != FORMAT or fields["kind"] not in KINDS:
            raise ValueError(f"format {fields['format']!r}, kind {fields['kind']!r}")
        given = {name: value for name, value in fields.items() if name != "format"}
        systems = tuple(System(**one) for one in given.pop("systems"))
        trials = tuple(Trial(**one) for one in given.pop("trials"))
        return cls(**{**given, "systems": systems, "trials": trials, "notes": tuple(given["notes"])})


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Name an utterance that a test may take."""

    utterance_id: str
    speaker_id: str = ""
    subset: str = ""


def drawn(candidates: Iterable[Candidate], *, by: str | None, seed: int) -> list[Candidate]:
    """Return utterances in the order in which a test takes them.

    Parameters
    ----------
    candidates : iterable of Candidate
        Their order does not matter.
    by : {None, "speaker", "subset"}
        None: all at random. Otherwise one of each speaker or subset in turn, so that each has as many.
    seed : int
    """
    rng = np.random.default_rng([seed, 0])
    known = sorted(candidates, key=lambda one: one.utterance_id)
    shuffled = [known[at] for at in rng.permutation(len(known))]
    if by is None:
        return shuffled
    groups: dict[str, list[Candidate]] = {}
    for one in shuffled:
        groups.setdefault(one.speaker_id if by == "speaker" else one.subset, []).append(one)
    turns = itertools.zip_longest(*groups.values())
    return [one for turn in turns for one in turn if one is not None]


def pairs(names: Sequence[str], against: str | None) -> list[tuple[str, str]]:
    """Return the pairs of systems that a paired test compares: all, or those with `against`.

    >>> pairs(["a", "b", "c"], None)
    [('a', 'b'), ('a', 'c'), ('b', 'c')]
    >>> pairs(["a", "b", "c"], "b")
    [('b', 'a'), ('b', 'c')]
    """
    if against is None:
        return list(itertools.combinations(names, 2))
    return [(against, name) for name in names if name != against]


def trials(
    utterances: Sequence[Candidate], groups: Sequence[Sequence[str]], *, secret: str, first: int = 1
) -> tuple[Trial, ...]:
    """Return a trial for each utterance and group of systems, with blind names.

    A name is a hash of the trial, the system and a secret that listeners do not have. Trials are
    numbered from `first`.
    """
    made = []
    for number, (one, group) in enumerate(itertools.product(utterances, groups), first):
        name = f"{number:04d}"
        tokens = {_token(secret, name, system): system for system in group}
        made.append(
            Trial(
                name=name,
                utterance_id=one.utterance_id,
                speaker_id=one.speaker_id,
                subset=one.subset,
                stimuli=dict(sorted(tokens.items())),
            )
        )
    return tuple(made)


def _token(*parts: str) -> str:
    return "s" + hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:12]


def check_size(kind: ListeningKind, names: Sequence[str], anchors: Sequence[str]) -> None:
    """Raise StageError if a test can't have so many systems."""
    if kind.is_paired:
        if len(names) < 2:
            raise StageError(f"a test of kind {kind.name} compares two systems or more, got {', '.join(names)}")
    elif len(names) + len(anchors) + 1 > MOST_STIMULI:
        room = MOST_STIMULI - 1 - len(anchors)
        raise StageError(
            f"a MUSHRA page holds {MOST_STIMULI} sounds at most (ITU-R BS.1534-3): {room} nodes beside the "
            f"{REFERENCE}{' and the anchors' if anchors else ''}, got {len(names)}"
        )
