"""From stored mel values back to what the mel bank gave."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melmill.stages.dsp.melspec import MelSpec
from melmill.stages.dsp.pcen import inverse_pcen
from melmill.stages.dsp.stft import Stft
from melmill.stages.errors import ContractError, Unusable


def to_linear(M: NDArray[Any], spec: MelSpec) -> NDArray[np.float32]:
    """Undo everything that was done to a mel after the bank: clip, shift and scale, log or compression, normalisation.

    Parameters
    ----------
    M : ndarray of float, shape (n_mels, n_frames)
        As made by `spec`; its log and affine map say the unit.
    spec : MelSpec

    Returns
    -------
    ndarray of float32, shape (n_mels, n_frames)
        ``E |X|**power`` with X the STFT without `normalized`, non-negative: a mel as `magnitude_spec` would make it.
        What the floor or a clip hid stays at the floor or the clip, not 0, and `eps` stays under the root.

    Raises
    ------
    ContractError
        The shape is not the spec's, or its PCEN can't be undone.
    Unusable
        A value is not finite.
    """
    M = np.asarray(M)
    _check_bands(M, spec)
    values = M.astype(np.float64) / spec.scale - spec.shift
    linear = np.maximum(uncompressed(values, spec), 0.0) * window_norm(spec) ** spec.power
    with np.errstate(over="ignore"):
        result: NDArray[np.float32] = linear.astype(np.float32)
    if not np.isfinite(result).all():
        raise Unusable(f"mel value {float(M.max()):g} exceeds what its spec can mean: undone it is past float32")
    return result


def magnitude_spec(spec: MelSpec) -> MelSpec:
    """Return the spec of what `to_linear` gives: the same bank and power, nothing after it.

    >>> magnitude_spec(MelSpec(log="ln", floor=1e-5)) == MelSpec()
    True
    """
    return replace(
        spec, log=None, floor=None, compression=None, pcen=None, shift=0.0, scale=1.0, clip=None, normalized=False
    )


def window_norm(spec: MelSpec) -> float:
    """Return what `normalized` divides the STFT by: the window's Euclidean norm, 1 where it does not."""
    if not spec.normalized:
        return 1.0
    return float(np.sqrt(np.sum(Stft(spec.stft, np.float64).window ** 2)))


def uncompressed(values: NDArray[np.float64], spec: MelSpec) -> NDArray[np.float64]:
    """Undo the log, the power law or the PCEN of a spec; leave values that had none."""
    if spec.pcen is not None:
        return inverse_pcen(values, spec.pcen, spec.sr / spec.hop_length)
    with np.errstate(over="ignore"):
        if spec.log == "ln":
            return np.exp(values)
        if spec.log == "log10":
            return np.asarray(10.0**values)
        if spec.log == "db":
            return np.asarray(10.0 ** (values * spec.power / 20.0))
    if spec.compression is not None:
        return np.asarray(np.maximum(values, 0.0) ** (1.0 / spec.compression))
    return values


def _check_bands(M: NDArray[Any], spec: MelSpec) -> None:
    if M.ndim != 2 or M.shape[0] != spec.n_mels:
        raise ContractError(
            f"a mel of this spec is (n_mels={spec.n_mels}, n_frames), got shape {M.shape!r}; "
            "frame-major mels need a transpose"
        )
    if not np.isfinite(M).all():
        raise Unusable(f"{int((~np.isfinite(M)).sum())} mel values are not finite")
