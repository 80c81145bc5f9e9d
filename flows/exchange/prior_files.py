"""Learned priors, read from their files."""

from __future__ import annotations

import os

from melmill.stages.invert.priors import expected, shipped_names, shipped_prior
from melmill.stages.numeric.errors import ParameterError
from melmill.stages.numeric.prior import Prior, decoded
from melmill.storage.errors import StoreError
from melmill.storage.files.location import folder_and_name


def load_prior(path: str | os.PathLike[str]) -> Prior:
    """Read a prior; see `melmill.load_prior`."""
    place = os.fspath(path)
    if place in shipped_names():
        return shipped_prior(place)
    folder, name = folder_and_name(place)
    try:
        data = folder.read(name)
    except (OSError, StoreError) as error:
        if isinstance(error, FileNotFoundError):
            raise ParameterError("prior", expected(place)) from error
        raise ParameterError("prior", f"must be a file that can be read, got {place!r}: {error}") from error
    return decoded(name, data)
