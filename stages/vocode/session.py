"""Vocoders that a process keeps loaded, so that each of its tasks need not load them again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from melmill.stages.contract import StageFiles
from melmill.stages.errors import CompilerFailed
from melmill.stages.numeric.batched.device import device_lock, placement
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.files.configuration import EXTRAS, assembled
from melmill.stages.vocode.layers.basic import Precision, at
from melmill.stages.vocode.layers.diffusion import Correction
from melmill.stages.vocode.loaded import LoadedVocoder, load

_MOST_BYTES = 2 * 2**30

_TRIED_FRAMES = (24, 16)

Option = float | tuple[float, ...] | bool | None


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a loaded vocoder is, but for its files.

    Parameters
    ----------
    family : str or None
        None: told by its keys.
    mel : MelSpec or None
        The mel that it needs, above what its files say.
    device : str
    options : tuple of (str, value)
        `sigma`, `betas` and `correction`, of the families that have them; None keeps what the files say.
    compiled : {"float32", "bfloat16", "float16"} or None
        Precision that its operations are fused for by torch's compiler; None: they are not.
    """

    family: str | None
    mel: MelSpec | None
    device: str = "cpu"
    options: tuple[tuple[str, Option], ...] = ()
    compiled: Precision | None = None


def load_files(files: StageFiles, settings: Settings) -> LoadedVocoder:
    """Load a vocoder of its files: ``weights``, and ``config``, ``beside`` and extras where there are such."""
    extras = {role: files[role] for role in EXTRAS if role in files}
    checkpoint = assembled(files["weights"], files.get("config"), files.get("beside"), settings.mel, **extras)
    voc = load(checkpoint, settings.family, settings.device)
    for name, value in settings.options:
        if value is not None and value is not False:
            _set(voc, name, value)
    if settings.compiled is not None:
        _compile(voc, settings.compiled)
    return voc


def _compile(voc: LoadedVocoder, precision: Precision) -> None:
    """Have a vocoder compiled for mels of any lengths, and try it, as the compiler works when it is first called."""
    voc.model.compile(dynamic=True)
    mels = [np.full((voc.spec.n_mels, n_frames), voc.model.silence) for n_frames in _TRIED_FRAMES]
    try:
        with device_lock(torch.device(voc.device)), at(precision, voc.device):
            voc.batch(mels)
    except Exception as error:  # the compiler raises what it likes
        raise CompilerFailed(
            f"{voc.name}: torch {torch.__version__} can't compile it in this process ({_line(error)}): leave compile "
            "out, or install what compiling needs (a C++ compiler on the CPU, Triton on CUDA)"
        ) from error


def _line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith("backend=")]
    return lines[0] if lines else type(error).__name__


def _set(voc: LoadedVocoder, name: str, value: Option) -> None:
    if not hasattr(voc.model, name):
        raise VocoderError(f"{voc.name}: a {voc.family} has no {name!r}")
    setattr(voc.model, name, Correction() if value is True else value)


class _Shelf:
    """Hold the vocoders that were used last, up to a number of bytes; one at least."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._loaded: OrderedDict[tuple[str, Settings], LoadedVocoder] = OrderedDict()

    def get(self, digest: str, settings: Settings, read: Callable[[], StageFiles]) -> LoadedVocoder:
        key = digest, settings
        # Held while it loads: threads of one worker need the same one at the same time.
        with self._lock:
            if key not in self._loaded:
                self._loaded[key] = load_files(read(), settings)
            self._loaded.move_to_end(key)
            while len(self._loaded) > 1 and sum(map(_size, self._loaded.values())) > self._most_bytes:
                self._loaded.popitem(last=False)
            return self._loaded[key]


_SHELF = _Shelf(_MOST_BYTES)


def kept(digest: str, settings: Settings, read: Callable[[], StageFiles]) -> LoadedVocoder:
    """Return a vocoder, loaded now or by an earlier task of this process.

    Raises
    ------
    DeviceMissing, CompilerFailed
        This process lacks the device, or what compiling needs.
    """
    placement(settings.device, "float32")
    return _SHELF.get(digest, settings, read)


def _size(voc: LoadedVocoder) -> int:
    tensors = [*voc.model.parameters(), *voc.model.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
