"""Models of hearing by other packages: ViSQOL and Zimtohrli."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from melmill.stages.score.metric import Metric
from melmill.stages.score.pair import Pair
from melmill.stages.score.status import Measured, Status

SHORTEST_S = 0.5
"""Shorter signals fill no patch of ViSQOL's."""

_SPEECH_SR, _AUDIO_SR = 16000, 48000


def _visqol(mode: str, sr: int, pair: Pair) -> Measured:
    if pair.at(sr)[0].size < SHORTEST_S * sr:
        return Measured.failed(Status.TOO_SHORT)
    reference, estimate = (y.astype(np.float64) for y in pair.whole(sr))
    return Measured.of(float(_visqol_of(mode).measure_from_arrays(reference, estimate, sr).moslqo))


@lru_cache(maxsize=2)
def _visqol_of(mode: str) -> Any:  # noqa: ANN401 - an object of the package
    import visqol

    api = visqol.VisqolApi()
    # Without its network for speech the package would take an older polynomial, up to 3 higher.
    api.create(mode=mode, use_lattice_model=mode == "speech")
    return api


VISQOL = Metric(
    name="visqol",
    title="ViSQOL speech",
    unit="MOS-LQO",
    better="higher",
    needs="signals",
    lowest_sr=_SPEECH_SR,
    package="visqol",
    runtime="ai_edge_litert",
    compute=lambda pair: _visqol("speech", _SPEECH_SR, pair),
    order=40,
    says="Perceived quality of speech by the similarity of spectrograms as the ear has them, from 1 to 5.",
    formula="ViSQOL 3.3.3 in speech mode with its lattice network, by the package visqol-python, at 16 kHz. It aligns "
    "the signals and their patches itself.",
    limits="It was made for calls. Its scale is not that of the audio mode, nor of the older polynomial of the speech "
    "mode.",
    reference="Chinen, Lim, Skoglund, Gureev, O'Gorman, Hines 2020 (ViSQOL v3)",
    cost="About 15 x real time.",
)

VISQOL_AUDIO = Metric(
    name="visqol_audio",
    title="ViSQOL audio",
    unit="MOS-LQO",
    better="higher",
    needs="signals",
    lowest_sr=_SPEECH_SR,
    package="visqol",
    runtime="libsvm",
    compute=lambda pair: _visqol("audio", _AUDIO_SR, pair),
    order=41,
    says="Perceived quality of audio of the full band, from 1 to 4.73.",
    formula="ViSQOL 3.3.3 in audio mode with its support vector regression, by the package visqol-python. Signals are "
    "brought to 48 kHz.",
    limits="It was trained on codecs for music. Speech at 16 kHz has nothing above 8 kHz to compare, so its values lie "
    "high and close together.",
    reference="Chinen, Lim, Skoglund, Gureev, O'Gorman, Hines 2020 (ViSQOL v3)",
    cost="About 6 x real time.",
)


def _zimtohrli(pair: Pair) -> Measured:
    import zimtohrli

    if pair.at(_AUDIO_SR)[0].size < SHORTEST_S * _AUDIO_SR:
        return Measured.failed(Status.TOO_SHORT)
    return Measured.of(float(zimtohrli.Pyohrli().distance(*pair.whole(_AUDIO_SR))))


def _zimtohrli_mos(pair: Pair) -> Measured:
    import zimtohrli

    measured = pair.once(_zimtohrli)
    return measured if measured.status is not Status.OK else Measured.of(zimtohrli.mos_from_zimtohrli(measured.value))


ZIMTOHRLI = Metric(
    name="zimtohrli",
    title="Zimtohrli",
    better="lower",
    decimals=4,
    needs="signals",
    package="zimtohrli",
    compute=lambda pair: pair.once(_zimtohrli),
    order=42,
    says="Distance that a model of the cochlea hears between two signals: 0 if they are identical.",
    formula="The distance of Zimtohrli 0.2, by its package. Signals are brought to 48 kHz.",
    limits="It was made for differences that are just noticeable, so it is sharp near transparency. It also hears a "
    "change of level.",
    reference="Alakuijala, Bruse, Boukortt, Coldenhoff, Cernak 2025 (Zimtohrli)",
    cost="About 40 x real time at 16 kHz, which it brings to 48 kHz.",
)

ZIMTOHRLI_MOS = Metric(
    name="zimtohrli_mos",
    title="Zimtohrli MOS",
    unit="MOS",
    better="higher",
    needs="signals",
    package="zimtohrli",
    compute=_zimtohrli_mos,
    order=43,
    says="`zimtohrli` on a scale of opinions, from 1 to 5.",
    formula="The package's own mapping of its distance.",
    limits="It orders systems as `zimtohrli` does.",
    reference="Alakuijala, Bruse, Boukortt, Coldenhoff, Cernak 2025 (Zimtohrli)",
    cost="As `zimtohrli`, computed once for both.",
)
