"""What looks wrong in a corpus, by what was measured of its recordings and by their texts."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Say from where on something is a finding.

    Parameters
    ----------
    clipped_runs : int
        Flat tops of a recording that is clipped.
    cliff_db : float
        Break of the spectrum of a recording that is band-limited, dB.
    hum_below_db : float
        Hum that is less than this under the speech is one, dB.
    rate_factor : float
        A text is said to fit if its letters per second differ from the usual by less than this factor.
    snr_db : float
        A recording is noisy below it, dB.
    level_off_db : float
        A level is unusual so far from the speaker's or the corpus' median, dB.
    active_share : float
        A recording is mostly silent if less of it is active.
    offset : float
        A mean of the samples beyond it is one, of full scale.
    """

    clipped_runs: int = 3
    cliff_db: float = 25.0
    hum_below_db: float = 25.0
    rate_factor: float = 2.0
    snr_db: float = 10.0
    level_off_db: float = 15.0
    active_share: float = 0.15
    offset: float = 0.02


KINDS: Mapping[str, str] = {
    "text": "The text does not fit the audio: too many or too few letters per second.",
    "clipped": "Flat tops: the recording was too loud for its converter or format.",
    "band_limited": "The spectrum breaks off: the file was upsampled, or coded with losses.",
    "hum": "Mains hum: steady lines at 50 or 60 Hz and their multiples.",
    "noisy": "Little lies between speech and noise.",
    "silent": "Next to nothing of the recording is speech.",
    "level": "The level is far from that of the other recordings.",
    "offset": "The mean of the samples is not 0.",
    "no_text": "There is no text, though most recordings have one.",
    "unreadable": "The file can't be used.",
}
"""What each kind of finding means."""

# A usual rate needs so many texts, and a deviation counts in multiples of the median one.
_FEWEST_TEXTS = 8
_DEVIATIONS = 3.5
# Pauses and short words make the rate of short texts vary.
_PAUSE_S = 0.25
_FEWEST_OF_SPEAKER = 8


def letters(text: str) -> int:
    """Return how many letters and digits a text has.

    >>> letters("Don't panic, 42!")
    11
    """
    return sum(character.isalnum() for character in text)


def findings(facts: pd.DataFrame, quarantine: pd.DataFrame, rules: Rules) -> pd.DataFrame:
    """Return a row per finding.

    Parameters
    ----------
    facts : DataFrame
        The catalogue with what the stage `inspect` measured: a row per recording.
    quarantine : DataFrame
        ``utterance_id, reason`` of what could not be processed.
    rules : Rules

    Returns
    -------
    DataFrame
        ``utterance_id, kind, severity, detail``, sorted by kind as in `KINDS`, the worst first.
        `severity` is larger the worse, in no unit.
    """
    import pandas as pd

    found: list[tuple[str, str, float, str]] = []
    measured = facts[facts["level_db"].notna()]
    found += _of_texts(measured, rules)
    for row in measured.to_dict("records"):
        found += _of_recording(row, rules)
    found += _of_levels(measured, rules)
    has_text = facts["text"].fillna("").str.strip() != ""
    if has_text.mean() > 0.5:
        without = facts["utterance_id"][~has_text & ~facts["utterance_id"].isin(quarantine["utterance_id"])]
        found += [(str(name), "no_text", 1.0, "the corpus has no text for it") for name in without]
    found += [(str(row.utterance_id), "unreadable", 1.0, str(row.reason)) for row in quarantine.itertuples()]
    table = pd.DataFrame(found, columns=["utterance_id", "kind", "severity", "detail"])
    order = {kind: at for at, kind in enumerate(KINDS)}
    table["_order"] = table["kind"].map(order)
    table = table.sort_values(["_order", "severity", "utterance_id"], ascending=[True, False, True], kind="stable")
    return table.drop(columns="_order").reset_index(drop=True)


def _of_recording(fact: Mapping[Hashable, Any], rules: Rules) -> list[tuple[str, str, float, str]]:
    """Return what is wrong with one recording by itself."""
    name, found = str(fact["utterance_id"]), []
    if fact["clipped_runs"] >= rules.clipped_runs:
        n = int(fact["clipped_runs"])
        found.append((name, "clipped", float(n), f"{n:,} flat tops at {fact['peak_db']:.1f} dBFS"))
    if _is(fact["cliff_db"]) and fact["cliff_db"] >= rules.cliff_db:
        detail = (
            f"next to nothing above {fact['bandwidth_hz'] / 1000:.1f} kHz, at {fact['rate_hz'] / 1000:g} kHz "
            f"({fact['cliff_db']:.0f} dB)"
        )
        found.append((name, "band_limited", float(fact["cliff_db"]), detail))
    if _is(fact["hum_db"]) and fact["hum_db"] > fact["level_db"] - rules.hum_below_db:
        under = fact["level_db"] - fact["hum_db"]
        detail = f"{int(fact['hum_hz'])} Hz at {fact['hum_db']:.0f} dBFS, {under:.0f} dB under the speech"
        found.append((name, "hum", -float(under), detail))
    if _is(fact["snr_db"]) and fact["snr_db"] < rules.snr_db:
        found.append((name, "noisy", -float(fact["snr_db"]), f"{fact['snr_db']:.0f} dB between speech and noise"))
    share = fact["active_s"] / fact["duration_s"] if fact["duration_s"] else 0.0
    if share < rules.active_share:
        detail = f"{fact['active_s']:.2f} of {fact['duration_s']:.2f} s are active"
        found.append((name, "silent", -float(share), detail))
    if abs(fact["offset"]) > rules.offset:
        found.append((name, "offset", abs(float(fact["offset"])), f"mean {fact['offset']:+.3f} of full scale"))
    return found


def _is(value: object) -> bool:
    return value is not None and value == value  # NaN stands for None in a column of numbers


def rates(facts: pd.DataFrame) -> pd.Series:
    """Return letters per second of speech of each recording; NaN where there is no text."""
    n_letters = facts["text"].fillna("").map(letters).astype(float)
    spoken = facts["active_s"].astype(float) + _PAUSE_S
    return (n_letters / spoken).where(n_letters > 0)


def _of_texts(facts: pd.DataFrame, rules: Rules) -> list[tuple[str, str, float, str]]:
    """Return texts whose rate is far from that of their speaker, or of the corpus where one says little."""
    rate = rates(facts)
    log = np.log(rate.dropna())
    if log.size < _FEWEST_TEXTS:
        return []
    middle, spread = float(log.median()), float((log - log.median()).abs().median()) * 1.4826
    speakers = facts.loc[log.index, "speaker_id"]
    own = (
        log.groupby(speakers)
        .transform("median")
        .where(log.groupby(speakers).transform("size") >= _FEWEST_OF_SPEAKER, middle)
    )
    limit = max(np.log(rules.rate_factor), _DEVIATIONS * spread)
    found = []
    for at in log.index[(log - own).abs() > limit]:
        usual = float(np.exp(own[at]))
        text, spoken_s = str(facts["text"][at]), float(facts["active_s"][at])
        counted = f"{letters(text)} letters in {spoken_s:.1f} s"
        detail = f"{rate[at]:.1f} letters/s of speech, where {usual:.1f} are usual: {counted}"
        found.append((str(facts.at[at, "utterance_id"]), "text", float(abs(log[at] - own[at])), detail))
    return found


def _of_levels(facts: pd.DataFrame, rules: Rules) -> list[tuple[str, str, float, str]]:
    """Return recordings whose level is far from that of their speaker, or of the corpus."""
    if len(facts) < _FEWEST_OF_SPEAKER:
        return []
    level = facts["level_db"].astype(float)
    of_speaker = level.groupby(facts["speaker_id"])
    own = of_speaker.transform("median").where(of_speaker.transform("size") >= _FEWEST_OF_SPEAKER, level.median())
    off = level - own
    return [
        (
            str(facts.at[at, "utterance_id"]),
            "level",
            float(abs(off[at])),
            f"{level[at]:.0f} dBFS, where {own[at]:.0f} are usual",
        )
        for at in facts.index[off.abs() > rules.level_off_db]
    ]
