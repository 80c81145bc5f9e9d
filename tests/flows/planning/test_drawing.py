"""A plan as a picture: every node with its state, edges by port, fan-outs in frames."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from melmill.flows.planning.drawing import Box, Drawing, Edge, State, dot
from melmill.flows.planning.svg import svg
from tests.flows.conftest import NODES, Project

SVG = "{http://www.w3.org/2000/svg}"


def box(name: str, folder: str | None = None, **fields: object) -> Box:
    given = {
        "stage": "extract",
        "pool": "cpu",
        "colour": "#2f6fde",
        "state": State.DONE,
        "shards": "3 shards done",
        "share_done": 1.0,
        "why": "",
    }
    return Box(name=name, folder=folder or name, **{**given, **fields})  # type: ignore[arg-type]


def drawn(*boxes: Box, edges: tuple[tuple[str, str, str], ...] = ()) -> Drawing:
    return Drawing(
        title="test",
        boxes=boxes,
        edges=tuple(Edge(*ends) for ends in edges),
        pools=(("cpu", "2 at a time", "#2f6fde"),),
    )


def parsed(picture: Drawing) -> ElementTree.Element:
    return ElementTree.fromstring(svg(picture))


def named(root: ElementTree.Element) -> list[str]:
    """Return the first line of every box's title, which is its name."""
    titles = [group.findtext(f"{SVG}title") or "" for group in root.iter(f"{SVG}g")]
    return [title.split("\n")[0] for title in titles]


def edges(root: ElementTree.Element) -> list[str]:
    return sorted(path.findtext(f"{SVG}title") or "" for path in root.iter(f"{SVG}path") if path.get("class") == "edge")


def rectangles(root: ElementTree.Element, look: str) -> list[tuple[float, float, float, float]]:
    """Return left, top, right and bottom of the rectangles of a class."""
    found = [one for one in root.iter(f"{SVG}rect") if (one.get("class") or "").split()[:1] == [look]]
    sides = [[float(one.get(name) or 0) for name in ("x", "y", "width", "height")] for one in found]
    return [(x, y, x + width, y + height) for x, y, width, height in sides if height > 20]


FAN_OUT = drawn(
    box("speech"),
    *(box(f"gla[n_iter={n}]", "gla") for n in (1, 2, 3)),
    *(box(f"scores[gla[n_iter={n}]]", "scores") for n in (1, 2, 3)),
    box("report"),
    edges=(
        *(("speech", f"gla[n_iter={n}]", "from") for n in (1, 2, 3)),
        *((f"gla[n_iter={n}]", f"scores[gla[n_iter={n}]]", "from") for n in (1, 2, 3)),
        *(("speech", f"scores[gla[n_iter={n}]]", "against") for n in (1, 2, 3)),
        *((f"scores[gla[n_iter={n}]]", "report", "from") for n in (1, 2, 3)),
    ),
)


def test_what_all_variants_read_or_make_is_one_edge_of_their_frame() -> None:
    root = parsed(FAN_OUT)
    assert edges(root) == [
        "gla → scores (from)",
        "gla → scores (from)",
        "gla → scores (from)",
        "scores → report (from)",
        "speech → gla (from)",
        "speech → scores (against)",
    ]
    assert len(rectangles(root, "frame")) == 2
    assert {"gla × 3", "scores × 3"} <= {text.text for text in root.iter(f"{SVG}text")}


@pytest.mark.parametrize("n", [1, 20])
def test_boxes_lie_on_the_page_and_apart_and_after_what_they_read(n: int) -> None:
    names = [f"admm[n_iter={i}]" for i in range(n)]
    picture = drawn(
        box("speech"),
        *(box(name, "admm") for name in names),
        *(box(f"scores[{name}]", "scores") for name in names),
        box("other"),
        edges=(
            *(("speech", name, "from") for name in names),
            *((name, f"scores[{name}]", "from") for name in reversed(names)),
            *(("speech", f"scores[{name}]", "against") for name in names),
        ),
    )
    root = parsed(picture)
    width, height = float(root.get("width") or 0), float(root.get("height") or 0)
    boxes = rectangles(root, "box")
    assert len(boxes) == 2 * n + 2
    for i, (left, top, right, bottom) in enumerate(boxes):
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        for other in boxes[:i]:
            assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top
    placed = dict(zip(named(root), boxes, strict=True))
    for edge in picture.edges:
        assert placed[edge.source][2] < placed[edge.target][0]


def test_odd_names_are_escaped() -> None:
    odd = 'a"b\\<&>\x07é語'
    picture = drawn(box(odd, why="was \"x\"\n'y'"), box("b"), edges=((odd, "b", "from"),))
    assert named(parsed(picture)) == [odd.replace("\x07", "\ufffd"), "b"]
    assert '"a\\"b\\\\<&>\x07é語" -> "b" [label="from"];' in dot(picture)
    assert 'was \\"x\\"\\n' in dot(picture)


def test_a_name_that_is_too_long_is_cut_in_its_middle_and_whole_in_the_title() -> None:
    name = f"scores[{'x' * 90}=7]"
    root = parsed(drawn(box(name)))
    assert named(root) == [name]
    (shown,) = [text.text or "" for text in root.iter(f"{SVG}text") if text.get("class") == "name"]
    assert re.fullmatch(r"scores\[x+…x+=7\]", shown)


def test_a_picture_of_nothing_is_one() -> None:
    assert named(parsed(drawn())) == []
    assert dot(drawn()).startswith('digraph "test" {')


@pytest.mark.parametrize("suffix", ["svg", "dot"])
def test_the_command_draws_every_node_with_its_state(finished: Project, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"plan.{suffix}"
    arguments = ["--set", "gla.n_iter=3", "--graph", str(path)]
    done = finished.called("plan", str(finished.pipeline), *arguments)
    assert done.returncode == 0, done.stderr
    text = path.read_text()
    if suffix == "dot":
        assert text.count(" -> ") == 9  # mel, gla, admm, two each of the two scores, two of the report
        assert text.count('fillcolor="#d3f0db"') == 5  # speech, mel, admm, scores[admm], and the legend
        return
    root = ElementTree.fromstring(text)
    looks = {
        (group.findtext(f"{SVG}title") or "").split("\n")[0]: (group.findall(f"{SVG}rect")[0].get("class") or "")
        for group in root.iter(f"{SVG}g")
    }
    assert looks == {
        **dict.fromkeys([*NODES, "report"], "box done"),
        "gla": "box run",
        "scores[gla]": "box wait",
        "report": "box wait",
    }
    assert re.search(r"n_iter was 2 \(\d+\)", text)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("plan.png", r"must end in \.svg or \.dot, got '.*plan\.png'"),
        ("missing/plan.svg", r"can't write '.*missing/plan\.svg': No such file or directory"),
    ],
)
def test_a_picture_that_cant_be_written_is_one_line(finished: Project, tmp_path: Path, name: str, says: str) -> None:
    done = finished.called("plan", str(finished.pipeline), "--graph", str(tmp_path / name))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert re.search(says, line)


def test_scores_that_cant_be_written_are_one_line(finished: Project, tmp_path: Path) -> None:
    output = tmp_path / "missing" / "scores.csv"
    done = finished.called("scores", str(finished.store), "--format", "csv", "--output", str(output))
    assert done.returncode == 2
    assert done.stderr == f"error: can't write {str(output)!r}: No such file or directory\n"
