"""Opinions and voices that networks hear: DNSMOS, PLCMOS, Distill-MOS, speaker similarity."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from melmill.stages.numeric.resample import sinc_resample
from melmill.stages.score.metric import Metric
from melmill.stages.score.networks import distilled, speaker, speechmos
from melmill.stages.score.pair import Pair
from melmill.stages.score.status import Measured, Status

SHORTEST_S = 0.25
"""Shorter signals hold no word to judge."""


def _heard(value: Callable[[Pair], float]) -> Callable[[Pair], Measured]:
    """Return the measurement by a network: its value, unless the estimate is too short."""

    def measure(pair: Pair) -> Measured:
        if pair.estimate_duration_s < SHORTEST_S:
            return Measured.failed(Status.TOO_SHORT)
        return Measured.of(value(pair))

    return measure


def _p835(pair: Pair) -> speechmos.Opinion:
    return speechmos.p835(pair.estimate_at(speechmos.SR))


def _dnsmos(part: str) -> Metric:
    what = {"ovrl": "all of it", "sig": "the speech in it", "bak": "the background in it"}[part]
    return Metric(
        name=f"dnsmos_{part}",
        title=f"DNSMOS {part.upper()}",
        unit="MOS",
        better="higher",
        needs="estimate",
        lowest_sr=speechmos.SR,
        package=speechmos.PACKAGE,
        runtime=speechmos.RUNTIME,
        weights=(speechmos.P835,),
        compute=_heard(lambda pair: float(getattr(pair.once(_p835), part))),
        order={"ovrl": 140, "sig": 141, "bak": 142}[part],
        group="learned",
        says=f"Opinion of listeners by P.835, from 1 to 5, that a network predicts: of {what}. It needs no recording.",
        formula="The network of DNSMOS P.835 on windows of 9.01 s every second at 16 kHz, with its polynomial; the "
        "mean. A shorter signal is repeated. The level is left as it is.",
        limits="It was trained on noisy calls and their enhancement. Vocoders' faults are new to it. "
        "Read it beside the recordings' own score.",
        reference="Reddy, Gopal, Cutler 2022 (DNSMOS P.835); the weights in speechmos",
        cost="About 10 x real time for the three of P.835 together. A signal under 9 s takes as long as one of 9 s.",
    )


DNSMOS_OVRL = _dnsmos("ovrl")
DNSMOS_SIG = _dnsmos("sig")
DNSMOS_BAK = _dnsmos("bak")


def _p808(pair: Pair) -> float:
    return speechmos.p808(pair.estimate_at(speechmos.SR))


DNSMOS_P808 = Metric(
    name="dnsmos_p808",
    title="DNSMOS P.808",
    unit="MOS",
    better="higher",
    needs="estimate",
    lowest_sr=speechmos.SR,
    package=speechmos.PACKAGE,
    runtime=speechmos.RUNTIME,
    weights=(speechmos.P808,),
    compute=_heard(_p808),
    order=143,
    group="learned",
    says="Overall opinion of listeners by P.808 that a network predicts, from 1 to 5. It needs no recording.",
    formula="The network of DNSMOS on log mels of windows of 9.01 s every second at 16 kHz; the mean.",
    limits="It has the limits of the other DNSMOS. It hardly hears level.",
    reference="Reddy, Gopal, Cutler 2021 (DNSMOS); the weights in speechmos",
    cost="About 200 x real time. A signal under 9 s takes as long as one of 9 s.",
)


def _plcmos(pair: Pair) -> float:
    return speechmos.plcmos(np.clip(pair.estimate_at(speechmos.SR), -1.0, 1.0))


PLCMOS = Metric(
    name="plcmos",
    title="PLCMOS",
    unit="MOS",
    better="higher",
    needs="estimate",
    lowest_sr=speechmos.SR,
    package=speechmos.PACKAGE,
    runtime=speechmos.RUNTIME,
    weights=(speechmos.PLC,),
    compute=_heard(_plcmos),
    order=144,
    group="learned",
    says="Opinion on gaps and how well they are concealed, from 1 to 5. It needs no recording.",
    formula="The network PLCMOS v2 on log spectra at 16 kHz, its mean over 15 random raters: those of numpy's seed "
    "0, so that values repeat.",
    limits="Other raters give values 0.06 apart. It was trained on lost packets: read it for dropouts.",
    reference="Diener, Purin, Sootla, Saabas, Aichner, Cutler 2023 (PLCMOS); the weights in speechmos",
    cost="About 20 x real time.",
)


def _distillmos(pair: Pair) -> float:
    return distilled.distillmos(pair.estimate_at(distilled.SR, sinc_resample))


DISTILLMOS = Metric(
    name="distillmos",
    title="Distill-MOS",
    unit="MOS",
    better="higher",
    needs="estimate",
    lowest_sr=distilled.SR,
    package=distilled.PACKAGE,
    weights=(distilled.WEIGHTS,),
    compute=_heard(_distillmos),
    order=145,
    group="learned",
    says="Overall opinion that a small student of XLS-R predicts, from 1 to 5. It needs no recording.",
    formula="The network Distill-MOS v7 on windows of 7.68 s at 16 kHz, each at a peak of 1; the mean. Other rates are "
    "resampled by torchaudio's short sinc, as its own program does.",
    limits="A resampler alone moves it by up to 1.5 from 22.05 to 16 kHz. Compare systems at one rate.",
    reference="Stahl, Gamper 2025 (Distill-MOS); the weights in distillmos",
    cost="About 6 x real time, as windows overlap. A signal under 7.7 s takes as long as one of 7.7 s.",
)


def _similarity(pair: Pair) -> float:
    reference, estimate = (speaker.embedding(y) for y in pair.whole(speaker.SR))
    return float(np.dot(reference.astype(np.float64), estimate))


SPEAKER_SIMILARITY = Metric(
    name="speaker_similarity",
    title="Speaker similarity",
    better="higher",
    decimals=3,
    needs="signals",
    lowest_sr=speaker.SR,
    package=speaker.PACKAGE,
    weights=(speaker.WEIGHTS,),
    compute=_heard(_similarity),
    order=150,
    group="learned",
    says="How alike the voices are to a network that verifies speakers: 1 for the same recording.",
    formula="Cosine of the two embeddings of Resemblyzer at 16 kHz: 40 mel bands of power, parts of 1.6 s, 1.3 a "
    "second. Pauses are not cut out.",
    limits="Other networks for speakers have other scales. Copies by a vocoder lie near 1, so differences are small; "
    "two speakers of one sex may reach 0.8.",
    reference="Wan, Wang, Papir, Moreno 2018 (GE2E); the weights in Resemblyzer",
    cost="About 90 x real time for both signals.",
)
