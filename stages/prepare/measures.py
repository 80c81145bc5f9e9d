"""What rules of the stage `filter` know of a recording: numbers and texts, each by a name."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.errors import ParameterError
from melmill.stages.prepare.activity import QUIETEST_DB, frame_levels
from melmill.stages.prepare.loudness import measured
from melmill.stages.prepare.trim import Activity
from melmill.stages.prepare.true_peak import true_peak
from melmill.stages.score.metric import METRICS, Metric
from melmill.storage.utterance import Utterance

MOST_SNR_DB = 100.0
"""A recording with digital silence has no noise to measure; its SNR counts as that, dB."""

_NOISE_SHARE = 0.1
_NOISE_FRAME_S = 0.02
_FLAT_RUN = 3
_SOFTEST_CLIPPED = 0.05


class Heard:
    """A recording whose measures are computed when they are asked for, and then kept.

    Parameters
    ----------
    utterance : Utterance
    y : ndarray of float32, shape (n_samples,)
        Full scale is 1.
    sr : int
        Its rate, Hz.
    """

    def __init__(self, utterance: Utterance, y: NDArray[np.float32], sr: int) -> None:
        self.utterance = utterance
        self.y = y
        self.sr = sr

    @property
    def duration_s(self) -> float:
        """Length, s."""
        return self.y.size / self.sr

    @cached_property
    def peak(self) -> float:
        """Largest size of a sample."""
        return float(np.abs(self.y).max(initial=0.0))

    @property
    def rms_db(self) -> float:
        """Level, dBFS."""
        return _db(float(np.mean(self.y.astype(np.float64) ** 2)) if self.y.size else 0.0)

    @cached_property
    def clipped_share(self) -> float:
        """Share of samples that lie in flat tops: at least three in a row at the largest size."""
        if self.peak < _SOFTEST_CLIPPED:
            return 0.0
        n_flat = 0
        for y in (self.y, -self.y):
            at_top = np.concatenate([[False], y >= self.peak * (1.0 - 1e-4), [False]])
            first, last = np.flatnonzero(at_top[1:] & ~at_top[:-1]), np.flatnonzero(at_top[:-1] & ~at_top[1:])
            runs = last - first
            n_flat += int(runs[runs >= _FLAT_RUN].sum())
        return n_flat / self.y.size

    @cached_property
    def _powers(self) -> NDArray[np.float64]:
        """Powers of the frames in which noise is looked for."""
        length = max(1, round(_NOISE_FRAME_S * self.sr))
        whole = self.y[: self.y.size // length * length].astype(np.float64)
        powers: NDArray[np.float64] = np.mean(whole.reshape(-1, length) ** 2, axis=1)
        return powers

    @cached_property
    def snr_db(self) -> float:
        """Power of what is not noise over that of the noise, dB: its quietest tenth of frames of 20 ms."""
        if not self._powers.size:
            return 0.0
        in_order = np.sort(self._powers)
        noise = float(in_order[: max(1, round(_NOISE_SHARE * in_order.size))].mean())
        total = float(in_order.mean())
        if noise <= 10.0 ** (QUIETEST_DB / 10.0):
            return MOST_SNR_DB
        return min(MOST_SNR_DB, 10.0 * math.log10(max(total - noise, 1e-12) / noise))

    @cached_property
    def silence_share(self) -> float:
        """Share of frames of 5 ms whose level is 40 dB below the loudest, or less."""
        levels = frame_levels(self.y, self.sr)
        if not levels.db.size:
            return 1.0
        return float(np.mean(levels.db <= max(levels.loudest_db + Activity.threshold_db, QUIETEST_DB)))

    @property
    def characters(self) -> str:
        """The text without blanks and punctuation."""
        return "".join(one for one in self.utterance.text if unicodedata.category(one)[0] in "LN")

    @property
    def n_words(self) -> int:
        """Words of the text, as blanks separate them."""
        return len(self.utterance.text.split())


@dataclass(frozen=True, kw_only=True)
class Measure:
    """Describe what a rule may limit.

    Parameters
    ----------
    of : callable
        Returns its value of a recording.
    says : str
        What it is, for the docs.
    is_text : bool
        Whether it is a text, of which rules say characters, words and patterns.
    """

    of: Callable[[Heard], float | str]
    says: str
    is_text: bool = False


def _db(power: float) -> float:
    return 10.0 * math.log10(max(power, 1e-12))


def _rate(n: int, heard: Heard) -> float:
    return n / heard.duration_s if heard.y.size else 0.0


MEASURES: Mapping[str, Measure] = {
    "duration_s": Measure(of=lambda heard: heard.duration_s, says="length, s"),
    "rms_db": Measure(of=lambda heard: heard.rms_db, says="level, dBFS"),
    "peak_db": Measure(of=lambda heard: 2 * _db(heard.peak), says="largest sample, dBFS"),
    "true_peak_db": Measure(of=lambda heard: 2 * _db(true_peak(heard.y)), says="true peak, dBTP"),
    "loudness_lufs": Measure(of=lambda heard: measured(heard.y, heard.sr), says="integrated loudness, LUFS"),
    "clipped_share": Measure(
        of=lambda heard: heard.clipped_share,
        says="share of samples in flat tops: three or more in a row at the largest size, from 0 to 1",
    ),
    "snr_db": Measure(
        of=lambda heard: heard.snr_db,
        says="signal over noise, dB. The noise is the quietest tenth of frames of 20 ms. Digital silence: 100",
    ),
    "silence_share": Measure(
        of=lambda heard: heard.silence_share, says="share of frames 40 dB below the loudest, from 0 to 1"
    ),
    "n_characters": Measure(of=lambda heard: len(heard.characters), says="letters and digits of the text"),
    "n_words": Measure(of=lambda heard: heard.n_words, says="words of the text, separated by blanks"),
    "characters_per_s": Measure(
        of=lambda heard: _rate(len(heard.characters), heard), says="speaking rate: letters and digits a second"
    ),
    "words_per_s": Measure(of=lambda heard: _rate(heard.n_words, heard), says="speaking rate: words a second"),
    "text": Measure(of=lambda heard: heard.utterance.text, says="the text", is_text=True),
    "utterance_id": Measure(of=lambda heard: heard.utterance.utterance_id, says="the id", is_text=True),
    "speaker_id": Measure(of=lambda heard: heard.utterance.speaker_id, says="the speaker", is_text=True),
    "sex": Measure(of=lambda heard: heard.utterance.sex, says="the sex of the speaker", is_text=True),
    "subset": Measure(of=lambda heard: heard.utterance.subset, says="the part of the corpus", is_text=True),
    "chapter_id": Measure(of=lambda heard: heard.utterance.chapter_id, says="the chapter or book", is_text=True),
    "path": Measure(of=lambda heard: heard.utterance.path, says="the path of the source file", is_text=True),
}


def judging_metrics() -> dict[str, Metric]:
    """Return the metrics that judge a recording by itself, such as DNSMOS, by name."""
    return {name: one for name, one in METRICS.items() if one.needs == "estimate"}


def measure_names() -> list[str]:
    """Return the names of all that a rule may limit."""
    return [*MEASURES, *judging_metrics()]


def installed_metric(name: str) -> Metric:
    """Return a metric; raise ParameterError if the packages that it needs are missing."""
    metric = judging_metrics()[name]
    if not metric.is_installed:
        needed = " and ".join(one for one in (metric.package, metric.runtime) if one)
        raise ParameterError("measure", f"can't be {name!r} here: it needs the package {needed}, see docs/metrics.md")
    return metric


def value_of(name: str, heard: Heard) -> float | str:
    """Return a measure of a recording by its name.

    A metric that can't judge it, because it is too short or silent, is NaN.
    """
    if name in MEASURES:
        return MEASURES[name].of(heard)
    from melmill.stages.score.pair import Pair
    from melmill.stages.score.stage import default_spec
    from melmill.stages.score.status import Measured

    pair = Pair(
        reference=None,
        reference_sr=heard.sr,
        estimate=heard.y,
        estimate_sr=heard.sr,
        spec=default_spec(heard.sr),
        text=heard.utterance.text,
    )
    metric = installed_metric(name)
    if heard.sr < metric.lowest_sr or pair.estimate_status.value != "ok":
        return math.nan
    found = metric.compute(pair)
    return found.value if isinstance(found, Measured) else float(found)
