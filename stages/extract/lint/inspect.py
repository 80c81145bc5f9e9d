"""Stage `inspect`: measure every recording of a corpus, for its card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from melmill.stages.contract import Input, Inspections, Item, Kind, Outcome, Product, Waveform, each
from melmill.stages.extract.lint.facts import facts
from melmill.stages.numeric.errors import ContractError


@dataclass(frozen=True, kw_only=True)
class Inspect:
    """Measure recordings: level, noise, clipping, bandwidth, mains hum and pauses.

    The node's table has a row per recording. `corpus_card` makes a page of them.
    """

    uses: ClassVar[str] = "inspect"
    version: ClassVar[int] = 1
    inputs: ClassVar[Mapping[str, Input]] = {"from": Input(kinds=frozenset({Kind.WAVEFORM}))}

    def identity(self) -> Mapping[str, Any]:
        """Return nothing: it has no parameters."""
        return {}

    def produces(self, inputs: Mapping[str, Sequence[Product]]) -> Inspections:
        """Describe the table."""
        return Inspections(inspected=_waveform(inputs["from"][0]).node)

    def process(self, items: Sequence[Item], inputs: Mapping[str, Product], product: Product) -> Sequence[Outcome]:
        """Return the facts of every recording."""
        del product
        sr = _waveform(inputs["from"]).sr
        return each(items, lambda item: Outcome(row={"rate_hz": sr, **facts(item.inputs["from"], sr)}))


def _waveform(product: Product) -> Waveform:
    if not isinstance(product, Waveform):
        raise ContractError(f"inspect takes waveforms, got {product.kind}: name a node that makes waveforms")
    return product
