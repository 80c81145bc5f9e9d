"""Cron's five fields: what they allow, and that systemd reads the same times from what is written for it."""

from __future__ import annotations

import re
import shutil
import subprocess
from datetime import datetime, timedelta

import pytest

from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.runs.scheduling.cadence import read_cadence

# A Wednesday.
BASE = datetime(2026, 7, 1, 12, 0)


def following(text: str, count: int) -> list[datetime]:
    made, at = read_cadence(text), BASE
    times = []
    for _ in range(count):
        at = made.following(at)  # type: ignore[assignment]
        times.append(at)
    return times


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("hour", BASE + timedelta(hours=1)),
        ("daily", datetime(2026, 7, 2, 2, 0)),
        ("@weekly", datetime(2026, 7, 6, 2, 0)),  # a Monday
        ("month", datetime(2026, 8, 1, 2, 0)),
        ("30 2 * * *", datetime(2026, 7, 2, 2, 30)),
        ("*/20 * * * *", datetime(2026, 7, 1, 12, 20)),
        ("5/20 12 * * *", datetime(2026, 7, 1, 12, 5)),
        ("0 0 * * 7", datetime(2026, 7, 5)),  # 7 is Sunday, as 0 is
        ("0 0 * * sun", datetime(2026, 7, 5)),
        ("0 0 29 feb *", datetime(2028, 2, 29)),
        ("0 0 13 * fri", datetime(2026, 7, 3)),  # the 13th or a Friday
        ("0 0 13 * */2", datetime(2026, 8, 13)),  # the 13th and one of these days: the field begins with *
    ],
)
def test_the_next_time(text: str, first: datetime) -> None:
    assert following(text, 1) == [first]


CRONS = [
    "hour",
    "day",
    "week",
    "30 2 * * mon-fri",
    "*/7 9-17/2 1,15 * *",
    "0 0 13 * fri",
    "15 3 */10 2-11 *",
    "0 6 * * 0",
]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("text", CRONS)
def test_systemd_reads_the_same_times(text: str) -> None:
    made = read_cadence(text)
    times: set[str] = set()
    for calendar in made.calendars:
        said = subprocess.run(
            ["systemd-analyze", "calendar", "--iterations=12", f"--base-time={BASE:%Y-%m-%d %H:%M:%S}", calendar],
            capture_output=True, text=True, check=True, env={"TZ": "UTC", "PATH": "/usr/bin:/bin"},
        ).stdout  # fmt: skip
        times |= set(re.findall(r"(?:Next elapse|Iter\. #\d+|Iteration #\d+): \w+ ([\d-]+ [\d:]+)", said))
    # Of two calendars the later times need not be complete.
    assert [f"{at:%Y-%m-%d %H:%M:%S}" for at in following(text, 12)] == sorted(times)[:12]


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("week", "0 2 * * 1"),
        ("0 2 * * 7", "0 2 * * 0"),  # Kubernetes refuses 7
        ("0 0 13 * fri", "0 0 13 * 5"),  # either
        ("0 0 1-31 * fri", "0 0 * * *"),  # either, and that is every day
        ("5/20 8 */15 jan *", "5/20 8 1,16,31 jan *"),
    ],
)
def test_kubernetes_gets_fields_that_mean_the_same_there(text: str, fields: str) -> None:
    assert read_cadence(text).kubernetes == fields


def test_times_that_kubernetes_reads_otherwise_are_refused() -> None:
    # Its library takes a star with a step for a list, so that either would do.
    with pytest.raises(PipelineError, match=r"'0 0 13 \* \*/2' means days .* Kubernetes would take either"):
        _ = read_cadence("0 0 13 * */2").kubernetes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fortnight", "--every must be hour, day, week, month or five fields of cron such as '30 2 \\* \\* \\*', got"),
        ("0 2 * *", "--every must be hour"),
        ("60 2 * * *", "--every has '60' for the minute, expected values from 0 to 59"),
        ("0 2 * * funday", "--every has 'funday' for the day of the week"),
        ("0 5-2 * * *", "--every has '5-2' for the hour"),
        ("*/0 * * * *", "--every has '\\*/0' for the minute"),
        ("0 0 31 2 *", "is never due: no month has such a day"),
    ],
)
def test_times_that_are_none_are_one_line(text: str, said: str) -> None:
    with pytest.raises(PipelineError, match=said):
        read_cadence(text)


def test_missed_times_are_those_in_between() -> None:
    made = read_cadence("0 */6 * * *")
    times = list(made.between(datetime(2026, 7, 1, 6, 0, 10), datetime(2026, 7, 2, 0, 0)))
    assert [f"{at:%d %H}" for at in times] == ["01 12", "01 18", "02 00"]
