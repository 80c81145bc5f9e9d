"""Change the corpus of a run, and put back what it was."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import soundfile

# Number of the file that is added to a chapter.
_ADDED = "9999"


class ChangedCorpus:
    """A corpus in which one file holds another recording, one other samples, one is gone and one is new.

    Each file is replaced at once, as rsync does it.

    Parameters
    ----------
    files : sequence of Path
        Three FLAC files. The first gets the recording of the third, the second its own samples
        backwards, and the third is removed. A copy of it is added to its chapter.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._before = {path: (path.read_bytes(), path.stat()) for path in files}
        other, backwards, gone = files
        self._added = gone.with_stem(f"{gone.stem.rpartition('-')[0]}-{_ADDED}")
        _put(other, gone.read_bytes())
        _put(backwards, _reversed(backwards))
        _put(self._added, gone.read_bytes())
        gone.unlink()

    def restore(self) -> None:
        """Put back what the files held, with new times."""
        self._added.unlink(missing_ok=True)
        for path, (data, _) in self._before.items():
            _put(path, data)

    def restore_times(self) -> None:
        """Put back all as it was, for the next run from nothing."""
        self.restore()
        for path, (_, stat) in self._before.items():
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


class CorpusStory:
    """Tells a run by run what becomes of a corpus that is changed once.

    The run in progress ends, or refuses. The next ones follow the changed corpus. Then the corpus
    is restored, and the last ones follow that.
    """

    def __init__(self) -> None:
        self._changed: ChangedCorpus | None = None
        self._next: list[Callable[[], None]] = []

    @property
    def told(self) -> bool:
        """Whether the corpus was ever changed."""
        return self._changed is not None

    def change(self, files: Sequence[Path]) -> None:
        """Change the corpus."""
        self._changed = ChangedCorpus(files)
        # The run that ends first may have begun before the change.
        self._next = [lambda: None, self._changed.restore]

    def go_on(self) -> bool:
        """Do what comes after a run that has ended well. Return whether another must run."""
        if not self._next:
            return False
        self._next.pop(0)()
        return True

    def end(self) -> None:
        """Leave the corpus as it was, with its times."""
        if self._changed is not None:
            self._changed.restore_times()


def _put(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}")
    temporary.write_bytes(data)
    temporary.replace(path)


def _reversed(path: Path) -> bytes:
    """Return a FLAC file as long as another, with its samples backwards."""
    y, sr = soundfile.read(path, dtype="int16")
    file = io.BytesIO()
    soundfile.write(file, y[::-1], sr, format="FLAC", subtype="PCM_16")
    return file.getvalue()
