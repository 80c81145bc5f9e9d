"""Vocoders that come with melmill, by the names that stand for their files."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources

# Their families, by name.
SHIPPED: Mapping[str, str] = {"melmill-16k": "unfolded"}


def located(name: str) -> str:
    """Return the path of the weights of a vocoder that comes with melmill; any other path or URL as it is.

    >>> located("models/weights.pt")
    'models/weights.pt'
    """
    if name not in SHIPPED:
        return name
    return str(resources.files("melmill.stages.vocode.shipped").joinpath(name, "weights.pt"))
