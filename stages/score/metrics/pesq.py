"""PESQ, wide band and narrow band."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from melmill.stages.score.metric import Metric
from melmill.stages.score.status import Measured, Status

if TYPE_CHECKING:
    from melmill.stages.score.p862.tables import Mode

RATES: Mapping[Mode, int] = MappingProxyType({"wb": 16000, "nb": 8000})
"""Rate in Hz at which each mode is computed: P.862.2 at 16 kHz, P.862 at 8 kHz."""


def pesq(
    reference: NDArray[np.float32 | np.float64], estimate: NDArray[np.float32 | np.float64], mode: Mode
) -> Measured:
    """Return the PESQ of an estimate as MOS-LQO, or the status that says why it has none.

    Parameters
    ----------
    reference, estimate : ndarray of float, shape (n_samples,)
        At the mode's rate (`RATES`). The lengths may differ.
    mode : {"wb", "nb"}
        Wide band (P.862.2) or narrow band (P.862 mapped by P.862.1).

    Returns
    -------
    Measured
        Statuses without a value: `no_utterances` (the reference has no 200 ms of speech) and
        `too_short` (under 0.25 s).
    """
    from melmill.stages.score.p862.mos import SHORTEST_S, mos_lqo  # planning needs none of it

    sr = RATES[mode]
    if min(reference.size, estimate.size) < SHORTEST_S * sr:
        return Measured.failed(Status.TOO_SHORT)
    score = mos_lqo(reference, estimate, sr, mode)
    return Measured.failed(Status.NO_UTTERANCES) if score is None else Measured.of(score)


PESQ_WB = Metric(
    name="pesq_wb",
    title="PESQ wide band",
    unit="MOS-LQO",
    better="higher",
    needs="signals",
    lowest_sr=RATES["wb"],
    compute=lambda pair: pesq(*pair.at(RATES["wb"]), "wb"),
    version=2,
    order=10,
    says="Perceived quality of speech at 16 kHz by a model of listeners, from about 1 (bad) to 4.64 (identical).",
    formula="P.862.2 at 16 kHz. In 99.5 % of pairs it agrees to 0.001 with the ITU's reference code, as the `pesq` "
    "package has it.",
    limits="It was made for telephone codecs and never validated on generated speech. It punishes shifts in time that "
    "no listener hears. Recordings under 0.25 s or without 200 ms of speech have no value.",
    reference="ITU-T P.862.2 (2007)",
)

PESQ_NB = Metric(
    name="pesq_nb",
    title="PESQ narrow band",
    unit="MOS-LQO",
    better="higher",
    needs="signals",
    lowest_sr=RATES["nb"],
    compute=lambda pair: pesq(*pair.at(RATES["nb"]), "nb"),
    version=2,
    order=20,
    says="Perceived quality of the telephone band at 8 kHz, from about 1 (bad) to 4.55 (identical).",
    formula="P.862 with the mapping of P.862.1, at 8 kHz. It agrees with the reference code in the same way.",
    limits="It has the limits of wide-band PESQ, and ignores everything above 4 kHz.",
    reference="ITU-T P.862 (2001), mapped by P.862.1 (2003)",
)
