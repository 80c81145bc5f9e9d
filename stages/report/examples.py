"""Which utterances a report plays, and what it shows of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from melmill.stages.contract import Example
from melmill.stages.numeric.resample import resample
from melmill.stages.report.cube import OK, Cube, cube, metric_columns, statuses
from melmill.stages.report.figures import PictureAxes, axes, difference_picture, mel_db, mel_picture, picture_spec
from melmill.stages.report.inputs import Pick
from melmill.stages.report.sound import Clip, clip, excerpt_s
from melmill.stages.report.wording import decimals, number, status
from melmill.stages.score.registry import metric as described


@dataclass(frozen=True, kw_only=True)
class Take:
    """Hold one waveform of an example: the recording or a node's output, with addresses of pictures."""

    node: str
    audio: Clip
    mel: str
    difference: str = ""
    scores: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Hold all that the page shows of one example, the recording first."""

    utterance_id: str
    text: str
    why: str
    duration_s: float
    axes: PictureAxes
    takes: tuple[Take, ...]


def pick(scores: pd.DataFrame, count: int) -> list[Pick]:
    """Return `count` utterances by the first metric that has values, averaged over nodes.

    One: the median; two: the median and the worst; more: evenly spread from the worst to the best. Only where no
    utterance has a value for every node are others taken: an example is there to be compared across nodes.
    """
    table = cube(scores)
    for k, metric in enumerate(table.metrics):
        means = _comparable(table, k)
        worst_first = np.argsort(means * (1 if described(metric).better == "higher" else -1), kind="stable")
        worst_first = worst_first[: int((~np.isnan(means)).sum())]  # NaN sorts last
        if len(worst_first):
            ids = table.utterances["utterance_id"]
            return [
                Pick(utterance_id=str(ids[at]), why=_why(name, metric, means[at], len(table.nodes)))
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


def _why(name: str, metric: str, value: float, n_nodes: int) -> str:
    over = f", mean over {n_nodes} nodes" if n_nodes > 1 else ""
    return f"{name} by {described(metric).title} ({number(value, decimals(metric))}{over})"


def shown(examples: Sequence[Example], scores: pd.DataFrame, nodes: Sequence[str]) -> list[Shown]:
    """Encode the recordings and what `nodes` made of them, in this order.

    All excerpts are cut alike where the audio would outgrow the page's budget.
    """
    chosen = [
        replace(one, reconstructions={node: one.reconstructions[node] for node in nodes if node in one.reconstructions})
        for one in examples
    ]
    rates = [rate for one in chosen for rate in (one.sr, *(_rate(one, node) for node in one.reconstructions))]
    seconds = excerpt_s(rates)
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
    """Return label and value, or why there is none, of every metric that was asked for."""
    if row.empty:
        return ()
    found = []
    for metric in metric_columns(row):
        state = statuses(row, metric).iloc[0]
        if not pd.isna(state):
            value = f"{number(row[metric].iloc[0], decimals(metric))} {described(metric).unit}".rstrip()
            found.append((described(metric).title, value if state == OK else status(state)))
    return tuple(found)
