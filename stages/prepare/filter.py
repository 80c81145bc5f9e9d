"""Stage `filter`: recordings that keep all rules."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from melmill.stages.contract import Item, OneOf, Outcome, Scalar, Waveform
from melmill.stages.numeric.checks import check_float
from melmill.stages.numeric.errors import ParameterError
from melmill.stages.prepare.measures import MEASURES, Heard, installed_metric, measure_names, value_of
from melmill.stages.prepare.prepare import Prepare, floats, whole

_LIMITS = ("at_least", "at_most")
_OF_TEXTS = ("among", "not_among", "characters", "matches", "not_matches")
_SHOWN = 40
_CLASSES = re.compile(r"(.)-(.)", flags=re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class KeepRule:
    """One rule of a filter: what is measured, and what a recording must have of it to be kept.

    Parameters
    ----------
    measure : str
        What is limited: a measure of the recording or of its text, or a metric that needs no other
        recording, such as ``dnsmos_ovrl``.
    at_least, at_most : float or None
        Limits of a number. Both may be given.
    among, not_among : tuple of str
        Texts of which it must be one, or none.
    characters : str or None
        Characters that the text may have, with ranges: ``a-zäöüß '``. Blanks count too. A hyphen
        stands first or last.
    matches, not_matches : str or None
        Regular expression that must match somewhere in the text, or nowhere.
    name : str or None
        What the account calls what it drops. None: the rule in words.
    """

    measure: Annotated[str, OneOf(measure_names, others=True)] = field(metadata={"example": "duration_s"})
    at_least: float | None = None
    at_most: float | None = None
    among: tuple[str, ...] = ()
    not_among: tuple[str, ...] = ()
    characters: str | None = None
    matches: str | None = None
    not_matches: str | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        """Check the fields."""
        if self.measure not in measure_names():
            raise ParameterError("measure", _unknown(self.measure))
        if self.measure not in MEASURES:
            installed_metric(self.measure)
        self._check_limits()
        for name in ("matches", "not_matches"):
            self._check_pattern(name)
        if self.characters == "" or self.name == "":
            raise ParameterError("characters" if self.characters == "" else "name", "must not be empty, got ''")

    def _check_limits(self) -> None:
        given = [name for name in (*_LIMITS, *_OF_TEXTS) if getattr(self, name) not in (None, ())]
        is_text = self.measure in MEASURES and MEASURES[self.measure].is_text
        fitting, what = (_OF_TEXTS, "a text") if is_text else (_LIMITS, "a number")
        if not given:
            raise ParameterError("measure", f"{self.measure} has no limit: add {' or '.join(fitting)}")
        for name in given:
            if name not in fitting:
                raise ParameterError(name, f"has no use with {self.measure}, which is {what}: use {', '.join(fitting)}")
        for name in _LIMITS:
            if getattr(self, name) is not None:
                check_float(name, getattr(self, name))
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ParameterError("at_least", f"must not pass at_most, got {self.at_least:g} and {self.at_most:g}")

    def _check_pattern(self, name: str) -> None:
        pattern = getattr(self, name)
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ParameterError(name, f"must be a regular expression, got {pattern!r}: {error}") from error

    def broken(self, value: float | str) -> tuple[str, str] | None:
        """Return which limit a value breaks and what it is, in words; None if it is kept."""
        if isinstance(value, str):
            return self._broken_text(value)
        if math.isnan(value):
            return self._named(f"{self.measure} known"), "not measured"
        if self.at_least is not None and value < self.at_least:
            return self._named(f"{self.measure} at least {self.at_least:g}"), f"{value:.4g}"
        if self.at_most is not None and value > self.at_most:
            return self._named(f"{self.measure} at most {self.at_most:g}"), f"{value:.4g}"
        return None

    def _broken_text(self, value: str) -> tuple[str, str] | None:
        shown = repr(value if len(value) <= _SHOWN else f"{value[:_SHOWN]}...")
        if self.among and value not in self.among:
            return self._named(f"{self.measure} among {', '.join(self.among)}"), shown
        if value in self.not_among:
            return self._named(f"{self.measure} not among {', '.join(self.not_among)}"), shown
        if self.characters is not None and (others := sorted(set(value) - allowed(self.characters))):
            return self._named(f"{self.measure} of {self.characters!r}"), f"has {''.join(others[:_SHOWN])!r}"
        if self.matches is not None and not re.search(self.matches, value):
            return self._named(f"{self.measure} matches {self.matches!r}"), shown
        if self.not_matches is not None and (found := re.search(self.not_matches, value)):
            return self._named(f"{self.measure} does not match {self.not_matches!r}"), f"has {found[0]!r}"
        return None

    def _named(self, words: str) -> str:
        return self.name or words

    def as_dict(self) -> dict[str, Any]:
        """Return what decides, as plain values, with the version and the weights of a metric."""
        given = {name: getattr(self, name) for name in ("measure", "name", *_LIMITS, *_OF_TEXTS)}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}
        said = {name: value for name, value in plain.items() if value not in (None, [])}
        if self.measure not in MEASURES:
            metric = installed_metric(self.measure)
            said |= {"version": metric.version, "weights": metric.digests}
        return said


def allowed(characters: str) -> frozenset[str]:
    """Return the characters that a description with ranges means.

    >>> "".join(sorted(allowed("a-c '")))
    " 'abc"
    """
    found = set(_CLASSES.sub("", characters))
    for first, last in _CLASSES.findall(characters):
        if ord(first) > ord(last):
            raise ParameterError("characters", f"has the range {first}-{last}, which ends before it begins")
        found.update(map(chr, range(ord(first), ord(last) + 1)))
    return frozenset(found)


def _unknown(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, measure_names(), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else f" (measures: {', '.join(measure_names())})"
    return f"can't be {name!r}: nobody measures that{hint}"


@dataclass(frozen=True, kw_only=True)
class Filter(Prepare):
    """Keep the recordings that keep all rules, as they are, and drop all others.

    The first rule that a recording breaks is the reason, in the order of the list. The table of the
    node has what the rules measured, of all recordings. Rules on texts read the texts that the
    corpus was catalogued with. Texts are in no key, so texts that change later change nothing here.

    Parameters
    ----------
    rules : tuple of KeepRule
        Each is a mapping: a `measure` and its limits.
    """

    uses: ClassVar[str] = "filter"

    rules: tuple[KeepRule, ...] = field(metadata={"example": "[{measure: duration_s, at_least: 0.5, at_most: 20}]"})

    def __post_init__(self) -> None:
        """Check that there are rules, and what their characters mean."""
        if not self.rules:
            raise ParameterError("rules", "must have at least one rule, got none")
        for rule in self.rules:
            if rule.characters is not None:
                allowed(rule.characters)

    def identity(self) -> Mapping[str, Any]:
        """Return the rules as plain values."""
        return {"rules": [rule.as_dict() for rule in self.rules]}

    def prepared(self, item: Item, source: Waveform, made: Waveform) -> Outcome:
        """Return a recording if it keeps all rules; see `Prepare.prepared`."""
        y = item.inputs["from"]
        heard = Heard(item.utterance, floats(y), source.sr)
        values = {name: value_of(name, heard) for name in dict.fromkeys(rule.measure for rule in self.rules)}
        row: dict[str, Scalar] = {
            name: value if isinstance(value, str) or math.isfinite(value) else None for name, value in values.items()
        }
        row.pop("utterance_id", None)
        broken = next(filter(None, (rule.broken(values[rule.measure]) for rule in self.rules)), None)
        if broken is None:
            return Outcome(row={**row, "kept": True}, spans=whole(y, y.copy()))
        reason, detail = broken
        return Outcome(row={**row, "kept": False}, spans=whole(y, reason=reason, detail=detail))
