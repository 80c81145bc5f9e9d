"""Vocoders that a process keeps loaded, so that its tasks need not load them again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import numpy as np
import torch

from melmill.stages.contract import StageFiles
from melmill.stages.errors import CompilerFailed
from melmill.stages.numeric.batched.device import device_lock, placement
from melmill.stages.numeric.errors import Unusable
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.vocode.files.checkpoint import read_files
from melmill.stages.vocode.layers.basic import Precision, at
from melmill.stages.vocode.loaded import LoadedVocoder, load

_MOST_BYTES = 2 * 2**30

# Frames of the mels that a compiled vocoder is tried with.
_TRIED_FRAMES = (24, 16)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Say what a loaded vocoder is, apart from its files.

    Parameters
    ----------
    family : str or None
        Name of its family; None: recognise it.
    mel : MelSpec or None
        The mel that it needs; it overrides what its files say.
    device : str
        Torch device that it computes on.
    options : hashable or None
        The options of its family, for `Vocoder.configure`; None: keep what its files say.
    compiled : {"float32", "bfloat16", "float16"} or None
        Precision that torch's compiler fuses its operations for; None: they are not compiled.
    """

    family: str | None
    mel: MelSpec | None
    device: str = "cpu"
    options: Hashable | None = None
    compiled: Precision | None = None


def load_files(files: StageFiles, settings: Settings) -> LoadedVocoder:
    """Load a vocoder from its files.

    See `melmill.stages.vocode.files.companions.candidates` for their roles.
    """
    voc = load(read_files(files, settings.mel), settings.family, settings.device)
    if settings.options is not None:
        voc.model.configure(settings.options)
    if settings.compiled is not None:
        _compile(voc, settings.compiled)
    return voc


def _compile(voc: LoadedVocoder, precision: Precision) -> None:
    """Have a vocoder compiled for mels of any lengths.

    Run it once, as the compiler works at the first call.
    """
    voc.model.compile(dynamic=True)
    mels = [np.full((voc.spec.n_mels, n_frames), voc.model.silence) for n_frames in _TRIED_FRAMES]
    try:
        with device_lock(torch.device(voc.device)), at(precision, voc.device):
            voc.batch(mels)
    except Unusable:
        return  # it computes, though what it makes of silence overflows: each mel is checked when it comes
    except Exception as error:  # the compiler raises what it likes
        lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith("backend=")]
        raise CompilerFailed(
            f"{voc.name}: torch {torch.__version__} can't compile it in this process "
            f"({lines[0] if lines else type(error).__name__}): leave compile "
            "out, or install what compiling needs (a C++ compiler on the CPU, Triton on CUDA)"
        ) from error


class VocoderCache:
    """Hold the vocoders that were used last, up to a number of bytes, and one at least."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._loaded: OrderedDict[tuple[str, Settings], LoadedVocoder] = OrderedDict()

    def get(self, digest: str, settings: Settings, read: Callable[[], StageFiles]) -> LoadedVocoder:
        """Return a vocoder.

        It is loaded now from what `read` returns, or was by an earlier call with this digest.
        """
        key = digest, settings
        # Held while it loads: threads of one worker need the same one at the same time.
        with self._lock:
            if key not in self._loaded:
                self._loaded[key] = load_files(read(), settings)
            self._loaded.move_to_end(key)
            while len(self._loaded) > 1 and sum(map(_size, self._loaded.values())) > self._most_bytes:
                self._loaded.popitem(last=False)
            return self._loaded[key]


_CACHE = VocoderCache(_MOST_BYTES)


def cached(digest: str, settings: Settings, read: Callable[[], StageFiles]) -> LoadedVocoder:
    """Return a vocoder, loaded now or by an earlier task of this process.

    Raises
    ------
    DeviceMissing, CompilerFailed
        This process lacks the device, or what compiling needs.
    """
    placement(settings.device, "float32")
    return _CACHE.get(digest, settings, read)


def _size(voc: LoadedVocoder) -> int:
    tensors = [*voc.model.parameters(), *voc.model.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
