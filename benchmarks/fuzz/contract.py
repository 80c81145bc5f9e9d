"""What a kind of input is: how it is made from a seed, and how it is judged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Case:
    """An input: the name that its file has, its bytes, and what the judge should know of it.

    Parameters
    ----------
    name : str
        Path of the file, as the reader sees it.
    data : bytes
    note : str
        What was mutated, in words. A replayed case has the same.
    """

    name: str
    data: bytes
    note: str = ""


class Wrong(Exception):
    """A wrong success: an input was accepted, and the result is not what it holds.

    Parameters
    ----------
    what : str
        The kind of fault in a few words. Findings of the same words count as one.
    detail : str
        What was got and expected.
    """

    def __init__(self, what: str, detail: str = "") -> None:
        super().__init__(f"{what}: {detail}" if detail else what)
        self.what = what


def check_message(error: Exception) -> None:
    """Raise Wrong if a refusal is no clear message, or tells that memory ran out."""
    text = str(error)
    if not text.strip():
        raise Wrong("an error without a message", type(error).__name__) from error
    if len(text.splitlines()) > 12:
        raise Wrong("an error of many lines", text[:500]) from error
    if len(text) > 20_000:
        raise Wrong("an error of more than 20,000 characters", text[:500]) from error
    if "allocate memory" in text or "MemoryError" in text:
        raise Wrong("it asks for more memory than there is", text[:500]) from error


class Kind(ABC):
    """A kind of input.

    Parameters
    ----------
    folder : Path
        An empty folder for the files that judging takes. It is the working folder too.

    Attributes
    ----------
    name : str
        What ``--only`` calls it.
    """

    name: ClassVar[str]

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def case(self, rng: Random) -> Case:
        """Return the input of a generator in its first state. Equal states give equal inputs."""

    @abstractmethod
    def judge(self, case: Case) -> bool:
        """Return whether an input is accepted, False where it is refused by one clear error.

        Raises
        ------
        Wrong
            It is accepted, but the result is not what it holds.
        Exception
            Whatever else melmill raises is a finding.
        """
