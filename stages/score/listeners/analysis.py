"""The statistics of a listening test. Listeners are the unit: other listeners would have said other things."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from melmill.stages.report.comparison.differences import holm_adjusted
from melmill.stages.report.statistics import DRAWS, LEVEL, cube, generator, intervals
from melmill.stages.score.listeners.answers import screening
from melmill.stages.score.listeners.kinds import ListeningKind
from melmill.stages.score.metric import metric as metric_of

if TYPE_CHECKING:
    import pandas as pd

SYSTEM_COLUMNS = ("system", "n_listeners", "n_ratings", "mean", "ci_low", "ci_high")
PAIR_COLUMNS = ("system", "other", "n_listeners", "n_trials", "mean", "ci_low", "ci_high", "p", "p_holm")
LISTENER_COLUMNS = ("listener", "n_trials", "n_correct", "p")
AGREEMENT_COLUMNS = ("metric", "over_systems", "n_systems", "over_stimuli", "ci_low", "ci_high", "n_stimuli")

METHOD = (
    f"Intervals are 95 % percentile bootstraps with {DRAWS:,} draws of listeners: each listener's mean counts once."
)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Hold what a listening test says.

    Parameters
    ----------
    kind : ListeningKind
    ratings : DataFrame
        Of all listeners, also of rejected ones.
    screened : DataFrame
        See `screening`.
    systems : DataFrame
        ``system, n_listeners, n_ratings, mean, ci_low, ci_high``, the best first.
    pairs : DataFrame
        ``system, other, n_listeners, n_trials, mean, ci_low, ci_high, p, p_holm`` of paired tests:
        what the answers say of ``system`` against ``other``. ``p`` is of the one-sided binomial test
        of ABX, NaN for other kinds. Holm's correction is for all pairs of the test.
    listeners : DataFrame
        ``listener, n_trials, n_correct, p`` of ABX, empty for other kinds.
    agreement : DataFrame
        See `agreement`.
    """

    kind: ListeningKind
    ratings: pd.DataFrame
    screened: pd.DataFrame
    systems: pd.DataFrame
    pairs: pd.DataFrame
    listeners: pd.DataFrame
    agreement: pd.DataFrame

    @property
    def n_listeners(self) -> int:
        """How many listeners answered."""
        return int(self.ratings["listener"].nunique())

    @property
    def rejected(self) -> list[str]:
        """Listeners that the screening rejects."""
        return list(self.screened.loc[self.screened["is_rejected"].astype(bool), "listener"])

    @property
    def says(self) -> list[str]:
        """How listeners were screened and numbers were made, a sentence each."""
        if self.kind.name == "mushra":
            rule = "rated the hidden reference below 90 in more than 15 % of the trials (ITU-R BS.1534-3)"
            names = f": {', '.join(self.rejected)}" if self.rejected else ""
            lines = [f"{len(self.rejected)} of {self.n_listeners} listeners {rule} and do not count{names}."]
        else:
            lines = [f"All {self.n_listeners} listeners count: there is no screening for {self.kind.title}."]
        n_kept = self.n_listeners - len(self.rejected)
        if n_kept == 0:
            return [*lines, "So there is no number."]
        if n_kept == 1:
            lines.append("With one listener there are no intervals.")
        if self.kind.name == "abx":
            lines.append(
                "p is of the one-sided exact binomial test against guessing, which takes trials as independent."
            )
        return [*lines, METHOD]


def outcome(
    kind: ListeningKind, ratings: pd.DataFrame, scores: pd.DataFrame | None = None, *, seed: int = 0
) -> Outcome:
    """Return the statistics of a test.

    Parameters
    ----------
    kind : ListeningKind
    ratings : DataFrame
        As `melmill.stages.score.listeners.answers.ratings` returns it.
    scores : DataFrame or None
        A row per utterance and node, to compare metrics with what listeners say.
    seed : int
        Of the bootstrap.
    """
    screened = screening(ratings)
    rejected = screened.loc[screened["is_rejected"].astype(bool), "listener"]
    kept = ratings[~ratings["listener"].isin(rejected)]
    return Outcome(
        kind=kind,
        ratings=ratings,
        screened=screened,
        systems=_systems(kind, kept, seed),
        pairs=_pairs(kind, kept, seed),
        listeners=_listeners(kind, kept),
        agreement=agreement(kind, kept, scores, seed=seed),
    )


def _systems(kind: ListeningKind, ratings: pd.DataFrame, seed: int) -> pd.DataFrame:
    import pandas as pd

    names = list(dict.fromkeys(ratings["system"]))
    means = _by_listener(ratings, "system", names)
    low, high = intervals(means, generator(seed, "listeners"))
    rows = [
        {
            "system": name,
            "n_listeners": int((~np.isnan(means[:, at])).sum()),
            "n_ratings": int((ratings["system"] == name).sum()),
            "mean": float(np.nanmean(means[:, at])),
            "ci_low": low[at],
            "ci_high": high[at],
        }
        for at, name in enumerate(names)
    ]
    table = pd.DataFrame(rows, columns=list(SYSTEM_COLUMNS))
    return table.sort_values("mean", ascending=kind.better == "lower", kind="stable", ignore_index=True)


def _by_listener(ratings: pd.DataFrame, column: str, names: Sequence[str]) -> NDArray[np.float64]:
    """Return the mean of each listener for each name of a column, ``(n_listeners, n_names)``."""
    if ratings.empty:
        return np.empty((0, len(names)))
    wide = ratings.pivot_table(index="listener", columns=column, values="value", aggfunc="mean")
    return np.asarray(wide.reindex(columns=list(names)).sort_index().to_numpy(), dtype=np.float64)


def _pairs(kind: ListeningKind, ratings: pd.DataFrame, seed: int) -> pd.DataFrame:
    import pandas as pd

    if not kind.is_paired:
        return pd.DataFrame(columns=list(PAIR_COLUMNS))
    # Each trial has a row for either side; the pair's is that of the system that comes first.
    order = {name: at for at, name in enumerate(dict.fromkeys(ratings["system"]))}
    sides = zip(ratings["system"], ratings["other"], strict=True)
    first = ratings[np.array([order[one] < order[other] for one, other in sides], dtype=bool)]
    names = [f"{one}\x1f{other}" for one, other in zip(first["system"], first["other"], strict=True)]
    first = first.assign(pair=names)
    unique = list(dict.fromkeys(names))
    means = _by_listener(first, "pair", unique)
    low, high = intervals(means, generator(seed, "pairs"))
    rows = []
    for at, name in enumerate(unique):
        here = first[first["pair"] == name]
        one, _, other = name.partition("\x1f")
        rows.append(
            {
                "system": one,
                "other": other,
                "n_listeners": int(here["listener"].nunique()),
                "n_trials": len(here),
                "mean": float(np.nanmean(means[:, at])),
                "ci_low": low[at],
                "ci_high": high[at],
                "p": binomial_p(int(here["value"].sum()), len(here)) if kind.name == "abx" else np.nan,
            }
        )
    table = pd.DataFrame(rows, columns=list(PAIR_COLUMNS[:-1]))
    table["p_holm"] = holm_adjusted(table["p"].to_numpy(dtype=np.float64))
    return table


def _listeners(kind: ListeningKind, ratings: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    rows = []
    if kind.name == "abx":
        for name, here in ratings.drop_duplicates(["listener", "trial"]).groupby("listener", sort=True):
            n_correct, n = int(here["value"].sum()), len(here)
            rows.append({"listener": name, "n_trials": n, "n_correct": n_correct, "p": binomial_p(n_correct, n)})
    return pd.DataFrame(rows, columns=list(LISTENER_COLUMNS))


def binomial_p(n_correct: int, n_trials: int) -> float:
    """Return the chance to guess at least so many of so many trials right.

    >>> round(binomial_p(12, 16), 4)
    0.0384
    """
    from scipy import stats

    return float(stats.binom.sf(n_correct - 1, n_trials, 0.5))


def agreement(
    kind: ListeningKind, ratings: pd.DataFrame, scores: pd.DataFrame | None, *, seed: int = 0
) -> pd.DataFrame:
    """Compare metrics with what listeners say.

    Parameters
    ----------
    kind : ListeningKind
    ratings : DataFrame
        Of the listeners that count.
    scores : DataFrame or None
        A row per utterance and node.
    seed : int
        Of the bootstrap over listeners.

    Returns
    -------
    DataFrame
        A row per metric: Spearman's correlation with the mean rating, turned so that 1 is agreement
        whichever direction is better. ``over_systems`` compares means over the rated utterances, of
        ``n_systems``. ``over_stimuli`` compares single reconstructions, ``n_stimuli`` of them, with
        its 95 % interval over listeners. NaN with fewer than three values, or if one side is constant.
    """
    import pandas as pd

    columns = list(AGREEMENT_COLUMNS)
    if scores is None or scores.empty or ratings.empty:
        return pd.DataFrame(columns=columns)
    stimuli = ratings.groupby(["system", "utterance_id"], sort=True)["value"].mean().rename("rating").reset_index()
    table = cube(scores)
    row = {name: at for at, name in enumerate(table.utterances["utterance_id"])}
    column = {name: at for at, name in enumerate(table.nodes)}
    known = stimuli["system"].isin(column.keys()) & stimuli["utterance_id"].isin(row.keys())
    stimuli = stimuli[known].reset_index(drop=True)
    if stimuli.empty:
        return pd.DataFrame(columns=columns)
    at = ([row[name] for name in stimuli["utterance_id"]], [column[name] for name in stimuli["system"]])
    drawn = _drawn_means(ratings, stimuli, seed)
    rows = []
    for k, name in enumerate(table.metrics):
        goodness = metric_of(name).sign * table.values[(*at, k)]
        there = ~np.isnan(goodness)
        if not there.any():
            continue
        heard = kind.sign * stimuli["rating"].to_numpy(dtype=np.float64)
        means = pd.DataFrame({"system": stimuli["system"], "x": goodness, "y": heard})[there].groupby("system").mean()
        samples = [spearman(goodness[there], kind.sign * draw[there]) for draw in drawn]
        finite = [sample for sample in samples if not np.isnan(sample)]
        low, high = np.quantile(finite, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if finite else (np.nan, np.nan)
        rows.append(
            {
                "metric": name,
                "over_systems": spearman(means["x"].to_numpy(), means["y"].to_numpy()),
                "n_systems": len(means),
                "over_stimuli": spearman(goodness[there], heard[there]),
                "ci_low": low,
                "ci_high": high,
                "n_stimuli": int(there.sum()),
            }
        )
    return pd.DataFrame(rows, columns=columns)


# Each draw takes a sort for every metric.
_AGREEMENT_DRAWS = 500


def _drawn_means(ratings: pd.DataFrame, stimuli: pd.DataFrame, seed: int) -> NDArray[np.float64]:
    """Return the mean ratings of stimuli by drawn listeners ``(n_draws, n_stimuli)``, no draws for one listener."""
    place = {pair: at for at, pair in enumerate(zip(stimuli["system"], stimuli["utterance_id"], strict=True))}
    listeners = {name: at for at, name in enumerate(sorted(set(ratings["listener"])))}
    if len(listeners) < 2:
        return np.empty((0, len(stimuli)))
    totals, counts = np.zeros((2, len(listeners), len(stimuli)))
    for row in ratings.itertuples():
        where = place.get((row.system, row.utterance_id))
        if where is not None:
            totals[listeners[str(row.listener)], where] += row.value
            counts[listeners[str(row.listener)], where] += 1
    rng = generator(seed, "agreement")
    times = rng.multinomial(len(listeners), np.full(len(listeners), 1 / len(listeners)), size=_AGREEMENT_DRAWS)
    with np.errstate(invalid="ignore", divide="ignore"):  # a stimulus that no drawn listener heard
        return np.asarray((times @ totals) / (times @ counts))


def spearman(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Return Spearman's rank correlation over the places where both have a value.

    NaN with fewer than three, or if one side is constant.

    >>> spearman(np.array([1.0, 2, 3, 4]), np.array([1.0, 2, 4, 3]))
    0.8
    """
    from scipy.stats import rankdata

    both = ~(np.isnan(x) | np.isnan(y))
    if both.sum() < 3:
        return float("nan")
    a, b = (rankdata(side[both]) for side in (x, y))
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return round(float(a @ b) / norm, 12) if norm > 0 else float("nan")


def _plain(value: object) -> object:
    """Return a value as JSON knows it: None for NaN, and no numbers of numpy's."""
    made = value.item() if isinstance(value, np.generic) else value
    return None if made != made else made


def as_plain(outcome: Outcome) -> dict[str, Any]:
    """Return the tables as lists of plain values, with None for NaN."""
    tables: Mapping[str, pd.DataFrame] = {
        "systems": outcome.systems,
        "pairs": outcome.pairs,
        "listeners": outcome.listeners,
        "screening": outcome.screened,
        "agreement": outcome.agreement,
    }
    plain: dict[str, Any] = {
        "kind": outcome.kind.name,
        "measure": outcome.kind.measure,
        "better": outcome.kind.better,
        "n_listeners": outcome.n_listeners,
        "rejected": outcome.rejected,
        "says": outcome.says,
    }
    for name, table in tables.items():
        records = table.astype(object).to_dict("records")
        plain[name] = [{column: _plain(value) for column, value in record.items()} for record in records]
    return plain
