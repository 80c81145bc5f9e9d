"""When a schedule is due: cron's five fields, and the words that stand for common ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from melmill.flows.pipeline.errors import PipelineError

WORDS = {"hour": "0 * * * *", "day": "0 2 * * *", "week": "0 2 * * 1", "month": "0 2 1 * *"}
_ALSO = {"hourly": "hour", "daily": "day", "weekly": "week", "monthly": "month"}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_SYSTEMD_DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
# Name, least, most, and names of values.
_FIELDS: tuple[tuple[str, int, int, tuple[str, ...]], ...] = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of the week", 0, 7, _DAYS),
)
# The 29th of February comes every eight years at the latest.
_LONGEST_DAYS = 8 * 366 + 2


@dataclass(frozen=True, kw_only=True)
class Cadence:
    """Hold the times of a schedule.

    Parameters
    ----------
    cron : str
        Five fields, as cron has them: minute, hour, day of the month, month, day of the week.
    minutes, hours, days, months, weekdays : frozenset of int
        What they allow. Weekdays count from 0, Sunday.
    by_day, by_weekday : bool
        Whether the fields of days begin with no ``*``. If both do, either is enough, as in cron.
    """

    cron: str
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    by_day: bool
    by_weekday: bool

    def is_due_on(self, day: datetime) -> bool:
        """Return whether a day has times."""
        if day.month not in self.months:
            return False
        in_month, in_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return in_month or in_week if self.by_day and self.by_weekday else in_month and in_week

    def between(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """Yield the local times later than `after` and not later than `until`, both without a zone."""
        day = after.replace(hour=0, minute=0, second=0, microsecond=0)
        while day <= until:
            if self.is_due_on(day):
                for hour in sorted(self.hours):
                    for minute in sorted(self.minutes):
                        time = day.replace(hour=hour, minute=minute)
                        if after < time <= until:
                            yield time
            day += timedelta(days=1)

    def following(self, after: datetime) -> datetime | None:
        """Return the next time after another, None if there is none in eight years."""
        return next(self.between(after, after + timedelta(days=_LONGEST_DAYS)), None)

    @property
    def calendars(self) -> list[str]:
        """The times as systemd writes them (``OnCalendar=``), two if a day or a weekday is enough."""
        clock = f"{_listed(self.hours, 0, 23, '02d')}:{_listed(self.minutes, 0, 59, '02d')}:00"
        months, days = _listed(self.months, 1, 12, "02d"), _listed(self.days, 1, 31, "02d")
        names = ",".join(_SYSTEMD_DAYS[day] for day in (1, 2, 3, 4, 5, 6, 0) if day in self.weekdays)
        weekdays = f"{names} " if len(self.weekdays) < 7 else ""
        if self.by_day and self.by_weekday:
            return [f"*-{months}-{days} {clock}", f"{weekdays}*-{months}-* {clock}"]
        return [f"{weekdays}*-{months}-{days} {clock}"]

    @property
    def kubernetes(self) -> str:
        """The five fields as Kubernetes reads them: Sunday is 0 there, and only a plain ``*`` is every day.

        Raises
        ------
        PipelineError
            Kubernetes has no such times.

        >>> read_cadence("0 2 * * fri-7").kubernetes
        '0 2 * * 0,5,6'
        """
        minute, hour, _, month, _ = self.cron.split()
        days, weekdays = _listed(self.days, 1, 31, "d"), _listed(self.weekdays, 0, 6, "d")
        if self.by_day and self.by_weekday:
            if "*" in (days, weekdays):
                days = weekdays = "*"
        elif "*" not in (days, weekdays):
            raise PipelineError(
                f"--every {self.cron!r} means days of the month that are also such days of the week. Kubernetes would "
                "take either: give one of them, or use --kind cron or systemd"
            )
        return f"{minute} {hour} {days} {month} {weekdays}"


def _listed(values: frozenset[int], least: int, most: int, form: str) -> str:
    return "*" if len(values) == most - least + 1 else ",".join(format(value, form) for value in sorted(values))


def read_cadence(text: str) -> Cadence:
    """Return the times that ``--every`` names.

    Raises
    ------
    PipelineError
        It is no word of `WORDS` and no five fields of cron, or it is never due.

    >>> read_cadence("30 2 * * mon-fri").calendars
    ['Mon,Tue,Wed,Thu,Fri *-*-* 02:30:00']
    >>> read_cadence("day").cron
    '0 2 * * *'
    """
    word = text.strip().removeprefix("@")
    cron = WORDS.get(_ALSO.get(word, word), " ".join(text.split()))
    parts = cron.split()
    if len(parts) != len(_FIELDS):
        raise PipelineError(
            f"--every must be {', '.join(WORDS)} or five fields of cron such as '30 2 * * *', got {text!r}"
        )
    sets = [_values(part, *field) for part, field in zip(parts, _FIELDS, strict=True)]
    weekdays = frozenset(day % 7 for day in sets[4])
    made = Cadence(
        cron=cron, minutes=sets[0], hours=sets[1], days=sets[2], months=sets[3], weekdays=weekdays,
        by_day=not parts[2].startswith("*"), by_weekday=not parts[4].startswith("*"),
    )  # fmt: skip
    if made.following(datetime(2024, 1, 1)) is None:
        raise PipelineError(f"--every {text!r} is never due: no month has such a day")
    return made


def _values(text: str, name: str, least: int, most: int, names: tuple[str, ...]) -> frozenset[int]:
    found: set[int] = set()
    for part in text.lower().split(","):
        span, _, step = part.partition("/")
        first, dash, last = span.partition("-")
        if span == "*":
            low, high = least, most
        else:
            low = _value(first, text, name, least, most, names)
            # As in cron, 5/10 goes on to the end.
            high = _value(last, text, name, least, most, names) if dash else most if step else low
        if (step and (not step.isdecimal() or int(step) < 1)) or part.endswith("/") or low > high:
            raise _wrong(text, name, least, most)
        found.update(range(low, high + 1, int(step or 1)))
    return frozenset(found)


def _value(part: str, text: str, name: str, least: int, most: int, names: tuple[str, ...]) -> int:
    if part in names:
        return names.index(part) + (1 if least == 1 else 0)
    if not part.isdecimal() or not least <= int(part) <= most:
        raise _wrong(text, name, least, most)
    return int(part)


def _wrong(text: str, name: str, least: int, most: int) -> PipelineError:
    return PipelineError(
        f"--every has {text!r} for the {name}, expected values from {least} to {most} as {least}, {least}-{most}, "
        f"*/2 or a list of them"
    )
