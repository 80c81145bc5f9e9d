"""Speech by the eSpeak NG library, in a child process.

The library keeps global state, and may crash. A child starts afresh each time, so that the same
lines give the same samples, and a crash becomes an error message. The library is an optional extra
because its licence is the GPL.
"""

from __future__ import annotations

import ctypes
import importlib.util
import io
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.errors import StageError

SR = 22050
_TIMEOUT_S = 120.0
# Of espeak-ng/speak_lib.h: AUDIO_OUTPUT_SYNCHRONOUS, espeakRATE, espeakPITCH, POS_CHARACTER,
# espeakCHARS_UTF8.
_SYNCHRONOUS, _RATE, _PITCH, _BY_CHARACTER, _UTF8 = 2, 1, 3, 1, 1


class SynthesisError(StageError):
    """eSpeak NG is missing or failed."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """Hold a sentence and the voice that speaks it.

    Parameters
    ----------
    text : str
    voice : str
        Language and variant by eSpeak NG's names (``en-us+f2``).
    rate_wpm, pitch : int
        Words per minute; pitch from 0 to 99, where 50 is the voice's own.
    """

    text: str
    voice: str
    rate_wpm: int
    pitch: int


def speak(lines: Sequence[Line]) -> list[NDArray[np.int16]]:
    """Return each line as speech, int16 ``(n_samples,)`` at `SR`.

    Raises
    ------
    SynthesisError
        eSpeak NG is not installed, lacks a voice, or crashed.
    """
    if importlib.util.find_spec("espeakng_loader") is None:
        raise SynthesisError('speech needs eSpeak NG, which is not installed: pip install "melmill[demo]"')
    command = [sys.executable, "-P", __file__]
    order = json.dumps([asdict(line) for line in lines]).encode()
    child = subprocess.run(command, input=order, capture_output=True, timeout=_TIMEOUT_S, check=False)
    if child.returncode != 0:
        last = child.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise SynthesisError(f"eSpeak NG ended with status {child.returncode}: {''.join(last) or 'no message'}")
    answer = io.BytesIO(child.stdout)
    return [np.load(answer, allow_pickle=False) for _ in lines]


def _synthesize(lines: Sequence[Line]) -> Iterator[NDArray[np.int16]]:
    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    sr = library.espeak_Initialize(_SYNCHRONOUS, 0, str(espeakng_loader.get_data_path()).encode(), 0)
    if sr != SR:
        raise SynthesisError(f"eSpeak NG must start at {SR} Hz, got {sr}: its voice data is missing or of another kind")
    # Otherwise the clock seeds the breath of its voices.
    library.espeak_ng_SetRandSeed(ctypes.c_long(1))
    pieces: list[NDArray[np.int16]] = []

    def keep(samples: Any, n_samples: int, events: Any) -> int:  # noqa: ANN401 - C pointers
        if samples and n_samples > 0:
            pieces.append(np.ctypeslib.as_array(samples, (n_samples,)).copy())
        return 0

    callback_type = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int16), ctypes.c_int, ctypes.c_void_p)
    callback = callback_type(keep)
    library.espeak_SetSynthCallback(callback)
    for line in lines:
        pieces.clear()
        text = line.text.encode()
        statuses = (
            library.espeak_SetVoiceByName(line.voice.encode()),
            library.espeak_SetParameter(_RATE, line.rate_wpm, 0),
            library.espeak_SetParameter(_PITCH, line.pitch, 0),
            library.espeak_Synth(text, len(text) + 1, 0, _BY_CHARACTER, 0, _UTF8, None, None),
        )
        if any(statuses) or not pieces:
            raise SynthesisError(f"voice {line.voice!r} did not speak {line.text!r}: statuses {statuses}")
        yield np.concatenate(pieces)


if __name__ == "__main__":
    answers = io.BytesIO()  # NumPy asks a file for its position, which a buffered pipe has not.
    for wave in _synthesize([Line(**line) for line in json.load(sys.stdin)]):
        np.save(answers, wave, allow_pickle=False)
    sys.stdout.buffer.write(answers.getvalue())
