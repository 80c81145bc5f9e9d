"""Utterances and their delays: P.862 aligns each by itself, and splits one whose delay changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from melmill.stages.score.p862.activity import Activity, activity, stretches
from melmill.stages.score.p862.conditioning import Conditioned
from melmill.stages.score.p862.delays import (  # fmt: skip
    FrameTables,
    correlation,
    envelope_delay,
    frame_tables,
    growing_delays,
    votes,
)
from melmill.stages.score.p862.tables import BUFFER, Rate

_SHORTEST = 50  # windows, 200 ms
_SHORTEST_SPLIT = 200  # windows, 0.8 s
_MOST_SPLITS = 40
_MOST_UTTERANCES = 50


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """Hold a stretch of the reference and how much later the estimate has it.

    Places are in windows of the buffered reference, delays in samples.
    """

    search_start: int
    search_end: int
    start: int
    end: int
    coarse_delay: int = 0
    delay: int = 0
    confidence: float = 0.0


class _Halves(NamedTuple):
    """The delays of one side of every break point."""

    coarse: NDArray[np.int64]
    delay: NDArray[np.int64]
    confidence: NDArray[np.float64]


class Aligner:
    """Find the utterances of a reference in an estimate.

    Parameters
    ----------
    signals : Conditioned
    rate : Rate
    """

    def __init__(self, signals: Conditioned, rate: Rate) -> None:
        self._x, self._y = signals.aligned
        self._n_x, self._n_y = signals.n
        self._rate, self._step = rate, rate.window
        self._tables: FrameTables = frame_tables(rate.n_align)
        self._reference: Activity = activity(self._x, self._n_x, rate)
        self._estimate: Activity = activity(self._y, self._n_y, rate)

    def utterances(self) -> list[Utterance]:
        """Return the utterances in order; none if there is no speech of 200 ms."""
        crude = envelope_delay(self._reference.log, self._estimate.log) * self._step
        found = []
        for one in self._found(crude):
            coarse = self._coarse_delay(one.search_start, one.search_end, crude)
            found.append(self._aligned(replace(one, coarse_delay=coarse)))
        if not found:
            return []
        return self._split(self._bounded(found))

    def _found(self, crude: int) -> list[Utterance]:
        """Return the bursts of the reference that are long enough and lie within the estimate."""
        speech = self._reference.power > 0
        n = speech.size
        first = _SHORTEST - _over(crude, self._step)
        last = _over(self._n_y - crude, self._step) - _SHORTEST
        found = []
        for start, end in stretches(speech).tolist():
            end = min(end, n - 1)
            if end - start >= _SHORTEST and start < last and end > first:
                found.append(
                    Utterance(
                        search_start=max(start - BUFFER, 0),
                        search_end=min(end + BUFFER, n - 1),
                        start=start,
                        end=end,
                    )
                )
        return found

    def _stretches(self, start: int, end: int, delay: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the envelopes of windows of the reference, and of those that many samples later."""
        late = start + _over(delay, self._step)
        if late < 0:
            start, late = _over(-delay, self._step), 0
        return self._reference.log[start:end], self._estimate.log[late : late + max(end - start, 0)]

    def _coarse_delay(self, start: int, end: int, delay: int) -> int:
        """Return the delay in samples, to 4 ms, given the `delay` around which to look."""
        return envelope_delay(*self._stretches(start, end, delay)) * self._step + delay

    def _aligned(self, one: Utterance) -> Utterance:
        """Return an utterance with its delay to a sample."""
        coarse = one.coarse_delay
        start = max(one.search_start * self._step, -coarse)
        room = min(one.search_end * self._step, self._n_y - coarse) - start - self._rate.n_align
        n_frames = max(room // (self._rate.n_align // 4) + 1, 0)
        delay, confidence = self._voted(start, coarse, 1, np.array([n_frames]), self._tables)
        return replace(one, delay=int(delay[0]), confidence=float(confidence[0]))

    def _voted(
        self, start: int, coarse: int, direction: int, n_frames: NDArray[np.int64], tables: FrameTables
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return delay and confidence of the first ``n_frames[k]`` frames, for every k.

        Frames begin at `start` and go in a `direction`, 1 or -1.
        """
        n = self._rate.n_align
        first, last = min(start, start + coarse), min(self._x.size - start, self._y.size - start - coarse) - n
        room = last if direction > 0 else first
        # Nothing lies outside of the signals.
        most = 0 if min(first, last) < 0 else room // (n // 4) + 1
        peak, confidence = votes(self._x, self._y, start, start + coarse, direction, np.minimum(n_frames, most), tables)
        return coarse + peak - np.where(peak >= n // 2, n, 0), confidence

    def _bounded(self, found: list[Utterance]) -> list[Utterance]:
        """Return the utterances stretched until they meet, within both signals."""
        step = self._step
        start, end = [one.start for one in found], [one.end for one in found]
        delay = [one.delay for one in found]
        start[0], end[-1] = BUFFER, self._reference.power.size - BUFFER
        for i in range(1, len(found)):
            start[i] = end[i - 1] = (start[i] + end[i - 1]) // 2
        if start[0] * step + delay[0] < BUFFER * step:
            start[0] = BUFFER + _over(step - 1 - delay[0], step)
        if end[-1] * step + 1 + delay[-1] > self._n_y - BUFFER * step:
            end[-1] = _over(self._n_y - delay[-1], step) - BUFFER
        for i in range(1, len(found)):
            first, last = start[i] * step + delay[i], end[i - 1] * step + delay[i - 1]
            if first < last:
                middle = (first + last) // 2
                start[i] = _over(step - 1 + middle - delay[i], step)
                end[i - 1] = _over(middle - delay[i - 1], step)
        return [replace(one, start=s, end=e) for one, s, e in zip(found, start, end, strict=True)]

    def _split(self, found: list[Utterance]) -> list[Utterance]:
        """Return the utterances, each in two where both parts are surer of their delays."""
        i = 0
        while i < len(found) < _MOST_UTTERANCES:
            parts = self._parts(found[i])
            if parts is None:
                i += 1
            else:
                found[i : i + 1] = parts
        return found

    def _parts(self, one: Utterance) -> tuple[Utterance, Utterance] | None:
        """Return the two parts of an utterance; None if it is best as a whole."""
        speech = np.flatnonzero(self._reference.power[one.start : one.end + 1] > 0)
        if not speech.size:
            return None
        first, last = one.start + int(speech[0]), one.start + int(speech[-1]) + 1
        if last - first < _SHORTEST_SPLIT:
            return None
        at = self._break_points(first, last)
        tables = self._tables._replace(window=self._window(one, at))
        left = self._left(one, at, tables)
        surer = left.confidence > one.confidence
        if not surer.any():
            return None
        at, left = at[surer], _Halves(left.coarse[surer], left.delay[surer], left.confidence[surer])
        right = self._right(one, at, tables)
        sure = left.confidence + right.confidence
        sure[(np.abs(left.delay - right.delay) < self._step) | (right.confidence <= one.confidence)] = 0
        best = int(np.argmax(sure))
        if not sure[best] > 0:
            return None
        step, middle = self._step, int(at[best])
        before, after = int(left.delay[best]), int(right.delay[best])
        overlap = max(_over(after - before, 2 * step), 0)
        start, end = one.start, one.end
        if start * step + before < BUFFER * step:
            start = BUFFER + _over(step - 1 - before, step)
        if end * step + after > self._n_y - BUFFER * step:
            end = _over(self._n_y - after, step) - BUFFER
        return (
            replace(one, start=start, end=middle + overlap, coarse_delay=int(left.coarse[best]), delay=before,
                    confidence=float(left.confidence[best])),
            replace(one, start=middle - overlap, end=end, coarse_delay=int(right.coarse[best]), delay=after,
                    confidence=float(right.confidence[best])),
        )  # fmt: skip

    def _break_points(self, first: int, last: int) -> NDArray[np.int64]:
        """Return the windows between `first` and `last` at which an utterance may be split."""
        n, hop = last - first, self._rate.n_align // (4 * self._step)
        stride = int((0.801 * n + 40 * hop - 1) / (40 * hop)) * hop
        margin = max(n // 10, BUFFER)
        at = np.arange(first + margin, max(last - margin, first + margin) + 1, stride)
        return at[:_MOST_SPLITS]

    def _window(self, one: Utterance, at: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the window of the frames of an utterance that is looked at for a split.

        The reference code holds this window in memory that it also correlates envelopes in, behind
        room for three spectra. Of an utterance over 3.1 s at 8 kHz, or 6.2 s at 16 kHz, the
        correlations overwrite the window. To agree with its scores, so they do here.
        """
        window = self._tables.window.copy()
        room = 3 * (window.size + 2)

        def overwrite(start: int, end: int, least: int) -> None:
            envelopes = self._stretches(start, end, one.coarse_delay)
            if sum(envelope.size for envelope in envelopes) - 1 > least and min(e.size for e in envelopes) > 1:
                part = correlation(*envelopes)[least : room + window.size]
                window[least - room : least - room + part.size] = part

        # The last that are written: what lies before the last break point, unless what lies behind others is longer.
        before = sum(e.size for e in self._stretches(one.start, int(at[-1]), one.coarse_delay)) - 1
        for middle in at[:-1].tolist():
            overwrite(middle, one.end, max(before, room))
        overwrite(one.start, int(at[-1]), room)
        overwrite(int(at[-1]), one.end, room)
        return window

    def _left(self, one: Utterance, at: NDArray[np.int64], tables: FrameTables) -> _Halves:
        """Return the delays before each break point."""
        step, n = self._step, self._rate.n_align
        reference, estimate = self._stretches(one.start, int(at[-1]), one.coarse_delay)
        n_windows = np.maximum(at - int(at[-1]) + reference.size, 0)
        lags = growing_delays(reference, estimate, n_windows, np.minimum(n_windows, estimate.size))

        def frames(coarse: int) -> tuple[int, NDArray[np.int64]]:
            first = max(one.start * step, -coarse)
            return first, np.minimum(at * step, self._n_y - coarse) - first - n

        return self._halves(lags * step + one.coarse_delay, frames, 1, tables)

    def _right(self, one: Utterance, at: NDArray[np.int64], tables: FrameTables) -> _Halves:
        """Return the delays behind each break point."""
        step, n = self._step, self._rate.n_align
        reference, estimate = self._stretches(int(at[0]), one.end, one.coarse_delay)
        missing = reference.size - estimate.size
        # The stretch grows from its end backwards.
        n_windows = np.minimum(one.end - at[::-1], reference.size)
        m_windows = np.maximum(n_windows - missing, 0)
        lags = -missing - growing_delays(
            reference[::-1].copy(), estimate[::-1].copy(), n_windows, m_windows, unmet=-missing
        )
        lags = lags[::-1]

        def frames(coarse: int) -> tuple[int, NDArray[np.int64]]:
            last = min(one.end * step, self._n_y - coarse) - n
            return last, np.minimum(last - at * step, last + coarse)

        return self._halves(lags * step + one.coarse_delay, frames, -1, tables)

    def _halves(
        self,
        coarse: NDArray[np.int64],
        frames: Callable[[int], tuple[int, NDArray[np.int64]]],
        direction: int,
        tables: FrameTables,
    ) -> _Halves:
        """Return the delays of one side, given those to 4 ms.

        `frames` says of such a delay where the first frame begins, and how far the last may begin
        from there for each break point.
        """
        delay, confidence = np.zeros_like(coarse), np.zeros(coarse.size)
        for one in np.unique(coarse).tolist():
            mine = np.flatnonzero(coarse == one)
            start, room = frames(one)
            n_frames = np.maximum(room[mine] // (self._rate.n_align // 4) + 1, 0)
            order = np.argsort(n_frames, kind="stable")
            delay[mine[order]], confidence[mine[order]] = self._voted(start, one, direction, n_frames[order], tables)
        return _Halves(coarse, delay, confidence)


def _over(a: int, b: int) -> int:
    """Return ``a / b`` rounded towards 0."""
    return a // b if a >= 0 else -(-a // b)
