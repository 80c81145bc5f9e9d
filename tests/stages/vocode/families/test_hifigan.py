"""HiFi-GAN against the official code, against a plain forward pass, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv1d, conv_transpose1d, leaky_relu

import melmill
from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.loaded import load
from tests.stages.vocode.tiny import (
    TOLERANCE,
    assert_batch_is_each_alone,
    checkpoint,
    mel,
    relative,
    tensors,
    with_norms,
)

CONFIG: dict[str, Any] = {
    "resblock": "1",
    "upsample_rates": [4, 2],
    "upsample_kernel_sizes": [8, 4],
    "upsample_initial_channel": 8,
    "resblock_kernel_sizes": [3, 5],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 2, 4]],
    "num_mels": 6,
    "n_fft": 32,
    "hop_size": 8,
    "win_size": 32,
    "sampling_rate": 8000,
    "fmin": 0,
    "fmax": None,
}
SINGLE = CONFIG | {"resblock": "2", "resblock_dilation_sizes": [[1, 2], [2, 6]]}
# An odd surplus of the kernel over the rate: the official padding then gives a sample more a layer.
ODD = CONFIG | {"upsample_rates": [3, 5, 2], "upsample_kernel_sizes": [6, 11, 5], "hop_size": 30}

# The least that a generator is made of.
LEAST = CONFIG | {
    "resblock": "2",
    "upsample_rates": [8],
    "upsample_kernel_sizes": [16],
    "resblock_kernel_sizes": [3],
    "resblock_dilation_sizes": [[1, 2]],
}


def shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the official names and shapes of the tensors of a configuration."""
    found: dict[str, tuple[int, ...]] = {}

    def conv(name: str, *shape: int, n_out: int) -> None:
        found.update({f"{name}.weight": shape, f"{name}.bias": (n_out,)})

    width, block = config["upsample_initial_channel"], 0
    conv("conv_pre", width, config["num_mels"], 7, n_out=width)
    for i, kernel in enumerate(config["upsample_kernel_sizes"]):
        conv(f"ups.{i}", width, width // 2, kernel, n_out=width // 2)
        width //= 2
        for size, dilations in zip(config["resblock_kernel_sizes"], config["resblock_dilation_sizes"], strict=True):
            for k in range(len(dilations)):
                for part in ("convs1", "convs2") if config["resblock"] == "1" else ("convs",):
                    conv(f"resblocks.{block}.{part}.{k}", width, width, size, n_out=width)
            block += 1
    conv("conv_post", 1, width, 7, n_out=1)
    return found


def plain_forward(state: dict[str, Tensor], config: dict[str, Any], M: np.ndarray, exact: bool = False) -> np.ndarray:
    """Compute the generator of section 2.2 and appendix A without any module."""

    def conv(name: str, x: Tensor, dilation: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        padding = dilation * (weight.shape[2] - 1) // 2
        return conv1d(x, weight, state[f"{name}.bias"], padding=padding, dilation=dilation)

    x, block = conv("conv_pre", torch.from_numpy(M)[None]), 0
    for i, (rate, kernel) in enumerate(zip(config["upsample_rates"], config["upsample_kernel_sizes"], strict=True)):
        padding = (
            {"padding": rate // 2 + rate % 2, "output_padding": rate % 2}
            if exact
            else {"padding": (kernel - rate) // 2}
        )
        x = conv_transpose1d(leaky_relu(x, 0.1), state[f"ups.{i}.weight"], state[f"ups.{i}.bias"], rate, **padding)
        outputs = []
        for dilations in config["resblock_dilation_sizes"]:
            y = x
            for k, dilation in enumerate(dilations):
                if config["resblock"] == "1":
                    inner = conv(f"resblocks.{block}.convs1.{k}", leaky_relu(y, 0.1), dilation)
                    y = y + conv(f"resblocks.{block}.convs2.{k}", leaky_relu(inner, 0.1))
                else:
                    y = y + conv(f"resblocks.{block}.convs.{k}", leaky_relu(y, 0.1), dilation)
            outputs.append(y)
            block += 1
        x = torch.stack(outputs).mean(dim=0)
    return torch.tanh(conv("conv_post", leaky_relu(x, 0.01)))[0, 0].numpy()


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(CONFIG, id="paired"),
        pytest.param(SINGLE, id="single"),
        pytest.param(ODD, id="odd"),
        pytest.param(CONFIG | {"resblock": 1}, id="a number for the kind of block: the weights tell"),
    ],
)
def test_equals_a_plain_forward_pass(config: dict[str, Any]) -> None:
    state = tensors(shapes(config | {"resblock": str(config["resblock"])}))
    voc = load(checkpoint({"generator": with_norms(state)}, config=config))
    M = mel(6, 11)
    assert relative(voc(M), plain_forward(state, config | {"resblock": str(config["resblock"])}, M)) < TOLERANCE


@pytest.mark.parametrize("config", [CONFIG, SINGLE, ODD])
def test_a_batch_is_each_alone(config: dict[str, Any]) -> None:
    assert_batch_is_each_alone(load(checkpoint({"generator": tensors(shapes(config))}, config=config)))


def test_further_dilations_than_convolutions_are_ignored() -> None:
    """The official blocks make three convolutions, or two, and read no further."""
    longer = CONFIG | {"resblock_dilation_sizes": [[1, 3, 5, 7], [1, 2, 4, 9]]}
    state, M = tensors(shapes(CONFIG)), mel(6, 4)
    expected = load(checkpoint({"generator": state}, config=CONFIG))(M)
    np.testing.assert_array_equal(load(checkpoint({"generator": state}, config=longer))(M), expected)


def test_runs_without_a_configuration_where_the_sizes_are_published_ones() -> None:
    config = CONFIG | {
        "num_mels": 80,
        "upsample_rates": [8, 8, 2, 2],
        "upsample_kernel_sizes": [16, 16, 4, 4],
        "upsample_initial_channel": 16,
        "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5]],
    }
    state, M = tensors(shapes(config)), mel(80, 3)
    voc = load(checkpoint({"generator": state}))
    assert voc.spec == melmill.preset("hifigan")
    assert relative(voc(M), plain_forward(state, config, M)) < TOLERANCE


def test_mel_of_the_configuration() -> None:
    spec = load(checkpoint({"generator": tensors(shapes(CONFIG))}, config=CONFIG)).spec
    assert (spec.sr, spec.n_fft, spec.win_length, spec.hop_length, spec.n_mels) == (8000, 32, 32, 8, 6)
    assert (spec.log, spec.floor, spec.eps, spec.center, spec.fmax) == ("ln", 1e-5, 1e-9, "same", None)


def test_the_users_mel_goes_first() -> None:
    wanted = melmill.MelSpec(sr=8000, n_fft=32, win_length=32, hop_length=8, n_mels=6)
    voc = load(checkpoint({"generator": tensors(shapes(CONFIG))}, config=CONFIG, mel=wanted))
    assert voc.spec == wanted


def pwg_state(state: dict[str, Tensor], paired: bool) -> dict[str, Tensor]:
    """Return tensors under ParallelWaveGAN's names."""
    renamed = {}
    for key, value in state.items():
        name = (
            key.replace("conv_pre", "input_conv").replace("conv_post", "output_conv.1").replace("resblocks", "blocks")
        )
        parts = name.split(".")
        if parts[0] == "ups":
            parts = ["upsamples", parts[1], "1", parts[2]]
        if parts[0] == "blocks":
            parts = [*parts[:2], parts[2] if paired else "convs1", parts[3], "1", parts[4]]
        renamed[".".join(parts)] = value
    return renamed


def pwg_config(config: dict[str, Any]) -> dict[str, Any]:
    return {
        "sampling_rate": 8000,
        "fft_size": 64,
        "hop_size": config["hop_size"],
        "win_length": None,
        "num_mels": 6,
        "fmin": 80,
        "fmax": 3600,
        "generator_type": "HiFiGANGenerator",
        "generator_params": {
            "in_channels": 6,
            "channels": config["upsample_initial_channel"],
            "upsample_scales": config["upsample_rates"],
            "upsample_kernel_sizes": config["upsample_kernel_sizes"],
            "resblock_kernel_sizes": config["resblock_kernel_sizes"],
            "resblock_dilations": config["resblock_dilation_sizes"],
            "use_additional_convs": config["resblock"] == "1",
        },
    }


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(CONFIG, id="paired"),
        pytest.param(SINGLE, id="single"),
        pytest.param(CONFIG | {"upsample_rates": [3, 5], "upsample_kernel_sizes": [6, 10], "hop_size": 15}, id="odd"),
    ],
)
def test_parallel_wavegan_normalises_by_its_stats(config: dict[str, Any]) -> None:
    state, M = tensors(shapes(config)), mel(6, 7)
    stats = {"mean": torch.linspace(-4.0, -2.0, 6), "scale": torch.linspace(0.5, 2.0, 6)}
    content = {"model": {"generator": with_norms(pwg_state(state, config["resblock"] == "1"))}}
    voc = load(checkpoint(content, config=pwg_config(config), stats=stats))
    normalised = (M - stats["mean"].numpy()[:, None]) / stats["scale"].numpy()[:, None]
    assert relative(voc(M), plain_forward(state, config, normalised, exact=True)) < TOLERANCE
    assert voc(M).size == 7 * config["hop_size"]
    assert (voc.spec.log, voc.spec.floor, voc.spec.win_length, voc.spec.fmin) == ("log10", 1e-10, 64, 80)
    assert_batch_is_each_alone(voc)


def test_parallel_wavegan_needs_its_stats() -> None:
    content = {"model": {"generator": pwg_state(tensors(shapes(CONFIG)), paired=True)}}
    with pytest.raises(VocoderError, match=r"g_0: its mels are normalised .* no stats.npy"):
        load(checkpoint(content, config=pwg_config(CONFIG)))
    as_is = melmill.MelSpec(sr=8000, n_fft=64, win_length=64, hop_length=8, n_mels=6)
    state, M = tensors(shapes(CONFIG)), mel(6, 5)
    voc = load(checkpoint(content, config=pwg_config(CONFIG), mel=as_is))
    assert relative(voc(M), plain_forward(state, CONFIG, M, exact=True)) < TOLERANCE


@pytest.mark.parametrize("normalises", [True, False])
def test_transformers_normalises_by_its_own_tensors(normalises: bool) -> None:
    config = CONFIG | {
        "num_mels": 80,
        "upsample_rates": [16, 16],
        "upsample_kernel_sizes": [32, 32],
        "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5]],
    }
    state, M = tensors(shapes(config)), mel(80, 3)
    own = {"mean": torch.linspace(-2.0, 0.0, 80), "scale": torch.linspace(0.5, 2.0, 80)}
    renamed = {key.replace("ups.", "upsampler."): value for key, value in state.items()}
    settings = {
        "model_type": "hifigan",
        "model_in_dim": 80,
        "sampling_rate": 16000,
        "normalize_before": normalises,
        **{key: config[key] for key in config if key.startswith(("upsample", "resblock_"))},
    }
    names = ("parametrizations.weight.original0", "parametrizations.weight.original1")
    voc = load(checkpoint(with_norms(renamed, names) | own, config=settings))
    fed = (M - own["mean"].numpy()[:, None]) / own["scale"].numpy()[:, None] if normalises else M
    assert relative(voc(M), plain_forward(state, config, fed)) < TOLERANCE
    assert voc.spec == melmill.preset("speecht5")


def without(state: dict[str, Tensor], key: str) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if name != key}


STATE = tensors(shapes(CONFIG))


@pytest.mark.parametrize(
    ("state", "config", "message"),
    [
        # A tensor is gone.
        (without(STATE, "ups.1.bias"), {}, r"g_0: tensor 'ups.1.bias' of shape \(2\) is missing"),
        # One has no place.
        (
            STATE | {"cond.weight": torch.ones(2, 3)},
            {},
            r"g_0: unexpected tensor 'cond.weight' of shape \(2, 3\), 1 such in all",
        ),
        # The configuration is of another size.
        (
            STATE,
            {"upsample_initial_channel": 16},
            r"tensor 'conv_pre.weight' has shape \(8, 6, 7\), but the configuration implies \(16, 6, 7\)",
        ),
        (STATE, {"upsample_kernel_sizes": [8, 6]}, r"'ups.1.weight' has shape \(4, 2, 4\), .* implies \(4, 2, 6\)"),
        (STATE, {"resblock": "2"}, r"resblocks.0.convs.0.weight' .* is missing"),
        # It has fewer layers, or contradicts itself.
        (STATE, {"upsample_rates": [8], "upsample_kernel_sizes": [8]}, r"'conv_post.weight' .* implies \(1, 4, 7\)"),
        (STATE, {"upsample_rates": [4, 2, 2]}, r"upsample_rates .* as many as upsample_kernel_sizes \[8, 4\], got"),
        (STATE, {"resblock_dilation_sizes": [[1, 3, 5]]}, r"resblock_dilation_sizes .* must be 2 lists of 3"),
        (
            STATE,
            {"resblock_kernel_sizes": "3"},
            r"resblock_kernel_sizes .* list of whole numbers from 1 to 1048576, got '3'",
        ),
        # Its mel is another one.
        (STATE, {"hop_size": 16}, r"its layers make 8 samples a frame, but its mel has hop_length=16"),
        (STATE, {"num_mels": 7}, r"'conv_pre.weight' has shape \(8, 6, 7\), but the configuration implies \(8, 7, 7\)"),
    ],
)
def test_what_does_not_fit_is_named(state: dict[str, Tensor], config: dict[str, Any], message: str) -> None:
    with pytest.raises(VocoderError, match=message):
        load(checkpoint({"generator": state}, config=CONFIG | config), "hifigan")


def test_a_mel_that_is_half_said_is_refused() -> None:
    config = {key: value for key, value in CONFIG.items() if key != "sampling_rate"}
    with pytest.raises(VocoderError, match=r"g_0: its configuration lacks 'sampling_rate'"):
        load(checkpoint({"generator": STATE}, config=config))


def test_another_hop_without_a_configuration_is_refused() -> None:
    with pytest.raises(VocoderError, match=r"its layers take 6 mel bands, but its mel has n_mels=80"):
        load(checkpoint({"generator": tensors(shapes(CONFIG | {"resblock_dilation_sizes": [[1, 3, 5]] * 2}))}))


@pytest.mark.parametrize(
    ("container", "prefix", "others"),
    [
        ("state_dict", "generator.", {"mpd.x.weight": torch.zeros(3)}),
        ("model", "model_g.", {"model_d.x.weight": torch.zeros(3)}),
        ("generator", "module._orig_mod.", {}),
    ],
)
def test_a_wrapped_generator_makes_the_same_samples(container: str, prefix: str, others: dict[str, Tensor]) -> None:
    state = with_norms(tensors(shapes(CONFIG)))
    wrapped = {container: {prefix + key: value for key, value in state.items()} | others}
    M = mel(6, 9)
    expected, made = (load(checkpoint(content, config=CONFIG))(M) for content in ({"generator": state}, wrapped))
    np.testing.assert_array_equal(made, expected)
