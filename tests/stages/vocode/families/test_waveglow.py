"""WaveGlow against the official code, against the direction in which it is trained, and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import conv1d, conv_transpose1d

import melmill
from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.families.waveglow import network as waveglow
from melmill.stages.vocode.files.checkpoint import read
from melmill.stages.vocode.files.unpickling import plain
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
    n_group: int = 8
    n_flows: int = 5
    every: int = 2
    early: int = 2
    n_layers: int = 3
    width: int = 4
    kernel: int = 3
    hop: int = 16

    @property
    def widths(self) -> list[int]:
        """Channels of each flow."""
        return [self.n_group - self.early * (flow // self.every) for flow in range(self.n_flows)]

    @property
    def config(self) -> dict[str, Any]:
        """The configuration, in the official sections and names."""
        network = {"n_layers": self.n_layers, "n_channels": self.width, "kernel_size": self.kernel}
        return {
            "waveglow_config": {
                "n_mel_channels": self.n_mels,
                "n_flows": self.n_flows,
                "n_group": self.n_group,
                "n_early_every": self.every,
                "n_early_size": self.early,
                "WN_config": network,
            },
            "data_config": {"sampling_rate": 8000, "hop_length": self.hop, "filter_length": 64, "win_length": 64}
            | {"mel_fmin": 0.0, "mel_fmax": 4000.0},
        }


TINY = Sizes()
# Four channels join at once, further apart; another group, kernel and depth.
OTHER = Sizes(n_group=12, n_flows=7, every=3, early=4, n_layers=2, width=6, kernel=5, hop=24)


def names(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Return the official names and shapes."""
    found: dict[str, tuple[int, ...]] = {}

    def conv(name: str, *shape: int) -> None:
        found.update({f"{name}.weight": shape, f"{name}.bias": shape[:1]})

    conv("upsample", sizes.n_mels, sizes.n_mels, 4 * sizes.hop)
    for flow, channels in enumerate(sizes.widths):
        network, width, last = f"WN.{flow}", sizes.width, sizes.n_layers - 1
        for i in range(sizes.n_layers):
            conv(f"{network}.in_layers.{i}", 2 * width, width, sizes.kernel)
            conv(f"{network}.res_skip_layers.{i}", 2 * width if i < last else width, width, 1)
        conv(f"{network}.start", width, channels // 2, 1)
        conv(f"{network}.cond_layer", 2 * width * sizes.n_layers, sizes.n_mels * sizes.n_group, 1)
        conv(f"{network}.end", channels, width, 1)
        found[f"convinv.{flow}.conv.weight"] = (channels, channels, 1)
    return found


def random_state(sizes: Sizes) -> dict[str, Tensor]:
    """Return random tensors as training leaves them: orthogonal 1x1 convolutions, couplings that change little."""
    state = tensors(names(sizes))
    for key, value in state.items():
        if key.startswith("convinv"):
            state[key] = 1.1 * torch.linalg.qr(value[:, :, 0])[0][:, :, None]
        if ".end." in key:
            state[key] = 0.1 * value
    return state


def trained_direction(state: dict[str, Tensor], sizes: Sizes, M: NDArray[Any], y: NDArray[Any]) -> list[NDArray[Any]]:
    """Compute what noise a waveform comes of, by equations 4 to 8, in the order in which inference needs it."""

    def conv(name: str, x: Tensor, dilation: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        return conv1d(
            x, weight, state[f"{name}.bias"], padding=dilation * (weight.shape[2] - 1) // 2, dilation=dilation
        )

    def network(name: str, x: Tensor) -> Tensor:
        x = conv(f"{name}.start", x)
        conditions = conv(f"{name}.cond_layer", condition).chunk(sizes.n_layers, dim=1)
        skips = torch.zeros_like(x)
        for i, of_layer in enumerate(conditions):
            value, gate = (conv(f"{name}.in_layers.{i}", x, 2**i) + of_layer).chunk(2, dim=1)
            both = conv(f"{name}.res_skip_layers.{i}", torch.tanh(value) * torch.sigmoid(gate))
            if i < sizes.n_layers - 1:
                x, both = x + both[:, : sizes.width], both[:, sizes.width :]
            skips = skips + both
        return conv(f"{name}.end", skips)

    up = conv_transpose1d(torch.from_numpy(M)[None], state["upsample.weight"], state["upsample.bias"], sizes.hop)
    groups = up[0, :, : y.size].reshape(sizes.n_mels, -1, sizes.n_group)
    condition = groups.permute(0, 2, 1).reshape(1, sizes.n_mels * sizes.n_group, -1)
    x, early = torch.from_numpy(y).reshape(1, -1, sizes.n_group).transpose(1, 2), []
    for flow in range(sizes.n_flows):
        if flow and flow % sizes.every == 0:
            early.append(x[:, : sizes.early])
            x = x[:, sizes.early :]
        kept, changed = conv1d(x, state[f"convinv.{flow}.conv.weight"]).chunk(2, dim=1)
        shift, log_scale = network(f"WN.{flow}", kept).chunk(2, dim=1)
        x = torch.cat([kept, torch.exp(log_scale) * changed + shift], dim=1)
    return [z[0].numpy() for z in (x, *reversed(early))]


def made(sizes: Sizes, state: dict[str, Tensor] | None = None, **fields: Any) -> LoadedVocoder:
    content = {"state_dict": with_norms(random_state(sizes) if state is None else state)}
    return load(checkpoint(content, **{"config": sizes.config, **fields}))


def noise_of(folder: Path) -> list[NDArray[np.float32]]:
    return [np.load(folder / f"z_{i}.npy") for i in range(3)]


@pytest.mark.real
def test_draws_what_the_official_code_draws(real_data: Path) -> None:
    folder, M, _ = Golden(real_data, "waveglow").case()
    voc = melmill.load_vocoder(folder / "waveglow_state_dict.pt")
    np.testing.assert_array_equal(voc(M, seed=603), voc(M, noise=noise_of(folder)))


@pytest.mark.real
def test_pickled_modules_are_refused_and_can_be_converted(real_data: Path) -> None:
    folder, M, official = Golden(real_data, "waveglow").case()
    file = "waveglow_1"
    data = (folder / file).read_bytes()
    with pytest.raises(VocoderError, match=r"pickles a glow.WaveGlow object.* melmill vocoder convert"):
        read(file, data)
    state, settings = plain(file, data)
    voc = load(checkpoint({"state_dict": state, "config": settings}))
    z = [np.float32(0.3) * draw for draw in noise_of(folder)]
    assert relative(voc(M, noise=z), official) < TOLERANCE


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param(TINY, id="two channels join twice"),
        pytest.param(OTHER, id="four channels join twice"),
        pytest.param(Sizes(n_flows=2, every=4), id="none join"),
        pytest.param(Sizes(n_layers=1), id="one layer, which only skips"),
    ],
)
def test_inverts_the_direction_in_which_it_is_trained(sizes: Sizes) -> None:
    state, M = random_state(sizes), mel(5, 6)
    y = np.random.default_rng(2).uniform(-0.5, 0.5, 6 * sizes.hop).astype(np.float32)
    voc = made(sizes, state)
    assert relative(voc(M, noise=trained_direction(state, sizes, M, y)), y) < TOLERANCE


@pytest.mark.parametrize("sizes", [TINY, OTHER])
def test_a_batch_is_each_alone(sizes: Sizes) -> None:
    assert_batch_is_each_alone(made(sizes))


def test_sigma_scales_the_noise() -> None:
    half, whole, M = made(TINY, config=TINY.config | {"sigma": 0.5}), made(TINY), mel(5, 4)
    z = [draw.numpy() for draw in whole.model.noise(4, torch.Generator().manual_seed(0))]
    np.testing.assert_allclose(half(M, noise=z), whole(M, noise=[np.float32(0.5) * draw for draw in z]), atol=1e-6)
    np.testing.assert_array_equal(whole(M), whole(M, noise=z))


def test_a_rest_of_a_group_is_dropped() -> None:
    """Five frames of six samples are three groups of eight and six samples more."""
    voc = made(Sizes(hop=6))
    assert voc(mel(5, 5)).size == voc.model.n_samples(5) == 24
    assert_batch_is_each_alone(voc, (5, 8, 3))


def test_sizes_of_the_weights_where_there_is_no_configuration() -> None:
    M = mel(5, 4)
    bare = made(OTHER, config={}, mel=made(OTHER).spec)
    np.testing.assert_array_equal(bare(M), made(OTHER)(M))


def test_settings_that_were_saved_with_the_module_need_no_section() -> None:
    config = TINY.config["waveglow_config"] | {"n_remaining_channels": 4} | {"data_config": TINY.config["data_config"]}
    np.testing.assert_array_equal(made(TINY, config=config)(mel(5, 4)), made(TINY)(mel(5, 4)))
    with pytest.raises(VocoderError, match=r"'WN.0.start.weight' has shape \(4, 4, 1\), but .* \(4, 5, 1\)"):
        made(TINY, config=config | {"n_group": 10})


def split(state: dict[str, Tensor], sizes: Sizes, *, residual: bool) -> Iterator[tuple[str, Tensor]]:
    """Yield tensors under the names of 2018: a conditioning for each layer, residual and skip apart or not."""
    for key, value in state.items():
        network, kind, *rest = key.rsplit(".", 2 if "cond_layer" in key else 3)
        if kind == "cond_layer":
            yield from (
                (f"{network}.cond_layers.{i}.{rest[0]}", part) for i, part in enumerate(value.chunk(sizes.n_layers))
            )
        elif kind == "res_skip_layers" and residual:
            parts = value.chunk(value.shape[0] // sizes.width)
            for part, name in zip(parts, ("res_layers", "skip_layers")[-len(parts) :], strict=True):
                yield f"{network}.{name}.{'.'.join(rest)}", part
        else:
            yield key, value


@pytest.mark.parametrize("residual", [True, False])
def test_layers_of_2018_are_fused(residual: bool) -> None:
    sizes = Sizes(n_layers=11, width=2)  # the tenth layer sorts before the second by name
    state, M = random_state(sizes), mel(5, 4)
    old = dict(split(state, sizes, residual=residual))
    assert any(".cond_layers.10." in key for key in old)
    assert any(".skip_layers.10." in key for key in old) == residual
    np.testing.assert_allclose(made(sizes, old)(M), made(sizes, state)(M), rtol=0.0, atol=1e-5)


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        pytest.param(
            "waveglow_config",
            {"n_mel_channels": 6},
            r"'upsample.weight' has shape \(5, 5, 64\), but .* \(6, 6, 64\)",
            id="bands",
        ),
        pytest.param("waveglow_config", {"n_flows": 6}, r"'WN.5.* is missing", id="more flows"),
        pytest.param("waveglow_config", {"n_flows": 4}, "unexpected tensor 'WN.4", id="fewer flows"),
        pytest.param(
            "waveglow_config", {"n_early_every": 1}, r"even number of channels, got \[8, 6, 4, 2, 0\]", id="0"
        ),
        pytest.param(
            "waveglow_config", {"n_early_size": 1}, r"even number of channels, got \[8, 8, 7, 7, 6\]", id="odd"
        ),
        pytest.param("waveglow_config", {"WN_config": {"n_channels": 8}}, r"'WN.0.* implies \(8, 4, 1\)", id="width"),
        pytest.param("waveglow_config", {"WN_config": {"kernel_size": 5}}, r"in_layers.0.* \(8, 4, 5\)", id="kernel"),
        pytest.param("waveglow_config", {"WN_config": 3}, "WN_config .* must be a mapping, got 3", id="no section"),
        pytest.param("data_config", {"hop_length": 32}, "make 16 samples a frame, but .* hop_length=32", id="hop"),
    ],
)
def test_configuration_against_weights(section: str, change: dict[str, Any], message: str) -> None:
    config = TINY.config
    with pytest.raises(VocoderError, match=message):
        made(TINY, config=config | {section: config[section] | change})


def test_sigma_is_a_number() -> None:
    with pytest.raises(VocoderError, match="sigma of its configuration must be a finite number from 0, got -1"):
        made(TINY, config=TINY.config | {"sigma": -1})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"upsample.weight": None}, "no tensor 'upsample.weight'", id="no upsampling"),
        pytest.param({"WN.1.end.bias": None}, "'WN.1.end.bias' .* is missing", id="no bias"),
        pytest.param({"WN.9.end.bias": torch.ones(2)}, "unexpected tensor 'WN.9.end.bias'", id="more"),
        pytest.param(
            {"convinv.3.conv.weight": torch.ones(6, 6, 1)}, "'convinv.3.conv.weight' can't be inverted", id="singular"
        ),
        pytest.param(
            {"upsample.weight": torch.ones(5, 5, 30)}, "kernel of 30, but .* 4 times the stride", id="no stride"
        ),
    ],
)
def test_damaged_weights(change: dict[str, Tensor | None], message: str) -> None:
    changed = {**random_state(TINY), **change}
    state = {key: value for key, value in changed.items() if value is not None}
    with pytest.raises(VocoderError, match=message):
        load(checkpoint({"state_dict": state}, config=TINY.config), family="waveglow")


def test_noise_of_other_shapes() -> None:
    voc = made(TINY)
    wanted = [tuple(z.shape) for z in voc.model.noise(4, torch.Generator())]
    assert wanted == [(4, 8), (2, 8), (2, 8)]
    with pytest.raises(VocoderError, match=r"noise must have the shapes \[\(4, 8\), 2 x \(2, 8\)\], got \[\]"):
        voc(mel(5, 4), noise=[])
    with pytest.raises(VocoderError, match=r"noise of waveglow must be 3 arrays of shape .*, got none"):
        voc.model(torch.zeros(1, 5, 4))


def test_another_familys_weights() -> None:
    with pytest.raises(VocoderError, match=r"no tensor 'WN.0.in_layers.0.weight' among its 1"):
        waveglow.build(checkpoint({"conv_pre.weight": torch.ones(1, 1, 7)}))


def test_published_sizes_make_the_published_number_of_parameters() -> None:
    sizes = Sizes(n_mels=80, n_flows=12, every=4, n_layers=8, width=256, hop=256)
    shapes = names(sizes)
    # 686 tensors of the published checkpoint: all but the ends, the upsampling and the 1x1 convolutions are split.
    plain_ones = 2 + 12 * 2 + 12
    assert (len(shapes) - plain_ones) // 2 * 3 + plain_ones == 686
    assert round(sum(math.prod(shape) for shape in shapes.values()) / 1e6, 1) == 87.7
