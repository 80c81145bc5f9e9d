"""A learned prior: a small network that guesses the magnitude spectrum of a mel.

Here are its sizes, its weights and its file, and the rule that tells where it would lose.
`melmill.stages.numeric.compiled.prior` computes it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melmill.safetensors import Stored, packed, unpacked
from melmill.stages.numeric.checks import check_int
from melmill.stages.numeric.errors import ParameterError
from melmill.stages.numeric.melspec import MelSpec

_FORMAT = "melmill prior"

# Of a file; by it an older melmill refuses what it can't compute. The second has a head.
_VERSION, _HEADED = 1, 2
_METADATA = "melmill"

# The one type of a file's tensors.
_HALF = np.dtype("<f2")

# Fields of a spec that decide what a network has learnt. The rest of it is undone before.
_LEARNT = ("sr", "n_fft", "win_length", "hop_length", "n_mels", "fmin", "top_hz", "htk", "power", "bank_sr")

# Raise it when a start from the same prior changes. It is in the keys of the nodes that take one.
GUIDED_VERSION = 2

# Raise it when what is decided changes. It is in the keys of the nodes that fall back.
FALLBACK_VERSION = 3

# Mismatch of a network's own answer above which its prior is not taken, dB.
MOST_MISMATCH_DB = -10.0

# Inconsistency of a prior's start up to which it is taken without another look, dB, in windows that are
# long, and in shorter ones. Where frames overlap by 75 %, a start on speech has -10 to -11 dB without a
# prior, and -12 to -18 dB with a good one. Clicks have the same with either, and lose by a prior: up to
# -12.1 dB in windows of 64 ms, up to -14.7 dB in 43 to 46 ms.
TRUSTED_DB, TRUSTED_IN_SHORT_DB = -12.5, -15.0
LONG_S = 0.06

# By how much a prior's start must be the more consistent one, dB. Whispers, clicks and noisy speech
# that lose SC by a prior still gain up to 0.38 dB here (`python -m benchmarks.priors --each`).
MARGIN_DB = 0.4


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of a network.

    Parameters
    ----------
    width, hidden : int
        Channels of its blocks, and inside them. Multiples of 8.
    n_blocks : int
    kernel : int
        Frames that a convolution sees, odd.
    head : int
        Channels inside the head, a multiple of 8. 0: the bins are a linear map of the last block.
    """

    width: int = 160
    hidden: int = 320
    n_blocks: int = 4
    kernel: int = 7
    head: int = 0

    def __post_init__(self) -> None:
        """Check that compiled code can compute them."""
        for name, at_most in {"width": 4096, "hidden": 16384, "n_blocks": 256, "kernel": 31}.items():
            check_int(name, getattr(self, name), at_least=1, at_most=at_most)
        check_int("head", self.head, at_least=0, at_most=16384)
        for name in ("width", "hidden", "head"):
            if getattr(self, name) % 8:
                raise ParameterError(name, f"must be a multiple of 8, got {getattr(self, name)!r}")
        if self.kernel % 2 == 0:
            raise ParameterError("kernel", f"must be odd, got {self.kernel!r}")

    def shapes(self, spec: MelSpec) -> dict[str, tuple[int, ...]]:
        """Return the shape of every tensor of a network for mels of a spec, by name."""
        width, hidden, n_bins = self.width, self.hidden, spec.stft.n_bins
        shapes: dict[str, tuple[int, ...]] = {
            "embed.weight": (width, spec.n_mels, self.kernel),
            "embed.bias": (width,),
            "embed_norm.weight": (width,),
            "embed_norm.bias": (width,),
        }
        for i in range(self.n_blocks):
            block = {
                "time.weight": (width, self.kernel),
                "time.bias": (width,),
                "norm.weight": (width,),
                "norm.bias": (width,),
                "up.weight": (hidden, width),
                "up.bias": (hidden,),
                "down.weight": (width, hidden),
                "down.bias": (width,),
                "scale": (width,),
            }
            shapes |= {f"blocks.{i}.{name}": shape for name, shape in block.items()}
        shapes |= {"out_norm.weight": (width,), "out_norm.bias": (width,)}
        if self.head:
            shapes |= {"head.weight": (self.head, width), "head.bias": (self.head,)}
        return shapes | {"out.weight": (n_bins, self.head or width), "out.bias": (n_bins,)}

    def as_dict(self) -> dict[str, int]:
        """Return the sizes as files have them: without a head that is not there."""
        return {name: value for name, value in asdict(self).items() if name != "head" or value}


@dataclass(frozen=True, kw_only=True, eq=False)
class Prior:
    """A network that guesses a magnitude spectrum from a linear mel, with its weights.

    Two priors are equal where their digests are.

    Parameters
    ----------
    spec : MelSpec
        The mel that it was trained with.
    sizes : Sizes
    weights : mapping of str to ndarray of float32
        Of the names and shapes that `Sizes.shapes` returns, finite.
    name : str
        What messages call it.

    Raises
    ------
    ParameterError
        A tensor is missing, has another shape or is not finite.
    """

    spec: MelSpec
    sizes: Sizes
    weights: Mapping[str, NDArray[np.float32]]
    name: str = "prior"

    def __post_init__(self) -> None:
        """Check the weights."""
        shapes = self.sizes.shapes(self.spec)
        odd = sorted(shapes.keys() ^ self.weights.keys())
        if odd:
            what = "lacks" if odd[0] in shapes else "has an unknown"
            raise ParameterError("prior", f"{self.name!r} {what} tensor {odd[0]!r}: expected those of its sizes")
        for tensor, shape in shapes.items():
            if self.weights[tensor].shape != shape:
                raise ParameterError(
                    "prior", f"{self.name!r}: {tensor} has shape {self.weights[tensor].shape!r}, expected {shape!r}"
                )
            if not np.isfinite(self.weights[tensor]).all():
                raise ParameterError("prior", f"{self.name!r}: {tensor} holds values that are not finite")

    @cached_property
    def digest(self) -> str:
        """SHA-256 of its sizes, its mel and its weights."""
        digest = hashlib.sha256(json.dumps(self._about(), sort_keys=True).encode())
        for name in self.sizes.shapes(self.spec):
            digest.update(self.weights[name].astype("<f4").tobytes())
        return digest.hexdigest()

    def _about(self) -> dict[str, Any]:
        version = _HEADED if self.sizes.head else _VERSION
        return {"format": _FORMAT, "version": version, "sizes": self.sizes.as_dict(), "mel": self.spec.as_dict()}

    def __eq__(self, other: object) -> bool:
        """Tell whether another prior computes the same."""
        return isinstance(other, Prior) and self.digest == other.digest

    def __hash__(self) -> int:
        """Return a hash of the digest."""
        return hash(self.digest)

    def fits(self, spec: MelSpec) -> str | None:
        """Return what keeps it from mels of a spec, in one line; None where it fits."""
        return misfit(self.spec, spec)

    def encoded(self) -> bytes:
        """Return its file: safetensors with weights in half precision; `decoded` reads it."""
        halves = {name: self.weights[name].astype(_HALF) for name in self.sizes.shapes(self.spec)}
        tensors = {name: Stored("F16", values.shape, values.tobytes()) for name, values in halves.items()}
        return packed(tensors, {_METADATA: json.dumps(self._about())})


def misfit(needed: MelSpec, spec: MelSpec) -> str | None:
    """Return why a prior for mels of one spec can't serve those of another; None where it can.

    Logs, floors, scales, norms of the bank and the padding at the ends may differ.

    >>> misfit(MelSpec(), MelSpec(log="ln", floor=1e-5, center="same", norm=None))
    >>> misfit(MelSpec(), MelSpec(n_mels=64))
    'n_mels is 64, needed 80'
    """
    return "; ".join(differences(needed, spec)) or None


def differences(needed: MelSpec, spec: MelSpec) -> list[str]:
    """Return what keeps a prior for mels of one spec from those of another: a phrase for each field.

    >>> differences(MelSpec(), MelSpec(n_mels=64, fmin=50))
    ['n_mels is 64, needed 80', 'fmin is 50, needed 0.0']
    """
    called = {"top_hz": "fmax"}
    return [
        f"{called.get(name, name)} is {getattr(spec, name)!r}, needed {getattr(needed, name)!r}"
        for name in _LEARNT
        if getattr(spec, name) != getattr(needed, name)
    ]


def trusted_db(spec: MelSpec) -> float:
    """Return the inconsistency up to which a prior's start is taken without another look, dB.

    >>> trusted_db(MelSpec()), trusted_db(MelSpec(sr=22050))
    (-12.5, -15.0)
    """
    return TRUSTED_DB if spec.stft.win_length >= LONG_S * spec.sr else TRUSTED_IN_SHORT_DB


def prior_loses(
    mismatch_db: float,
    inconsistency_db: Callable[[], float],
    plain_db: Callable[[], float],
    trusted_db: float = TRUSTED_DB,
) -> bool:
    """Tell whether an inversion would lose by a prior, without a reference, before it iterates.

    A prior may lose on sounds that it was not trained with. Two things show it. A network that
    knows a sound answers nearly with its mel, as the mel is its input. And a spectrum that no
    signal has loses by its projection: unless the start loses little, it must lose clearly less than
    the start without a prior. `python -m benchmarks.priors` measures what the bounds do.

    Parameters
    ----------
    mismatch_db : float
        ``10 log10(||E W**p - M||^2 / ||M||^2)`` of the network's own answer W.
    inconsistency_db, plain_db : callable
        Return ``10 log10(||X - P_C(X)||^2 / ||X||^2)`` of the start X with the prior, and without
        one. Each is called only where it decides.
    trusted_db : float
        As `trusted_db` returns it.

    >>> prior_loses(-20.0, lambda: -8.0, lambda: -10.0), prior_loses(-20.0, lambda: -9.0, lambda: -7.0)
    (True, False)
    """
    if mismatch_db > MOST_MISMATCH_DB:
        return True
    own_db = inconsistency_db()
    return own_db > trusted_db and own_db > plain_db() - MARGIN_DB


def decoded(name: str, data: bytes) -> Prior:
    """Return the prior of a file's bytes.

    Parameters
    ----------
    name : str
        File name, for messages.
    data : bytes
        What `Prior.encoded` returned.

    Raises
    ------
    ParameterError
        The file is truncated, is no prior, or one of another version.
    """
    try:
        tensors, metadata = unpacked(data)
        about = json.loads(metadata[_METADATA])
        if about["format"] != _FORMAT:
            raise ValueError(f"its format is {about['format']!r}")
        version = about["version"]
        known = version in (_VERSION, _HEADED)
        weights = {key: _values(stored) for key, stored in tensors.items()} if known else {}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ParameterError(
            "prior",
            f"must be a file that a prior's training exported, got {name!r}, which is truncated or no prior "
            f"({len(data)} bytes; {type(error).__name__}: {error}): fetch it again",
        ) from error
    if not known:
        expected = f"expected {_VERSION} or {_HEADED}"
        raise ParameterError("prior", f"{name!r} has version {version!r}, {expected}: update melmill")
    try:
        sizes, spec = Sizes(**about["sizes"]), MelSpec.from_dict(about["mel"])
    except (KeyError, TypeError, AttributeError, ParameterError) as error:
        raise ParameterError("prior", f"{name!r} says nothing sound of its sizes and mel: {error}") from error
    return Prior(spec=spec, sizes=sizes, weights=weights, name=name)


def _values(stored: Stored) -> NDArray[np.float32]:
    if stored.dtype != "F16":
        raise ValueError(f"a tensor is of type {stored.dtype!r}")
    return np.frombuffer(stored.data, _HALF).reshape(stored.shape).astype(np.float32)
