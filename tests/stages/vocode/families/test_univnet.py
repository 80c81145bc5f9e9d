"""UnivNet against the official code, against a plain forward pass, and what it refuses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import conv1d, conv_transpose1d, leaky_relu, pad

from melmill.stages.numeric.errors import Unusable
from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.families.univnet import network as univnet
from melmill.stages.vocode.loaded import LoadedVocoder, load
from tests.stages.vocode.tiny import (
    TOLERANCE,
    assert_batch_is_each_alone,
    checkpoint,
    mel,
    relative,
    tensors,
    with_norms,
)


@dataclass(frozen=True)
class Sizes:
    n_mels: int = 6
    noise_dim: int = 4
    width: int = 3
    rates: tuple[int, ...] = (4, 2)
    dilations: tuple[int, ...] = (1, 3)
    hidden: int = 8
    hidden_kernel: int = 3
    slope: float = 0.2

    @property
    def config(self) -> dict[str, Any]:
        """The configuration, in the official sections and names."""
        gen = {
            "noise_dim": self.noise_dim,
            "channel_size": self.width,
            "dilations": list(self.dilations),
            "strides": list(self.rates),
            "lReLU_slope": self.slope,
            "kpnet_conv_size": self.hidden_kernel,
        }
        return {"gen": gen, "audio": {"n_mel_channels": self.n_mels, "hop_length": int(np.prod(self.rates))}}


TINY = Sizes()
# Odd rates, four layers a level, dilations, slope and kernels other than the published ones.
OTHER = Sizes(width=2, rates=(3, 5, 2), dilations=(1, 2, 5, 7), hidden=5, hidden_kernel=1, slope=0.3)


def names(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Return the official names and shapes."""
    found: dict[str, tuple[int, ...]] = {}

    def conv(name: str, *shape: int) -> None:
        found.update({f"{name}.weight": shape, f"{name}.bias": shape[:1]})

    width, hidden, layers = sizes.width, sizes.hidden, len(sizes.dilations)
    for i, rate in enumerate(sizes.rates):
        predictor = f"res_stack.{i}.kernel_predictor"
        conv(f"{predictor}.input_conv.0", hidden, sizes.n_mels, 5)
        for j in range(3):
            conv(f"{predictor}.residual_convs.{j}.1", hidden, hidden, sizes.hidden_kernel)
            conv(f"{predictor}.residual_convs.{j}.3", hidden, hidden, sizes.hidden_kernel)
        conv(f"{predictor}.kernel_conv", layers * width * 2 * width * 3, hidden, sizes.hidden_kernel)
        conv(f"{predictor}.bias_conv", layers * 2 * width, hidden, sizes.hidden_kernel)
        conv(f"res_stack.{i}.convt_pre.1", width, width, 2 * rate)
        for j in range(layers):
            conv(f"res_stack.{i}.conv_blocks.{j}.1", width, width, 3)
    conv("conv_pre", width, sizes.noise_dim, 7)
    conv("conv_post.1", 1, width, 7)
    return found


def plain_forward(state: dict[str, Tensor], sizes: Sizes, M: NDArray[Any], z: NDArray[Any]) -> NDArray[Any]:
    """Compute the generator of section 2.1 without any module, frame by frame."""

    def conv(name: str, x: Tensor, dilation: int = 1, mode: str = "constant") -> Tensor:
        margin = dilation * (state[f"{name}.weight"].shape[2] - 1) // 2
        x = pad(x, (margin, margin), mode=mode)
        return conv1d(x, state[f"{name}.weight"], state[f"{name}.bias"], dilation=dilation)

    def active(x: Tensor) -> Tensor:
        return leaky_relu(x, sizes.slope)

    def predicted(name: str) -> tuple[Tensor, Tensor]:
        c = active(conv(f"{name}.input_conv.0", torch.from_numpy(M)[None]))
        for j in range(3):
            inner = active(conv(f"{name}.residual_convs.{j}.1", c))
            c = c + active(conv(f"{name}.residual_convs.{j}.3", inner))
        return conv(f"{name}.kernel_conv", c)[0], conv(f"{name}.bias_conv", c)[0]

    x, hop, n_frames = conv("conv_pre", torch.from_numpy(z)[None], mode="reflect"), 1, M.shape[1]
    for i, rate in enumerate(sizes.rates):
        name, hop = f"res_stack.{i}", hop * rate
        weight, bias = state[f"{name}.convt_pre.1.weight"], state[f"{name}.convt_pre.1.bias"]
        x = conv_transpose1d(active(x), weight, bias, rate, rate // 2 + rate % 2, rate % 2)
        kernels, biases = predicted(f"{name}.kernel_predictor")
        for j, dilation in enumerate(sizes.dilations):
            y = pad(active(conv(f"{name}.conv_blocks.{j}.1", active(x), dilation)), (1, 1))
            of_layer = kernels.reshape(len(sizes.dilations), sizes.width, 2 * sizes.width, 3, n_frames)[j]
            bias_of_layer = biases.reshape(len(sizes.dilations), 2 * sizes.width, n_frames)[j]
            stretches = [
                conv1d(y[:, :, t * hop : (t + 1) * hop + 2], of_layer[..., t].transpose(0, 1), bias_of_layer[:, t])
                for t in range(n_frames)
            ]
            gate, value = torch.cat(stretches, dim=2).chunk(2, dim=1)
            x = x + torch.sigmoid(gate) * torch.tanh(value)
    return torch.tanh(conv("conv_post.1", active(x), mode="reflect"))[0, 0].numpy()


def made(sizes: Sizes, **fields: Any) -> LoadedVocoder:
    return load(checkpoint({"model_g": with_norms(tensors(names(sizes)))}, **fields))


def noise(n: int, sizes: Sizes = TINY) -> NDArray[np.float32]:
    return np.random.default_rng(3).standard_normal((sizes.noise_dim, n)).astype(np.float32)


@pytest.mark.parametrize("sizes", [TINY, OTHER])
def test_equals_a_plain_forward_pass(sizes: Sizes) -> None:
    state, M, z = tensors(names(sizes)), mel(6, 9), noise(9, sizes)
    voc = load(checkpoint({"model_g": with_norms(state)}, config=sizes.config))
    assert relative(voc(M, noise=[z]), plain_forward(state, sizes, M, z)) < TOLERANCE


def test_longer_noise_is_for_the_silence_after_the_mel() -> None:
    state, M, z = tensors(names(TINY)), mel(6, 9), noise(12)
    longer = np.pad(M, ((0, 0), (0, 3)), constant_values=-11.5129)
    expected = plain_forward(state, TINY, longer, z)[: 9 * 8]
    assert relative(load(checkpoint({"model_g": state}))(M, noise=[z]), expected) < TOLERANCE


def test_draws_ten_frames_more_than_the_mel_has() -> None:
    voc, M = made(TINY), mel(6, 5)
    (z,) = voc.model.noise(5, torch.Generator().manual_seed(4))
    assert z.shape == (4, 15)
    np.testing.assert_array_equal(voc(M, seed=4), voc(M, noise=[z.numpy()]))
    assert np.abs(voc(M, seed=4) - voc(M, seed=5)).max() > 0.01
    assert voc(M).size == voc.model.n_samples(5) == 40


@pytest.mark.parametrize("sizes", [TINY, OTHER])
def test_a_batch_is_each_alone(sizes: Sizes) -> None:
    assert_batch_is_each_alone(made(sizes, config=sizes.config))


def test_padding_is_not_heard() -> None:
    """The frames and the noise past an utterance's end may hold anything."""
    model = made(TINY).model
    M, z = torch.from_numpy(mel(6, 9))[None], torch.from_numpy(noise(19))[None]
    lengths = torch.tensor([5])
    y = model(M, lengths, [z])
    other = model(M.index_fill(2, torch.arange(5, 9), 7.0), lengths, [z.index_fill(2, torch.arange(15, 19), 7.0)])
    torch.testing.assert_close(y[:, :40], other[:, :40], rtol=0.0, atol=0.0)


def test_sizes_of_the_weights_where_there_is_no_configuration() -> None:
    M, z = mel(6, 6), noise(6)
    np.testing.assert_array_equal(made(TINY)(M, noise=[z]), made(TINY, config=TINY.config)(M, noise=[z]))


def test_mel_is_the_published_one_but_for_bands_and_hop() -> None:
    spec = made(TINY).spec
    assert (spec.sr, spec.n_fft, spec.fmax, spec.eps, spec.log) == (24000, 1024, 12000.0, 1e-9, "ln")
    assert (spec.n_mels, spec.hop_length) == (6, 8)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([], r"shapes \[\(4, 15\)\], got \[\]"),
        # Fewer frames than the mel, other channels, one too many.
        ([(4, 4)], r"got \[\(4, 4\)\]"),
        ([(3, 15)], r"got \[\(3, 15\)\]"),
        ([(4, 15), (4, 15)], r"got \[2 x \(4, 15\)\]"),
    ],
)
def test_noise_of_other_shapes(shapes: list[tuple[int, int]], message: str) -> None:
    with pytest.raises(VocoderError, match=message):
        made(TINY)(mel(6, 5), noise=[np.zeros(shape) for shape in shapes])


def test_the_model_itself_needs_noise() -> None:
    with pytest.raises(VocoderError, match=r"noise of univnet must be 1 array of shape \(1, 4, 5\), got none"):
        made(TINY).model(torch.zeros(1, 6, 5))


def test_a_mel_too_short_to_reflect_is_unusable() -> None:
    voc = made(TINY)
    with pytest.raises(Unusable, match=r"a mel of 3 frames, .* takes at least 4"):
        voc(mel(6, 3), noise=[noise(3)])
    assert voc(mel(6, 3), noise=[noise(4)]).size == 24


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        pytest.param(
            "gen", {"channel_size": 4}, r"'conv_pre.weight' has shape \(3, 4, 7\), but .* \(4, 4, 7\)", id="channels"
        ),
        pytest.param("gen", {"noise_dim": 64}, r"'conv_pre.weight' .* implies \(3, 64, 7\)", id="noise"),
        pytest.param(
            "gen", {"kpnet_conv_size": 1}, r"residual_convs.0.1.weight' .* implies \(8, 8, 1\)", id="predictor's kernel"
        ),
        pytest.param("gen", {"dilations": [1, 3, 9]}, r"kernel_conv.weight' .* implies \(162, 8, 3\)", id="layers"),
        pytest.param("gen", {"strides": [2, 4]}, r"res_stack.0.convt_pre.1.weight' .* implies \(3, 3, 4\)", id="rates"),
        pytest.param("gen", {"strides": [4, 2, 1]}, r"'res_stack.2.* is missing", id="more levels"),
        pytest.param("gen", {"strides": "8, 8"}, "strides .* must be a list of whole numbers", id="a text for a list"),
        pytest.param(
            "gen", {"lReLU_slope": None}, "lReLU_slope .* must be a finite number from 0, got None", id="no slope"
        ),
        pytest.param("audio", {"n_mel_channels": 100}, r"input_conv.0.weight' .* implies \(8, 100, 5\)", id="bands"),
        pytest.param("audio", {"hop_length": 256}, "make 8 samples a frame, but .* hop_length=256", id="hop"),
    ],
)
def test_configuration_against_weights(section: str, change: dict[str, Any], message: str) -> None:
    config = TINY.config
    with pytest.raises(VocoderError, match=message):
        made(TINY, config=config | {section: config[section] | change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"conv_pre.weight": None}, "no tensor 'conv_pre.weight'", id="no first layer"),
        pytest.param(
            {"res_stack.1.conv_blocks.1.1.bias": None}, "'res_stack.1.conv_blocks.1.1.bias' .* is missing", id="no bias"
        ),
        pytest.param({"res_stack.1.gain": torch.ones(1)}, "unexpected tensor 'res_stack.1.gain'", id="more"),
        pytest.param(
            {"res_stack.0.convt_pre.1.weight": torch.ones(3, 3, 7)}, "kernel of 7, but .* twice the rate", id="odd"
        ),
    ],
)
def test_damaged_weights(change: dict[str, Tensor | None], message: str) -> None:
    changed = {**tensors(names(TINY)), **change}
    with pytest.raises(VocoderError, match=message):
        load(checkpoint({key: value for key, value in changed.items() if value is not None}), family="univnet")


def test_another_familys_weights() -> None:
    with pytest.raises(VocoderError, match=r"is no UnivNet: expected .*, got 'conv_pre.weight'"):
        univnet.build(checkpoint({"conv_pre.weight": torch.ones(1, 1, 7)}))
