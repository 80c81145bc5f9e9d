"""Checks of the noise that a stochastic family is given."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from melmill.stages.vocoders.errors import VocoderError


def checked(family: str, noise: Sequence[Tensor], shapes: Sequence[tuple[int, ...]]) -> Sequence[Tensor]:
    """Return `noise`; raise VocoderError where it has not these shapes, batch axis and all.

    >>> checked("waveglow", (), [(1, 4, 32)])
    Traceback (most recent call last):
    melmill.stages.vocoders.errors.VocoderError: noise of waveglow must be 1 array of shape (1, 4, 32), got none
    """
    got = [tuple(draw.shape) for draw in noise]
    if got != list(shapes):
        count = f"{len(shapes)} array" + "s" * (len(shapes) != 1)
        raise VocoderError(
            f"noise of {family} must be {count} of shape {_listed(shapes)}, got {_listed(got) or 'none'}"
        )
    return noise


def _listed(shapes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join(map(str, shapes))
