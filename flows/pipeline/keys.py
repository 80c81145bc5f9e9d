"""Keys: a fingerprint of everything that decides a node's results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from melmill.stages.contract import Stage

# Raised whenever the layout of stored products changes, so that old and new are never mixed.
LAYOUT_VERSION = 1

KEY_LENGTH = 20

# What a key holds in place of a word (``start: pghi``) if a node is connected to the port.
_CONNECTED = "node"


def key_parameters(stage: Stage, connected: Collection[str]) -> dict[str, Any]:
    """Return the parameters that decide a stage's results, as plain values.

    Parameters
    ----------
    stage : Stage
    connected : collection of str
        Ports that have nodes. A word of such a port decides nothing.
    """
    return {
        name: _CONNECTED if name in connected and stage.inputs[name].words else value
        for name, value in stage.identity().items()
    }


def node_key(
    *,
    stage: str,
    version: int,
    parameters: Mapping[str, Any],
    inputs: Mapping[str, Sequence[tuple[str, str]]],
    shard_duration_s: float | None,
) -> str:
    """Return the key of a node: 20 hexadecimal digits of a SHA-256.

    Parameters
    ----------
    stage : str
    version : int
        Version of the stage, raised whenever its results change.
    parameters : mapping
        Those that decide the result; see `key_parameters`.
    inputs : mapping of str to sequence of (str, str)
        Folder and key of the nodes at each port.
    shard_duration_s : float or None
        How utterances are packed, for an ingest node. None for all others: the keys of their inputs hold it.
    """
    facts = {
        "layout": LAYOUT_VERSION,
        "stage": stage,
        "version": version,
        "identity": parameters,
        "inputs": {port: [list(pair) for pair in pairs] for port, pairs in inputs.items()},
        "shard_duration_s": shard_duration_s,
    }
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def utterance_seed(utterance_id: str) -> int:
    """Return the 63-bit seed of an utterance, a function of its id alone."""
    return int.from_bytes(hashlib.sha256(utterance_id.encode()).digest()[:8], "big") >> 1


def is_drawn(utterance_id: str, share: float) -> bool:
    """Return whether an utterance is of a sample that holds about such a share of a corpus.

    A larger share holds the smaller one's utterances too.

    >>> is_drawn("84-121123-0000", 1.0)
    True
    """
    return utterance_seed(utterance_id) < share * 2.0**63
