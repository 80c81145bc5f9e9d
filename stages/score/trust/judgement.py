"""What damaged recordings say of each metric: whether it hears damage, in order, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from melmill.stages.score.metric import Metric, metric, status_column
from melmill.stages.score.trust.damages import DAMAGES, Damage
from melmill.stages.score.trust.measuring import ROUNDED, UNDAMAGED

LEVEL = 0.05
"""Level of the paired tests."""

FEWEST = 6
"""With fewer pairs no one-sided signed-rank test reaches the level with room to spare."""

SCALE = "noise"
"""Damage by whose steps the effect of inaudible changes is said."""

Values = NDArray[np.float64]  # (n_utterances, n_steps), larger is better; NaN without a value


def judged(rows: pd.DataFrame) -> pd.DataFrame:
    """Return what each metric makes of each damage.

    Parameters
    ----------
    rows : DataFrame
        ``utterance_id, damage, step``, and value and status of each metric: those of
        `measuring.columns`, with the recording itself as the damage ``none``, and as rounded as
        ``rounding``.

    Returns
    -------
    DataFrame
        A row per metric and damage:

        - ``metric, damage, expected``: column of the metric, name of the damage, ``worse`` or
          ``same``.
        - ``n``: recordings with a value at every step, and without damage.
        - ``verdict``: for what is heard ``right``, ``wrong`` or ``deaf``: the strongest step is
          scored below the recording, above it, or can't be told from it. For what is not heard
          ``same`` or ``moves``: no step, or some step, can be told from the recording. It must move
          the median by a digit that tables print, and as far as rounding to 16 bits does.
          ``no value`` where the metric has too few.
        - ``correlation``: Spearman's, of step and score, mean over recordings. 1: every step lowers
          the score.
        - ``smallest``: mildest step from which on all steps are scored below the recording. NaN:
          there is none. For what is not heard the mildest step that can be told from it at all.
        - ``n_steps``, ``n_told``: steps, and how many of them are scored below the step before.
        - ``itself``, ``strongest``: median score of the recordings, and at the strongest step.
        - ``as_noise``: signal-to-noise ratio in dB of white noise that changes the score as much as
          the strongest step. NaN: no noise that was tried does.

        Tests are Wilcoxon's signed ranks, recording by recording, at 5 %: one-sided for what is
        heard, two-sided for what is not.
    """
    present = set(rows["damage"])
    names = [name for name in DAMAGES if name in present]
    made = []
    for column in _columns(rows):
        one = metric(column)
        curve = _noise_curve(rows, one) if SCALE in names else {}
        least = _least_move(rows, one)
        made += [_row(rows, one, DAMAGES[name], curve, least) for name in names]
    return pd.DataFrame(made)


def _columns(rows: pd.DataFrame) -> list[str]:
    return [name for name in rows.columns if status_column(name) in rows.columns]


def _values(rows: pd.DataFrame, one: Metric, damage: str) -> tuple[list[float], Values]:
    """Return the steps of a damage, and scores ``(n_utterances, 1 + n_steps)`` that grow with quality.

    The first column is the recording itself. Recordings without a value anywhere are left out.
    """
    itself = rows[rows["damage"] == UNDAMAGED].set_index("utterance_id")[one.column]
    of_it = rows[rows["damage"] == damage]
    table = of_it.pivot_table(index="utterance_id", columns="step", values=one.column, dropna=False)
    steps = [step for step in DAMAGES[damage].steps if step in table.columns]
    both = np.column_stack([itself.reindex(table.index).to_numpy(dtype=np.float64), table[steps].to_numpy(np.float64)])
    whole = both[~np.isnan(both).any(axis=1)]
    return steps, one.sign * whole


def _least_move(rows: pd.DataFrame, one: Metric) -> float:
    """Return by how much an inaudible change must move a score to count.

    It is a digit that tables print, or more if rounding to 16 bits moves the score further. The
    scores of a recording against itself are such a case: SI-SDR's falls from its limit by any
    rounding, even by that of float32 after a change of level.
    """
    digit = 10.0**-one.decimals
    pairs = rows[rows["damage"].isin([UNDAMAGED, ROUNDED])]
    scores = pairs.pivot_table(index="utterance_id", columns="damage", values=one.column)
    moved = (scores[ROUNDED] - scores[UNDAMAGED]).abs().median() if {ROUNDED, UNDAMAGED} <= set(scores) else math.nan
    return digit if math.isnan(moved) else max(digit, float(moved))


def _row(rows: pd.DataFrame, one: Metric, damage: Damage, curve: Mapping[float, float], least: float) -> dict[str, Any]:
    steps, values = _values(rows, one, damage.name)
    made: dict[str, Any] = {
        "metric": one.column, "damage": damage.name, "expected": damage.expected, "n": len(values),
        "verdict": "no value", "correlation": math.nan, "smallest": math.nan, "n_steps": len(steps), "n_told": 0,
        "itself": math.nan, "strongest": math.nan, "as_noise": math.nan,
    }  # fmt: skip
    if len(values) < FEWEST or not steps:
        return made
    lost = values[:, :1] - values[:, 1:]
    made["itself"], made["strongest"] = (float(one.sign * np.median(values[:, at])) for at in (0, -1))
    made["as_noise"] = _as_noise(float(np.median(lost[:, -1])), curve)
    made["correlation"] = _correlation(values)
    if damage.expected == "same":
        seen = np.abs(np.median(lost, axis=0)) >= least
        told = [bool(seen[i]) and _p(lost[:, i], two_sided=True) < LEVEL for i in range(len(steps))]
        made["verdict"] = "moves" if any(told) else "same"
        made["smallest"] = next((step for step, is_told in zip(steps, told, strict=True) if is_told), math.nan)
        made["n_told"] = sum(told)
        return made
    below = [_p(lost[:, i]) < LEVEL for i in range(len(steps))]
    if below[-1]:
        made["verdict"] = "right"
        first = len(below) - next((i for i, is_below in enumerate(reversed(below)) if not is_below), len(below))
        made["smallest"] = steps[first]
    else:
        made["verdict"] = "wrong" if _p(-lost[:, -1]) < LEVEL else "deaf"
    made["n_told"] = sum(_p(values[:, i] - values[:, i + 1]) < LEVEL for i in range(len(steps)))
    return made


def _p(differences: NDArray[np.float64], *, two_sided: bool = False) -> float:
    """Return the p-value of Wilcoxon's signed-rank test that differences are positive, or not 0."""
    import scipy.stats

    if not np.any(differences):
        return 1.0
    alternative = "two-sided" if two_sided else "greater"
    return float(scipy.stats.wilcoxon(differences, zero_method="pratt", alternative=alternative).pvalue)


def _correlation(values: Values) -> float:
    """Return Spearman's correlation of damage and loss, mean over recordings; 0 where nothing changes."""
    import scipy.stats

    found = []
    for scores in values:
        if np.ptp(scores) == 0.0:
            found.append(0.0)
        else:
            found.append(float(scipy.stats.spearmanr(np.arange(scores.size), -scores).statistic))
    return float(np.mean(found))


def _noise_curve(rows: pd.DataFrame, one: Metric) -> dict[float, float]:
    """Return the median loss of a score by the signal-to-noise ratio, where noise lowers it ever more."""
    steps, values = _values(rows, one, SCALE)
    if len(values) < FEWEST:
        return {}
    lost = np.median(values[:, :1] - values[:, 1:], axis=0)
    return dict(zip(steps, lost.tolist(), strict=True)) if np.all(np.diff(lost) > 0) and lost[0] > 0 else {}


def _as_noise(change: float, curve: Mapping[float, float]) -> float:
    """Return the ratio at which noise costs as much, between the steps by interpolation; NaN outside."""
    if not curve:
        return math.nan
    losses = np.array(list(curve.values()))
    if not losses[0] <= change <= losses[-1]:
        return math.nan
    return float(np.interp(np.log(change), np.log(losses), np.array(list(curve))))


def overall(table: pd.DataFrame) -> pd.DataFrame:
    """Return a row per metric: what it hears of all damages, and whether the inaudible moves it.

    Parameters
    ----------
    table : DataFrame
        What `judged` returned.

    Returns
    -------
    DataFrame
        ``metric, n_damages, n_right, correlation, told, n_same, n_unmoved, moved_by``. Of the
        `n_damages` that are heard, `n_right` are scored in the right direction; `correlation` is the
        mean of theirs, and `told` the share of steps that are told from the step before. Of the
        `n_same` changes that nobody hears, `n_unmoved` leave the score where it is; the others are
        named in `moved_by`. Damages without values don't count.
    """
    made = []
    for column, rows in table[table["verdict"] != "no value"].groupby("metric", sort=False):
        heard, unheard = rows[rows["expected"] == "worse"], rows[rows["expected"] == "same"]
        moved = unheard[unheard["verdict"] == "moves"]
        made.append(
            {
                "metric": column,
                "n_damages": len(heard),
                "n_right": int((heard["verdict"] == "right").sum()),
                "correlation": float(heard["correlation"].mean()) if len(heard) else math.nan,
                "told": float(heard["n_told"].sum() / heard["n_steps"].sum()) if len(heard) else math.nan,
                "n_same": len(unheard),
                "n_unmoved": len(unheard) - len(moved),
                "moved_by": ", ".join(moved["damage"]),
            }
        )
    return pd.DataFrame(made)


def cell(row: Mapping[Any, Any]) -> str:
    """Return what a metric makes of a damage, in a few characters.

    For what is heard: the correlation, the mildest step told from the recording, and what noise
    costs as much as the strongest step. For what is not: that the score stays, or what noise moves
    it as far.
    """
    damage = DAMAGES[row["damage"]]
    if row["verdict"] == "no value":
        return "–"
    if damage.expected == "same":
        noise = "moves" if math.isnan(row["as_noise"]) else f"as noise at {row['as_noise']:.0f} dB"
        return noise if row["verdict"] == "moves" else "stays"
    if row["verdict"] != "right":
        return {"wrong": "wrong way", "deaf": "deaf"}[row["verdict"]]
    text = f"{row['correlation']:.2f}, from {damage.step_label(row['smallest'])}"
    if damage.name == SCALE or math.isnan(row["as_noise"]):
        return text
    return f"{text}; {damage.step_label(damage.steps[-1])} as noise at {row['as_noise']:.0f} dB"


def as_cells(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Return what `judged` returned as text: a header, and rows of damages with a cell per metric."""
    names = list(dict.fromkeys(table["metric"]))
    cells = {(row["metric"], row["damage"]): cell(row) for row in table.to_dict("records")}
    whole = {row["metric"]: row for row in overall(table).to_dict("records")}
    rows = [
        [
            f"{DAMAGES[damage].title}{'' if DAMAGES[damage].expected == 'worse' else ' (not heard)'}",
            *(cells[name, damage] for name in names),
        ]
        for damage in dict.fromkeys(table["damage"])
    ]
    if any(whole[name]["n_damages"] for name in whole):
        right = [f"{whole[name]['n_right']} of {whole[name]['n_damages']}" if name in whole else "–" for name in names]
        told = [f"{whole[name]['told']:.0%}" if name in whole else "–" for name in names]
        rows += [["right direction", *right], ["steps told from the one before", *told]]
    return ["", *(metric(name).title for name in names)], rows
