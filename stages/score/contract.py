"""The contract of a stage that compares two corpora: which of their utterances belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from melmill.stages.contract import Product, Stage
from melmill.storage.utterance import Utterance


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """Say which utterances of another corpus belong to those of the stage's own.

    Parameters
    ----------
    partners : mapping of str to str
        Ids of the other corpus by ids of the own one. Utterances without a partner are left out.
    notes : tuple of str
        What a person should know of the pairs, a line each: what has no partner, and what differs.
    """

    partners: Mapping[str, str]
    notes: tuple[str, ...] = ()


@runtime_checkable
class PairingStage(Stage, Protocol):
    """A stage one of whose ports takes utterances of another corpus; see `Input.other_corpus`."""

    @property
    def pairs(self) -> str | None:
        """Path or URL of a table of the pairs; None: ids and file names tell."""
        ...

    def with_pairs(self, data: bytes) -> Stage:
        """Return the stage that knows the bytes of its table, which its identity depends on.

        Raises
        ------
        StageError
            They are no table of pairs.
        """
        ...

    def pair(
        self,
        utterances: Sequence[Utterance],
        others: Sequence[Utterance],
        inputs: Mapping[str, Product],
        table: bytes | None,
    ) -> Pairing:
        """Return which of the other corpus' utterances belongs to which of its own.

        Parameters
        ----------
        utterances, others : sequence of Utterance
            Of the corpus that its results are about, and of the other one.
        inputs : mapping of str to Product
            Product at each port.
        table : bytes or None
            Content of the file `pairs`.

        Raises
        ------
        StageError
            No utterance has a partner, or it is open which one is meant.
        """
        ...
