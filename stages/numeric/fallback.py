"""Where a prior would lose: what tells it without a reference, before the first iteration.

A prior may lose on sounds that it was not trained with. Two signs:

- *Mismatch*: a network that knows a sound answers nearly with its mel, as the mel is its input.
- *Inconsistency*: a spectrum that no signal has loses by its projection. That of the start is
  compared with that of the start without a prior, unless it is low by itself.

`python -m benchmarks.priors` measures what these bounds do, on speech and on much else.
"""

from __future__ import annotations

from collections.abc import Callable

# Raise it when what is decided changes. It is in the keys of the nodes that fall back.
FALLBACK_VERSION = 1

# Mismatch of a network's own answer above which its prior is not taken, dB.
MOST_MISMATCH_DB = -10.0

# Inconsistency of a prior's start up to which it is taken without another look, dB. Where frames
# overlap by 75 %, a start on speech has -10 to -11 dB without a prior.
TRUSTED_DB = -11.0

# By how much a prior's start may be the less consistent one, dB.
MARGIN_DB = 0.3


def prior_loses(mismatch_db: float, inconsistency_db: Callable[[], float], plain_db: Callable[[], float]) -> bool:
    """Tell whether an inversion would lose by a prior.

    Parameters
    ----------
    mismatch_db : float
        ``10 log10(||E W**p - M||^2 / ||M||^2)`` of the network's own answer W.
    inconsistency_db, plain_db : callable
        Return ``10 log10(||X - P_C(X)||^2 / ||X||^2)`` of the start X with the prior, and without
        one. Each is called only where it decides.

    >>> prior_loses(-20.0, lambda: -8.0, lambda: -10.0), prior_loses(-20.0, lambda: -9.0, lambda: -7.0)
    (True, False)
    """
    if mismatch_db > MOST_MISMATCH_DB:
        return True
    own_db = inconsistency_db()
    return own_db > TRUSTED_DB and own_db > plain_db() + MARGIN_DB
