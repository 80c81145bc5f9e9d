"""Pairs of a mel and its recording, in the layout from which HiFi-GAN's own code fine-tunes.

References
----------
Kong, Kim, Bae, "HiFi-GAN", NeurIPS 2020, and ``meldataset.py`` of its authors' code. With
``--fine_tuning True`` it takes ``wavs/NAME.wav``, ``mels/NAME.npy`` and lists of ``NAME|text``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from melmill.flows.errors import PipelineError
from melmill.pcm import as_float
from melmill.stages.formats.format import FORMATS
from melmill.stages.formats.npy import encode_npy
from melmill.stages.numeric.melspec import MelSpec
from melmill.storage.files.location import Location
from melmill.storage.store import Store

TRAINING, VALIDATION = "training.txt", "validation.txt"
_EVERY = 20  # one utterance of so many goes to the list of validation


@dataclass(frozen=True, kw_only=True)
class PairsSummary:
    """Say what was written.

    Parameters
    ----------
    folder : str
    written, left_out : int
        Pairs written, and utterances that lack one side or a whole frame.
    """

    folder: str
    written: int
    left_out: int

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


def export_pairs(store: Store, mels: str, audio: str, folder: str) -> PairsSummary:
    """Write the mels of a node and their recordings as HiFi-GAN's code reads them.

    Frame k of a mel belongs to the samples from ``k * hop_length`` on. A mel has
    ``n_samples // hop_length`` frames and the recording exactly as many hops. So a last frame of
    centred mels is left out, and so is what follows the last whole hop.

    Parameters
    ----------
    store : Store
    mels, audio : str
        Nodes of the last run: mels, and the recordings that they belong to.
    folder : str
        Path or URL. Files in it are replaced.

    Raises
    ------
    PipelineError
        One of the nodes does not exist or makes something else, or their rates differ.
    """
    spec = _checked(store, mels, audio)
    made, heard = store[mels], store[audio]
    place = Location(folder)
    place.make()
    wav, lines, left_out = FORMATS["wav"], [], 0
    texts = {one.utterance_id: one.text for one in made.catalogue.utterances()}
    for name in made:
        if name not in heard:
            left_out += 1
            continue
        M, y = made[name], as_float(heard[name])
        n_frames = min(M.shape[1], y.size // spec.hop_length)
        if n_frames == 0:
            left_out += 1
            continue
        data, _ = wav.encode(y[: n_frames * spec.hop_length], spec.sr, 16)
        (place / "wavs").replace(f"{name}.wav", data)
        (place / "mels").replace(f"{name}.npy", encode_npy(np.asarray(M[:, :n_frames], dtype=np.float32)))
        lines.append(f"{name}|{' '.join(texts.get(name, '').split())}\n")
    held = lines[::_EVERY] if len(lines) > 1 else []
    place.replace(TRAINING, "".join(line for line in lines if line not in held).encode())
    place.replace(VALIDATION, "".join(held).encode())
    return PairsSummary(folder=place.url, written=len(lines), left_out=left_out)


def _checked(store: Store, mels: str, audio: str) -> MelSpec:
    """Return the spec of the mels; raise PipelineError unless the nodes make mels and recordings."""
    for name, kinds in ((mels, ("mel",)), (audio, ("utterances", "waveform"))):
        if name not in store.nodes:
            raise PipelineError(f"the last run has no node {name!r} (nodes: {', '.join(store.nodes)})")
        if store.nodes[name].kind not in kinds:
            raise PipelineError(f"node {name!r} makes {store.nodes[name].kind}, expected {' or '.join(kinds)}")
    spec, sr = MelSpec.from_dict(dict(store[mels].description.mel or {})), store[audio].description.sr
    if sr != spec.sr:
        raise PipelineError(f"node {audio!r} has {sr} Hz, but the mels of {mels!r} are of {spec.sr} Hz")
    return spec
