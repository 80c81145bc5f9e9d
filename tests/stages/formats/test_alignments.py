"""Alignments in every form that is read, and what is no alignment."""

from __future__ import annotations

import pytest

from melmill.stages.formats.alignments import Segment, read_alignment
from melmill.stages.numeric.errors import Unusable

LONG = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 1.5
tiers? <exists>
size = 2
item []:
    item [1]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 1.5
        intervals: size = 1
        intervals [1]:
            xmin = 0
            xmax = 1.5
            text = "say ""two"" 2"
    item [2]:
        class = "IntervalTier"
        name = "phones"
        xmin = 0
        xmax = 1.5
        intervals: size = 2
        intervals [1]:
            xmin = 0
            xmax = 0.5
            text = "s"
        intervals [2]:
            xmin = 0.5
            xmax = 1.5
            text = ""
"""
SHORT = """File type = "ooTextFile short"
"TextGrid"

0
1.5
<exists>
2
"TextTier"
"marks"
0
1.5
1
0.7
"here"
"IntervalTier"
"phones"
0
1.5
2
0
0.5
"s"
0.5
1.5
""
"""
SOUGHT = [Segment(0.0, 0.5, "s"), Segment(0.5, 1.5, "")]


# A name, its content, and a tier.
@pytest.mark.parametrize(
    ("name", "data", "tier"),
    [
        ("a.TextGrid", LONG.encode(), ""),
        ("a.TextGrid", LONG.encode("utf-16"), "phones"),
        ("a.textgrid", SHORT.encode(), ""),
        ("a.lab", b"0 5000000 s\n5000000 15000000\n", ""),
        ("a.lab", b"0.0 0.5 s\n0.5 1.5 \n", ""),
        ("a.lab", b"separator ;\nnfields 1\n#\n  0.5 121 s\n 1.5 121\n", ""),
        ("A.PHN", b"0 8000 s\n8000 24000 \n", ""),
        ("A.WRD", b"0 8000 s\r\n8000 24000\r\n", ""),
    ],
)
def test_every_form_is_read(name: str, data: bytes, tier: str) -> None:
    assert read_alignment(name, data, 16000, tier) == SOUGHT


def test_another_tier_is_read_with_its_quotes() -> None:
    assert read_alignment("a.TextGrid", LONG.encode(), 16000, "words") == [Segment(0.0, 1.5, 'say "two" 2')]


# What is no alignment, and what is said of it.
@pytest.mark.parametrize(
    ("name", "data", "tier", "problem"),
    [
        ("a.txt", b"", "", "ends with .textgrid, .lab, .phn, .wrd, got '.txt'"),
        ("a.lab", b"", "", "holds no segments"),
        ("a.lab", b"0 1 a\nx y b\n", "", "a.lab, line 2: expected start, end and label, got 'x y b'"),
        (
            "a.lab",
            b"0.0 0.5 a\n0.4 0.6 b\n",
            "",
            r"segment 2 \('b'\) begins at 0.4 s, before the end of the one before",
        ),
        ("a.lab", b"0.5 0.2 a\n", "", "ends at 0.2 s, before its start"),
        ("a.lab", b"\xff\x00 1 a\n", "", "is not UTF"),
        ("a.TextGrid", b"\x00binary", "", "is no TextGrid of text"),
        ("a.TextGrid", LONG[:300].encode(), "", "is no whole TextGrid"),
        ("a.TextGrid", LONG.encode(), "tones", "has no tier 'tones' .tiers: words, phones"),
        ("a.TextGrid", LONG.replace("phones", "syllables").encode(), "", "words, syllables: say which with tier"),
    ],
)
def test_what_is_none_is_refused(name: str, data: bytes, tier: str, problem: str) -> None:
    with pytest.raises(Unusable, match=problem):
        read_alignment(name, data, 16000, tier)
