"""The families of vocoders: a folder each in ``families/``, and those of other packages."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.family import Family

if TYPE_CHECKING:
    from melmill.stages.vocode.network import Checkpoint

# Entry points of this group name a `Family`.
GROUP = "melmill.vocoders"

_FOLDER = "melmill.stages.vocode.families"


@cache
def _built_in() -> frozenset[str]:
    folders = pkgutil.iter_modules(importlib.import_module(_FOLDER).__path__)
    return frozenset(folder.name for folder in folders if folder.ispkg)


@cache
def _installed() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def family_names() -> list[str]:
    """Return the names of all families, built in and installed, in alphabetical order.

    Nothing is imported.
    """
    return sorted(_built_in() | _installed().keys())


@cache
def family(name: str) -> Family:
    """Return the family called `name`.

    Raises
    ------
    VocoderError
        There is none of that name (the message has the nearest one), or the entry point names
        something else.
    """
    if name in _built_in():
        loaded = importlib.import_module(f"{_FOLDER}.{name}").FAMILY
    elif name in _installed():
        loaded = _installed()[name].load()
    else:
        near = difflib.get_close_matches(name, family_names(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise VocoderError(f"no vocoder family is called {name!r}{hint} (families: {', '.join(family_names())})")
    if not isinstance(loaded, Family) or loaded.name != name:
        raise VocoderError(
            f"the entry point {name!r} of {GROUP} names {loaded!r}, expected a melmill.stages.vocode.family.Family of "
            "the same name: correct the package that declares it"
        )
    return loaded


def recognise(checkpoint: Checkpoint) -> Family:
    """Return the one family that a checkpoint is of.

    Raises
    ------
    VocoderError
        No family, or several, recognise it.
    """
    matching = [candidate for candidate in map(family, family_names()) if candidate.recognises(checkpoint)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        names = ", ".join(candidate.name for candidate in matching)
        raise VocoderError(f"{checkpoint.name} could be of several families ({names}): say which one, family=...")
    tensors = ", ".join(list(checkpoint.state)[:3])
    raise VocoderError(
        f"{checkpoint.name}: its {len(checkpoint.state)} tensors ({tensors}, ...) are of no family known here "
        f"(families: {', '.join(family_names())})"
    )
