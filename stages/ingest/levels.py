"""Channels and levels of recordings: which channels are taken, and what their levels say."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.errors import ParameterError, Unusable

SILENCE_DB = -80.0
"""Some three steps of 16-bit PCM. Below it a file holds dither or less, and PESQ, STOI and SC are undefined."""

MIX, LOUDEST, REFUSE = "mix", "loudest", "refuse"
_SIDES = {"left": 0, "right": 1}
_SILENT_STEPS = 6  # from the lowest to the highest sample, in steps of 16-bit PCM
_SHORTEST_SOUND_S = 0.01
_CLIPPED_SHARE = 0.01
# Equal channels that are no copies of each other lose 3 dB when mixed, and one beside a silent one loses 6.
_CANCEL_DB, _LOSS_DB = 17.0, 5.5
_BLOCK = 1 << 16

Channel = str | int


def channel_words() -> tuple[str, ...]:
    """Return the words that a field `channel` takes besides the number of a channel."""
    return (MIX, *_SIDES, LOUDEST, REFUSE)


# As many channels as libsndfile reads.
MAX_CHANNELS = 1024


def check_channel(channel: Channel) -> None:
    """Raise ParameterError unless it is one of the words, or the number of a channel."""
    if isinstance(channel, int) and not isinstance(channel, bool) and 0 <= channel < MAX_CHANNELS:
        return
    if channel in channel_words():
        return
    near = difflib.get_close_matches(str(channel), channel_words(), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ParameterError(
        "channel",
        f"must be mix (the mean of all), left, right, loudest, refuse or a number from 0 to {MAX_CHANNELS - 1}, "
        f"got {channel!r}{hint}",
    )


def channel_identity(channel: Channel) -> Channel:
    """Return what a key holds of a channel: ``left`` is 0.

    >>> channel_identity("right"), channel_identity("mix")
    (1, 'mix')
    """
    return _SIDES.get(channel, channel) if isinstance(channel, str) else channel


def taken(y: NDArray[np.int16 | np.float32], channel: Channel) -> tuple[NDArray[np.int16 | np.float32], dict[str, Any]]:
    """Return the channels of a recording that are wanted, to be mixed by the mean, and facts on them.

    Parameters
    ----------
    y : ndarray of int16 or float32, shape (n_samples, n_channels)
        Finite samples.
    channel : str or int
        ``mix`` (all channels), ``left``, ``right``, ``loudest``, ``refuse``, or a number from 0.

    Returns
    -------
    y : ndarray, shape (n_samples, n_taken)
    facts : dict
        Empty for a file of one channel. ``channel`` is what was taken, ``mix`` or a number as text.
        ``mix_loss_db`` is by how much the mix is quieter than the loudest channel, dB.

    Raises
    ------
    Unusable
        The file lacks the channel, has several where none may be chosen, or they cancel.
    """
    n_channels = y.shape[1]
    number = channel_identity(channel)
    if isinstance(number, int):
        if number >= n_channels:
            side = f" ({channel})" if isinstance(channel, str) else ""
            has = "1 channel" if n_channels == 1 else f"{n_channels} channels"
            raise Unusable(f"there is no channel {number}{side}: the file has {has}, numbered from 0")
        return y[:, number : number + 1], {"channel": str(number)} if n_channels > 1 else {}
    if n_channels == 1:
        return y, {}
    if number == REFUSE:
        raise Unusable(
            f"the file has {n_channels} channels, and channel: refuse takes none: "
            "say channel: mix, left, right or loudest"
        )
    products = _products(y)
    powers = np.diag(products)
    if number == LOUDEST:
        means = y.mean(axis=0, dtype=np.float64) / _full_scale(y)
        loudest = int(np.argmax(powers - means**2))
        return y[:, loudest : loudest + 1], {"channel": str(loudest)}
    mixed = float(products.sum()) / n_channels**2
    unrelated = float(powers.sum()) / n_channels**2
    loudest_db, mixed_db = _power_db(float(powers.max())), _power_db(mixed)
    if loudest_db > SILENCE_DB and _power_db(unrelated) - mixed_db > _CANCEL_DB:
        norms = np.sqrt(np.outer(powers, powers))
        correlation = float(np.min(np.divide(products, norms, out=np.zeros_like(products), where=norms > 0)))
        loss = f"{loudest_db - mixed_db:.0f} dB are lost" if mixed_db > 2 * SILENCE_DB else "nothing is left"
        raise Unusable(
            f"channels cancel when mixed: correlation {correlation:.2f}, {loss}; say channel: left, right or loudest"
        )
    return y, {"channel": MIX, "mix_loss_db": round(loudest_db - mixed_db, 2) if mixed > 0 else 0.0}


def _full_scale(y: NDArray[np.int16 | np.float32]) -> float:
    return 32768.0 if y.dtype == np.int16 else 1.0


def _products(y: NDArray[np.int16 | np.float32]) -> NDArray[np.float64]:
    """Return the mean product of each two channels, ``(n_channels, n_channels)``, full scale 1."""
    products = np.zeros((y.shape[1], y.shape[1]))
    for start in range(0, len(y), _BLOCK):
        block = y[start : start + _BLOCK].astype(np.float64) / _full_scale(y)
        products += block.T @ block
    return products / max(1, len(y))


def check_sound(y: NDArray[np.int16], sr: int) -> tuple[float, float]:
    """Return peak and RMS level of PCM ``(n_samples,)``, dBFS.

    Raises
    ------
    Unusable
        It is silent, constant, or holds less than 10 ms of samples that differ from the one before.
    """
    low, high = int(y.min()), int(y.max())
    peak = max(-low, high)
    peak_db, rms_db = level_db(peak / 32768.0), level_db(_rms(y, peak))
    if peak_db < SILENCE_DB:
        raise Unusable(f"silent: peak {peak_db:.1f} dBFS, a recording has at least {SILENCE_DB:.0f}")
    if high - low <= _SILENT_STEPS:
        about = "" if high == low else "about "
        middle = float(np.median(y)) / 32768.0
        raise Unusable(f"constant: every sample is {about}{middle:.4g} (DC), so there is no sound")
    n_moving = int(np.count_nonzero(y[1:] != y[:-1]))
    if n_moving < _SHORTEST_SOUND_S * sr:
        raise Unusable(
            f"next to empty: only {n_moving:,} of {y.size:,} samples differ from the one before, "
            f"so there is less than {1000 * _SHORTEST_SOUND_S:.0f} ms of sound"
        )
    return peak_db, rms_db


def _rms(y: NDArray[np.int16], peak: int) -> float:
    """Return the RMS of PCM of a known peak, re full scale."""
    if y.size * peak**2 < 1 << 53:
        # The squares are whole numbers whose sum is exact in any order.
        squares = np.square(y, dtype=np.float64)
        return math.sqrt(float(squares.sum()) / 2.0**30 / y.size)
    return float(np.sqrt(np.mean(np.square(y.astype(np.float64) / 32768.0))))


def check_clipped(n_clipped: int, n_samples: int, peak_db: float) -> None:
    """Raise Unusable if more than 1 % of the samples were clipped.

    Parameters
    ----------
    n_clipped, n_samples : int
    peak_db : float
        Before they were clipped, dBFS.
    """
    if n_clipped > _CLIPPED_SHARE * n_samples:
        raise Unusable(
            f"past full scale: {n_clipped:,} of {n_samples:,} samples ({100 * n_clipped / n_samples:.1f} %) would be "
            f"clipped, {100 * _CLIPPED_SHARE:.0f} % may be; the peak is {peak_db:+.1f} dBFS: "
            f"make it {math.ceil(peak_db)} dB quieter"
        )


def level_db(amplitude: float) -> float:
    """Return an amplitude in dB re full scale, ``-inf`` for 0."""
    return 20.0 * math.log10(amplitude) if amplitude > 0 else -math.inf


def _power_db(power: float) -> float:
    return 10.0 * math.log10(power) if power > 0 else -math.inf


@dataclass(frozen=True, kw_only=True)
class Levels:
    """Count what a person should know of the levels of stored recordings. Records keep it.

    Parameters
    ----------
    clipped, clipped_samples : int
        Files with samples past full scale, and all such samples.
    worst, worst_db : str, float
        Id of the file with the highest peak among those, and that peak, dBFS.
    mixed, fewest, most : int
        Files whose channels were mixed, and the fewest and most channels that they have.
    quieter : int
        Those that lost 6 dB or more by that.
    quietest, quietest_db : str, float
        Id of the file that lost most, and its loss, dB.
    """

    clipped: int = 0
    clipped_samples: int = 0
    worst: str = ""
    worst_db: float = 0.0
    mixed: int = 0
    fewest: int = 0
    most: int = 0
    quieter: int = 0
    quietest: str = ""
    quietest_db: float = 0.0

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> Levels:
        """Return the counts of an ingest node's rows."""
        return cls.total(cls._of_row(row) for row in rows)

    @classmethod
    def _of_row(cls, row: Mapping[str, Any]) -> Levels:
        counts: dict[str, Any] = {}
        if row.get("n_clipped"):
            counts |= {"clipped": 1, "clipped_samples": row["n_clipped"]}
            counts |= {"worst": row["utterance_id"], "worst_db": row["source_peak_db"]}
        if row.get("channel") == MIX:
            counts |= {"mixed": 1, "fewest": row["n_channels"], "most": row["n_channels"]}
            if row["mix_loss_db"] >= _LOSS_DB:
                counts |= {"quieter": 1, "quietest": row["utterance_id"], "quietest_db": row["mix_loss_db"]}
        return cls(**counts)

    @classmethod
    def stored(cls, counts: Mapping[str, Any]) -> Levels:
        """Return the counts of a record, where versions may keep others."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: count for name, count in counts.items() if name in known})

    @classmethod
    def total(cls, parts: Iterable[Levels]) -> Levels:
        """Return the sum of several."""
        clipped = clipped_samples = mixed = quieter = most = 0
        fewest, worst, quietest = math.inf, ("", 0.0), ("", 0.0)
        for part in parts:
            clipped += part.clipped
            clipped_samples += part.clipped_samples
            mixed += part.mixed
            quieter += part.quieter
            most = max(most, part.most)
            if part.mixed:
                fewest = min(fewest, part.fewest)
            worst = max(worst, (part.worst, part.worst_db), key=lambda one: one[1])
            quietest = max(quietest, (part.quietest, part.quietest_db), key=lambda one: one[1])
        return cls(
            clipped=clipped,
            clipped_samples=clipped_samples,
            worst=worst[0],
            worst_db=worst[1],
            mixed=mixed,
            fewest=int(fewest) if mixed else 0,
            most=most,
            quieter=quieter,
            quietest=quietest[0],
            quietest_db=quietest[1],
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the counts that are not 0, as plain values."""
        return {name: count for name, count in asdict(self).items() if count}

    def notes(self) -> list[str]:
        """Return what a person should know, a line each.

        >>> Levels(mixed=2, fewest=2, most=2).notes()
        ['mixed 2 files of 2 channels; say channel: left, right or loudest to take one of them']
        """
        lines = []
        if self.clipped:
            hold = "1 file holds" if self.clipped == 1 else f"{self.clipped:,} files hold"
            were = "sample was" if self.clipped_samples == 1 else "samples were"
            lines.append(
                f"{hold} samples past full scale; {self.clipped_samples:,} {were} clipped; "
                f"worst: {self.worst}, peak {self.worst_db:+.1f} dBFS"
            )
        if self.mixed:
            count = f"{self.fewest}" if self.fewest == self.most else f"{self.fewest} to {self.most}"
            lines.append(
                f"mixed {_files(self.mixed)} of {count} channels; "
                "say channel: left, right or loudest to take one of them"
            )
        if self.quieter:
            lines.append(
                f"{_files(self.quieter)} lost 6 dB or more when mixed, as where one channel is silent; "
                f"worst: {self.quietest}, {self.quietest_db:.1f} dB"
            )
        return lines


def _files(n: int) -> str:
    return "1 file" if n == 1 else f"{n:,} files"
