"""The kinds of listening tests: what is asked, which answers there are, and what they say of each system."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from melmill.stages.numeric.errors import StageError

T = TypeVar("T")

REFERENCE = "hidden reference"
"""Name of the recording where it is one of the rated stimuli."""

# The value of each stimulus of a trial, by its token.
Values = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class ListeningKind:
    """Describe a kind of listening test.

    Parameters
    ----------
    name : str
        ``abx``, ``mushra``, ``cmos`` or ``preference``.
    title : str
    measure : str
        What the number of a system is, for tables.
    better : {"higher", "lower"}
        Which numbers mean that a system sounds better.
    decimals : int
        With which numbers are shown.
    percent : bool
        Whether numbers are shares, shown in per cent.
    is_paired : bool
        Whether a trial compares two systems. Otherwise it holds all of them.
    question : str
        What listeners are asked.
    instructions : tuple of str
        Paragraphs for the first screen.
    values : callable
        Takes a trial's answer and the tokens of the trial. Returns the value of each stimulus by
        token. Raises StageError if the answer does not fit.
    source : str
        Where the method is described.
    """

    name: str
    title: str
    measure: str
    better: Literal["higher", "lower"]
    decimals: int
    percent: bool = False
    is_paired: bool = True
    question: str
    instructions: tuple[str, ...]
    values: Callable[[Mapping[str, Any], frozenset[str]], Values]
    source: str

    @property
    def sign(self) -> int:
        """1 where higher is better, otherwise -1."""
        return 1 if self.better == "higher" else -1


def _sides(answer: Mapping[str, Any], tokens: frozenset[str]) -> tuple[str, str]:
    """Return the tokens that were played as A and B."""
    a, b = answer.get("a"), answer.get("b")
    if not isinstance(a, str) or not isinstance(b, str) or {a, b} != tokens:
        raise StageError(f"has 'a' {a!r} and 'b' {b!r}, expected the two stimuli of the trial")
    return a, b


def _choice(answer: Mapping[str, Any], choices: tuple[T, ...]) -> T:
    chosen = answer.get("answer")
    if isinstance(chosen, bool) or chosen not in choices:
        raise StageError(f"has 'answer' {chosen!r}, expected one of {', '.join(map(repr, choices))}")
    return choices[choices.index(chosen)]


def mushra_values(answer: Mapping[str, Any], tokens: frozenset[str]) -> Values:
    """Return the rating of each stimulus, 0 to 100.

    >>> mushra_values({"ratings": {"s1": 100, "s2": 40}}, frozenset({"s1", "s2"}))
    {'s1': 100.0, 's2': 40.0}
    """
    ratings = answer.get("ratings")
    if not isinstance(ratings, dict) or set(ratings) != tokens:
        raise StageError("has no 'ratings' for exactly the stimuli of the trial")
    for token, rating in ratings.items():
        if isinstance(rating, bool) or not isinstance(rating, int | float) or not 0 <= rating <= 100:
            raise StageError(f"rates {token!r} with {rating!r}, expected a number from 0 to 100")
    return {token: float(rating) for token, rating in ratings.items()}


def abx_values(answer: Mapping[str, Any], tokens: frozenset[str]) -> Values:
    """Return 1 for both stimuli where X was told right, otherwise 0.

    >>> abx_values({"a": "s1", "b": "s2", "x": "s2", "answer": "b"}, frozenset({"s1", "s2"}))
    {'s1': 1.0, 's2': 1.0}
    """
    a, b = _sides(answer, tokens)
    x = answer.get("x")
    if x not in (a, b):
        raise StageError(f"has 'x' {x!r}, expected one of the two stimuli of the trial")
    correct = float({"a": a, "b": b}[_choice(answer, ("a", "b"))] == x)
    return {a: correct, b: correct}


def cmos_values(answer: Mapping[str, Any], tokens: frozenset[str]) -> Values:
    """Return how much better each stimulus is than the other, -3 to 3.

    >>> cmos_values({"a": "s1", "b": "s2", "answer": 2}, frozenset({"s1", "s2"}))
    {'s1': -2.0, 's2': 2.0}
    """
    a, b = _sides(answer, tokens)
    score = float(_choice(answer, (-3, -2, -1, 0, 1, 2, 3)))
    return {a: 0.0 - score, b: score}


def preference_values(answer: Mapping[str, Any], tokens: frozenset[str]) -> Values:
    """Return 1 for the preferred stimulus and 0 for the other, one half for each without a preference.

    >>> preference_values({"a": "s1", "b": "s2", "answer": "a"}, frozenset({"s1", "s2"}))
    {'s1': 1.0, 's2': 0.0}
    """
    a, b = _sides(answer, tokens)
    preferred = {"a": 1.0, "b": 0.0, "none": 0.5}[_choice(answer, ("a", "b", "none"))]
    return {a: preferred, b: 1.0 - preferred}


_TWICE = "Each page plays the same sentence twice, as A and as B."
_ITU = "ITU-T P.800 (1996), Annex E"
_QUIET = "Use headphones in a quiet place. Set the volume once, before you begin, and leave it."
_KINDS = (
    ListeningKind(
        name="abx",
        title="ABX",
        measure="told apart",
        better="lower",
        decimals=0,
        percent=True,
        question="Which of the two is X?",
        instructions=(
            "Each page plays three sounds. A and B differ, and X is one of them. Say which.",
            "Listen as often as you like. If you hear no difference, guess.",
            _QUIET,
        ),
        values=abx_values,
        source="Clark, High-resolution subjective testing using a double-blind comparator, JAES 30 (5), 1982",
    ),
    ListeningKind(
        name="mushra",
        title="MUSHRA",
        measure="rating",
        better="higher",
        decimals=1,
        is_paired=False,
        question="How good is each sound, compared with the reference?",
        instructions=(
            "Each page plays a reference and several versions of it. Rate the quality of every version from 0 to 100.",
            "One of the versions is the reference itself. Find it and rate it 100.",
            _QUIET,
        ),
        values=mushra_values,
        source="ITU-R BS.1534-3 (2015)",
    ),
    ListeningKind(
        name="cmos",
        title="CMOS",
        measure="comparison score",
        better="higher",
        decimals=2,
        question="How good is B, compared with A?",
        instructions=(
            f"{_TWICE} Say how B compares with A.",
            "Judge the quality of the speech, not what is said.",
            _QUIET,
        ),
        values=cmos_values,
        source=f"{_ITU}: comparison category rating",
    ),
    ListeningKind(
        name="preference",
        title="Preference",
        measure="preferred",
        better="higher",
        decimals=0,
        percent=True,
        question="Which of the two do you prefer?",
        instructions=(
            f"{_TWICE} Say which you prefer.",
            "If neither sounds better to you, say so.",
            _QUIET,
        ),
        values=preference_values,
        source=f"{_ITU}, with the size of the difference left out",
    ),
)
KINDS: Mapping[str, ListeningKind] = {kind.name: kind for kind in _KINDS}
"""All kinds of listening tests by name."""
