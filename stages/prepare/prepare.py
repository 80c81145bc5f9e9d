"""What the stages share that prepare waveforms: one input, and an account of its samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from melmill.stages.contract import Input, Item, Kind, Outcome, Product, Span, Waveform, as_float, each, stored
from melmill.stages.numeric.errors import ContractError

KEPT = "kept"
"""What records count as kept, in milliseconds. All else that they count is a reason."""


@dataclass(frozen=True, kw_only=True)
class Prepare(ABC):
    """Make waveforms of waveforms, of each some parts, and say why of the rest nothing is made."""

    uses: ClassVar[str]
    version: ClassVar[int] = 1
    inputs: ClassVar[Mapping[str, Input]] = {"from": Input(kinds=frozenset({Kind.WAVEFORM}))}
    prepares: ClassVar[Literal[True]] = True
    # Whether parts of utterances may be kept, which have other lengths.
    reshapes: ClassVar[bool] = False
    # Whether several parts of an utterance may be kept, each with an id of its own.
    splits: ClassVar[bool] = False

    def identity(self) -> Mapping[str, Any]:
        """Return all fields."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.init}

    def produces(self, inputs: Mapping[str, Sequence[Product]]) -> Product:
        """Describe the waveforms, of the rate and the type of those at the port ``from``.

        Raises
        ------
        ContractError
            The input is not one node's waveforms.
        """
        source = waveform(self.uses, inputs["from"])
        return Waveform(sr=source.sr, dtype=source.dtype, reshaped=self.reshapes)

    def process(self, items: Sequence[Item], inputs: Mapping[str, Product], product: Product) -> Sequence[Outcome]:
        """Return what is kept of each waveform, and what is dropped."""
        source, made = waveform(self.uses, [inputs["from"]]), waveform(self.uses, [product])
        return each(items, lambda item: self.prepared(item, source, made))

    @abstractmethod
    def prepared(self, item: Item, source: Waveform, made: Waveform) -> Outcome:
        """Return what is kept of a waveform, and what is dropped.

        Parameters
        ----------
        item : Item
        source, made : Waveform
            What it is given, and what it makes.
        """

    def counts(self, spans: Sequence[tuple[int, str]], sr: int) -> Mapping[str, int]:
        """Return the milliseconds that were kept and dropped, by reason; see `PreparingStage`."""
        counted: Counter[str] = Counter()
        for n_samples, reason in spans:
            counted[reason or KEPT] += round(1000 * n_samples / sr)
        return dict(counted)

    def notes(self, counts: Mapping[str, int]) -> Sequence[str]:
        """Say how much was kept, and why the rest was dropped."""
        total = sum(counts.values())
        if not total:
            return ()
        dropped = sorted(
            ((n, why) for why, n in counts.items() if why != KEPT and n), key=lambda one: (-one[0], one[1])
        )
        kept = f"kept {said(counts.get(KEPT, 0))} of {said(total)}"
        if not dropped:
            return (kept,)
        return (f"{kept}; dropped {', '.join(f'{said(n)} ({why})' for n, why in dropped)}",)


def said(n_ms: int) -> str:
    """Return a time in words.

    >>> said(1500), said(90_000), said(7_200_000)
    ('1.5 s', '1.5 min', '2.00 h')
    """
    if n_ms < 60_000:
        return f"{n_ms / 1000:.1f} s"
    return f"{n_ms / 60_000:.1f} min" if n_ms < 3_600_000 else f"{n_ms / 3_600_000:.2f} h"


def waveform(uses: str, products: Sequence[Product]) -> Waveform:
    """Return the waveforms of one node; raise ContractError if there is anything else."""
    if len(products) != 1 or not isinstance(products[0], Waveform):
        kinds = ", ".join(product.kind for product in products) or "nothing"
        raise ContractError(f"{uses} takes waveforms of one node, got {kinds}: name a node that makes waveforms")
    return products[0]


def whole(
    y: NDArray[Any], array: NDArray[Any] | None = None, *, reason: str = "", detail: str = ""
) -> tuple[Span, ...]:
    """Return the one span of an utterance that is kept or dropped as a whole.

    Parameters
    ----------
    y : ndarray, shape (n_samples,)
        As it was given.
    array : ndarray, shape (n_samples,), or None
        What was made of it. None: it was dropped.
    reason, detail : str
        Why.
    """
    return (Span(start=0, stop=len(y), array=array, reason=reason, detail=detail),)


def floats(y: NDArray[Any]) -> NDArray[np.float32]:
    """Return stored samples as floats with full scale 1."""
    return as_float(y)


def as_stored(y: NDArray[np.floating], made: Waveform) -> NDArray[Any]:
    """Return samples in the type that a product has."""
    return stored(y.astype(np.float32), made.dtype)
