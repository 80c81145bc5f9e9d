"""The page of a corpus card: facts, histograms, speakers, texts and findings with players."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import NDArray

from melmill.stages.extract.lint.findings import KINDS, Rules, findings, rates
from melmill.stages.report.contract import ReportFiles
from melmill.stages.report.examples import Clip, clip, excerpt_s
from melmill.stages.report.tables import as_csv
from melmill.stages.report.views.templates import render

if TYPE_CHECKING:
    from melmill.stages.report.contract import Example, ReportData

_LISTED = 20  # findings of a kind on the page; the table has all
_SPEAKERS = 40
_RARE = 60  # characters that are shown
_BINS = 24
_WIDTH, _HEIGHT, _BOTTOM = 360, 120, 18
_MEASURES = (
    ("duration_s", "Duration", "s"),
    ("level_db", "Level of the speech", "dBFS"),
    ("snr_db", "Speech over noise", "dB"),
    ("rate", "Letters per second of speech", "1/s"),
    ("cliff_db", "Break of the spectrum", "dB"),
    ("silence_s", "Silence before and after", "s"),
)


@dataclass(frozen=True, kw_only=True)
class Found:
    """Hold what the page shows of one finding."""

    utterance_id: str
    node: str
    detail: str
    text: str
    audio: Clip | None


def card_files(data: ReportData, rules: Rules, title: str, players: int) -> ReportFiles:
    """Return the files of a corpus card."""
    inspected, refused = data.inspections, data.quarantine
    tables, found = [], []
    for node, facts in inspected.groupby("node", sort=False):
        facts = facts.assign(rate=rates(facts), silence_s=facts["lead_s"] + facts["tail_s"]).reset_index(drop=True)
        # A recording that one node refused is missing from all that follow it.
        lost = refused.drop_duplicates("utterance_id")
        lost = lost[lost["utterance_id"].isin(facts["utterance_id"])]
        tables.append(facts)
        found.append(findings(facts, lost, rules).assign(node=node))
    facts = pd.concat(tables, ignore_index=True)
    every = pd.concat(found, ignore_index=True)
    summary = summarised(facts, every)
    page = render(
        "views/card.html.j2",
        title=title,
        summary=summary,
        kinds=KINDS,
        found=_shown(data, every, facts, players),
        listed=_LISTED,
        histograms=[
            (name, unit, Markup(histogram(facts[column].dropna().to_numpy(dtype=np.float64))))
            for column, name, unit in _MEASURES
            if facts[column].notna().any()
        ],
        speakers=by_speaker(facts).head(_SPEAKERS).to_dict("records"),
        n_speakers=summary["speakers"],
        rare=rare_characters(facts["text"])[:_RARE],
        notes=data.notes,
    )
    shown = facts.drop(columns=[name for name in ("text_stamp", "mtime_ns") if name in facts.columns])
    return ReportFiles(
        files={
            "index.html": page,
            "findings.csv": as_csv(every),
            "recordings.csv": as_csv(shown),
            "speakers.csv": as_csv(by_speaker(facts)),
            "summary.json": json.dumps(summary, ensure_ascii=False, indent=1).encode() + b"\n",
        },
        headline=_headline(every, len(facts)),
    )


def summarised(facts: pd.DataFrame, found: pd.DataFrame) -> dict[str, Any]:
    """Return what a corpus is in a few numbers, plain values."""
    has_text = facts["text"].fillna("").str.strip() != ""
    speakers = facts["speaker_id"].fillna("")
    counts = found.groupby("kind")["utterance_id"].nunique()
    return {
        "recordings": len(facts),
        "hours": round(float(facts["duration_s"].sum()) / 3600.0, 4),
        "speakers": int(speakers[speakers != ""].nunique()),
        "subsets": int(facts["subset"].fillna("").replace("", pd.NA).nunique()),
        "rates_hz": sorted({int(rate) for rate in facts["source_sr"] if rate}),
        "with_text": int(has_text.sum()),
        "letters": int(facts["text"].fillna("").str.len().sum()),
        "speech_hours": round(float(facts["active_s"].sum()) / 3600.0, 4),
        "median_snr_db": _median(facts["snr_db"]),
        "median_level_db": _median(facts["level_db"]),
        "findings": {kind: int(counts.get(kind, 0)) for kind in KINDS},
        "with_findings": int(found["utterance_id"].nunique()),
    }


def _median(column: pd.Series) -> float | None:
    return round(float(column.median()), 2) if column.notna().any() else None


def by_speaker(facts: pd.DataFrame) -> pd.DataFrame:
    """Return a row per speaker, who spoke most first."""
    grouped = facts.assign(speaker_id=facts["speaker_id"].fillna("")).groupby("speaker_id")
    table = pd.DataFrame(
        {
            "recordings": grouped.size(),
            "minutes": (grouped["duration_s"].sum() / 60.0).round(2),
            "level_db": grouped["level_db"].median().round(1),
            "snr_db": grouped["snr_db"].median().round(1),
            "letters_per_s": grouped["rate"].median().round(2),
        }
    )
    return table.sort_values(["minutes"], ascending=False, kind="stable").reset_index()


def rare_characters(texts: pd.Series) -> list[tuple[str, int]]:
    """Return the characters of all texts with the number of texts that have each, the rarest first."""
    counts = Counter(character for text in texts.fillna("") for character in set(text) if not character.isspace())
    return sorted(counts.items(), key=lambda pair: (pair[1], pair[0]))


def histogram(values: NDArray[np.float64]) -> str:
    """Return how often values occur as bars, SVG in the page's colour."""
    low, high = (float(end) for end in np.percentile(values, [0.0, 100.0]))
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    counts, edges = np.histogram(values, bins=_BINS, range=(low, high))
    width, tallest = _WIDTH / _BINS, max(1, int(counts.max()))
    bars = "".join(
        f'<rect x="{at * width + 0.5:.1f}" y="{_HEIGHT - _HEIGHT * n / tallest:.1f}" width="{width - 1:.1f}" '
        f'height="{_HEIGHT * n / tallest:.1f}"><title>{edges[at]:.4g} to {edges[at + 1]:.4g}: {n:,}</title></rect>'
        for at, n in enumerate(counts.tolist())
        if n
    )
    ticks = "".join(
        f'<text x="{share * _WIDTH:.0f}" y="{_HEIGHT + 14}" text-anchor="{anchor}">'
        f"{low + share * (high - low):.4g}</text>"
        for share, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end"))
    )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT + _BOTTOM}" font-size="11" fill="currentColor" role="img">'
        f'<g fill="#0077BB">{bars}</g><path d="M0 {_HEIGHT}H{_WIDTH}" stroke="currentColor" stroke-width="0.6"/>'
        f"{ticks}</svg>"
    )


def _shown(
    data: ReportData, every: pd.DataFrame, facts: pd.DataFrame, players: int
) -> Mapping[str, tuple[int, Sequence[Found]]]:
    """Return by kind how many findings there are, and those that the page lists."""
    texts = facts.set_index("utterance_id")["text"].fillna("").to_dict()
    listed = {kind: rows.head(_LISTED) for kind, rows in every.groupby("kind", sort=False)}
    played = {
        (node, name): data.recording(node, name)
        for kind, rows in listed.items()
        if kind != "unreadable"
        for node, name in rows.head(players)[["node", "utterance_id"]].itertuples(index=False)
    }
    heard = {at: one for at, one in played.items() if one is not None}
    seconds = excerpt_s([one.sr for one in heard.values()], n_pictures=0)
    clips = {at: _clip(one, seconds) for at, one in heard.items()}
    counts = every["kind"].value_counts()
    return {
        str(kind): (
            int(counts[kind]),
            [
                Found(
                    utterance_id=row["utterance_id"],
                    node=row["node"],
                    detail=row["detail"],
                    text=texts.get(row["utterance_id"], ""),
                    audio=clips.get((row["node"], row["utterance_id"])),
                )
                for row in rows.to_dict("records")
            ],
        )
        for kind, rows in listed.items()
    }


def _clip(example: Example, seconds: float) -> Clip:
    return clip(example.reference[: round(seconds * example.sr)], example.sr)


def _headline(every: pd.DataFrame, n_recordings: int) -> str:
    """Return what the terminal shows: how many recordings each kind of finding has, and the worst."""
    lines = []
    for kind in KINDS:
        rows = every[every["kind"] == kind]
        worst = f"{rows.iloc[0]['utterance_id']}: {rows.iloc[0]['detail']}" if len(rows) else ""
        n = rows["utterance_id"].nunique()
        lines.append({"finding": kind, "recordings": n, "share": f"{n / max(1, n_recordings):.2%}", "worst": worst})
    return pd.DataFrame(lines).to_csv(index=False)
