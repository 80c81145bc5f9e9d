"""What a plan tells an ingest stage of the catalogue: a mapping that makes few utterances."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from melmill.storage.utterance import Labels, SourceFile, Utterance


class KeptFiles(NamedTuple):
    """Which of some files are as they are catalogued, and what the catalogue says of them.

    Parameters
    ----------
    kept : (n_files,) ndarray of bool
    has_text : (n_files,) ndarray of bool
        Only where a file is kept.
    source_sr : (n_files,) ndarray of int64
        Hz, 0 for a file that claims no rate. Only where a file is kept.
    """

    kept: NDArray[np.bool_]
    has_text: NDArray[np.bool_]
    source_sr: NDArray[np.int64]


class Known(Mapping[str, Utterance]):
    """The utterances of a catalogue by path, which are made when one is asked for.

    A corpus may have more than fit into memory. So a stage does best to keep files by size and time,
    and to ask for the utterances of few.
    """

    @abstractmethod
    def keep(self, paths: Sequence[str], sizes_bytes: Sequence[int], mtimes_ns: Sequence[int]) -> NDArray[np.bool_]:
        """Take files into the discovery as they are catalogued, if they have the same size and time.

        Returns
        -------
        (n_files,) ndarray of bool
            Which were taken. The others are new, have changed, or are to be measured anew.
        """

    @abstractmethod
    def keep_labelled(self, files: Sequence[SourceFile], state_of: Callable[[int], int]) -> KeptFiles:
        """Take files as `keep` does, if the corpus also says of them what it said.

        Parameters
        ----------
        files : sequence of SourceFile
        state_of : callable
            Returns the `label_state` of one of them by its index. It is asked for those alone that
            have the same size and time.
        """

    @abstractmethod
    def utterances(self, paths: Sequence[str]) -> list[Utterance | None]:
        """Make the utterances of some files; None for what is not in the mapping."""


def label_state(utterance_id: str, labels: Labels) -> int:
    """Return a number that tells whether what a corpus says of an utterance is as it was.

    It is of use in one process alone. Where the state of the files is known that say it, the labels
    do not matter.
    """
    return hash((utterance_id, labels.text_stamp) if labels.text_stamp else (utterance_id, *labels))


def utterances_of(known: Mapping[str, Utterance], paths: Sequence[str]) -> list[Utterance | None]:
    """Return the utterances of some files; None for those that are not known."""
    return known.utterances(paths) if isinstance(known, Known) else [known.get(path) for path in paths]
