"""The page of an account: what of a corpus was kept, and why not the rest, as a picture and tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

from melmill.stages.report.figures import COLOURS
from melmill.stages.report.views.templates import render

_WIDTH, _ROW, _LABEL = 720, 30, 300


class Part(NamedTuple):
    """Hold what a node kept, or dropped for one reason.

    Parameters
    ----------
    node, reason : str
    n_pieces : int
        Pieces of recordings.
    n_samples : int
    duration_s : float
    share : float
        Of all samples, from 0 to 1.
    """

    node: str
    reason: str
    n_pieces: int
    n_samples: int
    duration_s: float
    share: float


class Example(NamedTuple):
    """Hold what one node dropped of one recording."""

    utterance_id: str
    node: str
    reason: str
    detail: str
    start_s: float
    stop_s: float


def account_page(node: str, corpus: str, parts: Sequence[Part], examples: Sequence[Example]) -> bytes:
    """Return the page as UTF-8.

    Parameters
    ----------
    node, corpus : str
        What the account is of, and where it begins.
    parts : sequence of Part
        What was kept first.
    examples : sequence of Example
        Some of what was dropped.
    """
    return render(
        "views/account.html.j2",
        node=node,
        corpus=corpus,
        parts=parts,
        examples=examples,
        kept_s=parts[0].duration_s,
        total_s=sum(part.duration_s for part in parts),
        total_samples=sum(part.n_samples for part in parts),
        total_pieces=sum(part.n_pieces for part in parts),
        picture=picture(parts),
        length=length,
    )


def length(duration_s: float) -> str:
    """Return a length in words.

    >>> length(12.34), length(3 * 3600)
    ('12.34 s', '3.000 h')
    """
    return f"{duration_s:.2f} s" if duration_s < 600 else f"{duration_s / 3600:.3f} h"


def picture(parts: Sequence[Part]) -> Markup:
    """Return all parts as one bar, and below it each with a bar of its own, as SVG."""
    nodes = list(dict.fromkeys(part.node for part in parts[1:]))
    colours = ["var(--good)", *(COLOURS[nodes.index(part.node) % len(COLOURS)] for part in parts[1:])]
    drawn, x = [], 0.0
    for part, colour in zip(parts, colours, strict=True):
        width = part.share * _WIDTH
        drawn.append(_bar(x, 0, width, 34, colour, part))
        x += width
    room = _WIDTH - _LABEL - 90
    largest = max((part.share for part in parts), default=0.0) or 1.0
    for row, (part, colour) in enumerate(zip(parts, colours, strict=True)):
        y = 52 + row * _ROW
        name = f"{part.node}: {part.reason}"
        shown = name if len(name) <= 44 else f"{name[:43]}…"
        drawn.append(Markup('<text x="0" y="{}" class="ink">{}</text>').format(y + 15, shown))
        width = room * part.share / largest
        drawn.append(_bar(_LABEL, y, width, _ROW - 10, colour, part))
        drawn.append(
            Markup('<text x="{:.1f}" y="{}" class="soft">{}</text>').format(
                _LABEL + width + 8, y + 15, f"{100 * part.share:.2f} %"
            )
        )
    height = 52 + len(parts) * _ROW
    return Markup(
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="Kept and dropped audio by reason" '
        f'font-size="13" xmlns="http://www.w3.org/2000/svg">{"".join(map(str, drawn))}</svg>'
    )


def _bar(x: float, y: float, width: float, height: float, colour: str, part: Part) -> Markup:
    title = escape(f"{part.node}: {part.reason}, {length(part.duration_s)}, {100 * part.share:.2f} %")
    return Markup(
        f'<rect x="{x:.2f}" y="{y}" width="{max(width, 0.5):.2f}" height="{height}" fill="{colour}" '
        f'stroke="var(--ground)" stroke-width="1"><title>{title}</title></rect>'
    )
