"""A recogniser of one's own for word errors: a command that hears file by file, or an exported network."""

from __future__ import annotations

import atexit
import contextlib
import os
import selectors
import shlex
import subprocess
import tempfile
import threading
import time
import wave
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from melmill.stages.contract import StageFile
from melmill.stages.errors import RecogniserFailed
from melmill.stages.numeric.checks import MAX_SR, check_float, check_int
from melmill.stages.numeric.errors import ParameterError
from melmill.stages.score.pair import Pair
from melmill.stages.score.predictor import Program, noise

LONGEST_S = 86400.0

Hear = Callable[[Pair], str]

_TOLD = 300  # characters of what a command prints as an error
_MOST_LINE = 1_000_000  # bytes of a line: no recording says as much


@dataclass(frozen=True, kw_only=True)
class Recogniser:
    """Describe what hears the words that `wer` and `cer` count: a command, or a file.

    A command is started once in each worker, without a shell. It reads paths of WAV files from its
    standard input, a line each, and prints what it hears, a line for each file, as UTF-8. An empty
    line says that it hears nothing. It must not keep its answer back (flush). It ends when its input
    ends. A command that ends early, prints more or takes too long fails the task, and blames no
    recording.

    Parameters
    ----------
    command : str
        Program and arguments, split as a shell would. The key holds it as written: change it, say
        by a version among its arguments, if the program changes.
    file : str or None
        In place of a command, a network: TorchScript, a torch.export archive (``.pt2``) or ONNX
        (``.onnx``), a path or URL. It takes float32 samples ``(1, n_samples)`` with full scale 1, and
        gives a score for each token ``(1, n_frames, n_tokens)``. The best token of each frame counts.
        Repeated ones are one, and blanks none (CTC).
    sr : int
        Rate that it hears, Hz.
    timeout_s : float
        Longest time that a command may take for one file, s. The first also waits for its start.
    tokens : tuple of str
        Of a network, the text of each token in order. ``|`` and ``▁`` stand for a space.
    blank : int
        Of a network, the number of the token that is none.
    """

    one_of: ClassVar[tuple[str, ...]] = ("command", "file")

    command: str = field(default="", metadata={"example": "python hear.py"})
    file: str | None = field(default=None, metadata={"place": True, "example": "wav2vec2.ts"})
    sr: int = 16000
    timeout_s: float = 60.0
    tokens: tuple[str, ...] = ()
    blank: int = 0

    def __post_init__(self) -> None:
        """Check the fields."""
        if bool(self.command.strip()) == bool(self.file):
            raise ParameterError("asr", "must have a command or a file, one of both")
        check_int("sr", self.sr, at_least=1, at_most=MAX_SR)
        check_float("timeout_s", self.timeout_s, above=0.0, at_most=LONGEST_S)
        if self.file is None:
            try:
                shlex.split(self.command)
            except ValueError as error:
                raise ParameterError("command", f"can't be split as a shell would: {error}") from error
            if self.tokens:
                raise ParameterError("tokens", "are those of a network: name its file in place of a command")
            return
        if len(self.tokens) < 2:
            raise ParameterError("tokens", "must name the text of each token that the network tells apart")
        check_int("blank", self.blank, at_least=0, at_most=len(self.tokens) - 1)

    def identity(self) -> dict[str, object]:
        """Return what decides the words; the file counts by its content."""
        if self.file is None:
            return {"command": self.command, "sr": self.sr}
        return {"sr": self.sr, "tokens": list(self.tokens), "blank": self.blank}

    def heard(self, pair: Pair) -> str:
        """Return what the command hears in a reconstruction.

        Raises
        ------
        RecogniserFailed
            The command can't be started, ended, took too long, or printed something else than a line.
        """
        return _running(self.command).hear(pair.estimate_at(self.sr), self.sr, self.timeout_s)

    def opened(self, file: StageFile) -> Hear:
        """Return what hears reconstructions by the network in a file; raise StageError."""
        return _Network(self, Program(file)).heard

    def checked(self, file: StageFile) -> None:
        """Raise StageError if the network in a file gives no scores of these tokens."""
        try:
            scores = Program(file).rows(noise(self.sr))
        except Exception as error:  # programs raise what they like
            line = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            raise ParameterError(
                "asr",
                f"{file.name} does not take float32 samples (1, {self.sr}): {line}. Export it for a waveform alone",
            ) from error
        if scores.shape[-1] != len(self.tokens):
            raise ParameterError(
                "asr",
                f"{file.name} tells {scores.shape[-1]} tokens apart, and tokens names {len(self.tokens)}: name each",
            )


@dataclass(frozen=True)
class _Network:
    recogniser: Recogniser
    program: Program

    def heard(self, pair: Pair) -> str:
        """Return what the network hears in a reconstruction."""
        scores = self.program.rows(pair.estimate_at(self.recogniser.sr))
        return decoded(np.argmax(scores, axis=-1), self.recogniser.tokens, self.recogniser.blank)


def decoded(best: NDArray[np.intp], tokens: Sequence[str], blank: int) -> str:
    """Return the text of the best token of each frame: repeated ones are one, and blanks none.

    References
    ----------
    Graves, Fernández, Gomez, Schmidhuber, "Connectionist temporal classification", ICML 2006, section 3.2.

    Examples
    --------
    >>> decoded(np.array([1, 1, 0, 1, 2, 2, 3]), ["", "a", "|", "b"], 0)
    'aa b'
    """
    kept = best[np.flatnonzero(np.diff(best, prepend=-1))]
    text = "".join(tokens[token] for token in kept if token != blank)
    return text.replace("|", " ").replace("▁", " ")


class _Running:
    """Talk to a command that runs, a file at a time."""

    def __init__(self, command: str) -> None:
        self.command = command
        self._lock = threading.Lock()
        self._folder = tempfile.TemporaryDirectory(prefix="melmill-asr-")
        self._errors = Path(self._folder.name, "stderr")
        try:
            with self._errors.open("wb") as errors:
                self._process = subprocess.Popen(
                    shlex.split(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, bufsize=0
                )
        except OSError as error:
            raise self._failed(f"can't be started ({error.strerror or error})") from error
        atexit.register(self.end)

    def hear(self, y: NDArray[np.float32], sr: int, timeout_s: float) -> str:
        """Return the line that the command prints for a signal ``(n_samples,)``."""
        with self._lock:
            path = Path(self._folder.name, "heard.wav")
            _write_wav(path, y, sr)
            if self._waits(0.0):
                raise self._failed("printed a line that nobody asked for, or ended")
            assert self._process.stdin is not None
            try:
                self._process.stdin.write(f"{path}\n".encode())
            except OSError as error:
                raise self._failed(self._ended()) from error
            line = self._line(timeout_s)
            if self._waits(0.0) and self._process.poll() is None:
                raise self._failed("printed more than a line for one file")
            return line

    def _line(self, timeout_s: float) -> str:
        assert self._process.stdout is not None
        until, found = time.monotonic() + timeout_s, b""
        while not found.endswith(b"\n"):
            left = until - time.monotonic()
            if left <= 0 or not self._waits(left):
                raise self._failed(f"took more than {timeout_s:g} s for one file")
            more = os.read(self._process.stdout.fileno(), 65536)
            if not more:
                raise self._failed(self._ended())
            found += more
            if found.count(b"\n") > 1 or len(found) > _MOST_LINE:
                raise self._failed("printed more than a line for one file")
        try:
            return found.decode()
        except UnicodeDecodeError as error:
            raise self._failed("printed text that is not UTF-8") from error

    def _waits(self, seconds: float) -> bool:
        """Tell whether there is something to read from the command, after waiting for it."""
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            return bool(selector.select(seconds))

    def _ended(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=1.0)
        return f"ended with exit code {self._process.poll()}"

    def _failed(self, why: str) -> RecogniserFailed:
        """End the command, so that a new attempt starts it anew; return the error."""
        said = self._errors.read_text(errors="replace").strip()[-_TOLD:] if self._errors.exists() else ""
        told = f"; it says: {said.splitlines()[-1]}" if said else ""
        self.end()
        return RecogniserFailed(
            f"the recogniser {self.command!r} {why}{told}. Check that it hears a file here: echo a.wav | {self.command}"
        )

    def end(self) -> None:
        """End the command, and forget it."""
        _running.cache_clear()
        atexit.unregister(self.end)
        process = getattr(self, "_process", None)
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    stream.close()
        self._folder.cleanup()


@lru_cache(maxsize=4)
def _running(command: str) -> _Running:
    return _Running(command)


def _write_wav(path: Path, y: NDArray[np.float32], sr: int) -> None:
    pcm = np.clip(np.round(y * 32768.0), -32768, 32767).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sr)
        file.writeframes(pcm.tobytes())
