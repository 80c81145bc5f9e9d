"""The answer to how a mel was made."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from melmill.flows.exchange.identify.looks import NoMel, Plane, planes
from melmill.flows.exchange.identify.matching import Recording, equals, matched
from melmill.flows.exchange.identify.result import Identified, Match

# Of a mel less its mean, this share of the norm may stay unexplained where a spec is close.
_CLOSE = 0.35


def identify(values: NDArray[Any], recording: Recording | None = None, top: int = 5) -> Identified:
    """Tell how a mel was made; see `melmill.identify`."""
    try:
        ways = planes(values)
    except NoMel as what:
        # A recording proves what the values alone speak against: noise has no structure of speech.
        proven = [] if recording is None else [_matched(way, recording, top, values.shape) for way in what.ways]
        other = Identified(verdict="no_mel", looks_like=str(what), shape=values.shape)
        return next((answer for answer in proven if answer.fits), other)
    if recording is None:
        from melmill.flows.exchange.identify.blind import likely

        return likely(ways, values.shape, top)
    answers = [_matched(way, recording, top, values.shape) for way in ways]
    return min(answers, key=_misfit)


def _misfit(answer: Identified) -> float:
    """Return the misfit of an answer's first match; infinity where there is none."""
    return np.inf if answer.best is None or answer.best.misfit is None else answer.best.misfit


def _matched(way: Plane, recording: Recording, top: int, shape: tuple[int, ...]) -> Identified:
    matches, fits = matched(way, recording, top)
    return _answer(matches, fits, way.transposed, shape)


def _answer(matches: list[Match], fits: bool, transposed: bool, shape: tuple[int, ...]) -> Identified:
    if fits:
        return Identified(
            verdict="fits",
            matches=tuple(matches),
            transposed=transposed,
            shape=shape,
            equals=equals(matches),
        )
    best = matches[0] if matches else None
    if best is None or best.misfit is None or best.misfit > _CLOSE:
        return Identified(
            verdict="unknown",
            looks_like="no preset makes such a mel of this recording: it is of another recording, or of another make",
            matches=tuple(matches),
            transposed=transposed,
            shape=shape,
        )
    return Identified(
        verdict="close",
        matches=tuple(matches),
        transposed=transposed,
        shape=shape,
        equals=equals(matches),
    )
