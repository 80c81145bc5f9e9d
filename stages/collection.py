"""What all ingest stages share: which files of a root they take, and what its folders and lists say of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from melmill.stages.errors import ParameterError
from melmill.stages.stage import Input

SKIPPED = "-"
LEVELS = ("subset", "speaker", "chapter", SKIPPED)


@dataclass(frozen=True, kw_only=True)
class Collection:
    """Name files below a root.

    Parameters
    ----------
    root : str
        Folder or URL of the corpus.
    subsets : tuple of str or None
        Subsets wanted, None for all that are there.
    files : tuple of str or None
        Patterns of the paths wanted, below the root (``*-000[34].flac``; ``*`` matches ``/`` too), None for all.
    """

    root: str
    subsets: tuple[str, ...] | None = None
    files: tuple[str, ...] | None = None

    inputs: ClassVar[Mapping[str, Input]] = {}

    def __post_init__(self) -> None:
        """Check the fields."""
        if not self.root:
            raise ParameterError("root", "must be the folder of the corpus, got ''")
        for name, what in (("subsets", "subset"), ("files", "pattern")):
            if getattr(self, name) == ():
                raise ParameterError(name, f"must name at least one {what}, or be left out for all, got []")

    def identity(self) -> Mapping[str, Any]:
        """Return what is chosen; where the corpus lies decides nothing."""
        chosen = {"subsets": None if self.subsets is None else sorted(set(self.subsets))}
        # Absent rather than None: the keys of products made before there were patterns stay.
        return chosen if self.files is None else {**chosen, "files": sorted(set(self.files))}


@dataclass(frozen=True, kw_only=True)
class Folder(Collection):
    """Name files of any folder; an utterance is called by its path (``wavs/LJ001-0001.wav`` is ``wavs--LJ001-0001``).

    Its text is in the manifest, else in a file beside it (``LJ001-0001.normalized.txt`` or ``.txt``), else in a
    ``metadata.csv`` as LJSpeech has it, or there is none. For the other fields see `Collection`.

    Parameters
    ----------
    folders : tuple of str
        What the folders below `root` stand for, the outermost first: ``subset``, ``speaker``, ``chapter``, or ``-`` for
        nothing; deeper ones stand for nothing.
    manifest : str or None
        List of the files wanted, below the root: a line each, ``path`` or ``path|text``, the path below the root too,
        with or without its suffix. None for all files.
    """

    folders: tuple[str, ...] = ("subset", "speaker", "chapter")
    manifest: str | None = None

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        for name in self.folders:
            if name not in LEVELS:
                raise ParameterError("folders", f"must hold only {', '.join(LEVELS)}, got {name!r}")
        named = [name for name in self.folders if name != SKIPPED]
        if len(set(named)) < len(named):
            raise ParameterError("folders", f"must name each level once, got {list(self.folders)!r}")
        if self.subsets is not None and "subset" not in named:
            raise ParameterError(
                "subsets", f"can't be chosen where no folder is a subset: folders is {list(self.folders)!r}"
            )

    def identity(self) -> Mapping[str, Any]:
        """Return what is chosen and what the folders mean; where the corpus lies decides nothing."""
        chosen = {**super().identity(), "folders": list(self.folders)}
        return chosen if self.manifest is None else {**chosen, "manifest": self.manifest}
