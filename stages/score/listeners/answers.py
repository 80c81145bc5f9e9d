"""What a listener sent back, checked against the design of the test, and as a table of ratings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from melmill.stages.numeric.errors import StageError
from melmill.stages.score.listeners.design import FORMAT, Design
from melmill.stages.score.listeners.kinds import REFERENCE

if TYPE_CHECKING:
    import pandas as pd

LONGEST_LISTENER = 100
RATING_COLUMNS = ("listener", "trial", "utterance_id", "system", "other", "value")
SCREENING_COLUMNS = ("listener", "n_trials", "n_low", "share_low", "is_rejected")
# Post-screening of BS.1534-3, section 4.1.2: who rates the hidden reference so low so often is not heard.
LOWEST_REFERENCE, MOST_LOW = 90.0, 0.15


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Hold the answers of one listener.

    Parameters
    ----------
    test_id : str
    listener : str
        Name or code that the listener gave.
    started_at, finished_at : str
        By the listener's clock. `finished_at` is empty where the test was not finished.
    answers : mapping of str to mapping
        By name of the trial.
    """

    test_id: str
    listener: str
    started_at: str
    finished_at: str
    answers: Mapping[str, Mapping[str, Any]]

    def as_plain(self) -> dict[str, Any]:
        """Return plain values, which JSON can hold."""
        return {
            "format": FORMAT,
            "test": self.test_id,
            "listener": self.listener,
            "started_at": self.started_at,
            "finished_at": self.finished_at,
            "answers": [{"trial": name, **answer} for name, answer in sorted(self.answers.items())],
        }

    @classmethod
    def from_plain(cls, fields: object) -> Answers:
        """Return the answers of plain values.

        Raises
        ------
        StageError
            They are no result of a listening test.
        """
        if not isinstance(fields, dict) or "test" not in fields or "answers" not in fields:
            raise StageError("is no result of a listening test: it has no fields 'test' and 'answers'")
        if fields.get("format") != FORMAT:
            raise StageError(f"has format {fields.get('format')!r}, and this melmill reads {FORMAT}")
        listener = fields.get("listener")
        if not isinstance(listener, str) or not listener.strip() or len(listener) > LONGEST_LISTENER:
            raise StageError(f"has listener {listener!r}, expected a name of 1 to {LONGEST_LISTENER} characters")
        if not isinstance(fields["test"], str):
            raise StageError(f"has test {fields['test']!r}, expected the name of a test")
        listed = fields["answers"]
        if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
            raise StageError("has 'answers' that are no list of answers")
        by_trial: dict[str, Mapping[str, Any]] = {}
        for one in listed:
            name = one.get("trial")
            if not isinstance(name, str) or name in by_trial:
                raise StageError(f"answers trial {name!r} twice" if name in by_trial else f"has trial {name!r}")
            by_trial[name] = {key: value for key, value in one.items() if key != "trial"}
        return cls(
            test_id=fields["test"],
            listener=listener.strip(),
            started_at=str(fields.get("started_at") or ""),
            finished_at=str(fields.get("finished_at") or ""),
            answers=by_trial,
        )


def rows(design: Design, given: Answers) -> list[dict[str, Any]]:
    """Return the rows of `ratings` of one listener.

    Raises
    ------
    StageError
        An answer does not fit the test.
    """
    if not given.answers:
        raise StageError("holds no answer")
    known = {trial.name: trial for trial in design.trials}
    made = []
    for name, answer in given.answers.items():
        trial = known.get(name)
        if trial is None:
            raise StageError(f"answers trial {name!r}, which the test does not have")
        try:
            values = design.test.values(answer, frozenset(trial.stimuli))
        except StageError as error:
            raise StageError(f"trial {name} {error}") from error
        for token, value in values.items():
            others = [system for other, system in trial.stimuli.items() if other != token]
            made.append(
                {
                    "listener": given.listener,
                    "trial": name,
                    "utterance_id": trial.utterance_id,
                    "system": trial.stimuli[token],
                    "other": others[0] if design.test.is_paired else "",
                    "value": value,
                }
            )
    return made


def ratings(design: Design, given: Iterable[Answers]) -> pd.DataFrame:
    """Return a row per listener, trial and stimulus.

    Columns: ``listener, trial, utterance_id, system, other, value``. ``other`` is the system that it
    was compared with; it is empty in MUSHRA. Raises StageError as `rows`.
    """
    import pandas as pd

    made = [row for one in given for row in rows(design, one)]
    return pd.DataFrame(made, columns=list(RATING_COLUMNS)).astype({"value": "float64"})


def screening(ratings: pd.DataFrame) -> pd.DataFrame:
    """Return which listeners of a MUSHRA test are rejected: a row each, empty for other tests.

    Returns
    -------
    DataFrame
        ``listener, n_trials, n_low, share_low, is_rejected``. ``n_low`` counts trials in which the
        hidden reference was rated below 90. Who did so in more than 15 % of the trials is rejected.

    References
    ----------
    ITU-R BS.1534-3 (2015), section 4.1.2.
    """
    import pandas as pd

    hidden = ratings[ratings["system"] == REFERENCE]
    if hidden.empty:
        return pd.DataFrame(columns=list(SCREENING_COLUMNS))
    by = hidden.assign(low=hidden["value"] < LOWEST_REFERENCE).groupby("listener", sort=True)["low"]
    table: pd.DataFrame = by.agg(n_trials="size", n_low="sum").reset_index()
    table["share_low"] = table["n_low"] / table["n_trials"]
    table["is_rejected"] = table["share_low"] > MOST_LOW
    return table[list(SCREENING_COLUMNS)]
