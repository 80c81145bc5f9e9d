"""What all layers share: files, utterances, shards of utterances, and what stored values mean."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ARCHIVE_SUFFIXES = (".tar", ".zip", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")
"""Names of archives that are read in place end so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """A file of a corpus: path relative to its root, with ``/``, size, and modification time.

    `problem` says why it can't be taken, ``""`` if it can. Then it may also be a folder, and `path`
    is fit to be shown only.
    """

    path: str
    size_bytes: int
    mtime_ns: int
    problem: str = ""


class Labels(NamedTuple):
    """Hold what a corpus says of an utterance besides its audio. It may be mended at any time.

    Parameters
    ----------
    text, speaker_id, sex, speaker_name : str
        Empty where the corpus says nothing.
    text_stamp : int
        Number that tells the state of the files that say so. 0: unknown.
    """

    text: str
    speaker_id: str
    sex: str
    speaker_name: str
    text_stamp: int = 0


class Utterance(NamedTuple):
    """One recording as the catalogue knows it, before anything is decoded.

    Two are equal if all but their `text_stamp` is. A named tuple is made in a third of the time that a
    frozen dataclass takes, and plans make millions. Name the fields all the same.

    Parameters
    ----------
    utterance_id : str
        Name in its corpus, unique in a catalogue (``84-121123-0000``).
    subset, speaker_id, chapter_id, text : str
        What the corpus says of it, empty where it says nothing.
    path : str
        Source file, relative to the corpus root, with ``/``.
    size_bytes, mtime_ns : int
        Of the source file when it was catalogued.
    sex, speaker_name : str
        Of the speaker, empty where the corpus does not say.
    source_sr, source_n_samples : int
        What the file's header claims (Hz, samples), 0 where it can't be read or is not credible.
    sr, n_samples : int
        Rate (Hz) and length (samples) in the store. ``n_samples`` is 0 where the header is not
        credible.
    text_stamp : int
        See `Labels`.
    """

    utterance_id: str
    subset: str
    speaker_id: str
    chapter_id: str
    text: str
    path: str
    size_bytes: int
    mtime_ns: int
    source_sr: int
    source_n_samples: int
    sr: int
    n_samples: int
    sex: str = ""
    speaker_name: str = ""
    text_stamp: int = 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Utterance) and self[:-1] == other[:-1]

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self[:-1])

    @property
    def labels(self) -> Labels:
        """What the corpus says of it."""
        return Labels(self.text, self.speaker_id, self.sex, self.speaker_name, self.text_stamp)

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.n_samples / self.sr


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A group of utterances: the unit of work, of storage and of resume.

    Parameters
    ----------
    index : int
        Number of the shard in its catalogue.
    slot, n_slots : int
        First Zarr shard that it fills in every array, and how many it fills. There are several only
        for an utterance longer than ``shard_duration_s``.
    utterances : tuple of Utterance
        In storage order. They decide where each one's data lie.
    retired : frozenset of str
        Ids of those that the corpus has no more, or has otherwise. Nothing is made of them.
    """

    index: int
    slot: int
    n_slots: int
    utterances: tuple[Utterance, ...]
    retired: frozenset[str] = frozenset()

    @property
    def current(self) -> tuple[Utterance, ...]:
        """The utterances that are not retired, in storage order."""
        return tuple(u for u in self.utterances if u.utterance_id not in self.retired)

    @property
    def duration_s(self) -> float:
        """Length of its utterances that are not retired, in seconds."""
        return sum(u.duration_s for u in self.current)


def shortened(name: str, n_bytes: int) -> str:
    """Return the beginning of a name with a hash of the whole, together of `n_bytes` at most.

    >>> shortened("x" * 300, 20)
    'xxxxxxxxxxx-0d4e2ca9'
    """
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name.encode()[: n_bytes - 9].decode(errors='ignore')}-{digest}"


def resampled_length(n_samples: int, sr: int, new_sr: int) -> int:
    """Return the length that `n_samples` at `sr` Hz have at `new_sr` Hz (rounded up).

    >>> resampled_length(16001, 16000, 8000)
    8001
    """
    return -(-n_samples * new_sr // sr)


def silence(mel: Mapping[str, Any]) -> float | NDArray[np.float64]:
    """Return the value of digital silence in a mel of the given spec.

    It is one number, or a column ``(n_mels, 1)`` where bands have numbers of their own.

    Parameters
    ----------
    mel : mapping
        Fields of the mel spec. Without `log`, all compressions map 0 to 0.

    >>> silence({"log": "log10", "floor": 1e-5, "power": 1.0, "shift": 4.0, "scale": 0.5, "clip": None})
    -0.5
    """
    value = 0.0
    if mel["log"] is not None:
        # The difference that a factor of ten in the mel makes.
        decade = {"ln": math.log(10), "log10": 1.0, "db": 20.0 / mel["power"]}[mel["log"]]
        value = decade * math.log10(mel["floor"])
    low, high = mel["clip"] or (-math.inf, math.inf)
    value = (value + mel["shift"]) * mel["scale"]
    # Specs of bands without such numbers have no such fields.
    mean, std = (mel.get(name) for name in ("band_mean", "band_std"))
    if mean is None and std is None:
        return float(min(max(value, low), high))
    import numpy as np  # here, as most readers of this module need none of it

    column = (value - np.array(mean or [0.0])) / np.array(std or [1.0])
    return np.broadcast_to(np.clip(column, low, high), (mel["n_mels"],))[:, np.newaxis]
