"""The dataset card of a training set: what it holds, where it is from, and what may be done with it."""

from __future__ import annotations

from typing import Any

import yaml

from melmill.flows.exchange.sets.layout import SetInfo, SetLayout
from melmill.flows.exchange.sets.summary import SetSummary

# Licences that Hugging Face has names for; another is "other".
_TAGS = {
    "CC BY 4.0": "cc-by-4.0",
    "CC0": "cc0-1.0",
    "Apache 2.0": "apache-2.0",
    "CC BY-NC-SA 4.0": "cc-by-nc-sa-4.0",
    "public domain": "unlicense",
}


def card(info: SetInfo, layout: SetLayout, summary: SetSummary) -> bytes:
    """Return the card as Markdown, with fields that Hugging Face's hub reads at its head."""
    licence = summary.licence
    head: dict[str, Any] = {"pretty_name": info.name}
    if licence:
        head["license"] = _TAGS.get(licence, "other")
        if head["license"] == "other":
            head["license_name"] = licence
    head |= {"task_categories": ["text-to-speech"], **layout.card_fields(info)}
    rows = [
        f"| {name} | {len(info.of(name)):,} | {_hours(info, name):.3f} | {_speakers(info, name):,} |"
        for name in info.splits
    ]
    lines = [
        "---",
        yaml.safe_dump(head, sort_keys=False, allow_unicode=True).rstrip(),
        "---",
        "",
        f"# {info.name}",
        "",
        f"Made by `melmill export --to {layout.name}` of the nodes {', '.join(f'`{one}`' for one in summary.nodes)} "
        f"(keys {', '.join(f'`{one}`' for one in summary.keys)}). It is read by {layout.read_by}.",
        "",
        "| split | utterances | hours | speakers |",
        "| --- | ---: | ---: | ---: |",
        *rows,
        "",
        f"- Recordings: mono, {info.sr:,} Hz, {info.bits} bits.",
        f"- Texts: {summary.with_text:,} of {summary.utterances:,} utterances have one.",
        f"- Left out: {summary.quarantined:,} in quarantine or dropped, {summary.missing:,} not made yet, "
        f"{summary.left_out:,} not in the list of splits.",
        f"- Licence of the corpus: {licence or 'not known; ask its publisher'}.",
        "- `sha256sum -c SHA256SUMS` checks all files.",
    ]
    if info.mel is not None:
        lines += ["", "The mels:", "", "```yaml", yaml.safe_dump(_plain(info.mel), sort_keys=True).rstrip(), "```"]
    return ("\n".join(lines) + "\n").encode()


def _plain(mel: Any) -> dict[str, Any]:  # noqa: ANN401 - values of a mel spec
    return {name: list(value) if isinstance(value, tuple) else value for name, value in dict(mel).items()}


def _hours(info: SetInfo, split: str) -> float:
    return sum(one.n_samples for one in info.of(split)) / info.sr / 3600


def _speakers(info: SetInfo, split: str) -> int:
    return len({one.speaker for one in info.of(split)} - {""})
