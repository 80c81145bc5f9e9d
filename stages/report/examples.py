"""The utterances that a report plays: which they are, their audio, and pictures of their mels."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from io import BytesIO

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.resample import resample
from melmill.stages.report.contract import Example, Pick
from melmill.stages.report.statistics import OK, Cube, cube, metric_columns, statuses
from melmill.stages.report.tables import number, status
from melmill.stages.score.metric import metric as metric_of

# Size of all audio and pictures of a page before base64. FLAC packs 16-bit speech with some noise to
# about 0.65 of its PCM. A second of a picture has 62 frames of 80 bands.
BUDGET_BYTES = 2_600_000
_PACKED = 0.65
_PICTURE_BYTES_PER_S = 4_500
_HEADROOM = 0.97  # what does not shrink with the excerpts: headers, and the first blocks
RANGE_DB = 80.0
DIFFERENCE_DB = 20.0
_MEL_MAP, _DIFFERENCE_MAP = "magma", "RdBu_r"
_TICKS_HZ = (500, 1000, 2000, 4000, 8000, 16000)


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Hold audio as a data: address, empty if it can't be played, and a note to listeners."""

    uri: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class PictureAxes:
    """Hold the axes of pictures: seconds across, ``(label, share of the height)`` up."""

    duration_s: float
    ticks: tuple[tuple[str, float], ...]


@dataclass(frozen=True, kw_only=True)
class Take:
    """Hold one waveform of an example, the recording or a node's output, with its pictures."""

    node: str
    audio: Clip
    mel: str
    difference: str = ""
    scores: tuple[tuple[str, str], ...] = ()

    @property
    def n_bytes(self) -> int:
        """Size of its audio and pictures before base64."""
        return sum(map(len, (self.audio.uri, self.mel, self.difference))) * 3 // 4


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Hold everything that the page shows of one example, the recording first."""

    utterance_id: str
    text: str
    why: str
    duration_s: float
    axes: PictureAxes
    takes: tuple[Take, ...]


def pick(scores: pd.DataFrame, count: int) -> list[Pick]:
    """Return `count` utterances, chosen by the first metric that has values, averaged over nodes.

    One utterance is the median; two are the median and the worst; more are spread evenly from the
    worst to the best. Utterances with a value for every node come first, because examples are
    compared across nodes. Others are chosen only where there are none of these.
    """
    table = cube(scores)
    for k, metric in enumerate(table.metrics):
        means = _comparable(table, k)
        worst_first = np.argsort(means * metric_of(metric).sign, kind="stable")
        worst_first = worst_first[: int((~np.isnan(means)).sum())]  # NaN sorts last
        if len(worst_first):
            ids = table.utterances["utterance_id"]
            title, digits = metric_of(metric).title, metric_of(metric).decimals
            over = f", mean over {len(table.nodes)} nodes" if len(table.nodes) > 1 else ""
            return [
                Pick(utterance_id=str(ids[at]), why=f"{name} by {title} ({number(means[at], digits)}{over})")
                for name, at in _spread(worst_first, count)
            ]
    return []


def _comparable(table: Cube, k: int) -> NDArray[np.float64]:
    values = table.values[:, :, k]
    present = ~np.isnan(values)
    everywhere = present[:, present.any(axis=0)].all(axis=1) & present.any()
    rows = everywhere if everywhere.any() else present.any(axis=1)
    means = np.full(len(values), np.nan)
    means[rows] = np.nanmean(values[rows], axis=1)
    return means


def _spread(worst_first: NDArray[np.intp], count: int) -> list[tuple[str, int]]:
    last = len(worst_first) - 1
    shares = [0.5, 0.0][:count] if count < 3 else np.linspace(0, 1, count).tolist()
    named = {0.0: "worst", 0.5: "median", 1.0: "best"}
    ranks: dict[int, str] = {}
    for share in shares:
        ranks.setdefault(int(share * last + 0.5), named.get(share, f"{share:.0%} from the worst"))
    return [(name, int(worst_first[rank])) for rank, name in ranks.items()]


def shown(examples: Sequence[Example], scores: pd.DataFrame, nodes: Sequence[str]) -> list[Shown]:
    """Encode the recordings and what `nodes` made of them, in this order.

    Where the audio is too large for the page, all excerpts are cut to the same length. Noise is packed
    worse than speech, so they are cut once more where they come out too large.
    """
    chosen = [
        replace(one, reconstructions={node: one.reconstructions[node] for node in nodes if node in one.reconstructions})
        for one in examples
    ]
    rates = [rate for one in chosen for rate in (one.sr, *(_rate(one, node) for node in one.reconstructions))]
    # The recording has one picture, what was made of it two.
    seconds = excerpt_s(rates, 2 * len(rates) - len(chosen), BUDGET_BYTES)
    made = [_shown(one, seconds, scores[scores["utterance_id"] == one.utterance_id]) for one in chosen]
    n_bytes = sum(take.n_bytes for one in made for take in one.takes)
    if n_bytes <= BUDGET_BYTES:
        return made
    seconds = min(seconds, max(one.axes.duration_s for one in made)) * _HEADROOM * BUDGET_BYTES / n_bytes
    return [_shown(one, seconds, scores[scores["utterance_id"] == one.utterance_id]) for one in chosen]


def _rate(example: Example, node: str) -> int:
    return example.rates.get(node, example.sr)


def _shown(example: Example, seconds: float, scores: pd.DataFrame) -> Shown:
    y = example.reference[: round(seconds * example.sr)]
    spec = picture_spec(example.sr)
    M = mel_db(y, spec)
    top_db = float(M.max())
    takes = [Take(node="recording", audio=clip(y, example.sr), mel=mel_picture(M, top_db))]
    for node, y_hat in example.reconstructions.items():
        rate = _rate(example, node)
        part = y_hat[: round(seconds * rate)]
        M_hat = mel_db(resample(part, rate, example.sr), spec)
        takes.append(
            Take(
                node=node,
                audio=clip(part, rate),
                mel=mel_picture(M_hat, top_db),
                difference=difference_picture(M_hat, M),
                scores=_scores(scores[scores["node"] == node]),
            )
        )
    return Shown(
        utterance_id=example.utterance_id,
        text=example.text,
        why=example.why,
        duration_s=example.reference.size / example.sr,
        axes=axes(spec, y.size),
        takes=tuple(takes),
    )


def _scores(row: pd.DataFrame) -> tuple[tuple[str, str], ...]:
    """Return title and value, or else status, of every metric that was asked for."""
    if row.empty:
        return ()
    shown_scores = []
    for metric in metric_columns(row):
        state = statuses(row, metric).iloc[0]
        if not pd.isna(state):
            value = f"{number(row[metric].iloc[0], metric_of(metric).decimals)} {metric_of(metric).unit}".rstrip()
            shown_scores.append((metric_of(metric).title, value if state == OK else status(state)))
    return tuple(shown_scores)


def excerpt_s(rates: Iterable[int], n_pictures: int, budget_bytes: int = BUDGET_BYTES) -> float:
    """Return how many seconds of each stream and picture fit a page, given the rates in Hz.

    >>> excerpt_s([16000] * 10, n_pictures=0, budget_bytes=1_040_000)
    5.0
    """
    per_second = sum(rates) * 2 * _PACKED + n_pictures * _PICTURE_BYTES_PER_S
    return budget_bytes / per_second if per_second else 0.0


def clip(y: NDArray[np.float32], sr: int) -> Clip:
    """Encode a waveform ``(n_samples,)`` of full scale 1 as 16-bit FLAC, at its own level.

    Samples beyond full scale are clipped, and the note counts them. A waveform with samples that
    are not finite can't be played, and the note says so.
    """
    import soundfile

    broken = int((~np.isfinite(y)).sum())
    if broken or not y.size:
        return Clip(uri="", note=f"not playable: {broken} samples are not finite" if broken else "not playable: empty")
    scaled = np.rint(y.astype(np.float64) * 32768.0)
    over = int(((scaled > 32767) | (scaled < -32768)).sum())
    buffer = BytesIO()
    soundfile.write(buffer, np.clip(scaled, -32768, 32767).astype(np.int16), sr, format="FLAC", subtype="PCM_16")
    return Clip(uri=data_uri("audio/flac", buffer.getvalue()), note=f"{over} samples clipped" if over else "")


def data_uri(media_type: str, content: bytes) -> str:
    """Return bytes as a data: address.

    >>> data_uri("text/plain", b"hi")
    'data:text/plain;base64,aGk='
    """
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def picture_spec(sr: int) -> MelSpec:
    """Return the mel spec of pictures: 80 bands in dB, windows of 64 ms, hops of 16 ms."""
    n_fft = 2 ** round(np.log2(0.064 * sr))
    return MelSpec(sr=sr, n_fft=n_fft, win_length=n_fft, hop_length=n_fft // 4, log="db", floor=1e-5)


def axes(spec: MelSpec, n_samples: int) -> PictureAxes:
    """Return the axes of pictures of `n_samples` samples made by `spec`."""
    from melmill.stages.numeric.filterbank import hz_to_mel

    top = hz_to_mel(spec.top_hz, htk=spec.htk)
    heights = [(f"{hz / 1000:g} kHz", hz_to_mel(hz, htk=spec.htk) / top) for hz in _TICKS_HZ if hz <= spec.top_hz]
    ticks = tuple((label, round(share, 4)) for label, share in heights)
    return PictureAxes(duration_s=n_samples / spec.sr, ticks=ticks)


def mel_db(y: NDArray[np.float32], spec: MelSpec) -> NDArray[np.float64]:
    """Return the mel ``(n_mels, n_frames)`` of a waveform in dB; samples not finite count as 0."""
    from melmill.stages.numeric.mel import mel_spectrogram

    return np.asarray(mel_spectrogram(np.nan_to_num(y, posinf=0.0, neginf=0.0), spec), dtype=np.float64)


def mel_picture(M: NDArray[np.float64], top_db: float) -> str:
    """Return the picture of a mel in dB, dark at 80 dB below `top_db` and bright at it."""
    return picture((M - top_db + RANGE_DB) / RANGE_DB, _MEL_MAP)


def difference_picture(M_hat: NDArray[np.float64], M: NDArray[np.float64]) -> str:
    """Return the picture of ``M_hat - M``, from -20 dB (blue, too weak) to 20 (red, too strong)."""
    n_frames = min(M_hat.shape[1], M.shape[1])
    return picture((M_hat[:, :n_frames] - M[:, :n_frames]) / (2 * DIFFERENCE_DB) + 0.5, _DIFFERENCE_MAP)


def picture(shares: NDArray[np.float64], colour_map: str) -> str:
    """Return values, clipped to [0, 1], as a PNG with a palette.

    A pixel is a frame and a band, with low bands at the bottom.
    """
    from PIL import Image

    levels = np.rint(np.clip(shares[::-1], 0.0, 1.0) * 255).astype(np.uint8)
    image = Image.fromarray(levels, mode="L")
    image.putpalette(_palette(colour_map))
    buffer = BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return data_uri("image/png", buffer.getvalue())


@cache
def _palette(colour_map: str) -> bytes:
    from matplotlib import colormaps

    return np.asarray(colormaps[colour_map](np.arange(256), bytes=True))[:, :3].astype(np.uint8).tobytes()
