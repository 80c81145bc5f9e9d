"""What an exchange format is, and all of them by name.

They are melmill's own, and those of other packages.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeGuard

from numpy.typing import NDArray

from melmill.stages.contract import Kind
from melmill.stages.plugins import Registry


class Encoded(NamedTuple):
    """Hold the bytes of a file, and how many of its samples were clipped to full scale."""

    data: bytes
    n_clipped: int


@dataclass(frozen=True, kw_only=True)
class ExchangeFormat:
    """Describe a format of files that other programs read, one utterance per file.

    Parameters
    ----------
    name : str
        What ``melmill export --format`` calls it.
    suffix : str
        Suffix of its files, without the dot.
    kinds : frozenset of Kind
        What it holds: ``Kind.WAVEFORM``, ``Kind.MEL`` or both.
    encode : callable
        ``encode(array, sr, bits)`` returns an `Encoded`. `array` is a waveform ``(n_samples,)``,
        float32 of full scale 1 or int16 PCM, or a mel ``(n_mels, n_frames)``. `sr` is in Hz. `bits`
        is one of `bits`, or None where there are none. The same array gives the same bytes. An
        array that it can't hold raises `Unusable`.
    says : str
        What it is, in a sentence.
    bits : tuple of int
        Bits per sample that ``--bits`` chooses from, the default first; empty: there is no choice.
    order : int
        Place among melmill's own formats, smaller first. The first that holds a kind is its
        default.
    """

    name: str
    suffix: str
    kinds: frozenset[Kind]
    encode: Callable[[NDArray[Any], int, int | None], Encoded]
    says: str
    bits: tuple[int, ...] = ()
    order: int = 0


def _is_format(value: object) -> TypeGuard[ExchangeFormat]:
    return isinstance(value, ExchangeFormat)


FORMATS: Registry[ExchangeFormat] = Registry(
    "format",
    package="melmill.stages.formats.exchange",
    group="melmill.exchange",
    is_one=_is_format,
    name_of=lambda format_: format_.name,
    order=lambda format_: (format_.order, format_.name),
)
"""All exchange formats by name."""


def formats_for(kind: Kind) -> list[str]:
    """Return the names of the formats that hold a kind of product, its default first.

    >>> formats_for(Kind.MEL)[0]
    'npy'
    """
    return [name for name, format_ in FORMATS.items() if kind in format_.kinds]
