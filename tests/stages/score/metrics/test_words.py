"""Word errors: edit distance by its recursion, texts, and statuses."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.score.metric import metric
from melmill.stages.score.metrics.words import edits, words_of
from melmill.stages.score.pair import Pair
from melmill.stages.score.status import Status


def naive(a: str, b: str) -> int:
    @cache
    def cost(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        return min(cost(i - 1, j) + 1, cost(i, j - 1) + 1, cost(i - 1, j - 1) + (a[i - 1] != b[j - 1]))

    return cost(len(a), len(b))


@pytest.mark.parametrize("seed", range(20))
def test_edits_equal_their_recursion(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = ("".join(rng.choice(list("abc"), rng.integers(0, 12))) for _ in range(2))
    assert edits(a, b) == edits(b, a) == naive(a, b)


@pytest.mark.parametrize(
    ("wanted", "heard", "expected"),
    [
        ("a b c", "a b c", 0),
        ("a b c", "a x c", 1),  # one substituted
        ("a b c", "a c", 1),  # one deleted
        ("a b c", "a b b c", 1),  # one inserted
        ("a b c", "", 3),
        ("a b", "c d e", 3),
    ],
)
def test_edits_of_words(wanted: str, heard: str, expected: int) -> None:
    assert edits(wanted.split(), heard.split()) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("HIS STATEMENT, sir -- don't!", ["his", "statement", "sir", "don't"]),
        ("  well-known_thing ", ["well", "known", "thing"]),
        ("Größe 42", ["größe", "42"]),
        ("...", []),
    ],
)
def test_words_of_a_text(text: str, expected: list[str]) -> None:
    assert words_of(text) == expected


@pytest.mark.parametrize("name", ["wer", "cer"])
@pytest.mark.parametrize("text", ["", "?!"])
def test_without_a_transcript_there_is_no_rate(name: str, text: str) -> None:
    pytest.importorskip("pocketsphinx")
    y = (0.1 * np.random.default_rng(0).standard_normal(16000)).astype(np.float32)
    pair = Pair(reference=None, reference_sr=16000, estimate=y, estimate_sr=16000, spec=MelSpec(), text=text)
    assert metric(name).measure(pair).status is Status.NO_TEXT
