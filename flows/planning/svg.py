"""Draw a plan as SVG: nodes in columns from left to right, each after those that it reads.

The steps are Sugiyama's. Declarations get a column each, long edges get a place in every column
that they cross, columns are sorted by the mean place of neighbours, and places are then spread so
that edges are short. The variants of a fan-out stay together in a frame. What all of them read, or
what reads all of them, is one edge of the frame.

References
----------
Sugiyama, Tagawa and Toda, "Methods for visual understanding of hierarchical system structures",
IEEE Transactions on Systems, Man, and Cybernetics 11(2), 1981.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean
from xml.sax.saxutils import escape

from melmill.flows.planning.drawing import Box, Drawing, State

# Sizes in pixels. Text is 13 high. A letter has this width on average, or that in bold type.
LETTER, BOLD = 7.4, 8.3
LINE = 17
BOX_HEIGHT = 4 * LINE + 12
MIN_WIDTH, MAX_WIDTH, MAX_NAME_WIDTH = 170, 330, 470
GAP, COLUMN_GAP, MARGIN, FRAME, FRAME_HEAD, LANE = 16, 96, 24, 10, 22, 10
HEAD = 92
SWEEPS = 12

_STYLE = """
svg { --page: #ffffff; --ink: #1c2430; --soft: #5b6675; --line: #8a94a3; --frame: #b6bfcb;
  --done: #d9f2e0; --run: #d5e7ff; --wait: #eceef2; --bar: #2f9e57; }
@media (prefers-color-scheme: dark) { svg { --page: #14181f; --ink: #e8ecf2; --soft: #a5b0bf;
  --line: #78849a; --frame: #4a5568; --done: #1d4630; --run: #1d3d68; --wait: #2a303b; --bar: #55c981; } }
text { font: 13px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: var(--ink); }
.title { font-size: 18px; font-weight: 600; } .name { font-weight: 600; }
.soft { fill: var(--soft); } .port { font-size: 11px; fill: var(--soft);
  paint-order: stroke; stroke: var(--page); stroke-width: 3px; }
.page { fill: var(--page); } .bar { fill: var(--bar); }
.done { fill: var(--done); } .run { fill: var(--run); } .wait { fill: var(--wait); }
.box { stroke: var(--line); } .frame { fill: none; stroke: var(--frame); stroke-dasharray: 5 4; }
.edge { fill: none; stroke: var(--line); stroke-width: 1.4; } .arrow { fill: var(--line); }
"""
_CLASS = {State.DONE: "done", State.TO_RUN: "run", State.WAITING: "wait"}


@dataclass
class _Place:
    """A declaration in its column, or the lane of an edge that crosses the column."""

    name: str
    column: int
    boxes: list[Box] = field(default_factory=list)
    y: float = 0.0
    ranks: dict[int, int] = field(default_factory=dict)

    @property
    def height(self) -> float:
        n = len(self.boxes)
        inner = n * BOX_HEIGHT + (n - 1) * GAP
        return LANE if not n else inner + (FRAME + FRAME_HEAD if n > 1 else 0)

    @property
    def middle(self) -> float:
        return self.y + self.height / 2

    def top(self, index: int) -> float:
        """Return where a box begins."""
        rank = self.ranks.get(index, index)
        return self.y + (FRAME_HEAD if len(self.boxes) > 1 else 0) + rank * (BOX_HEIGHT + GAP)


# From a declaration and box to another one at a port. A box of None is the frame of all.
_Line = tuple[str, int | None, str, int | None, str]


def svg(drawn: Drawing) -> str:
    """Return a picture as an SVG document. It suits light and dark pages."""
    return "".join(_Picture(drawn).document())


class _Picture:
    def __init__(self, drawn: Drawing) -> None:
        self._drawn = drawn
        self._lines = _lines(drawn)
        self._places = _places(drawn, self._lines)
        self._chains = {line: _chain(line, self._places) for line in self._lines}
        self._columns = _columns(self._places, self._chains.values())
        self._sort_variants()
        widths = [max([_width(box) for place in column for box in place.boxes], default=0) for column in self._columns]
        framed = [FRAME if any(len(place.boxes) > 1 for place in column) else 0 for column in self._columns]
        self._widths, self._lefts, x = widths, [], float(MARGIN)
        for width, frame in zip(widths, framed, strict=True):
            self._lefts.append(x + frame)
            x += width + 2 * frame + COLUMN_GAP
        legend = MARGIN + sum(_legend_width(text) for text, _ in self._legend())
        title = 2 * MARGIN + _letters(drawn.title) * 10.5
        self._size = (max(x - COLUMN_GAP + MARGIN, legend, title), self._bottom() + MARGIN)

    def _sort_variants(self) -> None:
        """Sort the boxes of each frame as what they read lies, so that fewer edges cross."""
        for place in sorted(self._places.values(), key=lambda place: place.column):
            heights: dict[int, list[float]] = {}
            for line, chain in self._chains.items():
                source, of_source, target, of_target, _ = line
                if target == place.name and of_target is not None:
                    begin = self._places[source]
                    direct = len(chain) == 2 and of_source is not None
                    heights.setdefault(of_target, []).append(begin.top(of_source or 0) if direct else chain[-2].middle)
            if len(heights) == len(place.boxes):
                order = sorted(heights, key=lambda index: (fmean(heights[index]), index))
                place.ranks = {index: rank for rank, index in enumerate(order)}

    def _bottom(self) -> float:
        return max((place.y + place.height for column in self._columns for place in column), default=HEAD)

    def document(self) -> Iterator[str]:
        width, height = (f"{side:.0f}" for side in self._size)
        yield f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        yield f'viewBox="0 0 {width} {height}" role="img">\n'
        yield f"<title>{_text(self._drawn.title)}</title>\n<style>{_STYLE}</style>\n"
        yield '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        yield 'orient="auto"><path class="arrow" d="M0 0 8 4 0 8z"/></marker></defs>\n'
        yield f'<rect class="page" width="{width}" height="{height}"/>\n'
        yield f'<text class="title" x="{MARGIN}" y="{MARGIN + 14}">{_text(self._drawn.title)}</text>\n'
        yield from self._draw_legend()
        for line in self._lines:
            yield self._draw_line(line)
        for place in self._places.values():
            yield from self._draw_place(place)
        yield from self._draw_ports()
        yield "</svg>\n"

    def _legend(self) -> list[tuple[str, str]]:
        states = [(state.value, f'class="box {_CLASS[state]}"') for state in State]
        return states + [(f"pool {name}, {slots}", f'fill="{colour}"') for name, slots, colour in self._drawn.pools]

    def _draw_legend(self) -> Iterator[str]:
        x = float(MARGIN)
        for text, look in self._legend():
            yield f'<rect {look} x="{x:.1f}" y="{MARGIN + 29}" width="14" height="14" rx="3"/>'
            yield f'<text class="soft" x="{x + 20:.1f}" y="{MARGIN + 41}">{_text(text)}</text>\n'
            x += _legend_width(text)

    def _draw_place(self, place: _Place) -> Iterator[str]:
        left, width = self._lefts[place.column], self._widths[place.column]
        if len(place.boxes) > 1:
            yield f'<rect class="frame" x="{left - FRAME:.1f}" y="{place.y:.1f}" '
            yield f'width="{width + 2 * FRAME:.1f}" height="{place.height:.1f}" rx="10"/>'
            yield f'<text class="soft" x="{left:.1f}" y="{place.y + 15:.1f}">'
            yield f"{_text(_cut(place.name, width - 60))} × {len(place.boxes)}</text>\n"
        for i, box in enumerate(place.boxes):
            yield from _draw_box(box, left, place.top(i), width)

    def _ends(self, line: _Line) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return where an edge begins and ends, ``(x, y)``."""
        source, of_source, target, of_target, port = line
        begin, end = self._places[source], self._places[target]
        x0 = self._lefts[begin.column] + self._widths[begin.column] + (FRAME if of_source is None else 0)
        x1 = self._lefts[end.column] - (FRAME if of_target is None else 0)
        y0 = begin.middle if of_source is None else begin.top(of_source) + BOX_HEIGHT / 2
        ports = self._ports(target, of_target)
        if of_target is None:  # beside the head of the frame, where no box has its own
            return (x0, y0), (x1, end.y + FRAME_HEAD / 2 + ports.index(port) * LINE)
        return (x0, y0), (x1, end.top(of_target) + BOX_HEIGHT * (ports.index(port) + 1) / (len(ports) + 1))

    def _ports(self, target: str, of_target: int | None) -> list[str]:
        """Return the ports of a box or frame, from top to bottom as their sources lie."""
        heights: dict[str, list[float]] = {}
        for line in self._lines:
            if line[2:4] == (target, of_target):
                heights.setdefault(line[4], []).append(self._chains[line][-2].middle)
        return sorted(heights, key=lambda port: (fmean(heights[port]), port))

    def _draw_line(self, line: _Line) -> str:
        (x, y), (x1, y1) = self._ends(line)
        path = [f"M{x:.1f} {y:.1f}"]
        for lane in self._chains[line][1:-1]:
            left = self._lefts[lane.column]
            path.append(f"{_curve(x, y, left, lane.middle)} H{left + self._widths[lane.column]:.1f}")
            x, y = left + self._widths[lane.column], lane.middle
        path.append(_curve(x, y, x1 - 2, y1))
        named = " → ".join((line[0], f"{line[2]} ({line[4]})"))
        return (
            f'<path class="edge" marker-end="url(#arrow)" d="{" ".join(path)}"><title>{_text(named)}</title></path>\n'
        )

    def _draw_ports(self) -> Iterator[str]:
        ends = {(line[2:], self._ends(line)[1]) for line in self._lines}
        for (_, _, port), (x, y) in sorted(ends, key=lambda end: (end[1], end[0][2])):
            yield f'<text class="port" text-anchor="end" x="{x - 12:.1f}" y="{y - 5:.1f}">{_text(port)}</text>\n'


def _draw_box(box: Box, left: float, top: float, width: float) -> Iterator[str]:
    x, inner = left + 14, width - 24
    title = "\n".join(part for part in (box.name, box.stage, box.pool, box.shards, box.why) if part)
    yield f'<g><title>{_text(title)}</title><rect class="box {_CLASS[box.state]}" x="{left:.1f}" y="{top:.1f}" '
    yield f'width="{width:.1f}" height="{BOX_HEIGHT}" rx="7"/>'
    yield f'<rect fill="{box.colour}" x="{left:.1f}" y="{top + 7:.1f}" width="5" height="{BOX_HEIGHT - 14}" rx="2"/>'
    lines = (
        ("name", box.name),
        ("soft", f"{box.stage} · {box.pool}"),
        ("", box.shards),
        ("soft", box.why),
    )
    for i, (look, text) in enumerate(lines):
        shown = _text(_cut(text, inner, BOLD if look == "name" else LETTER))
        yield f'<text class="{look}" x="{x:.1f}" y="{top + 18 + i * LINE:.1f}">{shown}</text>'
    if 0 < box.share_done < 1:
        yield f'<rect class="bar" x="{x:.1f}" y="{top + BOX_HEIGHT - 6:.1f}" '
        yield f'width="{inner * box.share_done:.1f}" height="3" rx="1"/>'
    yield "</g>\n"


def _lines(drawn: Drawing) -> list[_Line]:
    """Return the edges, where those of all variants of a declaration are one of its frame."""
    groups = drawn.groups
    index = {box.name: (folder, i) for folder, boxes in groups.items() for i, box in enumerate(boxes)}
    read: dict[tuple[str, str, str], set[tuple[int | None, int | None]]] = {}
    for edge in drawn.edges:
        (source, i), (target, j) = index[edge.source], index[edge.target]
        read.setdefault((source, target, edge.port), set()).add((i, j))
    lines: dict[_Line, None] = {}
    for (source, target, port), pairs in read.items():
        # A target that reads all sources reads their frame; a source that all targets read is read by theirs.
        whole = {(i, j) for j, i in _framed({(j, i) for i, j in pairs}, len(groups[source]))}
        ends = _framed(whole, len(groups[target]))
        lines.update(dict.fromkeys((source, i, target, j, port) for i, j in sorted(ends, key=repr)))
    return list(lines)


def _framed(pairs: Iterable[tuple[int | None, int | None]], n: int) -> set[tuple[int | None, int | None]]:
    """Return pairs with None as the second of those whose first is paired with all of several."""
    seconds: dict[int | None, set[int | None]] = {}
    for first, second in pairs:
        seconds.setdefault(first, set()).add(second)
    return {
        (first, second) for first, found in seconds.items() for second in ({None} if 1 < n == len(found) else found)
    }


def _places(drawn: Drawing, lines: Iterable[_Line]) -> dict[str, _Place]:
    """Return the place of each declaration, in the column after all that it reads."""
    sources: dict[str, set[str]] = {}
    for source, _, target, _, _ in lines:
        sources.setdefault(target, set()).add(source)
    places: dict[str, _Place] = {}
    waiting = dict(drawn.groups)
    while waiting:
        # A variant may be named before the other variants of what it reads, so several passes are taken.
        ready = [name for name in waiting if sources.get(name, set()) <= places.keys()]
        for name in ready:
            column = max((places[source].column + 1 for source in sources.get(name, ())), default=0)
            places[name] = _Place(name, column, waiting.pop(name))
    return places


def _chain(line: _Line, places: Mapping[str, _Place]) -> list[_Place]:
    """Return the ends of an edge, with a lane in each column between them."""
    begin, end = places[line[0]], places[line[2]]
    lanes = [_Place(f"{line}", column) for column in range(begin.column + 1, end.column)]
    return [begin, *lanes, end]


def _columns(places: Mapping[str, _Place], chains: Iterable[list[_Place]]) -> list[list[_Place]]:
    """Return the places of each column from top to bottom, and give each its height on the page."""
    chains = list(chains)
    columns: list[list[_Place]] = [[] for _ in range(1 + max((place.column for place in places.values()), default=0))]
    for place in places.values():
        columns[place.column].append(place)
    neighbours: dict[int, list[_Place]] = {}
    before: dict[int, list[_Place]] = {}
    for chain in chains:
        for lane in chain[1:-1]:
            columns[lane.column].append(lane)
        for one, other in pairwise(chain):
            neighbours.setdefault(id(one), []).append(other)
            neighbours.setdefault(id(other), []).append(one)
            before.setdefault(id(other), []).append(one)
    for column in columns:
        _stack(column, [0.0] * len(column))
    for sweep in range(SWEEPS):
        for column in columns if sweep % 2 == 0 else reversed(columns):
            known = before if sweep < 2 else neighbours
            wanted = {id(place): fmean(other.middle for other in known.get(id(place), [place])) for place in column}
            column.sort(key=lambda place: wanted[id(place)])
            _stack(column, [wanted[id(place)] for place in column])
    top = min((place.y for column in columns for place in column), default=0.0)
    for column in columns:
        for place in column:
            place.y += HEAD - top
    return columns


def _stack(column: list[_Place], wanted: list[float]) -> None:
    """Place a column's members near the heights that they want, in order and without overlap.

    Blocks of touching members move together to their mean, which is least squares.
    """
    blocks: list[tuple[list[_Place], float, float]] = []  # members, their height, sum of the wanted tops
    for place, middle in zip(column, wanted, strict=True):
        block = ([place], place.height + GAP, middle - place.height / 2)
        while blocks and _top(blocks[-1]) + blocks[-1][1] > _top(block):
            members, height, total = blocks.pop()
            block = ([*members, *block[0]], height + block[1], total + block[2] - len(block[0]) * height)
        blocks.append(block)
    for block in blocks:
        y = _top(block)
        for place in block[0]:
            place.y = y
            y += place.height + GAP


def _top(block: tuple[list[_Place], float, float]) -> float:
    return block[2] / len(block[0])


def _curve(x0: float, y0: float, x1: float, y1: float) -> str:
    """Return a curve of a path from ``(x0, y0)`` that begins and ends level."""
    middle = (x0 + x1) / 2
    return f"C{middle:.1f} {y0:.1f} {middle:.1f} {y1:.1f} {x1:.1f} {y1:.1f}"


def _width(box: Box) -> float:
    longest = max(_letters(text) for text in (f"{box.stage} · {box.pool}", box.shards, box.why))
    name_width = min(MAX_NAME_WIDTH, 30 + _letters(box.name) * BOLD)
    return max(MIN_WIDTH, min(MAX_WIDTH, 30 + longest * LETTER), name_width)


def _legend_width(text: str) -> float:
    return 44 + _letters(text) * LETTER


def _letters(text: str) -> int:
    """Return how many letters wide a text is. East Asian ones are as wide as two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _cut(text: str, width: float, letter: float = LETTER) -> str:
    """Return a text, with an ellipsis in place of its middle where `width` pixels hold no more."""
    head, tail = text, ""
    if _letters(text) * letter > width:
        half = len(text) // 2
        head, tail = text[:half], text[half:]
        while head and (_letters(head) + 1 + _letters(tail)) * letter > width:
            head, tail = head[:-1], tail[1:]
        head += "…"
    return head + tail


def _text(text: str) -> str:
    """Return a text as XML has it, with a mark in place of what XML can't hold."""
    held = (letter if letter in "\t\n" or letter.isprintable() else "\ufffd" for letter in text)
    return escape("".join(held), {'"': "&quot;"})
