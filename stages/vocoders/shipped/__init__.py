"""Vocoders that come with melmill, by the names that stand for their files."""

from __future__ import annotations

from importlib import resources

SHIPPED = ("melmill-16k",)


def located(name: str) -> str:
    """Return the path of the weights of a vocoder that comes with melmill; any other path or URL as it is.

    >>> located("models/weights.pt")
    'models/weights.pt'
    """
    if name not in SHIPPED:
        return name
    return str(resources.files("melmill.stages.vocoders.shipped").joinpath(name, "weights.pt"))
