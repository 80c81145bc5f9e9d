"""What a run's names mean: the product of every node, published once and never changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from melmill.storage.description import Address
from melmill.storage.sealed import sealed, unsealed


@dataclass(frozen=True, kw_only=True)
class NodeEntry:
    """Say where the product of a node is and what it holds.

    Parameters
    ----------
    folder, key : str
        It lies in ``<store>/<folder>/<key>``.
    kind : str
        ``utterances``, ``waveform``, ``mel``, ``scores`` or ``report``.
    stage : str
        What made it.
    catalogues : tuple of (folder, key)
        Of the corpora whose utterances it has; a report may have several.
    scored : str or None
        Node whose waveforms its scores are about.
    """

    folder: str
    key: str
    kind: str
    stage: str
    catalogues: tuple[Address, ...]
    scored: str | None = None


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Say which products the names of a pipeline meant in one run.

    Parameters
    ----------
    run_id, project : str
    started_at : str
        ISO 8601, UTC.
    nodes : mapping of str to NodeEntry
        By name of the node, in the pipeline's order.
    pipeline : mapping
        The pipeline's document as plain values.
    """

    run_id: str
    project: str
    started_at: str
    nodes: Mapping[str, NodeEntry]
    pipeline: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """Return the manifest as the bytes of its file."""
        return sealed(asdict(self))

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """Return the manifest of a file's bytes; raise ValueError, TypeError or KeyError where they are none."""
        fields = unsealed(data)
        fields["nodes"] = {name: _entry(entry) for name, entry in fields["nodes"].items()}
        return cls(**fields)


def _entry(fields: Mapping[str, Any]) -> NodeEntry:
    catalogues = tuple((folder, key) for folder, key in fields["catalogues"])
    return NodeEntry(**{**fields, "catalogues": catalogues})
