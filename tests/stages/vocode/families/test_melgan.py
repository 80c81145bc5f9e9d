"""MelGAN against the official code, against a plain forward pass, and what it refuses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv1d, conv_transpose1d, leaky_relu, pad

import melmill
from melmill.stages.numeric.errors import Unusable
from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.families.melgan import network as melgan
from melmill.stages.vocode.loaded import LoadedVocoder, load
from tests.stages.vocode.tiny import (
    TOLERANCE,
    Golden,
    assert_batch_is_each_alone,
    checkpoint,
    mel,
    relative,
    tensors,
    with_norms,
)


@dataclass(frozen=True)
class Sizes:
    n_mels: int = 5
    widths: tuple[int, ...] = (16, 8, 4)
    rates: tuple[int, ...] = (4, 2)
    n_blocks: int = 2
    stacked: bool = False


DESCRIPT = Sizes()
# Widths that don't halve, as no setting of descript's could make them.
SEUNGWONPARK = Sizes(widths=(12, 7, 4, 3), rates=(3, 2, 2), n_blocks=3, stacked=True)


def names(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Return the official names and shapes: places in one sequence in which activations and paddings count."""
    found: dict[str, tuple[int, ...]] = {}

    def conv(name: str, *shape: int, n_out: int) -> None:
        found.update({f"{name}.weight": shape, f"{name}.bias": (n_out,)})

    root = "generator" if sizes.stacked else "model"
    conv(f"{root}.1", sizes.widths[0], sizes.n_mels, 7, n_out=sizes.widths[0])
    place = 3
    for level, rate in enumerate(sizes.rates):
        before, width = sizes.widths[level : level + 2]
        conv(f"{root}.{place}", before, width, 2 * rate, n_out=width)
        for i in range(sizes.n_blocks):
            for name, kernel in zip(block_names(sizes, place + 1, i), (3, 1, 1), strict=True):
                conv(name, width, width, kernel, n_out=width)
        place += 3 if sizes.stacked else 2 + sizes.n_blocks
    conv(f"{root}.{place + 1}", 1, sizes.widths[-1], 7, n_out=1)
    return found


def block_names(sizes: Sizes, place: int, i: int) -> tuple[str, str, str]:
    """Return the names of a residual block's dilated, pointwise and shortcut convolutions."""
    if sizes.stacked:
        block, shortcut = f"generator.{place}.blocks.{i}", f"generator.{place}.shortcuts.{i}"
    else:
        block, shortcut = f"model.{place + i}.block", f"model.{place + i}.shortcut"
    return f"{block}.2", f"{block}.4", shortcut


def plain_forward(state: dict[str, Tensor], sizes: Sizes, M: np.ndarray) -> np.ndarray:
    """Compute the generator of section 2.1 without any module."""

    def conv(name: str, x: Tensor, dilation: int = 1) -> Tensor:
        margin = dilation * (state[f"{name}.weight"].shape[2] - 1) // 2
        x = pad(x, (margin, margin), mode="reflect") if margin else x
        return conv1d(x, state[f"{name}.weight"], state[f"{name}.bias"], dilation=dilation)

    root = "generator" if sizes.stacked else "model"
    x = torch.from_numpy(M)[None]
    x = conv(f"{root}.1", (x + 5) / 5 if sizes.stacked else x)
    place = 3
    for rate in sizes.rates:
        weight, bias = state[f"{root}.{place}.weight"], state[f"{root}.{place}.bias"]
        x = conv_transpose1d(leaky_relu(x, 0.2), weight, bias, rate, rate // 2 + rate % 2, rate % 2)
        for i in range(sizes.n_blocks):
            dilated, pointwise, shortcut = block_names(sizes, place + 1, i)
            y = conv(dilated, leaky_relu(x, 0.2), 3**i)
            x = conv(shortcut, x) + conv(pointwise, leaky_relu(y, 0.2))
        place += 3 if sizes.stacked else 2 + sizes.n_blocks
    return torch.tanh(conv(f"{root}.{place + 1}", leaky_relu(x, 0.2)))[0, 0].numpy()


def made(sizes: Sizes, **fields: Any) -> LoadedVocoder:
    return load(checkpoint(content(sizes), **fields))


def content(sizes: Sizes, state: dict[str, Tensor] | None = None) -> dict[str, Any]:
    """Return what a file of the layout holds."""
    state = with_norms(tensors(names(sizes)) if state is None else state)
    return {"model_g": state, "step": 1} if sizes.stacked else state


@pytest.mark.real
def test_ten_frames_of_silence_make_it_official_inference(real_data: Path) -> None:
    folder, M, _ = Golden(real_data, "melgan-seungwonpark").case()
    voc = melmill.load_vocoder(folder / "melgan_aca5990_0001.pt")
    y = voc(np.pad(M, ((0, 0), (0, 10)), constant_values=voc.model.silence))[: -10 * 256]
    assert relative(y, np.load(folder / "wav_inference.npy")) < TOLERANCE


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param(DESCRIPT, id="descript"),
        pytest.param(SEUNGWONPARK, id="seungwonpark"),
        pytest.param(Sizes(widths=(8, 4), rates=(6,), n_blocks=3), id="one level: its blocks end at the last layer"),
        pytest.param(Sizes(widths=(24, 12, 6, 3), rates=(5, 3, 2), n_blocks=1), id="odd rates, one block"),
        pytest.param(Sizes(rates=(4, 3), n_blocks=4, stacked=True), id="four blocks in a stack"),
    ],
)
def test_equals_a_plain_forward_pass(sizes: Sizes) -> None:
    state = tensors(names(sizes))
    voc, M = load(checkpoint(content(sizes, state))), mel(5, 13)
    assert relative(voc(M), plain_forward(state, sizes, M)) < TOLERANCE
    assert voc(M).size == voc.model.n_samples(13) == 13 * voc.spec.hop_length


@pytest.mark.parametrize("sizes", [DESCRIPT, SEUNGWONPARK, Sizes(widths=(8, 4), rates=(6,), n_blocks=3)])
def test_a_batch_is_each_alone(sizes: Sizes) -> None:
    assert_batch_is_each_alone(made(sizes), (9, 5, 4, 12, 9))


@pytest.mark.parametrize(
    ("sizes", "least"),
    [
        # The first layer reflects three frames, so there must be four.
        pytest.param(DESCRIPT, 4, id="by the first layer"),
        # A dilation of 81 at four times the rate of frames: 84 samples are the first number above 81.
        pytest.param(Sizes(widths=(8, 4), rates=(4,), n_blocks=5), 21, id="by the widest dilation"),
    ],
)
def test_a_mel_too_short_to_reflect_is_unusable(sizes: Sizes, least: int) -> None:
    voc = made(sizes)
    assert voc(mel(5, least)).shape == (voc.model.n_samples(least),)
    with pytest.raises(Unusable, match=rf"a mel of {least - 1} frames, .* takes at least {least}$"):
        voc(mel(5, least - 1))
    with pytest.raises(Unusable, match="a mel of 2 frames"):
        voc.batch([mel(5, 30), mel(5, 2)])


def test_half_precision_weights() -> None:
    state = {key: value.half() for key, value in tensors(names(DESCRIPT)).items()}
    wide = {key: value.float() for key, value in state.items()}
    M = mel(5, 6)
    np.testing.assert_array_equal(load(checkpoint(state))(M), load(checkpoint(wide))(M))


def test_mel_of_the_configuration() -> None:
    audio = {"n_mel_channels": 5, "filter_length": 64, "win_length": 48, "hop_length": 12, "sampling_rate": 8000}
    spec = made(SEUNGWONPARK, config={"audio": audio | {"mel_fmin": 50.0, "mel_fmax": 3000.0}}).spec
    assert spec == melmill.MelSpec(
        sr=8000, n_fft=64, win_length=48, hop_length=12, n_mels=5, fmin=50.0, fmax=3000.0, log="ln", floor=1e-5,
        pad_mode="reflect",
    )  # fmt: skip


def test_the_users_mel_goes_first() -> None:
    wanted = melmill.MelSpec(sr=8000, n_fft=64, win_length=64, hop_length=8, n_mels=5)
    assert made(DESCRIPT, mel=wanted).spec == wanted
    with pytest.raises(VocoderError, match="its layers make 8 samples a frame, but its mel has hop_length=256"):
        made(DESCRIPT, mel=melmill.MelSpec(n_mels=5))


@pytest.mark.parametrize(
    ("sizes", "config", "message"),
    [
        pytest.param(
            DESCRIPT,
            {"n_mel_channels": 7},
            r"tensor 'model.1.weight' has shape \(16, 5, 7\), but the configuration implies \(16, 7, 7\)",
            id="other bands",
        ),
        pytest.param(
            DESCRIPT, {"ngf": 8}, r"tensor 'model.1.weight' .* implies \(32, 5, 7\)", id="other channels than ngf says"
        ),
        pytest.param(
            DESCRIPT, {"n_residual_layers": 3}, r"tensor 'model.6.block.2.weight' .* is missing", id="more blocks"
        ),
        pytest.param(
            SEUNGWONPARK,
            {"audio": {"n_mel_channels": 7}},
            r"tensor 'generator.1.weight' .* implies \(12, 7, 7\)",
            id="other bands in a section",
        ),
        pytest.param(SEUNGWONPARK, {"audio": {"hop_length": 256}}, "make 12 samples .* hop_length=256", id="other hop"),
        pytest.param(SEUNGWONPARK, {"audio": 3}, "audio of its configuration must be a mapping", id="no section"),
        pytest.param(
            SEUNGWONPARK, {"audio": {"mel_fmax": 2e4}}, "describes an impossible mel: fmax must not", id="no mel"
        ),
        pytest.param(
            DESCRIPT,
            {"ngf": "32"},
            "ngf of its configuration must be a whole number from 1 to 1048576, got '32'",
            id="a text",
        ),
    ],
)
def test_configuration_against_weights(sizes: Sizes, config: dict[str, Any], message: str) -> None:
    with pytest.raises(VocoderError, match=message):
        made(sizes, config=config)


@pytest.mark.parametrize(
    ("sizes", "change", "message"),
    [
        pytest.param(DESCRIPT, {"model.3.weight": None}, "no tensor 'model.3.weight'", id="no upsampling"),
        pytest.param(
            DESCRIPT, {"model.4.shortcut.bias": None}, r"'model.4.shortcut.bias' .*\(8\) is missing", id="no bias"
        ),
        pytest.param(
            DESCRIPT, {"model.30.shortcut.bias": torch.ones(1)}, "unexpected tensor 'model.30.shortcut.bias'", id="more"
        ),
        pytest.param(
            DESCRIPT,
            {"model.9.block.4.weight": torch.ones(4, 4, 3)},
            r"'model.9.block.4.weight' has shape \(4, 4, 3\), but .* \(4, 4, 1\)",
            id="another shape",
        ),
        pytest.param(
            SEUNGWONPARK, {"generator.7.blocks.1.2.weight": None}, "'generator.7.blocks.1.2.weight'", id="a hole"
        ),
        pytest.param(
            DESCRIPT, {"model.3.weight": torch.ones(16, 8, 5)}, "kernel of 5, but .* twice the rate", id="odd kernel"
        ),
        pytest.param(DESCRIPT, {"model.3.weight": torch.ones(16, 8)}, "has three axes", id="no convolution"),
    ],
)
def test_damaged_weights(sizes: Sizes, change: dict[str, Tensor | None], message: str) -> None:
    changed = {**tensors(names(sizes)), **change}
    with pytest.raises(VocoderError, match=message):
        load(checkpoint({key: value for key, value in changed.items() if value is not None}), family="melgan")


def test_upsamplings_must_be_there() -> None:
    state = {key: value for key, value in tensors(names(DESCRIPT)).items() if ".block." in key or ".1." in key}
    with pytest.raises(VocoderError, match=r"expected a first convolution, .* as 'model.N.weight', got only N = \[1\]"):
        melgan.build(checkpoint(state))


def test_another_familys_weights() -> None:
    with pytest.raises(VocoderError, match=r"is no MelGAN: expected .*, got 'conv_pre.weight'"):
        melgan.build(checkpoint({"conv_pre.weight": torch.ones(1, 1, 7)}))
