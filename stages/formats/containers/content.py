"""What a file holds of audio: pieces that a decoder reads one by one, and why not all is there."""

from __future__ import annotations

from typing import NamedTuple

# A writer to a pipe cannot go back to fill in the size. It leaves 0, or a size just below 2^31 or 2^32: 0x7FFFF000 is
# sox's, and others subtract the header's length.
_PLACEHOLDERS = (range(1), range(0x7FFF0000, 0x80000001), range(0xFFFF0000, 0x100000000))
# Fields of 64 bits hold 0, or a value just below 2^63 or 2^64.
_WIDE_PLACEHOLDERS = (range(1), range(2**63 - 0x10000, 2**63 + 1), range(2**64 - 0x10000, 2**64))

# Silent frames behind the last one. An estimate may be short by one where all are of the lowest
# bit rate.
_N_BEHIND = 3


class Piece(NamedTuple):
    """Hold bytes that libsndfile decodes by themselves.

    Parameters
    ----------
    data : bytes
    n_samples : int or None
        Samples per channel that the decoder gives, where libsndfile only estimates them. None:
        libsndfile knows.
    silence : bytes
        A silent frame. In front of the others and behind them, it makes the estimate so long that
        libsndfile reads to the end.
    n_silent : int
        Samples of a silent frame.
    """

    data: bytes
    n_samples: int | None = None
    silence: bytes = b""
    n_silent: int = 0

    @property
    def padded(self) -> bytes:
        """The bytes between silent frames."""
        return self.silence + self.data + _N_BEHIND * self.silence


class Content(NamedTuple):
    """Hold the audio of a file.

    Parameters
    ----------
    pieces : tuple of Piece
        In order; their samples are joined.
    doubt : str
        Why the file can't be whole, with the lengths that disagree; empty where it can.
    """

    pieces: tuple[Piece, ...]
    doubt: str = ""


def is_placeholder(size: int, *, wide: bool = False) -> bool:
    """Tell whether the size in a header means that its writer could not know it.

    Parameters
    ----------
    size : int
        Bytes, as an unsigned number.
    wide : bool
        The field has 64 bits.

    >>> is_placeholder(0x7FFFF000), is_placeholder(0x90000000), is_placeholder(2**64 - 1, wide=True)
    (True, False, True)
    """
    return any(size in sizes for sizes in (_WIDE_PLACEHOLDERS if wide else _PLACEHOLDERS))


def truncated(claimed: int, held: int, unit: str = "samples") -> str:
    """Return the words for a header that claims more than the file holds."""
    return f"file is truncated: header says {claimed:,} {unit}, the file holds {held:,}"
