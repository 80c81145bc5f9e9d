"""Keys: what a node's results depend on, as one fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

# Raised whenever the layout of stored products changes, so that old and new are never mixed.
LAYOUT_VERSION = 1

KEY_LENGTH = 20


def node_key(
    *,
    stage: str,
    version: int,
    identity: Mapping[str, Any],
    inputs: Mapping[str, Sequence[tuple[str, str]]],
    shard_duration_s: float | None,
) -> str:
    """Return the key of a node: 20 hexadecimal digits of a SHA-256.

    Parameters
    ----------
    stage : str
    version : int
        The stage's own, raised whenever its results change.
    identity : mapping
        Parameters that decide the result.
    inputs : mapping of str to sequence of (str, str)
        Folder and key of the nodes at each port.
    shard_duration_s : float or None
        How utterances are packed: decides the shards of an ingest node, None elsewhere (inputs' keys hold it).
    """
    facts = {
        "layout": LAYOUT_VERSION,
        "stage": stage,
        "version": version,
        "identity": identity,
        "inputs": {port: [list(pair) for pair in pairs] for port, pairs in inputs.items()},
        "shard_duration_s": shard_duration_s,
    }
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def utterance_seed(utterance_id: str) -> int:
    """Return the 63-bit seed of an utterance, a function of its id alone."""
    return int.from_bytes(hashlib.sha256(utterance_id.encode()).digest()[:8], "big") >> 1
