"""What a plan tells an ingest stage of the catalogue: a mapping that makes few utterances."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from melmill.storage.utterance import Utterance


class Known(Mapping[str, Utterance]):
    """The utterances of a catalogue by path, which are made when one is asked for.

    A corpus may have more than fit into memory. So a stage does best to `keep` files by size and
    time, and to ask for the utterances of none.
    """

    @abstractmethod
    def keep(self, paths: Sequence[str], sizes_bytes: Sequence[int], mtimes_ns: Sequence[int]) -> NDArray[np.bool_]:
        """Take files into the discovery as they are catalogued, if they have the same size and time.

        Returns
        -------
        (n_files,) ndarray of bool
            Which were taken. The others are new, have changed, or are to be measured anew.
        """
