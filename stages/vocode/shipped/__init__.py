"""The vocoders that come with melmill, and the names that stand for their files."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources

# The family of each, by name.
SHIPPED: Mapping[str, str] = {"melmill-16k": "unfolded"}


def located(name: str) -> str:
    """Return the path of the weights of a vocoder that comes with melmill.

    Any other path or URL is returned as it is.

    >>> located("models/weights.pt")
    'models/weights.pt'
    """
    if name not in SHIPPED:
        return name
    return str(resources.files("melmill.stages.vocode.shipped").joinpath(name, "weights.pt"))
