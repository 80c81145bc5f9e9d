"""Vocos on mels: ConvNeXt blocks at the frame rate predict a spectrum, and an inverse STFT follows.

References
----------
Siuzdak, "Vocos: Closing the gap between time-domain and Fourier-based neural vocoders for
    high-quality audio synthesis", ICLR 2024, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.presets import preset
from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.layers.basic import Conv1d, Ends, Linear, same_padding
from melmill.stages.vocode.layers.spectral import EPS, KERNEL, Block, synthesised
from melmill.stages.vocode.network import Checkpoint, Vocoder, with_weights
from melmill.stages.vocode.settings import changed, conv_shape, fitting, layer_count, whole, wrong

# The head's magnitudes are clipped to this.
_LOUDEST = 1e2
_CLASSES = {"feature_extractor": "MelSpectrogramFeatures", "backbone": "VocosBackbone", "head": "ISTFTHead"}


@dataclass(frozen=True, kw_only=True)
class VocosSizes:
    """Hold the sizes of the layers.

    `scaled` blocks weigh what they add by `gamma`. `center` is as in `MelSpec`.
    """

    n_mels: int
    width: int
    hidden: int
    n_blocks: int
    scaled: bool
    n_fft: int
    hop_length: int
    center: bool


class _Backbone(nn.Module):
    def __init__(self, sizes: VocosSizes) -> None:
        super().__init__()
        self.embed = Conv1d(sizes.n_mels, sizes.width, KERNEL, padding=same_padding(KERNEL))
        self.norm = nn.LayerNorm(sizes.width, eps=EPS)
        self.convnext = nn.ModuleList(Block(sizes.width, sizes.hidden, sizes.scaled) for _ in range(sizes.n_blocks))
        self.final_layer_norm = nn.LayerNorm(sizes.width, eps=EPS)

    def forward(self, mel: Tensor, ends: Ends) -> Tensor:
        x = self.norm(self.embed(ends.cut(mel)).transpose(1, 2)).transpose(1, 2)
        for block in self.convnext:
            x = block(x, ends)
        y: Tensor = self.final_layer_norm(x.transpose(1, 2))
        return y


class _Window(nn.Module):
    """Hold the synthesis window under the official name."""

    def __init__(self, n_fft: int) -> None:
        super().__init__()
        self.window: Tensor
        self.register_buffer("window", torch.empty(n_fft))


class _Head(nn.Module):
    def __init__(self, sizes: VocosSizes) -> None:
        super().__init__()
        self.n_fft, self.hop_length = sizes.n_fft, sizes.hop_length
        self.trim = sizes.n_fft // 2 if sizes.center else (sizes.n_fft - sizes.hop_length) // 2
        self.out = Linear(sizes.width, sizes.n_fft + 2)
        self.istft = _Window(sizes.n_fft)

    def forward(self, x: Tensor, ends: Ends) -> Tensor:
        log_magnitude, phase = self.out(x).transpose(1, 2).chunk(2, dim=1)
        D = torch.polar(log_magnitude.exp().clamp(max=_LOUDEST), phase)
        return synthesised(D, self.istft.window, self.hop_length, self.trim, ends)


class Vocos(Vocoder):
    """Predict magnitudes and phases frame by frame."""

    family: ClassVar[str] = "vocos"

    def __init__(self, sizes: VocosSizes, spec: MelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.backbone = _Backbone(sizes)
        self.head = _Head(sizes)

    def n_samples(self, n_frames: int) -> int:
        """Return how many samples a mel of `n_frames` gives."""
        return (n_frames - 1) * self.head.hop_length + self.head.n_fft - 2 * self.head.trim

    def forward(self, mel: Tensor, lengths: Tensor | None = None, noise: Sequence[Tensor] = ()) -> Tensor:
        """Return the waveforms ``(batch, n_samples)`` of mels ``(batch, n_mels, n_frames)``."""
        ends = Ends(lengths, mel.shape[2])
        y: Tensor = self.head(self.backbone(mel, ends), ends)
        return y


def build(checkpoint: Checkpoint) -> Vocos:
    """Make the model of a checkpoint whose classes are those of the mel model."""
    sections = {section: _arguments(checkpoint, section, name) for section, name in _CLASSES.items()}
    sizes = _sizes(checkpoint, sections["backbone"], sections["head"])
    spec = checkpoint.mel or _mel(checkpoint, sections["feature_extractor"])
    fitting(checkpoint, spec, n_mels=sizes.n_mels, hop_length=sizes.hop_length)
    state = {key: value for key, value in checkpoint.state.items() if not key.startswith("feature_extractor.")}
    return with_weights(Vocos(sizes, spec), checkpoint, state)


def _arguments(checkpoint: Checkpoint, section: str, name: str) -> Mapping[str, Any]:
    """Return the arguments of one part. Its class is compared by name, and nothing is imported."""
    part = checkpoint.config.get(section)
    if not isinstance(part, Mapping):
        raise VocoderError(
            f"{checkpoint.name}: its configuration must have {section}, got {', '.join(checkpoint.config) or 'none'}: "
            "put Vocos's config.yaml beside it, or give config=..."
        )
    if str(part.get("class_path", name)).rpartition(".")[2] != name:
        raise VocoderError(
            f"{checkpoint.name}: {section} of its configuration is a {part['class_path']!r}: only {name} makes "
            "waveforms of mels here"
        )
    arguments = part.get("init_args") or {}
    if not isinstance(arguments, Mapping):
        raise wrong(checkpoint, f"init_args of {section}", "a mapping of settings", arguments)
    return arguments


def _sizes(checkpoint: Checkpoint, backbone: Mapping[str, Any], head: Mapping[str, Any]) -> VocosSizes:
    width, n_mels, _ = conv_shape(checkpoint, "backbone.embed.weight")
    padding = head.get("padding", "same")
    if "hop_length" not in head or padding not in ("same", "center"):
        raise VocoderError(
            f"{checkpoint.name}: head of its configuration must say hop_length, and padding 'same' or 'center', "
            f"got {dict(head)!r}"
        )
    return VocosSizes(
        n_mels=whole(checkpoint, backbone, "input_channels", n_mels),
        width=whole(checkpoint, backbone, "dim", width),
        hidden=whole(
            checkpoint, backbone, "intermediate_dim", checkpoint.shape("backbone.convnext.0.pwconv1.weight")[0]
        ),
        n_blocks=layer_count(
            checkpoint, backbone, "num_layers", checkpoint.count("backbone.convnext.{}.dwconv.weight")
        ),
        scaled="backbone.convnext.0.gamma" in checkpoint.state,
        n_fft=whole(checkpoint, head, "n_fft", checkpoint.shape("head.out.weight")[0] - 2),
        hop_length=whole(checkpoint, head, "hop_length", 1),
        center=padding == "center",
    )


def _mel(checkpoint: Checkpoint, arguments: Mapping[str, Any]) -> MelSpec:
    """Return the mel of the feature extractor; official defaults fill in what it leaves out."""
    n_fft = arguments.get("n_fft", 1024)
    return changed(
        checkpoint,
        preset("vocos_24khz"),
        sr=arguments.get("sample_rate", 24000),
        n_fft=n_fft,
        win_length=n_fft,
        hop_length=arguments.get("hop_length", 256),
        n_mels=arguments.get("n_mels", 100),
        center=True if arguments.get("padding", "center") == "center" else "same",
    )
