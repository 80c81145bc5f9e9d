"""What a search found: one folder for each fault, with inputs that show it."""

from __future__ import annotations

import json
import re
import traceback
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from benchmarks.fuzz.contract import Case, Wrong

# Inputs that are kept of one fault.
KEPT = 3
_OWN = re.compile(r".*/((?:melmill|benchmarks)/.*)")
_PACKAGE = re.compile(r".*/site-packages/(.*)")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """An input that shows a fault.

    Parameters
    ----------
    kind : str
        Kind of the input.
    index : int
        Its number; with the seed it gives the input again.
    signature : str
        What findings of one fault have in common.
    detail : str
        Traceback, or what happened to the process.
    """

    kind: str
    index: int
    signature: str
    detail: str

    @classmethod
    def of(cls, kind: str, index: int, error: BaseException) -> Finding:
        """Return the finding that an exception is."""
        return cls(
            kind=kind, index=index, signature=_signature(error), detail="".join(traceback.format_exception(error))
        )

    def save(self, folder: Path, case: Case, seed: int) -> None:
        """Write the input and how to judge it again below a folder, unless the fault has enough.

        The folder of a fault holds pairs of ``<index>.input`` and ``<index>.json``.
        """
        own = folder / f"{self.kind.rpartition(':')[2]}-{sha256(self.signature.encode()).hexdigest()[:8]}"
        own.mkdir(parents=True, exist_ok=True)
        if len(list(own.glob("*.json"))) >= KEPT:
            return
        path = own / f"{self.index}.json"
        about = {
            **asdict(self),
            "name": case.name,
            "note": case.note,
            "seed": seed,
            "reproduce": f"python -m benchmarks.fuzz --replay {path}",
        }
        path.with_suffix(".input").write_bytes(case.data)
        path.write_text(json.dumps(about, indent=1) + "\n")


def read_case(path: Path) -> tuple[str, Case]:
    """Return the kind and the input of a saved finding."""
    about = json.loads(path.read_text())
    return about["kind"], Case(about["name"], path.with_suffix(".input").read_bytes(), about["note"])


def _signature(error: BaseException) -> str:
    """Return type and innermost frames of an exception, or the words of a wrong success."""
    if isinstance(error, Wrong):
        return f"wrong: {error.what}"
    frames = [f"{_short(frame.filename)}:{frame.name}" for frame in traceback.extract_tb(error.__traceback__)]
    own = [frame for frame in frames if frame.startswith("melmill/")]
    innermost = frames[-1:] if frames[-1:] != own[-1:] else []
    return " ".join([type(error).__name__, *own[-2:], *innermost])


def _short(path: str) -> str:
    match = _OWN.fullmatch(path) or _PACKAGE.fullmatch(path)
    return match[1] if match else path
