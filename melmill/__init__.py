"""Speech corpora to mel spectrograms and back, resumable, scored.

>>> import numpy as np, melmill
>>> y = np.sin(2 * np.pi * 440 / 16000 * np.arange(16000)).astype(np.float32)
>>> melmill.mel(y, preset="paper").shape
(80, 63)
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, overload

from melmill.cluster.errors import ClusterError
from melmill.errors import Error
from melmill.flows.execution.errors import MachineFailed, RunFailed
from melmill.flows.pipeline.errors import PipelineError
from melmill.stages.errors import (
    CompilerFailed,
    CorpusUnreadable,
    FileChanged,
    NotComparable,
    PackageMissing,
    RecogniserFailed,
    UnknownStage,
)
from melmill.stages.extract.reading import Listing, list_with, read_with
from melmill.stages.numeric.checks import MAX_SR, as_array, check_bool, check_choice, check_full_scale, check_int
from melmill.stages.numeric.errors import (
    ContractError,
    DeviceMissing,
    EmptyBandWarning,
    MelRangeWarning,
    ParameterError,
    StageError,
    Unusable,
)
from melmill.stages.numeric.mels.steps import WaveStep
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.presets import preset as named_spec
from melmill.stages.numeric.presets import preset_of
from melmill.stages.numeric.resample import resample
from melmill.stages.vocode.errors import VocoderError
from melmill.storage.errors import (
    AlreadyThere,
    CatalogueError,
    DamagedData,
    DamagedMark,
    ImpossibleKey,
    SourceChanged,
    SourceError,
    StoreBusy,
    StoreError,
    StoreFull,
    StoreMismatch,
    StoreMissing,
    StoreUnwritable,
)
from melmill.storage.reading.recordings import Convert, Recordings, convert_with

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    from melmill.flows.exchange.identify.result import Identified
    from melmill.flows.execution.summary import Summary
    from melmill.flows.runs.compare import RunComparison
    from melmill.stages.extract.transcoding import Transcoded
    from melmill.stages.numeric.prior import Prior
    from melmill.stages.score.status import Measured
    from melmill.stages.vocode.loaded import LoadedVocoder
    from melmill.storage.reading.dataset import SegmentDataset
    from melmill.storage.reading.stream import SegmentStream
    from melmill.storage.store import Store

    __version__: str

    _Folder = str | os.PathLike[str]
    _Systems = _Folder | Sequence[_Folder] | Mapping[str, _Folder]

__all__ = [
    "AlreadyThere",
    "CatalogueError",
    "ClusterError",
    "CompilerFailed",
    "ContractError",
    "CorpusUnreadable",
    "DamagedData",
    "DamagedMark",
    "DeviceMissing",
    "EmptyBandWarning",
    "Error",
    "FileChanged",
    "ImpossibleKey",
    "MachineFailed",
    "MelRangeWarning",
    "MelSpec",
    "NotComparable",
    "PackageMissing",
    "ParameterError",
    "PipelineError",
    "RecogniserFailed",
    "RunFailed",
    "SourceChanged",
    "SourceError",
    "StageError",
    "StoreBusy",
    "StoreError",
    "StoreFull",
    "StoreMismatch",
    "StoreMissing",
    "StoreUnwritable",
    "UnknownStage",
    "Unusable",
    "VocoderError",
    "WaveStep",
    "__version__",
    "compare",
    "identify",
    "invert",
    "invert_batch",
    "load_prior",
    "load_vocoder",
    "mel",
    "open",
    "preset",
    "run",
    "score",
    "torch_dataset",
    "torch_stream",
    "transcode",
    "trust",
]


def preset(name: str, stats: str | os.PathLike[str] | None = None) -> MelSpec:
    """Return the mel spec called `name`.

    Parameters
    ----------
    name : str
        Name of a preset: `melmill mel show` lists them.
    stats : str, path or None
        File of the mean and the deviation of each band, by which a recipe normalises its mels:
        ``stats.h5``, ``stats.npy``, ``feats_stats.npz``, ``scale_stats.npy``, ``mel_norms.pth``.

    Raises
    ------
    ParameterError
        There is no such preset, or no such file. The message has the nearest name.

    >>> preset("hifigan").log
    'ln'
    """
    spec = named_spec(name)
    if stats is None:
        return spec
    from melmill.stages.extract.fields import with_statistics

    return with_statistics(spec, _path("stats", stats))


def mel(
    y: ArrayLike, spec: MelSpec | None = None, *, preset: str | None = None, sr: int | None = None
) -> NDArray[np.float32]:
    """Return the mel spectrogram of a waveform.

    Parameters
    ----------
    y : array_like, shape (n_samples,)
        An array, a list or a tensor of floats in [-1, 1], or of int16 PCM.
    spec : MelSpec or None
    preset : str or None
        Name of a spec, such as ``"hifigan"``, in place of `spec`. With neither it is ``"paper"``.
    sr : int or None
        Sampling rate of `y`, Hz. It is resampled to the spec's rate where the two differ. None:
        `y` has the spec's rate.

    Returns
    -------
    ndarray of float32, shape (n_mels, n_frames)

    Raises
    ------
    ParameterError
        A parameter has a wrong type or lies outside its range, or both a spec and a preset are
        given.
    StageError
        `y` is not one channel of float or int16 samples.
    Unusable
        `y` is shorter than one frame, holds values that are not finite, or floats that lie so far
        outside [-1, 1] that they must be of another scale.
    """
    from melmill.stages.numeric.mel import check_waveform, mel_spectrogram

    chosen, samples = _spec(spec, preset), as_array("y", y)
    check_full_scale(samples)
    if sr is not None:
        check_int("sr", sr, at_least=1, at_most=MAX_SR)
        check_waveform(samples)
        samples = resample(samples, sr, chosen.sr)
    return mel_spectrogram(samples, chosen)


def identify(M: ArrayLike, y: ArrayLike | None = None, sr: int | None = None, *, top: int = 5) -> Identified:
    """Tell how a mel was made: by which preset, with which normalisation, framing and rate.

    Parameters
    ----------
    M : array_like, shape (n_mels, n_frames) or (n_frames, n_mels)
        The mel, perhaps below a batch axis: an array, lists or a tensor.
    y : array_like or None, shape (n_samples,)
        The recording that it may have been made of. With it the answer is proven.
    sr : int or None
        Sampling rate of `y`, Hz.
    top : int
        Matches to return.

    Returns
    -------
    Identified
        ``found.verdict`` is ``"fits"`` where a preset makes the mel of the recording to rounding,
        ``"close"`` where some come near, ``"likely"`` where there is no recording, ``"unknown"``
        where none fits, and ``"no_mel"`` where the array is something else, which
        ``found.looks_like`` says. ``found.matches`` are the specs, best first. ``found.fix_yaml()``
        and ``found.fix_python()`` say how to use such a mel.

    Raises
    ------
    ParameterError
        `M` or `y` hold no numbers, or one of `y` and `sr` is given without the other.
    StageError
        `y` is not one channel of float or int16 samples.

    Examples
    --------
    >>> import numpy as np
    >>> import melmill
    >>> noise = np.random.default_rng(0).normal(scale=0.1, size=22050).astype(np.float32)
    >>> found = melmill.identify(melmill.mel(noise, preset="melgan").T * 2 + 1, noise, 22050)
    >>> found.verdict, found.best.name, found.transposed
    ('fits', 'melgan', True)
    """
    from melmill.flows.exchange.identify.identify import identify as identified
    from melmill.flows.exchange.identify.matching import Recording
    from melmill.stages.numeric.mel import check_waveform

    check_int("top", top, at_least=1)
    complex_ = getattr(getattr(M, "dtype", None), "kind", "") == "c"  # it is told as what it is
    values = cast("NDArray[Any]", M) if complex_ else as_array("M", M)
    if (y is None) != (sr is None):
        raise ParameterError("sr", "must be given with y, and only with it: the rate of the recording in Hz")
    if y is None or sr is None:
        return identified(values, top=top)
    samples = as_array("y", y)
    check_int("sr", sr, at_least=1, at_most=MAX_SR)
    check_waveform(samples)
    check_full_scale(samples)
    return identified(values, Recording(y=samples, sr=sr), top)


def transcode(
    M: ArrayLike,
    a: MelSpec | str,
    b: MelSpec | str,
    *,
    y: ArrayLike | None = None,
    sr: int | None = None,
    length: int | None = None,
    via: Literal["auto", "magnitude", "waveform"] = "auto",
    quality: Literal["draft", "good", "best"] = "good",
    seed: int = 0,
    device: Literal["cpu", "cuda"] = "cpu",
) -> Transcoded:
    """Return the mel of kind `b` of the sound under a mel of kind `a`, and its measured error.

    It is exact where both are functions of the same bands. Where both have the same frames, it is
    the mel of a magnitude that agrees with `M`: no phase is needed. Else `M` is inverted.

    Parameters
    ----------
    M : array_like, shape (n_mels, n_frames)
        Made by `a`: an array, lists or a tensor.
    a, b : MelSpec or str
        How `M` was made, and what is needed: specs, or names of presets.
    y : array_like, shape (n_samples,), or None
        The recording of `M`. With it, the error is that against its mel.
    sr : int or None
        Rate of `y`, Hz. None: that of `a`.
    length : int or None
        Samples of the sound at the rate of `a`. None: those of `y`, else the fewest that have the
        frames of `M`.
    via : {"auto", "magnitude", "waveform"}
        How, where it is not exact.
    quality, seed, device
        Of the inversion, see `invert`.

    Returns
    -------
    Transcoded
        ``M_b, error_db = melmill.transcode(...)``. `error_db` is the mean absolute error of the log
        mel, dB of magnitude. `measured` says against what. `unseen` are bands that are guessed, as
        `M` holds nothing there.

    Raises
    ------
    ParameterError
        There is no such preset, or a parameter has a wrong type or lies outside its range.
    ContractError
        `M` is no mel of `a`, or can't be undone.
    Unusable
        A value is not finite, `length` does not give the frames of `M`, or the range of its values
        shows that it was made otherwise than by `a`.

    Examples
    --------
    >>> import numpy as np
    >>> M = mel(np.sin(np.arange(22050) / 8), preset="hifigan")
    >>> M_b, error_db = transcode(M, "hifigan", "grad_tts")
    >>> M_b.shape, error_db
    ((80, 86), 0.0)
    """
    from melmill.stages.extract.transcoding import transcode as carried

    if y is not None:
        check_full_scale(as_array("y", y))
    return carried(
        as_array("M", M),
        _spec(a, None) if isinstance(a, MelSpec) else _spec(None, a),
        _spec(b, None) if isinstance(b, MelSpec) else _spec(None, b),
        recording=None if y is None else as_array("y", y),
        sr=sr,
        length=length,
        via=via,
        quality=quality,
        seed=seed,
        device=device,
    )


def invert(
    M: ArrayLike,
    spec: MelSpec | None = None,
    *,
    preset: str | None = None,
    method: str = "auto",
    n_iter: int | None = None,
    start: str | ArrayLike = "pghi",
    magnitude: Literal["nnls", "pinv"] = "nnls",
    length: int | None = None,
    seed: int = 0,
    device: Literal["cpu", "cuda"] = "cpu",
    prior: Prior | str | os.PathLike[str] | None = None,
    **parameters: float | str,
) -> NDArray[np.float32]:
    """Return a waveform whose mel spectrogram is close to `M`.

    Parameters
    ----------
    M : array_like, shape (n_mels, n_frames)
        An array, lists or a tensor.
    spec, preset
        How `M` was made, as in `mel`.
    method : str
        Name of a solver: ``auto``, ``admm``, ``admm_gla``, ``griffin_lim``, ``ipalm``, ``pghi``,
        ``raar``, or one of another package.
    n_iter : int or None
        Number of iterations. None: 100, or what the `quality` of ``auto`` costs.
    start : str or array_like
        Starting phase: ``random``, ``zero``, ``pghi``, or a waveform ``(n_samples,)`` that has it.
    magnitude : {"nnls", "pinv"}
        Starting magnitude: non-negative least squares, or the clipped pseudo-inverse.
    length : int or None
        Samples to return. None: the fewest that have the frames of `M`.
    seed : int
        Seed of random phases, not negative.
    device : {"cpu", "cuda"}
        Where it is computed. The results are the same but for rounding.
    prior : Prior, str, path or None
        Learned prior, its file, or the name of one that comes with melmill: its network guesses the
        starting magnitude, in place of `magnitude`. ``"auto"`` is the one that comes with melmill
        and fits the mel, unless `M` would lose by it. ``"none"`` is none. None: ``"auto"`` for the
        method ``auto``, and ``"none"`` for all others.
    **parameters
        The solver's own, such as ``momentum=0.99``, ``rho=0.1``, or ``quality="best"`` of ``auto``.

    Returns
    -------
    ndarray of float32, shape (length,)

    Raises
    ------
    ParameterError
        A parameter is unknown, has a wrong type or lies outside its range.
    ContractError
        `M` is no mel of the spec, or can't be undone. Or `prior` was trained with another mel.
    Unusable
        A value is not finite, `length` does not give the frames of `M`, or the range of its values
        shows that it was made otherwise than by the spec.
    DeviceMissing
        `device` is ``"cuda"`` and this process has none.
    """
    from melmill.stages.invert.inversion import inverted

    return inverted(
        M,
        _spec(spec, preset),
        method=method,
        n_iter=n_iter,
        start=start,
        magnitude=magnitude,
        length=length,
        seed=seed,
        device=device,
        prior=_prior(prior),
        **parameters,
    ).y


def invert_batch(
    mels: Sequence[ArrayLike] | NDArray[Any],
    spec: MelSpec | None = None,
    *,
    preset: str | None = None,
    method: str = "auto",
    n_iter: int | None = None,
    start: str | Sequence[ArrayLike] = "pghi",
    magnitude: Literal["nnls", "pinv"] = "nnls",
    lengths: Sequence[int] | None = None,
    seed: int = 0,
    device: Literal["cpu", "cuda"] = "cpu",
    prior: Prior | str | os.PathLike[str] | None = None,
    **parameters: float | str,
) -> list[NDArray[np.float32]]:
    """Return a waveform for each of several mels: those of `invert` one by one, but for rounding.

    Parameters
    ----------
    mels : sequence of array_like, shape (n_mels, n_frames), or array, shape (B, n_mels, n_frames)
        Of a padded array with `lengths`, frames past those of an utterance's length are ignored.
    lengths : sequence of int or None
        Samples to return of each. None: the fewest that have its mel's frames.
    start : str or sequence of array_like
        Starting phase: a rule, or a waveform for each mel.
    device : {"cpu", "cuda"}
        ``"cuda"`` inverts padded batches on a GPU.
    spec, preset, method, n_iter, magnitude, seed, prior, **parameters
        As in `invert`.

    Returns
    -------
    list of ndarray of float32, shape (length,)

    Raises
    ------
    ParameterError, ContractError, Unusable, DeviceMissing
        As in `invert`.
    """
    from melmill.stages.invert.inversion import invert_batch as invert_mels

    return invert_mels(
        mels,
        _spec(spec, preset),
        method=method,
        n_iter=n_iter,
        start=start,
        magnitude=magnitude,
        lengths=lengths,
        seed=seed,
        device=device,
        prior=_prior(prior),
        **parameters,
    )


def run(
    path: str | os.PathLike[str] = "pipeline.yaml",
    *,
    set: Mapping[str, object] | None = None,
    store: str | os.PathLike[str] | None = None,
    also: Sequence[str | os.PathLike[str]] = (),
    until: str | None = None,
    executor: Literal["dask", "serial"] = "dask",
    follow: bool = False,
    as_catalogued: bool = False,
) -> Summary:
    """Run a pipeline, or go on where it stopped, and say what came of it.

    With the executor ``"dask"`` a script calls it under ``if __name__ == "__main__":``, as every
    script that starts processes.

    Parameters
    ----------
    path : str or path
        The pipeline's file.
    set : mapping of str to object, or None
        Fields to override, such as ``{"admm.n_iter": 50}``. Lists fan out.
    store : str, path or None
        Store to use in place of the pipeline's, a path or a URL.
    also : sequence of str or path
        Further stores of the same project, after those of the pipeline. What they have done is read
        there, and nothing is written there.
    until : str or None
        Run this node and what it needs, no more.
    executor : {"dask", "serial"}
    follow : bool
        Follow a corpus that changed: files that are gone leave the results, and changed ones are
        made anew.
    as_catalogued : bool
        Don't look at the corpora: take what the store has catalogued of them. New files wait for
        another run.

    Returns
    -------
    Summary
        What `melmill run --json` prints, as `as_dict()` gives it. Look at ``tasks.failed`` and
        ``quarantined``: they raise nothing.

    Raises
    ------
    ParameterError
        An argument has a wrong type.
    PipelineError
        The pipeline, a corpus or the store is not fit for a run; the message has file and line.
    RunFailed
        The run can't go on. Nothing computed is lost.
    """
    from melmill.flows.execution.run import run as run_plan
    from melmill.flows.pipeline.spec import load
    from melmill.flows.planning.plan import make_plan

    check_choice("executor", executor, ("dask", "serial"))
    if until is not None:
        _check_name("until", until)
    for name, flag in (("follow", follow), ("as_catalogued", as_catalogued)):
        if not isinstance(flag, bool):
            raise ParameterError(name, f"must be True or False, got {flag!r}")
    if follow and as_catalogued:
        raise ParameterError("as_catalogued", "can't be True with follow, which looks at the corpora")
    if not isinstance(set, Mapping | None):
        raise ParameterError("set", f"must be a mapping such as {{'admm.n_iter': 50}}, got {set!r}")
    overrides = [f"{name}={_as_yaml(value)}" for name, value in (set or {}).items()]
    if isinstance(also, str | os.PathLike) or not isinstance(also, Sequence):
        raise ParameterError("also", f"must be a list of stores, got {also!r}: write [{also!r}] for one")
    pipeline = load(
        Path(_path("path", path)).expanduser(),
        overrides,
        None if store is None else _path("store", store),
        [_path("also", one) for one in also],
    )
    plan = make_plan(pipeline, until, follow=follow, as_catalogued=as_catalogued)
    return run_plan(plan, executor, partial=until is not None)


def compare(
    a: str | os.PathLike[str],
    b: str | os.PathLike[str],
    *,
    nodes: Sequence[str] = (),
    metrics: Sequence[str] | None = None,
    by: Sequence[str] = (),
    seed: int = 0,
    other_project: bool = False,
) -> RunComparison:
    """Compare the scores of run B with those of run A, utterance by utterance.

    Parameters
    ----------
    a, b : str or path
        Addresses: ``STORE``, ``STORE@TAG`` or ``STORE@RUN``, each with ``:NODE`` where one node is
        meant.
    nodes : sequence of str
        Scored nodes that both runs have. Without any: those of the addresses, or all.
    metrics : sequence of str or None
        Names of metrics. None: all that both have.
    by : sequence of str
        Groups of utterances: ``subset``, ``speaker``, ``sex``, ``chapter``.
    seed : int
        Seed of the bootstrap, not negative.
    other_project : bool
        Whether the runs may be of two projects.

    Returns
    -------
    RunComparison
        ``.comparison.tests`` has the differences with their tests, ``.as_dict()`` what `melmill
        compare --json` prints. ``.html()``, ``.markdown()`` and ``.junit()`` are files.

    Raises
    ------
    StoreError
        There is no such store, run or tag.
    NotComparable
        A node or a metric was not scored, or there is no utterance in common.
    ParameterError
        An argument has a wrong type, or the runs are of two projects.
    """
    from melmill.flows.runs.compare import compare_addresses

    check_int("seed", seed, at_least=0)
    for name, names in (("nodes", nodes), ("metrics", metrics or ()), ("by", by)):
        if isinstance(names, str) or not all(isinstance(one, str) for one in names):
            raise ParameterError(name, f"must be a list of names, got {names!r}")
    return compare_addresses(
        _path("a", a), _path("b", b), nodes=nodes, metrics=metrics, by=by, seed=seed, other_project=other_project
    )


def load_prior(path: str | os.PathLike[str]) -> Prior:
    """Load a learned prior: a network that guesses the magnitude for `invert` to start from.

    Parameters
    ----------
    path : str or path
        Its file, or any URL that fsspec knows. Or the name of one that comes with melmill.

    Returns
    -------
    Prior
        ``prior.spec`` is the mel that it was trained with. ``prior.fits(spec)`` says in a line why
        it can't serve mels of a spec, and is None where it can.

    Raises
    ------
    ParameterError
        The file can't be read, is truncated or holds no prior.
    """
    from melmill.flows.exchange.prior_files import load_prior as load

    return load(_path("path", path))


def load_vocoder(
    path: str | os.PathLike[str],
    family: str | None = None,
    config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    *,
    mel: str | MelSpec | None = None,
    device: str = "cpu",
) -> LoadedVocoder:
    """Load a vocoder's checkpoint, published or trained here. Call the result with a mel.

    Parameters
    ----------
    path : str or path
        The weights: a file, or any URL that fsspec knows. Or a folder to which a training was
        exported. Or ``melmill-16k``, which comes with melmill.
    family : str or None
        ``hifigan``, ``bigvgan``, ``vocos``, and so on. None: the names of the tensors tell it.
    config : str, path, mapping or None
        The configuration or its file. None: the one in the weights, else the one beside them.
    mel : str, MelSpec or None
        The mel that it needs, or the name of a preset. Give it where the configuration is wrong
        about it or silent: ``"hifigan_ft"`` for a HiFi-GAN fine-tuned on Tacotron 2 mels.
    device : str
        Where it computes: ``"cpu"`` or ``"cuda"``.

    Returns
    -------
    LoadedVocoder
        ``voc(M)`` is the waveform of a mel, and ``voc.spec`` the mel that it needs.

    Raises
    ------
    VocoderError
        A file is missing, truncated or pickles more than tensors. Or the files contradict each
        other.
    ParameterError, DeviceMissing
        The device has no such name, or this process lacks it.
    """
    from melmill.flows.exchange.vocoder_files import load_vocoder as load
    from melmill.stages.numeric.batched.device import placement

    placement(device, "float32")  # raises where there is no such device
    return load(path, family, config, mel, device)


def trust(
    place: str | os.PathLike[str],
    metrics: Sequence[str] | None = None,
    *,
    preset: str | None = None,
    utterances: int = 30,
    damages: Sequence[str] | None = None,
    jobs: int = 1,
) -> pd.DataFrame:
    """Return which metric hears which damage of recordings, and which are moved by what nobody hears.

    With `jobs` above 1 a script calls it under ``if __name__ == "__main__":``.

    Parameters
    ----------
    place : str or path
        A store, or a folder of recordings.
    metrics : sequence of str or None
        None: those that `melmill score` takes.
    preset : str or None
        Mel of the spectral metrics, and the one that the scrambled phase leaves as it is. None:
        ``paper`` at the rate of the recordings.
    utterances : int
        About so many recordings are damaged, at least 6.
    damages : sequence of str or None
        Kinds of damage: ``phase``, ``smear``, ``buzz``, ``noise``, ``clip``, ``lowpass``, ``codec``,
        ``shift``, ``gain``, ``polarity``. None: all.
    jobs : int
        Processes.

    Returns
    -------
    DataFrame
        A row per metric and damage, as `melmill.stages.score.trust.judgement.judged` describes it.
        ``attrs["metrics"]`` has a mapping per metric, of what it makes of all of them.

    Raises
    ------
    ParameterError
        A parameter is unknown, has a wrong type or lies outside its range.
    PipelineError
        The place holds no recordings, or too few.
    """
    from melmill.flows.scoring.trust import trust_table

    return trust_table(_path("place", place), metrics, preset, utterances, damages, jobs)


@overload
def score(  # type: ignore[overload-overlap]  # numpy takes text for an array
    y: str | os.PathLike[str],
    y_hat: _Systems,
    sr: int | None = None,
    metrics: Sequence[str] | None = None,
    *,
    preset: str | None = None,
    output: str | os.PathLike[str] | None = None,
    lengths: Literal["same", "cut"] = "same",
    pairs: str | os.PathLike[str] | None = None,
    store: str | os.PathLike[str] | None = None,
    jobs: int = 1,
) -> pd.DataFrame: ...


@overload
def score(
    y: ArrayLike | None,
    y_hat: ArrayLike,
    sr: int,
    metrics: Sequence[str] | None = None,
    *,
    spec: MelSpec | None = None,
    preset: str | None = None,
    text: str = "",
) -> dict[str, Measured]: ...


def score(
    y: ArrayLike | str | os.PathLike[str] | None,
    y_hat: ArrayLike | _Systems,
    sr: int | None = None,
    metrics: Sequence[str] | None = None,
    *,
    spec: MelSpec | None = None,
    preset: str | None = None,
    text: str = "",
    output: str | os.PathLike[str] | None = None,
    lengths: Literal["same", "cut"] = "same",
    pairs: str | os.PathLike[str] | None = None,
    store: str | os.PathLike[str] | None = None,
    jobs: int = 1,
) -> dict[str, Measured] | pd.DataFrame:
    """Return each metric's measurement of a reconstruction, or those of folders of audio.

    ``score(y, y_hat, sr)`` compares two signals. ``score("recordings", ["out/a", "out/b"])``
    compares the files of each folder with the recordings of the same names, as `melmill score`
    does.

    Parameters
    ----------
    y, y_hat : array_like, shape (n_samples,)
        Recording and reconstruction: an array, a list or a tensor of floats in [-1, 1], or of
        int16 PCM. With y None, metrics of the reconstruction alone have values. Or the folder of
        the recordings, and that of a system, a list of them, or a mapping of names to folders.
    sr : int
        Rate of both, Hz. For folders: the rate to compare at. None is that of most files of each.
    metrics : sequence of str
        Names, such as ``["pesq_wb", "estoi"]``; None: those of the stage `score`.
    spec : MelSpec or None
        Mel of the spectral metrics, for signals. None: that of `preset`.
    preset : str or None
        Name of the mel of the spectral metrics. None: ``"paper"`` at the rate of the recording.
    text : str
        For signals: words that the recording says, for word errors.
    output : str, path or None
        For folders: where the report goes. A second call goes on from it. None keeps nothing.
    lengths : {"same", "cut"}
        For folders: what happens where lengths differ by more than a hop. The status is ``error``,
        or both are cut to the shorter.
    pairs : str, path or None
        For folders: a table of estimates and references. None: ids and file names tell.
    store : str, path or None
        For folders: where results are kept. None: in `output`.
    jobs : int
        For folders: processes. With more than 1, a script calls it under
        ``if __name__ == "__main__":``.

    Returns
    -------
    dict of str to Measured
        Of two signals, by name of the metric: `value`, NaN without one, and `status`.
    DataFrame
        Of folders: a row per recording and system (``utterance_id``, ``node``), a column for each
        metric, and its status beside it. ``attrs["notes"]`` are lines on what has no partner and
        what differs. ``attrs["sets"]`` has the values of metrics of whole sets, such as ``fad``.

    Raises
    ------
    ParameterError
        There is no such metric, or a parameter has a wrong type or lies outside its range.
    StageError
        A signal is not one channel of float or int16 samples.
    Unusable
        `y` holds floats that lie so far outside [-1, 1] that they must be of another scale.
    PipelineError, StoreError, RunFailed
        A folder is not there, holds no audio or fits no other; or scoring failed.
    """
    if isinstance(y, str | os.PathLike):
        if spec is not None:
            raise ParameterError("spec", "is for signals: name a preset for folders")
        if text:
            raise ParameterError("text", "is for signals: texts of folders are found beside their files")
        from melmill.flows.scoring.card import score_table

        return score_table(
            _path("y", y),
            _systems(y_hat),
            sr=sr,
            metrics=metrics,
            preset=preset,
            output=None if output is None else _path("output", output),
            lengths=lengths,
            pairs=None if pairs is None else _path("pairs", pairs),
            store=None if store is None else _path("store", store),
            jobs=jobs,
        )
    from melmill.stages.score.stage import DEFAULT_METRICS
    from melmill.stages.score.stage import score as measure

    if sr is None:
        raise ParameterError("sr", "must be the rate of both signals in Hz, got None")
    for name, value in (("output", output), ("pairs", pairs), ("store", store)):
        if value is not None:
            raise ParameterError(name, f"is for folders, got {value!r} with signals")
    if lengths != "same":
        raise ParameterError(
            "lengths", f"is for folders, got {lengths!r} with signals: cut them to one length yourself"
        )
    if jobs != 1:
        raise ParameterError("jobs", f"is for folders, got {jobs!r} with signals, which are scored in this process")
    chosen = None if spec is None and preset is None else _spec(spec, preset)
    names = DEFAULT_METRICS if metrics is None else metrics
    signals = cast("ArrayLike | None", y), cast("ArrayLike", y_hat)
    return measure(*signals, sr, names, spec=chosen, text=text)


def _systems(given: object) -> list[str] | dict[str, str]:
    """Return the folders of systems, by name where names are given."""
    if isinstance(given, Mapping):
        return {str(name): _path("y_hat", folder) for name, folder in given.items()}
    if isinstance(given, str | os.PathLike):
        return [_path("y_hat", given)]
    if not isinstance(given, Sequence) or not given:
        raise ParameterError("y_hat", f"must be folders, as y is one, got {type(given).__name__}")
    return [_path("y_hat", folder) for folder in given]


def open(url: str | os.PathLike[str]) -> Store:  # reads as melmill.open
    """Open a store for reading.

    Parameters
    ----------
    url : str or path
        A path, or any URL that fsspec knows.

    Raises
    ------
    StoreError
        There is none.
    """
    from melmill.storage.store import Store

    return Store.open(_path("url", url))


def torch_dataset(
    store: Store | str | os.PathLike[str],
    mel: str = "mel",
    audio: str = "speech",
    *,
    segment_frames: int = 64,
    ids: Sequence[str] | None = None,
    seed: int = 0,
) -> SegmentDataset:
    """Return a torch `Dataset` with one random segment of each utterance that two nodes hold.

    An item is a mel ``(n_mels, segment_frames)`` and its audio
    ``(segment_frames * hop_length,)``, both float32, audio in [-1, 1).

    Parameters
    ----------
    store : Store, str or path
    mel, audio : str
        Nodes of the last run: mels, and waveforms at the same rate.
    segment_frames : int
        Length of a segment, frames.
    ids : sequence of str or None
        Utterances wanted. None: all.
    seed : int
        With the epoch and the index it decides where a segment lies, on any number of workers.

    Raises
    ------
    ParameterError
        An argument has a wrong type or lies outside its range.
    StoreError
        The nodes don't fit together, or a wanted utterance is missing.
    """
    from melmill.storage.reading.dataset import torch_dataset as make
    from melmill.storage.store import Store

    for name, node in (("mel", mel), ("audio", audio)):
        _check_name(name, node)
    check_int("segment_frames", segment_frames, at_least=1)
    check_int("seed", seed, at_least=0)
    if isinstance(ids, str):
        raise ParameterError("ids", f"must be a sequence of ids, got {ids!r}: write [{ids!r}] for one")
    opened = store if isinstance(store, Store) else _path("store", store)
    return make(opened, mel, audio, segment_frames=segment_frames, ids=ids, seed=seed)


def torch_stream(
    store: Store | str | os.PathLike[str],
    mel: str | None = "mel",
    audio: str | None = "speech",
    *,
    also: Sequence[str] = (),
    labels: Sequence[str] = (),
    segment_frames: int | None = 64,
    segments_per_utterance: int | Literal["length"] = 1,
    ids: Sequence[str] | None = None,
    shuffle: bool = True,
    buffer: int = 1024,
    seed: int = 0,
    batch_size: int | None = None,
    batch_frames: int | None = None,
    buckets: int | None = None,
    drop_last: bool = False,
    rank: int | None = None,
    world_size: int | None = None,
    uneven: Literal["keep", "repeat", "drop"] = "keep",
    read_ahead: int = 2,
) -> SegmentStream:
    """Return a torch `IterableDataset` that reads a store shard by shard, from disk or an object store.

    An epoch has every item once, over all ranks and DataLoader workers. Shards are shuffled, and
    their items pass through a buffer. All follows from `seed` and the epoch (`set_epoch`).

    An item is a dictionary: ``id``, ``start`` (a frame), arrays and their lengths without padding
    (``mel``, ``mel_length``, ``audio``, ``audio_length``, ...), and labels. Arrays are float32,
    mels ``(n_mels, n_frames)`` and audio ``(n_samples,)`` in [-1, 1).

    Parameters
    ----------
    store : Store, str or path
    mel, audio : str or None
        Nodes of the last run: mels, and waveforms. None leaves one out.
    also : sequence of str
        Other nodes of the same utterances: mels of another kind, features, waveforms. Segments
        begin where a frame of each begins, whatever their hops and rates.
    labels : sequence of str
        Any of ``text``, ``speaker_id``, ``subset``, ``chapter_id``, ``sex``, ``speaker_name``.
    segment_frames : int or None
        Length of a segment, in frames of the first node. None: whole utterances.
    segments_per_utterance : int or "length"
        Items of an utterance, each with a place of its own. ``"length"``: as many as fill it.
    ids : sequence of str or None
        Utterances wanted. None: all.
    shuffle : bool
        Without it, items come in the order of storage.
    buffer : int
        Items that each worker mixes. It takes 256 MiB at most.
    seed : int
    batch_size : int or None
        The stream makes batches of so many items, and the DataLoader gets ``batch_size=None``.
        Arrays are padded to the longest, with silence. None: single items.
    batch_frames : int or None
        Most frames of a batch, padding included.
    buckets : int or None
        Batches are of items of like length, by so many quantiles. None: 10 for whole utterances.
    drop_last : bool
        Leave out batches that are not full when an epoch ends.
    rank, world_size : int or None
        Process of the training, and how many there are. None: those of `torch.distributed`, else
        of the variables ``RANK`` and ``WORLD_SIZE``, else one process.
    uneven : {"keep", "repeat", "drop"}
        Where the items can't be divided by the ranks, some ranks have one more. Or all ranks have
        as many, with some items twice or left out.
    read_ahead : int
        Shards that each worker reads ahead, all at a time from an object store.

    Raises
    ------
    ParameterError
        An argument has a wrong type or lies outside its range.
    StoreError
        A node is unknown, the nodes are of different utterances or can't be cut at the same place,
        or a wanted utterance is missing.
    """
    from melmill.storage.reading.stream import StreamOptions
    from melmill.storage.reading.stream import torch_stream as make
    from melmill.storage.store import Store

    for name, node in (("mel", mel), ("audio", audio)):
        if node is not None:
            _check_name(name, node)
    for name, names in (("also", also), ("labels", labels), ("ids", ids)):
        if isinstance(names, str):
            raise ParameterError(name, f"must be a sequence, got {names!r}: write [{names!r}] for one")
    whole = {"buffer": (buffer, 1), "seed": (seed, 0), "read_ahead": (read_ahead, 1)}
    optional = {
        "segment_frames": (segment_frames, 1),
        "batch_size": (batch_size, 1),
        "batch_frames": (batch_frames, 1),
        "buckets": (buckets, 1),
        "rank": (rank, 0),
        "world_size": (world_size, 1),
    }
    for name, (value, least) in {**whole, **optional}.items():
        if value is not None or name in whole:
            check_int(name, value, at_least=least)
    if segments_per_utterance != "length":
        check_int("segments_per_utterance", segments_per_utterance, at_least=1)
    check_choice("uneven", uneven, ("keep", "repeat", "drop"))
    for name, switch in (("shuffle", shuffle), ("drop_last", drop_last)):
        check_bool(name, switch)
    options = StreamOptions(
        segment_frames=segment_frames,
        segments_per_utterance=segments_per_utterance,
        labels=tuple(labels),
        shuffle=shuffle,
        buffer=buffer,
        seed=seed,
        batch_size=batch_size,
        batch_frames=batch_frames,
        buckets=buckets,
        drop_last=drop_last,
        rank=rank,
        world_size=world_size,
        uneven=uneven,
        read_ahead=read_ahead,
    )
    opened = store if isinstance(store, Store) else _path("store", store)
    return make(opened, mel, audio, also=also, ids=ids, options=options)


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import version

        return version("melmill")
    raise AttributeError(f"module 'melmill' has no attribute {name!r}")


def _converter(recordings: Recordings) -> Convert:
    from melmill.flows.pipeline.recordings import converter

    return converter(recordings)


def _bytes_of(path: str) -> bytes:
    from melmill.storage.files.location import folder_and_name

    folder, name = folder_and_name(path)
    return folder.read(name)


def _listed(folder: str) -> Listing:
    import hashlib

    from melmill.storage.files.sources import SourceTree

    tree = SourceTree(folder)
    digest, names = hashlib.sha256(), []
    for file in tree.walk():
        if not file.problem:
            names.append(file.path)
            digest.update(f"{file.path}\0{file.size_bytes}\0{file.mtime_ns}\n".encode())
    return Listing(tree.url, tuple(names), digest.hexdigest())


# The store knows no readers and stages open no files, and every process imports this module first.
convert_with(_converter)
read_with(_bytes_of)
list_with(_listed)


def _spec(spec: MelSpec | None, name: str | None) -> MelSpec:
    if spec is not None and name is not None:
        raise ParameterError("preset", f"excludes spec: give one, got both {name!r} and {spec!r}")
    if spec is not None and not isinstance(spec, MelSpec):
        raise ParameterError("spec", f"must be a MelSpec, got {spec!r}: a preset's name goes to preset=")
    if spec is not None:
        return spec
    from melmill.stages.extract.fields import check_complete

    known = preset_of("paper" if name is None else name)
    check_complete(known, known.spec)
    return known.spec


def _prior(prior: Prior | str | os.PathLike[str] | None) -> Any:  # noqa: ANN401 - a Prior, a word or None
    if prior in ("auto", "none") or not isinstance(prior, str | os.PathLike):
        return prior
    return load_prior(prior)


def _path(field: str, path: str | os.PathLike[str]) -> str:
    if not isinstance(path, str | os.PathLike):
        raise ParameterError(field, f"must be a path or URL, got {path!r}")
    return os.fspath(path)


def _check_name(field: str, name: str) -> None:
    if not isinstance(name, str):
        raise ParameterError(field, f"must be the name of a node, got {name!r}")


def _as_yaml(value: object) -> str:
    """Write a value as an override of a pipeline has it."""
    from melmill.flows.pipeline.located import as_yaml

    plain = value.tolist() if hasattr(value, "tolist") else value  # numpy's numbers and arrays
    try:
        return as_yaml(os.fspath(plain) if isinstance(plain, os.PathLike) else plain)
    except (TypeError, ValueError, RecursionError) as error:
        raise ParameterError("set", f"can't hold {value!r}: expected plain values and lists of them") from error
