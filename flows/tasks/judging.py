"""Tell a machine's failure from an utterance's: by the exception, and by who else fails alike."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping

from melmill.flows.execution.errors import MachineFailed
from melmill.flows.tasks.task import Receipt
from melmill.stages.blame import Blame, Verdict, blame, culprit, headline
from melmill.stages.contract import Outcome, Rejected
from melmill.stages.errors import FileChanged
from melmill.stages.task_context import current_utterance
from melmill.storage.errors import SourceError, StoreError, StoreFull, StoreMissing, StoreUnwritable

# Errors after which no task can succeed, on whatever machine.
FATAL = (StoreFull, StoreUnwritable, FileChanged)

# What differs between the messages of one failure: names, numbers and paths.
_VARYING = re.compile(r"'[^']*'|\"[^\"]*\"|0x[0-9a-fA-F]+|\S*/\S+|[-+]?\d[\d.,:e+-]*")

# Length of the messages that are compared.
_COMPARED = 300

_ALIKE = "check that machine, and the stage by itself on one of them"


def run_judged(run: Callable[[], Receipt]) -> Receipt:
    """Run a job, and return its receipt.

    Raises
    ------
    MachineFailed
        No utterance is to blame, or it is not known yet which one is.
    """
    try:
        return run()
    except Exception as error:
        failure = machine_failure(error, current_utterance())
        if failure is None or failure is error:
            raise
        raise failure from error


def machine_failure(error: Exception, utterance_id: str = "") -> MachineFailed | None:
    """Return what an exception of a task says against its machine; None for nothing.

    Parameters
    ----------
    error : Exception
    utterance_id : str
        The utterance that the task worked on. Empty for none.
    """
    if isinstance(error, MachineFailed):
        return error
    verdict = _verdict(error)
    if verdict.blame < Blame.LIKELY_MACHINE:
        return None
    reason = headline(culprit(error)) if verdict.remedy else str(error)
    suspects = (utterance_id,) if utterance_id else ()
    return MachineFailed(reason, verdict, suspects, is_whole=not suspects)


def _verdict(error: Exception) -> Verdict:
    cause = error.__cause__
    is_local = isinstance(error, StoreUnwritable) and isinstance(cause, OSError) and bool(cause.errno)
    if is_local or isinstance(error, StoreMissing | SourceError):
        # A disk of the store or the corpus, as this machine sees it. Others may see it otherwise. The
        # message says what to do.
        return Verdict(blame=Blame.MACHINE)
    if isinstance(error, (StoreError, *FATAL)):
        return Verdict(blame=Blame.LIKELY_UTTERANCE)
    return blame(error)


def judge(outcomes: Mapping[str, Outcome], suspects: Collection[str], *, trusted: bool) -> None:
    """Check that the rejected utterances of a shard are to blame themselves.

    Parameters
    ----------
    outcomes : mapping of str to Outcome
        By utterance. All that the task tried.
    suspects : collection of str
        Utterances that failed on another machine too.
    trusted : bool
        Whether this machine is known to work. Then whatever fails is to blame itself.

    Raises
    ------
    MachineFailed
        The machine may be to blame.
    """
    if trusted:
        return
    rejected = {name: one.rejected for name, one in outcomes.items() if one.rejected is not None}
    is_whole = len(rejected) == len(outcomes)
    machines = {name: one for name, one in rejected.items() if one.verdict.blame >= Blame.LIKELY_MACHINE}
    if machines and (is_whole or not machines.keys() <= set(suspects)):
        first = max(machines.values(), key=lambda one: one.verdict.blame)
        raise MachineFailed(_line(first), first.verdict, tuple(machines), len(outcomes), is_whole)
    unclear = {name: one for name, one in rejected.items() if one.verdict.blame is Blame.LIKELY_UTTERANCE}
    if unclear and is_whole and len({_shape(name, one) for name, one in unclear.items()}) == 1:
        verdict = Verdict(blame=Blame.LIKELY_UTTERANCE, remedy=_ALIKE)
        first = next(iter(unclear.values()))
        raise MachineFailed(_line(first), verdict, tuple(unclear), len(outcomes), is_whole)


def _line(rejected: Rejected) -> str:
    return rejected.reason.strip().partition("\n")[0]


def _shape(utterance_id: str, rejected: Rejected) -> str:
    unnamed = re.sub(rf"(?<!\w){re.escape(utterance_id)}(?!\w)", "#", rejected.reason)
    return _VARYING.sub("#", unnamed)[:_COMPARED]
