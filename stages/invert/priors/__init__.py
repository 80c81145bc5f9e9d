"""The priors that come with melmill, and which of them fits a mel.

Each is two files of this folder: ``NAME.safetensors`` and ``NAME.md``, the card that says what it
was trained with.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from melmill.stages.numeric.errors import ParameterError
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.prior import Prior, decoded, differences

FOLDER = Path(__file__).parent

# In place of a prior's name: take the one that fits the mel, or none; and take none.
AUTO, NONE = "auto", "none"

_SUFFIX = ".safetensors"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Say which shipped prior fits a mel.

    Parameters
    ----------
    name : str or None
        None where none fits.
    note : str
        Why none fits, for people. Empty where one does, and where melmill comes without any.
    """

    name: str | None
    note: str = ""


def shipped_names() -> list[str]:
    """Return the names of all priors that come with melmill, in alphabetical order."""
    return sorted(path.stem for path in FOLDER.glob(f"*{_SUFFIX}"))


def prior_names() -> list[str]:
    """Return what a field `prior` takes in place of a file."""
    return [AUTO, NONE, *shipped_names()]


def located(name: str) -> str:
    """Return the path of a prior that comes with melmill. Any other text is returned as it is.

    >>> located("models/speech16k.safetensors")
    'models/speech16k.safetensors'
    """
    return str(FOLDER / f"{name}{_SUFFIX}") if name in shipped_names() else name


def shipped_prior(name: str) -> Prior:
    """Return a prior that comes with melmill. It is read once.

    Raises
    ------
    ParameterError
        There is none of that name.
    """
    if name not in shipped_names():
        raise ParameterError("prior", expected(name))
    return _read(FOLDER / f"{name}{_SUFFIX}")


@cache
def _read(path: Path) -> Prior:
    return decoded(path.name, path.read_bytes())


def expected(given: str, *others: str) -> str:
    """Return what an error says of a text that is no prior's name, no file, and none of `others`.

    >>> expected("no.safetensors")[-36:]
    "got 'no.safetensors': check its name"
    """
    names = prior_names()
    near = difflib.get_close_matches(given, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "check its name"
    return f"must be {', '.join([*names, *others])} or a file that exists, got {given!r}: {hint}"


def fitting(spec: MelSpec) -> Choice:
    """Return the choice for mels of a spec: the first shipped prior by name that can serve them."""
    misfits = {name: differences(shipped_prior(name).spec, spec) for name in shipped_names()}
    for name, differing in misfits.items():
        if not differing:
            return Choice(name=name)
    if not misfits:
        return Choice(name=None)
    nearest = min(misfits, key=lambda name: len(misfits[name]))
    return Choice(
        name=None,
        note=f"no prior that comes with melmill fits this mel (the nearest, {nearest}: "
        f"{'; '.join(misfits[nearest])}): starting from NNLS",
    )
