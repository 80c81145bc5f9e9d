"""How a node's product is described in the store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from melmill.flows.pipeline.graph import Node
from melmill.flows.tasks.shard import Source
from melmill.stages.contract import Mel, Waveform
from melmill.stages.numeric.melspec import MelSpec
from melmill.storage.arrays import ArraySpec
from melmill.storage.product import ProductDescription


def describe(node: Node, nodes: Mapping[str, Node], shard_duration_s: float) -> ProductDescription:
    """Return the description that is stored beside a node's product."""
    return ProductDescription(
        node=node.folder,
        key=node.key,
        kind=node.product.kind.value,
        stage=node.stage.uses,
        version=node.stage.version,
        parameters=dict(node.parameters),
        inputs={port: [_address(nodes[name]) for name in names] for port, names in node.inputs.items()},
        catalogue=_catalogue(node, nodes),
        array=array_spec(node),
        mel=_mel(node),
        conversions=dict(node.product.conversions) if isinstance(node.product, Waveform) else {},
        sr=_rate(node),
        shard_duration_s=shard_duration_s,
    )


def source(node: Node) -> Source:
    """Return what a task needs to know of a node that it reads or makes."""
    return Source(name=node.name, folder=node.folder, key=node.key, product=node.product)


def array_spec(node: Node) -> ArraySpec | None:
    """Return the layout of a node's array; None where it makes none."""
    product = node.product
    if isinstance(product, Waveform):
        return ArraySpec(dtype=product.dtype, sr=product.sr)
    if isinstance(product, Mel):
        stft = product.spec.stft
        return ArraySpec(
            dtype=product.dtype,
            sr=product.spec.sr,
            n_mels=product.spec.n_mels,
            n_fft=stft.n_fft,
            hop_length=stft.hop_length,
            pad=stft.pad,
        )
    return None


def _mel(node: Node) -> dict[str, Any] | None:
    spec: MelSpec | None = getattr(node.product, "spec", None) or getattr(node.product, "mel", None)
    return None if spec is None else spec.as_dict()


def _rate(node: Node) -> int | None:
    array = array_spec(node)
    return None if array is None else array.sr


def _catalogue(node: Node, nodes: Mapping[str, Node]) -> tuple[str, str] | None:
    return None if node.is_whole else _address(nodes[node.corpora[0]])


def _address(node: Node) -> tuple[str, str]:
    return node.folder, node.key
