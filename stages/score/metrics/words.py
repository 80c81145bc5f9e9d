"""Errors in the words that a recogniser hears."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from melmill.stages.score.metric import Metric
from melmill.stages.score.pair import Pair
from melmill.stages.score.status import Measured, Status

SR = 16000
"""Rate that the recogniser hears, Hz."""

SHORTEST_S = 0.1
"""Shorter signals hold no word."""

_NOT_SPOKEN = re.compile(r"[^\w\s']|_")


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case, without punctuation but for apostrophes.

    >>> words_of("Why, don't you?")
    ['why', "don't", 'you']
    """
    return _NOT_SPOKEN.sub(" ", text.lower()).split()


def edits(wanted: Sequence[str], heard: Sequence[str]) -> int:
    """Return the least number of substitutions, deletions and insertions that turn one into the other.

    >>> edits("kitten", "sitting")
    3
    """
    row = np.arange(len(heard) + 1)
    for i, symbol in enumerate(wanted, start=1):
        differs = np.array([symbol != other for other in heard], dtype=np.int64)
        best = np.concatenate([[i], np.minimum(row[1:] + 1, row[:-1] + differs)])
        # Insertions run along the row: each place costs one more than the one before.
        steps = np.arange(best.size)
        row = np.minimum.accumulate(best - steps) + steps
    return int(row[-1])


def _heard(pair: Pair) -> str:
    """Return what a new decoder hears, the whole signal at once."""
    import pocketsphinx

    decoder = pocketsphinx.Decoder(samprate=float(SR), loglevel="FATAL")
    pcm = np.clip(np.round(pair.estimate_at(SR) * 32768.0), -32768, 32767).astype("<i2")
    decoder.start_utt()
    decoder.process_raw(pcm.tobytes(), full_utt=True)
    decoder.end_utt()
    hypothesis = decoder.hyp()
    return "" if hypothesis is None else str(hypothesis.hypstr)


def word_errors(pair: Pair, hear: Callable[[Pair], str]) -> Measured:
    """Return the share of the transcript's words that `hear` gets wrong, weighted by their number.

    Parameters
    ----------
    pair : Pair
    hear : callable
        Returns what it hears in the reconstruction. All metrics of a pair ask it once.
    """
    return _rate(pair, hear, lambda words: words)


def character_errors(pair: Pair, hear: Callable[[Pair], str]) -> Measured:
    """Return the share of the transcript's characters that `hear` gets wrong, weighted by their number."""
    return _rate(pair, hear, " ".join)


def _rate(pair: Pair, hear: Callable[[Pair], str], symbols: Callable[[list[str]], Sequence[str]]) -> Measured:
    if pair.estimate_duration_s < SHORTEST_S:
        return Measured.failed(Status.TOO_SHORT)
    wanted = symbols(words_of(pair.text))
    if not wanted:
        return Measured.failed(Status.NO_TEXT)
    return Measured.of(edits(wanted, symbols(words_of(pair.once(hear)))) / len(wanted), weight=len(wanted))


BY_RECOGNISER: Mapping[str, Callable[..., Measured]] = {
    "wer": word_errors,
    "cer": character_errors,
}
"""Metrics that a recogniser of one's own may hear for, by name."""


_RECOGNISER = (
    "Heard by pocketsphinx 5 with its own model of US English at 16 kHz: a new decoder for each file, the whole file "
    "at once. [Another recogniser](#a-recogniser-of-your-own) may hear in its place. Text is compared in lower case "
    "without punctuation."
)
_LIMITS = (
    "The recogniser is small and old, and mishears up to 70 % of good recordings: score the recordings too, with a "
    "node that has no `against`. A delay of 40 samples may change a file's rate by 0.5, so small sets say nothing. It "
    "knows US English alone."
)
_COST = "About 4 x real time and 0.3 s a file for both rates of words and characters together."

WER = Metric(
    name="wer",
    title="WER",
    better="lower",
    decimals=3,
    needs="estimate",
    lowest_sr=SR,
    package="pocketsphinx",
    compute=lambda pair: word_errors(pair, _heard),
    pooled="words",
    version=2,
    order=160,
    group="words",
    says="Share of the transcript's words that a recogniser gets wrong. It needs the transcript, and no recording.",
    formula=rf"$(S+D+I)/N$: substitutions, deletions and insertions over the transcript's $N$ words. {_RECOGNISER}",
    limits=_LIMITS,
    reference="Levenshtein 1966; Huggins-Daines et al. 2006 (PocketSphinx)",
    cost=_COST,
)

CER = Metric(
    name="cer",
    title="CER",
    better="lower",
    decimals=3,
    needs="estimate",
    lowest_sr=SR,
    package="pocketsphinx",
    compute=lambda pair: character_errors(pair, _heard),
    pooled="characters",
    version=2,
    order=161,
    group="words",
    says="Share of the transcript's characters that a recogniser gets wrong, spaces among them.",
    formula=rf"$(S+D+I)/N$ over the $N$ characters of the transcript. {_RECOGNISER}",
    limits=_LIMITS,
    reference="Levenshtein 1966; Huggins-Daines et al. 2006 (PocketSphinx)",
    cost=_COST,
)
