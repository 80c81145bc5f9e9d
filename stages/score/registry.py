"""The metrics: what each is called, measures and cannot tell."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from melmill.stages.numeric.errors import ParameterError


@dataclass(frozen=True, kw_only=True)
class Metric:
    """Describe a metric.

    Parameters
    ----------
    name : str
        What pipeline.yaml calls it.
    column : str
        Its column in tables of scores; ``status_<column>`` stands beside it.
    title : str
        For headings and axes, without the unit.
    unit : str
        ``"dB"``, ``"MOS-LQO"``, ``"Np"`` (neper) or empty where it has none.
    better : {"higher", "lower"}
        Which way is better.
    says : str
        What it measures, in a sentence.
    limits : str
        What it can't tell, in a sentence or two.
    reference : str
        Where it is defined.
    """

    name: str
    column: str
    title: str
    unit: str
    better: Literal["higher", "lower"]
    says: str
    limits: str
    reference: str

    @property
    def label(self) -> str:
        """Title with unit.

        >>> metric("scm").label
        'SCM [dB]'
        """
        return f"{self.title} [{self.unit}]" if self.unit else self.title


_ALL = (
    Metric(
        name="pesq_wb",
        column="pesq_wb",
        title="PESQ wide band",
        unit="MOS-LQO",
        better="higher",
        says="Perceived quality of 16 kHz speech by a model of listeners, from about 1 (bad) to 4.64 (identical).",
        limits="Made for telephone codecs: it punishes shifts in time that a listener does not hear, and it was never "
        "validated on generated speech. Both signals are scaled together. No value for clips under 0.25 s, for "
        "references without 200 ms of speech, or with more than 50 bursts of speech.",
        reference="ITU-T P.862.2 (2007)",
    ),
    Metric(
        name="pesq_nb",
        column="pesq_nb",
        title="PESQ narrow band",
        unit="MOS-LQO",
        better="higher",
        says="Perceived quality of the telephone band at 8 kHz, from about 1 (bad) to 4.55 (identical).",
        limits="As wide-band PESQ, and deaf above 4 kHz.",
        reference="ITU-T P.862 (2001), mapped by P.862.1 (2003)",
    ),
    Metric(
        name="stoi",
        column="stoi",
        title="STOI",
        unit="",
        better="higher",
        says="Intelligibility as the mean correlation of short third-octave envelopes up to 4.3 kHz; 1 is identical.",
        limits="Near 1 for any good reconstruction, so it separates bad methods only. Needs 0.4 s of speech.",
        reference="Taal, Hendriks, Heusdens, Jensen, IEEE TASLP 19(7), 2011",
    ),
    Metric(
        name="estoi",
        column="estoi",
        title="ESTOI",
        unit="",
        better="higher",
        says="Intelligibility as the correlation of spectro-temporal patterns of 0.4 s up to 4.3 kHz; 1 is identical.",
        limits="Hears envelopes only: buzz and phase artefacts above 4.3 kHz go unnoticed. Needs 0.4 s of speech.",
        reference="Jensen, Taal, IEEE/ACM TASLP 24(11), 2016",
    ),
    Metric(
        name="scm",
        column="scm_db",
        title="SCM",
        unit="dB",
        better="lower",
        says="How far the mel spectrogram of the reconstruction is from the one it was made from; 0 dB is silence.",
        limits="A distance on the linear mel, ruled by its loudest bands: it says how well the inversion was solved, "
        "not how it sounds. Comparable for one mel only.",
        reference="Masuyama, Ueno, Ono 2024, eq. 21",
    ),
    Metric(
        name="sc",
        column="sc_db",
        title="SC",
        unit="dB",
        better="lower",
        says="How far the magnitude spectrogram of the reconstruction is from the original's; 0 dB is silence.",
        limits="Ruled by the loudest bins; details that the mel does not hold can't be won back.",
        reference="Masuyama, Ueno, Ono 2024, eq. 22",
    ),
    Metric(
        name="lsd",
        column="lsd_db",
        title="LSD",
        unit="dB",
        better="lower",
        says="Root mean square difference of the log spectra in a frame, averaged over frames.",
        limits="Quiet and loud bins count alike down to -100 dB of full scale, so noise between words rules it.",
        reference="Gray, Markel, IEEE TASSP 24(5), 1976",
    ),
    Metric(
        name="mel_mae",
        column="mel_mae",
        title="Log-mel error",
        unit="Np",
        better="lower",
        says="Mean absolute difference of the natural logs of the mels, what neural vocoders are trained on.",
        limits="Quiet bands count as much as loud ones, above a floor of 1e-5. Comparable for one mel only.",
        reference="Kong, Kim, Bae 2020 (HiFi-GAN), eq. 3",
    ),
    Metric(
        name="mcd",
        column="mcd_db",
        title="MCD",
        unit="dB",
        better="lower",
        says="Difference of the spectral envelopes, as 13 cepstral coefficients of the log mel without the zeroth.",
        limits="Computed from mels, frame by frame without time warping, so it is not comparable with values from "
        "other front ends; deaf to level, pitch and phase.",
        reference="Kubichek 1993",
    ),
    Metric(
        name="si_sdr",
        column="si_sdr_db",
        title="SI-SDR",
        unit="dB",
        better="higher",
        says="Power of the reference's part in the waveform over that of the rest.",
        limits="Compares waveforms: a perfect-sounding reconstruction with another phase scores far below 0 dB.",
        reference="Le Roux, Wisdom, Erdogan, Hershey, ICASSP 2019",
    ),
)

METRICS: Mapping[str, Metric] = MappingProxyType({metric.name: metric for metric in _ALL})
"""All metrics by name, in the order of tables."""

BY_COLUMN: Mapping[str, Metric] = MappingProxyType({metric.column: metric for metric in _ALL})
"""All metrics by the name of their column."""


def metric(name: str) -> Metric:
    """Return the metric that pipeline.yaml calls `name`, or whose column it is.

    Raises
    ------
    ParameterError
        There is none; the message names the nearest.

    Examples
    --------
    >>> metric("scm_db").name
    'scm'
    """
    found = METRICS.get(name) or BY_COLUMN.get(name)
    if found is not None:
        return found
    near = difflib.get_close_matches(name, METRICS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ParameterError("metrics", f"has no metric {name!r}{hint} (metrics: {', '.join(METRICS)})")


def status_column(column: str) -> str:
    """Return the name of the column that holds a metric's status."""
    return f"status_{column}"
