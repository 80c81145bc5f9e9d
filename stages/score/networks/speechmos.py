"""DNSMOS and PLCMOS: predictions of listeners' opinions, by the networks in the package speechmos.

Reddy, Gopal, Cutler, "DNSMOS P.835", ICASSP 2022, and "DNSMOS", ICASSP 2021; Diener et al., "PLCMOS",
Interspeech 2023. Nothing of the package is imported: onnxruntime computes its networks.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from melmill.stages.score.networks.weights import packaged

Floats = NDArray[np.float32]

PACKAGE, RUNTIME = "speechmos", "onnxruntime"
P835, P808, PLC = "dnsmos_models/sig_bak_ovr.onnx", "dnsmos_models/model_v8.onnx", "plcmos_models/plcmos_v2.onnx"

SR = 16000
"""Rate that the networks hear, Hz."""

RATERS = 15
"""Random raters that PLCMOS averages over, the first of numpy's legacy generator with seed 0."""

_WINDOW_S = 9.01
_WINDOW = int(_WINDOW_S * SR)
_SIG = np.array([-0.08397278, 1.22083953, 0.0052439])
_BAK = np.array([-0.13166888, 1.60915514, -0.39604546])
_OVRL = np.array([-0.06766283, 1.11546468, 0.04602535])


class Opinion(NamedTuple):
    """DNSMOS by P.835: of the speech, of the background and of both, from 1 to 5."""

    sig: float
    bak: float
    ovrl: float


def p835(y: Floats) -> Opinion:
    """Return the three scores of a signal ``(n_samples,)`` at 16 kHz, the means over its windows."""
    raw = _run(P835, input_1=_windows(y))[0].astype(np.float64)
    fitted = (np.polyval(fit, raw[:, i]) for i, fit in enumerate((_SIG, _BAK, _OVRL)))
    return Opinion(*(float(np.mean(values)) for values in fitted))


def p808(y: Floats) -> float:
    """Return the score by P.808 of a signal ``(n_samples,)`` at 16 kHz, the mean over its windows."""
    import librosa

    features = []
    for window in _windows(y):
        M = librosa.feature.melspectrogram(y=window[:-160], sr=SR, n_fft=321, hop_length=160, n_mels=120)
        features.append((librosa.power_to_db(M, ref=np.max).T + 40.0) / 40.0)
    return float(np.mean(_run(P808, input_1=np.asarray(features, dtype=np.float32))[0]))


def plcmos(y: Floats) -> float:
    """Return the score of a signal ``(n_samples,)`` at 16 kHz, the mean over `RATERS`."""
    hop, n_fft = 256, 512
    n_frames = -(-(y.size + hop) // hop)
    padded = np.zeros((n_frames + 1) * hop, dtype=np.float64)
    padded[hop : hop + y.size] = y
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop] * np.hamming(n_fft + 1)[:-1]
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    quietest = power[power > 0].min()
    log_power = np.log(np.where(power > 0, power, quietest * 10.0**-12.0))
    features = np.asarray(log_power / 20.0, dtype=np.float32)[np.newaxis, np.newaxis]
    raters = np.random.RandomState(0).normal(size=(RATERS, 1, 64)).astype(np.float32)
    scores = [float(_run(PLC, degraded_audio=features, rater_embed=rater)[0]) for rater in raters]
    return float(np.mean(scores))


def _windows(y: Floats) -> Floats:
    """Return windows ``(n_windows, 144160)`` of 9.01 s every second; a shorter signal is doubled until it fills one."""
    y = np.clip(y, -1.0, 1.0)
    while y.size < _WINDOW:
        y = np.concatenate([y, y])
    # As published: the last whole window may be left out, and so are those whose end, in seconds,
    # is rounded to a sample too early.
    starts = [i for i in range(int(y.size // SR - _WINDOW_S) + 1) if int((i + _WINDOW_S) * SR) - i * SR == _WINDOW]
    return np.stack([y[i * SR : i * SR + _WINDOW] for i in starts])


def _run(file: str, **inputs: Floats) -> Any:  # noqa: ANN401 - arrays by the network's outputs
    return _session(file).run(None, inputs)


@lru_cache(maxsize=4)
def _session(file: str) -> Any:  # noqa: ANN401 - onnxruntime has no types
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # workers share the cores already
    options.log_severity_level = 3
    path = str(packaged(PACKAGE, file))
    return onnxruntime.InferenceSession(path, sess_options=options, providers=["CPUExecutionProvider"])
