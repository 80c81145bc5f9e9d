"""Vocoders that a process keeps loaded, so that each of its tasks need not load them again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from melmill.stages.dsp.batched.placement import placement
from melmill.stages.dsp.melspec import MelSpec
from melmill.stages.stage import StageFiles
from melmill.stages.vocoders.beside import EXTRAS, assembled
from melmill.stages.vocoders.correction import Correction
from melmill.stages.vocoders.errors import VocoderError
from melmill.stages.vocoders.loaded import LoadedVocoder, load

_MOST_BYTES = 2 * 2**30

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
    """

    family: str | None
    mel: MelSpec | None
    device: str = "cpu"
    options: tuple[tuple[str, Option], ...] = ()


def load_files(files: StageFiles, settings: Settings) -> LoadedVocoder:
    """Load a vocoder of its files: ``weights``, and ``config``, ``beside`` and extras where there are such."""
    extras = {role: files[role] for role in EXTRAS if role in files}
    checkpoint = assembled(files["weights"], files.get("config"), files.get("beside"), settings.mel, **extras)
    voc = load(checkpoint, settings.family, settings.device)
    for name, value in settings.options:
        if value is not None and value is not False:
            _set(voc, name, value)
    return voc


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
    DeviceMissing
        This process lacks the device.
    """
    placement(settings.device, "float32")
    return _SHELF.get(digest, settings, read)


def _size(voc: LoadedVocoder) -> int:
    tensors = [*voc.model.parameters(), *voc.model.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
