"""The discriminators that a generator learns from: of periods of the waveform, and of spectra.

They are fresh, or those that a training of the official code wrote beside its generator.

References
----------
Kumar et al., "MelGAN", NeurIPS 2019, section 2.2 (multi-scale discriminator).
Kong, Kim, Bae, "HiFi-GAN", NeurIPS 2020, section 2.3 (multi-period and multi-scale discriminators).
Jang et al., "UnivNet", Interspeech 2021, section 2.2 (multi-resolution spectrogram discriminator).
Lee et al., "PhaseAug: A Differentiable Augmentation for Speech Synthesis to Simulate One-to-Many
    Mapping", ICASSP 2023.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool1d, leaky_relu, pad
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from melmill.safetensors import is_safetensors
from melmill.stages.contract import StageFile
from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.files.checkpoint import safetensors, unpickled, unwrapped

_SLOPE = 0.1
_PERIODS = (2, 3, 5, 7, 11)
_RESOLUTIONS = (512, 1024, 2048)
_GIVEN_RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))
_MULTIPLES = (1, 2, 4, 8, 8)
_DEPTH = 4
_PHASE_N_FFT = 1024


class _Period(nn.Module):
    """Judge a waveform by convolutions along its periods, folded to `period` columns."""

    def __init__(self, period: int, width: int) -> None:
        super().__init__()
        self.period = period
        widths = [1, *(width * multiple for multiple in _MULTIPLES)]
        self.convs = nn.ModuleList(
            weight_norm(nn.Conv2d(a, b, (5, 1), ((3 if i < 4 else 1), 1), padding=(2, 0)))
            for i, (a, b) in enumerate(itertools.pairwise(widths))
        )
        self.post = weight_norm(nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, y: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the judgement and the features of waveforms ``(batch, n_samples)``."""
        x = pad(y, (0, -y.shape[1] % self.period))
        return _judged(self.convs, self.post, x.view(x.shape[0], 1, -1, self.period))


class _Resolution(nn.Module):
    """Judge a waveform by convolutions over the magnitudes of its STFT of `n_fft`."""

    def __init__(self, n_fft: int, width: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        self.convs = nn.ModuleList(
            weight_norm(nn.Conv2d(width if i else 1, width, (9, 3), (2, 1), padding=(4, 1))) for i in range(_DEPTH)
        )
        self.post = weight_norm(nn.Conv2d(width, 1, 3, padding=1))

    def forward(self, y: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the judgement and the features of waveforms ``(batch, n_samples)``."""
        window = torch.hann_window(self.n_fft, device=y.device)
        with torch.autocast(y.device.type, enabled=False):
            D = torch.stft(
                y.float(), self.n_fft, self.n_fft // 4, window=window, pad_mode="constant", return_complex=True
            )
            # The square root makes quiet harmonics stand out.
            x = D.abs().clamp(min=1e-7).sqrt()
        return _judged(self.convs, self.post, x[:, None])


def _judged(convs: nn.ModuleList, post: nn.Module, x: Tensor, slope: float = _SLOPE) -> tuple[Tensor, list[Tensor]]:
    features = []
    for conv in convs:
        x = leaky_relu(conv(x), slope)
        features.append(x)
    judgement: Tensor = post(x)
    return judgement.flatten(1), features


class Discriminators(nn.Module):
    """Judge waveforms by all discriminators together.

    Parameters
    ----------
    parts : iterable of Module
        Each returns its judgement and its features of waveforms ``(batch, n_samples)``.
    squares : bool
        They learn by least squares: 1 for recordings, 0 for what was made. Else by hinges.
    """

    def __init__(self, parts: Iterable[nn.Module], *, squares: bool = False) -> None:
        super().__init__()
        self.parts, self.squares = nn.ModuleList(parts), squares

    def forward(self, y: Tensor) -> tuple[list[Tensor], list[list[Tensor]]]:
        """Return each discriminator's judgement and features of waveforms.

        The waveforms have the shape ``(batch, n_samples)``.
        """
        judged: Sequence[tuple[Tensor, list[Tensor]]] = [part(y) for part in self.parts]
        return [judgement for judgement, _ in judged], [features for _, features in judged]


def fresh_discriminators(width: int) -> Discriminators:
    """Return discriminators of periods and of spectra with random weights.

    Parameters
    ----------
    width : int
        Channels of the first layers; 32 in the papers.
    """
    return Discriminators(
        [*(_Period(period, width) for period in _PERIODS), *(_Resolution(n_fft, width) for n_fft in _RESOLUTIONS)]
    )


class _Given(nn.Module):
    """Hold the convolutions of a published discriminator, whose sizes its tensors say.

    Parameters
    ----------
    state : mapping of str to Tensor
        Its tensors by name: ``convs.0.weight_g`` and so on, and those of ``conv_post``.
    strides : sequence of tuple of int
        Of the convolutions, by layer.
    slope : float
        Of the rectifiers.
    """

    def __init__(self, state: Mapping[str, Tensor], strides: Sequence[tuple[int, ...]], slope: float) -> None:
        super().__init__()
        self.slope = slope
        n_convs = len({name.split(".")[1] for name in state if name.startswith("convs.")})
        if n_convs != len(strides):
            raise ValueError(f"has {n_convs} layers, expected {len(strides)}")
        n_channels, convs = 1, []
        for i, stride in enumerate(strides):
            convs.append(_conv(state, f"convs.{i}", n_channels, stride))
            n_channels = convs[-1].out_channels
        self.convs = nn.ModuleList(convs)
        self.post = _conv(state, "conv_post", n_channels, (1,) * len(strides[0]))

    def forward(self, y: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the judgement and the features of waveforms ``(batch, n_samples)``."""
        return _judged(self.convs, self.post, self._seen(y), self.slope)

    def _seen(self, y: Tensor) -> Tensor:
        raise NotImplementedError


class _GivenPeriod(_Given):
    """Judge a waveform folded to `period` columns, its end mirrored."""

    def __init__(self, state: Mapping[str, Tensor], slope: float, period: int) -> None:
        super().__init__(state, [(3, 1)] * 4 + [(1, 1)], slope)
        self.period = period

    def _seen(self, y: Tensor) -> Tensor:
        whole = pad(y[:, None], (0, -y.shape[1] % self.period), "reflect")
        return whole.view(y.shape[0], 1, -1, self.period)


class _GivenScale(_Given):
    """Judge a waveform at a half of its rate, halved so many times."""

    def __init__(self, state: Mapping[str, Tensor], slope: float, times: int) -> None:
        super().__init__(state, [(1,), (2,), (2,), (4,), (4,), (1,), (1,)], slope)
        self.times = times

    def _seen(self, y: Tensor) -> Tensor:
        x = y[:, None]
        for _ in range(self.times):
            x = avg_pool1d(x, 4, 2, padding=2)
        return x


class _GivenResolution(_Given):
    """Judge the magnitudes of a transform of ``(n_fft, hop_length, win_length)`` without a taper."""

    def __init__(self, state: Mapping[str, Tensor], slope: float, resolution: tuple[int, int, int]) -> None:
        super().__init__(state, [(1, 1), (1, 2), (1, 2), (1, 2), (1, 1)], slope)
        self.resolution = resolution

    def _seen(self, y: Tensor) -> Tensor:
        n_fft, hop, win = self.resolution
        with torch.autocast(y.device.type, enabled=False):
            padded = pad(y.float()[:, None], ((n_fft - hop) // 2,) * 2, "reflect")[:, 0]
            window = torch.ones(win, device=y.device)
            return torch.stft(padded, n_fft, hop, win, window, center=False, return_complex=True).abs()[:, None]


def _conv(state: Mapping[str, Tensor], name: str, n_channels: int, stride: tuple[int, ...]) -> nn.Conv1d | nn.Conv2d:
    """Return a convolution with the tensors of a name, normed as they are."""
    own = {key.removeprefix(f"{name}."): value.float() for key, value in state.items() if key.startswith(f"{name}.")}
    norm: Callable[[nn.Module], nn.Module] = weight_norm
    names = {"weight_g": "original0", "weight_v": "original1"}
    weight = own.get("weight_v", own.get("parametrizations.weight.original1"))
    if "weight_orig" in own:
        names = {"weight_orig": "original", "weight_u": "0._u", "weight_v": "0._v"}
        norm, weight = spectral_norm, own["weight_orig"]
    if weight is None or "bias" not in own or weight.ndim != 2 + len(stride) or n_channels % weight.shape[1]:
        raise ValueError(f"has no convolution {name!r} of {n_channels} channels")
    kernel = tuple(weight.shape[2:])
    conv = (nn.Conv1d if len(stride) == 1 else nn.Conv2d)(
        n_channels,
        weight.shape[0],
        kernel,  # type: ignore[arg-type]  # as long as the stride
        stride,  # type: ignore[arg-type]
        tuple(size // 2 for size in kernel),  # type: ignore[arg-type]
        groups=n_channels // weight.shape[1],
    )
    norm(conv)
    conv.load_state_dict({f"parametrizations.weight.{names[key]}" if key in names else key: own[key] for key in own})
    return conv


_KINDS = {"mpd": _GivenPeriod, "msd": _GivenScale, "mrd": _GivenResolution}


def given_discriminators(file: StageFile, config: Mapping[str, Any]) -> Discriminators:
    """Return the discriminators of a published training, as their own code judges by them.

    Parameters
    ----------
    file : StageFile
        ``do_02500000`` of HiFi-GAN (``mpd``, ``msd``) or BigVGAN (``mpd``, ``mrd``), or a
        checkpoint of UnivNet (``model_d``).
    config : mapping
        The settings of the generator, which say periods, resolutions and slopes where they are not
        the usual ones.

    Raises
    ------
    VocoderError
        It holds no such discriminators.
    """
    content: Any = safetensors(file.name, file.data) if is_safetensors(file.data) else unpickled(file.name, file.data)
    groups = _groups(content)
    if not groups:
        held = ", ".join(map(repr, list(content)[:5])) if isinstance(content, Mapping) else type(content).__name__
        raise VocoderError(
            f"{file.name}: holds no discriminators: expected mpd with msd or mrd, or model_d, as HiFi-GAN, BigVGAN and "
            f"UnivNet write them, got {held}"
        )
    settings = _settings(config)
    parts = []
    for kind, state in groups.items():
        for i, views in enumerate(settings[kind]):
            own = {
                key.partition(f"discriminators.{i}.")[2]: value
                for key, value in state.items()
                if key.startswith(f"discriminators.{i}.")
            }
            try:
                parts.append(_KINDS[kind](own, settings["slope"], views))
            except (ValueError, RuntimeError) as error:
                raise VocoderError(f"{file.name}: {kind} {i} {error}") from error
    return Discriminators(parts, squares=True)


def _groups(content: Any) -> dict[str, Mapping[str, Tensor]]:  # noqa: ANN401 - checkpoints hold anything
    """Return the tensors of each kind of discriminators in a file."""
    if not isinstance(content, Mapping):
        return {}
    if isinstance(content.get("model_d"), Mapping):
        state = unwrapped({key: value for key, value in content["model_d"].items() if isinstance(value, Tensor)})
        found = {kind: {k[4:]: v for k, v in state.items() if k.lower().startswith(f"{kind}.")} for kind in _KINDS}
    else:
        inner = {kind: content[kind] for kind in _KINDS if isinstance(content.get(kind), Mapping)}
        found = {
            kind: dict(unwrapped({key: value for key, value in state.items() if isinstance(value, Tensor)}))
            for kind, state in inner.items()
        }
    return {kind: state for kind, state in found.items() if state}


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return periods, halvings and resolutions by kind of discriminator, and the rectifiers' slope."""
    blocks = [config.get(name) for name in ("mpd", "mrd")]
    period, resolution = ({} if not isinstance(block, Mapping) else block for block in blocks)
    said = resolution.get("resolutions", config.get("resolutions", _GIVEN_RESOLUTIONS))
    resolutions = ast.literal_eval(said) if isinstance(said, str) and re.fullmatch(r"[\d\s,()\[\]]+", said) else said
    return {
        "mpd": [int(one) for one in period.get("periods", config.get("mpd_reshapes", _PERIODS))],
        "msd": [0, 1, 2],
        "mrd": [tuple(map(int, one)) for one in resolutions],
        "slope": float(period.get("lReLU_slope", _SLOPE)),
    }


def phase_rotated(signals: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
    """Return waveforms whose bins' phases are turned at random, alike in all `signals`.

    The waveforms have the shape ``(batch, n_samples)``.

    A discriminator that sees both signals turned can't punish a phase that the mel does not
    determine (PhaseAug). An angle is drawn for each utterance and bin, and smoothed over the bins.
    """
    batch, n_samples = signals[0].shape
    window = torch.hann_window(_PHASE_N_FFT, device=signals[0].device)
    angles = (torch.rand(batch, _PHASE_N_FFT // 2 + 1, 1, generator=generator) * 2 - 1) * torch.pi
    # Neighbours turn nearly alike: white angles would smear every onset over a frame.
    smooth = torch.cumsum(angles, dim=1) / (_PHASE_N_FFT // 2) ** 0.5
    turn = torch.polar(torch.ones_like(smooth), smooth).to(signals[0].device)
    turned = []
    for y in signals:
        D = torch.stft(
            y.float(), _PHASE_N_FFT, _PHASE_N_FFT // 4, window=window, pad_mode="constant", return_complex=True
        )
        turned.append(torch.istft(D * turn, _PHASE_N_FFT, _PHASE_N_FFT // 4, window=window, length=n_samples))
    return turned
