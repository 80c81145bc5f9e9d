"""Speech corpora to mel spectrograms and back, resumable, scored.

>>> import numpy as np, melmill
>>> y = np.sin(2 * np.pi * 440 / 16000 * np.arange(16000)).astype(np.float32)
>>> melmill.mel(y, preset="paper").shape
(80, 63)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from melmill.cluster.errors import ClusterError
from melmill.errors import Error
from melmill.flows.errors import PipelineError, RunFailed
from melmill.stages.errors import CompilerFailed, FileChanged, UnknownStage
from melmill.stages.numeric.errors import ContractError, DeviceMissing, ParameterError, StageError, Unusable
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.presets import preset as preset
from melmill.stages.vocode.errors import VocoderError
from melmill.storage.errors import (
    AlreadyThere,
    CatalogueError,
    DamagedData,
    DamagedMark,
    SourceError,
    StoreError,
    StoreFull,
    StoreMismatch,
    StoreUnwritable,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from melmill.stages.score.status import Measured
    from melmill.stages.vocode.loaded import LoadedVocoder
    from melmill.storage.store import Store

__all__ = [
    "AlreadyThere",
    "CatalogueError",
    "ClusterError",
    "CompilerFailed",
    "ContractError",
    "DamagedData",
    "DamagedMark",
    "DeviceMissing",
    "Error",
    "FileChanged",
    "MelSpec",
    "ParameterError",
    "PipelineError",
    "RunFailed",
    "SourceError",
    "StageError",
    "StoreError",
    "StoreFull",
    "StoreMismatch",
    "StoreUnwritable",
    "UnknownStage",
    "Unusable",
    "VocoderError",
    "invert",
    "invert_batch",
    "load_vocoder",
    "mel",
    "open",
    "preset",
    "score",
    "torch_dataset",
]


def mel(y: NDArray[Any], spec: MelSpec | None = None, *, preset: str | None = None) -> NDArray[np.float32]:
    """Return the mel spectrogram of a waveform.

    Parameters
    ----------
    y : ndarray, shape (n_samples,)
        float in [-1, 1], or int16 PCM, at the spec's rate.
    spec : MelSpec or None
    preset : str or None
        Name of a spec instead of `spec`, such as ``"hifigan"``; with neither, ``"paper"``.

    Returns
    -------
    ndarray of float32, shape (n_mels, n_frames)

    Raises
    ------
    ParameterError
        Both a spec and a preset, or no such preset.
    """
    from melmill.stages.numeric.mel import mel_spectrogram

    return mel_spectrogram(y, _spec(spec, preset))


def invert(
    M: NDArray[Any],
    spec: MelSpec | None = None,
    *,
    preset: str | None = None,
    method: str = "auto",
    n_iter: int | None = None,
    start: str | NDArray[Any] = "pghi",
    length: int | None = None,
    seed: int = 0,
    **parameters: Any,  # noqa: ANN401 - each method's own
) -> NDArray[np.float32]:
    """Return a waveform whose mel spectrogram is close to `M`.

    Parameters
    ----------
    M : ndarray, shape (n_mels, n_frames)
    spec, preset
        How `M` was made, as in `mel`.
    method : str
        ``auto``, ``griffin_lim``, ``admm_gla``, ``raar``, ``ipalm``, ``admm`` or ``pghi``.
    n_iter : int or None
        None: 100, or what the `quality` of ``auto`` costs.
    start : str or ndarray
        Starting phase: ``random``, ``zero``, ``pghi``, or that of a waveform ``(n_samples,)``.
    length : int or None
        Samples to return; None: what the frames cover.
    seed : int
        Of random phases.
    **parameters
        The method's own, such as ``momentum=0.99``, ``rho=0.1`` or, of ``auto``, ``quality="best"``.

    Returns
    -------
    ndarray of float32, shape (length,)
    """
    from melmill.stages.invert.inversion import invert as invert_mel

    return invert_mel(
        M, _spec(spec, preset), method=method, n_iter=n_iter, start=start, length=length, seed=seed, **parameters
    )


def invert_batch(
    mels: Sequence[NDArray[Any]] | NDArray[Any],
    spec: MelSpec | None = None,
    *,
    preset: str | None = None,
    method: str = "auto",
    n_iter: int | None = None,
    start: str | Sequence[NDArray[Any]] = "pghi",
    lengths: Sequence[int] | None = None,
    seed: int = 0,
    device: Literal["cpu", "cuda"] = "cpu",
    **parameters: Any,  # noqa: ANN401 - each method's own
) -> list[NDArray[np.float32]]:
    """Return a waveform for each of several mels, as `invert` does one by one, but for rounding.

    Parameters
    ----------
    mels : sequence of ndarray, shape (n_mels, n_frames), or ndarray, shape (n_utterances, n_mels, n_frames)
        In a padded array, frames past those of an utterance's length are ignored.
    lengths : sequence of int or None
        Samples to return of each; None: what the frames cover.
    device : {"cpu", "cuda"}
        ``"cuda"`` inverts padded batches on a GPU.
    spec, preset, method, n_iter, start, seed, **parameters
        As in `invert`; waveforms to start from are as many as mels.

    Returns
    -------
    list of ndarray of float32, shape (length,)
    """
    from melmill.stages.invert.inversion import invert_batch as invert_mels

    return invert_mels(
        mels,
        _spec(spec, preset),
        method=method,
        n_iter=n_iter,
        start=start,
        lengths=lengths,
        seed=seed,
        device=device,
        **parameters,
    )


def load_vocoder(
    path: str | os.PathLike[str],
    family: str | None = None,
    config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    *,
    mel: str | MelSpec | None = None,
    device: str = "cpu",
) -> LoadedVocoder:
    """Load a vocoder checkpoint, published or trained here; call what comes back with a mel.

    Parameters
    ----------
    path : str or path
        Of the weights, local or any URL that fsspec knows, or of a folder to which a training was exported; or
        ``melmill-16k``, which comes with melmill.
    family : str or None
        ``hifigan``, ``bigvgan``, ``vocos``, ...; None: told by the names of the tensors.
    config : str, path, mapping or None
        The configuration or its file; None: what the weights themselves say, then what lies beside them.
    mel : str, MelSpec or None
        The mel that it needs, or the name of a preset, where the configuration is wrong about it or silent: say
        ``"hifigan_ft"`` for a HiFi-GAN that was fine-tuned on Tacotron 2 mels.
    device : str
        Where it computes: ``"cpu"``, ``"cuda"``.

    Returns
    -------
    LoadedVocoder
        ``voc(M)`` is the waveform of a mel, ``voc.spec`` the mel that it needs.

    Raises
    ------
    VocoderError
        A file is missing, truncated or pickles more than tensors, or what the files say does not fit together.
    """
    from melmill.flows.exchange.vocoder_files import load_vocoder as load

    return load(path, family, config, mel, device)


def score(
    y: NDArray[Any],
    y_hat: NDArray[Any],
    sr: int,
    metrics: Sequence[str] | None = None,
    *,
    spec: MelSpec | None = None,
    preset: str | None = None,
    timeout_s: float = 60.0,
) -> dict[str, Measured]:
    """Return each metric's measurement of a reconstruction.

    Parameters
    ----------
    y, y_hat : ndarray, shape (n_samples,)
        Recording and reconstruction: float in [-1, 1], or int16 PCM.
    sr : int
        Rate of both, Hz.
    metrics : sequence of str or None
        Names, such as ``["pesq_wb", "estoi"]``; None: those of the stage `score`.
    spec, preset
        STFT and mel of the spectral metrics, as in `mel`; with neither, ``"paper"`` at `sr`.
    timeout_s : float
        Longest wait for PESQ, s, besides twice the duration of the recording.

    Returns
    -------
    dict of str to Measured
        By name of the metric: `value`, NaN without one, and `status`.

    Raises
    ------
    ParameterError
        There is no such metric.
    """
    from melmill.stages.score.measure import DEFAULT_METRICS
    from melmill.stages.score.measure import score as measure

    chosen = None if spec is None and preset is None else _spec(spec, preset)
    return measure(y, y_hat, sr, DEFAULT_METRICS if metrics is None else metrics, spec=chosen, timeout_s=timeout_s)


def open(url: str) -> Store:  # reads as melmill.open
    """Open a store, a path or fsspec URL, for reading; raise StoreError where there is none."""
    from melmill.storage.store import Store

    return Store.open(url)


def torch_dataset(store: Store, **options: Any) -> Any:  # noqa: ANN401 - see the function itself
    """Return a torch `Dataset` of aligned mel and audio segments; see `melmill.storage.reading.dataset`."""
    from melmill.storage.reading.dataset import torch_dataset as make

    return make(store, **options)


def _spec(spec: MelSpec | None, name: str | None) -> MelSpec:
    if spec is not None and name is not None:
        raise ParameterError("preset", f"excludes spec: give one, got both {name!r} and {spec!r}")
    return preset(name or "paper") if spec is None else spec
