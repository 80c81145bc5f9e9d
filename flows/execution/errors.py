"""Errors of runs."""

from __future__ import annotations

from melmill.errors import Error
from melmill.stages.blame import Verdict


class RunFailed(Error):
    """The run ended early. What it computed is stored, and the next run goes on from there."""


class MachineFailed(Error):
    """A machine failed at a task. Unless others agree, no utterance is to blame.

    Parameters
    ----------
    reason : str
        What went wrong, in one line.
    verdict : Verdict
    utterances : tuple of str
        Ids of those that failed, as far as they are known.
    n_utterances : int
        Utterances that the task worked on. 0 for a task that is not over a shard.
    is_whole : bool
        Whether no utterance of the task got through, as far as that is known.
    """

    def __init__(
        self,
        reason: str,
        verdict: Verdict,
        utterances: tuple[str, ...] = (),
        n_utterances: int = 0,
        is_whole: bool = True,
    ) -> None:
        super().__init__(reason, verdict, utterances, n_utterances, is_whole)  # all, so that it can be pickled
        self.reason = reason
        self.verdict = verdict
        self.utterances = utterances
        self.n_utterances = n_utterances
        self.is_whole = is_whole

    def __str__(self) -> str:
        return self.reason
