"""What a task answers: a few numbers; the data went through the store."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """Say what a task did.

    Parameters
    ----------
    n_utterances, n_quarantined : int
        Utterances in the shard, and how many this task put into quarantine.
    quarantined : tuple of str
        Ids of the first of those.
    audio_s : float
        Audio in the shard, s.
    compute_s, wall_s : float
        Time inside the stage, and of the whole task with reading and writing, s.
    peak_mem_bytes : int
        Largest resident size of the process meanwhile.
    host, worker : str
        Machine, and name of the Dask worker; empty without Dask.
    """

    n_utterances: int
    n_quarantined: int
    quarantined: tuple[str, ...] = ()
    audio_s: float
    compute_s: float
    wall_s: float
    peak_mem_bytes: int
    host: str
    worker: str = ""
