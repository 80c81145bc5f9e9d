"""All exchange formats by name: melmill's own, and those of other packages."""

from __future__ import annotations

from typing import TypeGuard

from melmill.stages.contract import Kind
from melmill.stages.formats.format import ExchangeFormat
from melmill.stages.plugins import Registry


def _is_format(value: object) -> TypeGuard[ExchangeFormat]:
    return isinstance(value, ExchangeFormat)


FORMATS: Registry[ExchangeFormat] = Registry(
    "format",
    package="melmill.stages.formats.exchange",
    group="melmill.exchange",
    is_one=_is_format,
    name_of=lambda format_: format_.name,
    order=lambda format_: (format_.order, format_.name),
)
"""All exchange formats by name."""


def formats_for(kind: Kind) -> list[str]:
    """Return the names of the formats that hold a kind of product, its default first.

    >>> formats_for(Kind.MEL)[0]
    'npy'
    """
    return [name for name, format_ in FORMATS.items() if kind in format_.kinds]
