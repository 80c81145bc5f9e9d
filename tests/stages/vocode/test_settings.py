"""Settings that make no network: one clear error for each, before they take memory or time."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from benchmarks.fuzz.networks import FAMILIES
from melmill.stages.contract import StageFile
from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.files.checkpoint import read_files
from melmill.stages.vocode.loaded import LoadedVocoder, load
from tests.stages.vocode.tiny import mel, saved


def loaded(family: str, change: Callable[[Any], None] = lambda config: None, **files: bytes) -> LoadedVocoder:
    """Load a small vocoder of a family whose configuration was changed."""
    content, config = FAMILIES[family]()
    config = json.loads(json.dumps(config))
    change(config)
    held = {"weights": StageFile(url="g_0", data=saved(content))}
    held["beside"] = StageFile(url="config.json", data=json.dumps(config).encode())
    return load(read_files(held | {role: StageFile(url=f"{role}.npy", data=data) for role, data in files.items()}))


def npy(values: object) -> bytes:
    file = io.BytesIO()
    np.save(file, np.asarray(values))
    return file.getvalue()


@pytest.mark.parametrize("family", FAMILIES)
def test_small_vocoders_sound(family: str) -> None:
    voc = loaded(family)
    assert voc.family == family
    assert np.isfinite(voc(mel(voc.spec.n_mels, 4))).all()


@pytest.mark.parametrize(
    ("family", "path", "value", "message"),
    [
        # numbers of another type, or that no network has
        ("hifigan", ["num_mels"], "6", "num_mels of its configuration must be a whole number from 1 to 1048576"),
        ("hifigan", ["upsample_initial_channel"], 8.5, "upsample_initial_channel .* must be a whole number"),
        ("hifigan", ["upsample_rates"], [4, 1 << 40], "upsample_rates .* must be a list of whole numbers"),
        ("diffwave", ["residual_channels"], None, "residual_channels .* must be a whole number"),
        ("diffwave", ["dilation_cycle_length"], 0, "dilation_cycle_length .* must be a whole number"),
        ("diffwave", ["noise_schedule"], ["x"], "a noise schedule is a list of variances"),
        ("diffwave", ["noise_schedule"], 1, "a noise schedule is a list of variances"),
        ("wavegrad", ["factors"], 12, "factors .* must be a list of whole numbers"),
        ("wavegrad", ["hop_samples"], "x", "hop_samples .* must be a whole number"),
        ("vocos", ["backbone", "init_args", "dim"], "8", "dim .* must be a whole number"),
        ("vocos", ["feature_extractor", "init_args"], "x", "init_args of feature_extractor .* must be a mapping"),
        ("univnet", ["gen", "lReLU_slope"], float("inf"), "lReLU_slope .* must be a finite number"),
        # more layers than there are tensors: building them would never end
        ("melgan", ["n_residual_layers"], 1 << 20, "n_residual_layers .* at most .*, the number of its tensors"),
        ("waveglow", ["waveglow_config", "n_flows"], 10**30, "n_flows .* must be a whole number"),
        ("waveglow", ["waveglow_config", "n_flows"], 1 << 20, "n_flows .* the number of its tensors"),
        ("wavenet", ["layers"], 1 << 20, "layers .* the number of its tensors"),
        # whatever else is no setting
        ("wavenet", ["stacks"], [2], "make no wavenet .TypeError"),
        ("wavenet", ["upsample_params"], [1], "make no wavenet .AttributeError"),
        ("bigvgan", ["upsample_initial_channel"], 1 << 20, r"implies a tensor of shape .*, but the file holds only"),
    ],
)
def test_a_setting_that_makes_no_network_is_named(family: str, path: list[str], value: object, message: str) -> None:
    def change(config: Any) -> None:
        for key in path[:-1]:
            config = config[key]
        config[path[-1]] = value

    with pytest.raises(VocoderError, match=message):
        loaded(family, change)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        npy([[1.0, 2.0]])[:90],
        npy(["text"]),
        npy([[1.0, 2.0]]).replace(b"(1, 2)", b"(1, 2,"),  # NumPy raises a TokenError
        npy([0.1, 0.2]).replace(b"(2,)", b"(1e9"),
    ],
)
def test_a_damaged_schedule_is_named(data: bytes) -> None:
    with pytest.raises(VocoderError, match="expected the noise variance of each step"):
        loaded("wavegrad", schedule=data)


def test_damaged_stats_are_named() -> None:
    with pytest.raises(VocoderError, match="expected a mean and a scale"):
        loaded("hifigan", stats=npy([[1.0, 2.0], [3.0, 4.0]]).replace(b"(2, 2)", b"(2, 2,"))
