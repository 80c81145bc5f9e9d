"""Mean, variance and range of rows of numbers, which can be merged."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.errors import StageError

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Moments:
    """Hold count, mean, sum of squared deviations and range of each row, ``(n_rows,)``.

    Parameters
    ----------
    count, mean, m2, minimum, maximum : ndarray of float64, shape (n_rows,)
        A row that counted nothing has the mean 0 and the range from inf to -inf.
    """

    count: Floats
    mean: Floats
    m2: Floats
    minimum: Floats
    maximum: Floats

    @classmethod
    def empty(cls, n_rows: int) -> Moments:
        """Return those of nothing."""
        zeros = np.zeros(n_rows)
        return cls(count=zeros, mean=zeros, m2=zeros, minimum=np.full(n_rows, np.inf), maximum=np.full(n_rows, -np.inf))

    @classmethod
    def of(cls, values: NDArray[np.floating], counted: NDArray[np.bool_] | None = None) -> Moments:
        """Return those of the values ``(n_rows, n)`` of each row.

        Parameters
        ----------
        values : ndarray of float
        counted : ndarray of bool, shape (n_rows, n), or None
            Which of them count. None: all.
        """
        x = np.asarray(values, dtype=np.float64)
        if counted is None:
            count = np.full(len(x), float(x.shape[1]))
            weighted, low, high = x, x, x
        else:
            count = counted.sum(axis=1).astype(np.float64)
            weighted = np.where(counted, x, 0.0)
            low, high = np.where(counted, x, np.inf), np.where(counted, x, -np.inf)
        mean = weighted.sum(axis=1) / np.maximum(count, 1.0)
        deviations = x - mean[:, np.newaxis]
        if counted is not None:
            deviations = np.where(counted, deviations, 0.0)
        return cls(
            count=count,
            mean=mean,
            m2=np.einsum("ij,ij->i", deviations, deviations),
            minimum=low.min(axis=1, initial=np.inf),
            maximum=high.max(axis=1, initial=-np.inf),
        )

    def merged(self, other: Moments) -> Moments:
        """Return those of the values of both.

        References
        ----------
        Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample
        variances", COMPSTAT 1982, eq. 1.5.
        """
        count = self.count + other.count
        some = np.maximum(count, 1.0)
        step = other.mean - self.mean
        return Moments(
            count=count,
            mean=self.mean + step * other.count / some,
            m2=self.m2 + other.m2 + step * step * self.count * other.count / some,
            minimum=np.minimum(self.minimum, other.minimum),
            maximum=np.maximum(self.maximum, other.maximum),
        )

    @property
    def std(self) -> Floats:
        """Standard deviation of each row, of all values (numpy's ``ddof=0``)."""
        return np.sqrt(self.m2 / np.maximum(self.count, 1.0))


_FIELDS = ("count", "mean", "m2", "minimum", "maximum")


def merged(parts: Iterable[Mapping[str, Moments]]) -> dict[str, Moments]:
    """Return moments by speaker of several parts, each merged in their order."""
    whole: dict[str, Moments] = {}
    for part in parts:
        for speaker, moments in part.items():
            whole[speaker] = whole[speaker].merged(moments) if speaker in whole else moments
    return whole


def encoded(by_speaker: Mapping[str, Moments], rows: Sequence[str]) -> bytes:
    """Return moments by speaker, and those of all speakers, as an .npz file.

    ``mean`` and ``std`` ``(n_rows,)`` are of all, so that `extract` takes the file as `stats`.
    """
    speakers = sorted(by_speaker)
    whole = Moments.empty(len(rows))
    for speaker in speakers:
        whole = whole.merged(by_speaker[speaker])
    arrays: dict[str, Any] = {"rows": np.array(rows, dtype=np.str_), "speakers": np.array(speakers, dtype=np.str_)}
    for name in (*_FIELDS, "std"):
        arrays[name] = getattr(whole, name)
        found = [getattr(by_speaker[one], name) for one in speakers]
        arrays[f"speaker_{name}"] = np.stack(found) if found else np.zeros((0, len(rows)))
    target = io.BytesIO()
    np.savez(target, **arrays)
    return target.getvalue()


def decoded(data: bytes) -> tuple[tuple[str, ...], dict[str, Moments], Moments]:
    """Return the names of rows, the moments by speaker and those of all, of an `encoded` file.

    Raises
    ------
    StageError
        The bytes hold something else.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            speakers = file["speakers"].tolist()
            stacked = {name: file[f"speaker_{name}"] for name in _FIELDS}
            whole = Moments(**{name: file[name] for name in _FIELDS})
            rows = tuple(file["rows"].tolist())
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise StageError(f"the file holds no statistics of the stage stats ({error})") from error
    parts = {one: Moments(**{name: stacked[name][at] for name in _FIELDS}) for at, one in enumerate(speakers)}
    return rows, parts, whole
