"""Named mel specs: the paper's, and what published vocoders were trained on.

They are read from each project's own mel code and configuration. Most differ in their values alone,
not in their shape; see `melmill.stages.numeric.contract`.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace

from melmill.stages.numeric.errors import ParameterError
from melmill.stages.numeric.melspec import MelSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A named spec; `note` says where it is from, and what its waveforms or mels need besides."""

    spec: MelSpec
    note: str


_PAPER = MelSpec()
_HIFIGAN = MelSpec(sr=22050, fmax=8000.0, log="ln", floor=1e-5, center="same", pad_mode="reflect", eps=1e-9)
_BIGVGAN_24 = replace(_HIFIGAN, sr=24000, n_mels=100, fmax=12000.0)
_BIGVGAN_44 = replace(_HIFIGAN, sr=44100, n_mels=128, fmax=None)
_TACOTRON2 = replace(_HIFIGAN, center=True, eps=0.0)
_LOG10 = MelSpec(sr=22050, fmin=80.0, fmax=7600.0, log="log10", floor=1e-10, pad_mode="reflect")
# clip((20 log10(max(M, 1e-5)) - 20 + 100) / 100, 0, 1)
_DIFFWAVE = MelSpec(
    sr=22050,
    fmin=20.0,
    htk=True,
    norm=None,
    log="db",
    floor=1e-5,
    pad_mode="reflect",
    normalized=True,
    shift=80.0,
    scale=0.01,
    clip=(0.0, 1.0),
)
_LIBROSA = MelSpec(sr=22050, n_fft=2048, win_length=2048, hop_length=512, n_mels=128, power=2.0)
_TORCHAUDIO = MelSpec(
    n_fft=400, win_length=400, hop_length=200, n_mels=128, htk=True, norm=None, power=2.0, pad_mode="reflect"
)

_BIGVGAN = "NVIDIA BigVGAN"
_TACOTRON2_NOTE = "NVIDIA Tacotron 2 and WaveGlow: centred frames, half a hop off HiFi-GAN's"
_PWG_NOTE = "ParallelWaveGAN recipes: mel before the mean and variance of the recipe's stats file"

_PRESETS: dict[str, Preset] = {
    "paper": Preset(spec=_PAPER, note="Masuyama et al. 2024, section IV: linear magnitude, no log"),
    "hifigan": Preset(
        spec=_HIFIGAN, note="HiFi-GAN V1, V2, V3 and UNIVERSAL_V1; trained on peaks of 0.95, infers as is"
    ),
    "hifigan_ft": Preset(spec=_TACOTRON2, note="HiFi-GAN LJ_FT_T2_*, fine-tuned on Tacotron 2 mels: centred frames"),
    "tacotron2": Preset(spec=_TACOTRON2, note=_TACOTRON2_NOTE),
    "waveglow": Preset(spec=_TACOTRON2, note=_TACOTRON2_NOTE),
    "melgan": Preset(
        spec=replace(_HIFIGAN, fmax=None, log="log10", eps=0.0),
        note="MelGAN (descript), log10; trained on peaks of up to 0.95",
    ),
    "melgan_seungwonpark": Preset(
        spec=_TACOTRON2, note="MelGAN (seungwonpark): Tacotron 2 mels, scaled inside the model"
    ),
    "bigvgan_24khz_100band": Preset(spec=_BIGVGAN_24, note=f"{_BIGVGAN} v1 and base"),
    "bigvgan_22khz_80band": Preset(spec=_HIFIGAN, note=f"{_BIGVGAN} v1 and base: HiFi-GAN's"),
    "bigvgan_v2_22khz_80band_256x": Preset(spec=replace(_HIFIGAN, fmax=None), note=f"{_BIGVGAN} v2"),
    "bigvgan_v2_22khz_80band_fmax8k_256x": Preset(spec=_HIFIGAN, note=f"{_BIGVGAN} v2: HiFi-GAN's"),
    "bigvgan_v2_24khz_100band_256x": Preset(spec=replace(_BIGVGAN_24, fmax=None), note=f"{_BIGVGAN} v2"),
    "bigvgan_v2_44khz_128band_256x": Preset(spec=_BIGVGAN_44, note=f"{_BIGVGAN} v2; its bank has rank 118 of 128"),
    "bigvgan_v2_44khz_128band_512x": Preset(
        spec=replace(_BIGVGAN_44, n_fft=2048, win_length=2048, hop_length=512), note=f"{_BIGVGAN} v2"
    ),
    "vocos_24khz": Preset(
        spec=replace(_BIGVGAN_24, htk=True, norm=None, floor=1e-7, center=True, eps=0.0, fmax=None),
        note="Vocos mel-24khz: HTK scale, peaks of 1; trained at -6 to -1 dB peak; gives (n_frames - 1) * hop samples",
    ),
    "univnet": Preset(spec=_BIGVGAN_24, note="UnivNet c16 and c32: BigVGAN's 24 kHz mel"),
    "speecht5": Preset(
        spec=replace(_LOG10, sr=16000), note="transformers SpeechT5HifiGan: normalised inside the model"
    ),
    "parallel_wavegan": Preset(spec=_LOG10, note=_PWG_NOTE),
    "espnet2": Preset(
        spec=_LOG10, note="ESPnet2 TTS at 22 kHz: as parallel_wavegan but for bins under 1e-5, which it raises to that"
    ),
    "wavenet_r9y9": Preset(
        spec=replace(_LOG10, fmin=125.0),
        note="r9y9's WaveNet: mel before mean and variance; wave trimmed and high-passed at 70 Hz by its recipe",
    ),
    "wavegrad": Preset(
        spec=replace(_DIFFWAVE, n_fft=2048, win_length=1200, hop_length=300, n_mels=128), note="WaveGrad (lmnt)"
    ),
    "diffwave": Preset(spec=_DIFFWAVE, note="DiffWave (lmnt); wave divided by 32767.5, 1.5e-5 more than ours"),
    "librosa": Preset(spec=_LIBROSA, note="defaults of librosa.feature.melspectrogram: power, no log"),
    "torchaudio": Preset(
        spec=_TORCHAUDIO, note="defaults of torchaudio.transforms.MelSpectrogram; bands 0, 3, 6 and 13 hold no FFT bin"
    ),
}

# Asked for by name often enough to deserve a reason.
_INEXPRESSIBLE = {
    "wavenet_r9y9_2018": "its frames are those of lws: a square-root Hann window and other padding",
    "whisper": "its floor follows the loudest value of each utterance, and its last frame is dropped",
}


def preset(name: str) -> MelSpec:
    """Return the spec called `name`.

    Raises
    ------
    ParameterError
        There is none; the message has the nearest name.

    >>> preset("hifigan").log
    'ln'
    """
    return _find(name).spec


def preset_note(name: str) -> str:
    """Return where a preset comes from and what its waveforms need before."""
    return _find(name).note


def preset_names() -> list[str]:
    """Return the names of all presets, sorted."""
    return sorted(_PRESETS)


def _find(name: str) -> Preset:
    if not isinstance(name, str):
        raise ParameterError("preset", f"must be the name of a preset, got {name!r}")
    if name in _PRESETS:
        return _PRESETS[name]
    if name in _INEXPRESSIBLE:
        raise ParameterError("preset", f"can't be {name!r}: {_INEXPRESSIBLE[name]}, which a mel spec can't say")
    near = difflib.get_close_matches(str(name), _PRESETS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else f" (presets: {', '.join(preset_names())})"
    raise ParameterError("preset", f"{name!r} does not exist{hint}")
