"""Stage `speaker_embedding`: a vector that says whose voice a recording has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from melmill.stages.contract import Embedding, Input, Item, Kind, Outcome, Product, Waveform, each
from melmill.stages.numeric.errors import ContractError, Unusable
from melmill.stages.numeric.resample import resample
from melmill.stages.score.networks.speaker import PACKAGE, SR, WEIGHTS
from melmill.stages.score.networks.weights import digest_of

SIZE = 256
_SHORTEST_S = 0.25


@dataclass(frozen=True, kw_only=True)
class SpeakerEmbedding:
    """Embed the voice of each recording, ``(256, 1)`` of norm 1.

    The network is that of the metric `speaker_similarity`, whose value is the dot product of two such
    vectors. Its weights come with the package ``resemblyzer``.
    """

    uses: ClassVar[str] = "speaker_embedding"
    version: ClassVar[int] = 1
    inputs: ClassVar[Mapping[str, Input]] = {"from": Input(kinds=frozenset({Kind.WAVEFORM}))}

    def identity(self) -> Mapping[str, Any]:
        """Return a digest of the weights; raise StageError where they are not installed."""
        return {"weights": digest_of(PACKAGE, WEIGHTS)}

    def produces(self, inputs: Mapping[str, Sequence[Product]]) -> Embedding:
        """Describe the vectors.

        Raises
        ------
        ContractError
            The input is not waveforms.
        StageError
            The package is not installed.
        """
        digest_of(PACKAGE, WEIGHTS)
        return Embedding(sr=_waveform(inputs["from"][0]).sr, size=SIZE)

    def process(self, items: Sequence[Item], inputs: Mapping[str, Product], product: Product) -> Sequence[Outcome]:
        """Return the embedding of every recording."""
        del product
        sr = _waveform(inputs["from"]).sr
        return each(items, lambda item: self._outcome(item, sr))

    def _outcome(self, item: Item, sr: int) -> Outcome:
        from melmill.stages.score.networks.speaker import embedding  # here, as it imports torch

        y = resample(item.inputs["from"], sr, SR)
        if y.size < _SHORTEST_S * SR:
            raise Unusable(f"{y.size / SR:.2f} s are too short to tell a voice by: {_SHORTEST_S:g} s are needed")
        if not y.any():
            raise Unusable("the recording is silent, so it has no voice")
        return Outcome(array=embedding(y)[:, None])


def _waveform(product: Product) -> Waveform:
    if not isinstance(product, Waveform):
        raise ContractError(f"speaker_embedding takes waveforms, got {product.kind}: name a node that makes waveforms")
    return product
