"""Vocoders from files, and the conversion of pickled modules."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import melmill
from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.files.unpickling import plain
from tests.flows.conftest import Project
from tests.stages.vocode.families.test_hifigan import CONFIG, STATE, pwg_config, pwg_state
from tests.stages.vocode.tiny import TOLERANCE, Golden, mel, relative, saved

M = mel(6, 5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a checkpoint, without a configuration."""
    (tmp_path / "g_0").write_bytes(saved({"generator": STATE}))
    return tmp_path


def expected(folder: Path) -> np.ndarray:
    return melmill.load_vocoder(folder / "g_0", "hifigan", CONFIG)(M)


@pytest.mark.parametrize("name", ["config.json", "config.yml", "g_0.json", "config.yaml"])
def test_the_configuration_beside_is_found(folder: Path, name: str) -> None:
    y = expected(folder)
    # JSON is YAML too.
    (folder / name).write_text(json.dumps(CONFIG))
    voc = melmill.load_vocoder(str(folder / "g_0"))
    assert voc.family == "hifigan"
    np.testing.assert_array_equal(voc(M), y)


def test_a_file_called_like_the_checkpoint_goes_first(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(CONFIG | {"sampling_rate": 16000}))
    (folder / "g_0.json").write_text(json.dumps(CONFIG))
    assert melmill.load_vocoder(folder / "g_0").spec.sr == 8000


def test_a_given_configuration_goes_first(folder: Path, tmp_path: Path) -> None:
    (folder / "config.json").write_text(json.dumps(CONFIG | {"sampling_rate": 16000}))
    (tmp_path / "mine.json").write_text(json.dumps(CONFIG))
    assert melmill.load_vocoder(folder / "g_0", config=tmp_path / "mine.json").spec.sr == 8000
    assert melmill.load_vocoder(folder / "g_0", config=CONFIG).spec.sr == 8000


def test_a_relative_path_is_fine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    y = expected(folder)
    monkeypatch.chdir(folder)
    np.testing.assert_array_equal(melmill.load_vocoder("g_0", config=CONFIG)(M), y)


def test_the_users_mel_is_a_preset_or_a_spec(tmp_path: Path) -> None:
    wide = CONFIG | {"num_mels": 80, "hop_size": 256, "upsample_rates": [16, 16], "upsample_kernel_sizes": [32, 32]}
    state = {
        **STATE,
        "conv_pre.weight": torch.ones(8, 80, 7),
        "ups.0.weight": torch.ones(8, 4, 32),
        "ups.1.weight": torch.ones(4, 2, 32),
    }
    (tmp_path / "g_0").write_bytes(saved({"generator": state}))
    voc = melmill.load_vocoder(tmp_path / "g_0", config=wide, mel="hifigan_ft")
    assert voc.spec == melmill.preset("hifigan_ft")
    spec = melmill.MelSpec(sr=22050)
    assert melmill.load_vocoder(tmp_path / "g_0", config=wide, mel=spec).spec == spec
    with pytest.raises(VocoderError, match=r"g_0: its layers take 80 mel bands, but its mel has n_mels=100"):
        melmill.load_vocoder(tmp_path / "g_0", config=wide, mel="univnet")


def test_the_stats_beside_are_found(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-1.pkl").write_bytes(saved({"model": {"generator": pwg_state(STATE, paired=True)}}))
    (tmp_path / "config.yml").write_text(json.dumps(pwg_config(CONFIG)))
    np.save(tmp_path / "stats.npy", np.stack([np.full(6, -3.0), np.full(6, 2.0)]))
    y = melmill.load_vocoder(tmp_path / "checkpoint-1.pkl")(M)
    np.save(tmp_path / "stats.npy", np.stack([np.zeros(6), np.ones(6)]))
    np.testing.assert_array_equal(melmill.load_vocoder(tmp_path / "checkpoint-1.pkl")((M + 3) / 2), y)


def test_what_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(VocoderError, match=r"/g_1 does not exist"):
        melmill.load_vocoder(folder / "g_1")
    with pytest.raises(VocoderError, match=r"/none.json does not exist"):
        melmill.load_vocoder(folder / "g_0", config=folder / "none.json")
    with pytest.raises(VocoderError, match=rf"{folder.name} is a folder: name the weights in it \(it holds g_0\)"):
        melmill.load_vocoder(folder)


def test_importing_melmill_leaves_torch_alone() -> None:
    code = "import sys, melmill, melmill.stages.vocode.registry; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class Recorder(nn.Module):
    """Holds each kind of thing that a module's state may and may not have."""

    def __init__(self) -> None:
        super().__init__()
        self.n_flows = 12
        self.name = "recorder"
        self.up = nn.utils.weight_norm(nn.ConvTranspose1d(2, 3, 4))
        self.parts = nn.ModuleList([nn.Linear(2, 2, bias=False), nn.Sequential(nn.Linear(3, 1))])
        self.register_buffer("kept", torch.ones(2))
        self.register_buffer("fleeting", torch.ones(2), persistent=False)
        self.register_parameter("absent", None)


class Hostile:
    """Leaves a trace where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:Couldn't retrieve source code:UserWarning")
def test_a_module_is_taken_apart_into_its_state(zipped: bool, wrapped: bool) -> None:
    module, file = Recorder(), io.BytesIO()
    content = {"iteration": 3, "model": module} if wrapped else module
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    state, settings = plain("waveglow", file.getvalue())
    assert settings == {"n_flows": 12, "name": "recorder"}
    assert list(state) == list(module.state_dict())
    for key, value in module.state_dict().items():
        assert torch.equal(state[key], value)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_taking_apart_runs_nothing_that_the_file_names(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    state, _ = plain("waveglow", saved({"extra": Hostile(trace), "model": Recorder()}))
    assert "kept" in state
    assert not trace.exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (saved({"generator": STATE}), r"g: holds no module, got dict: it needs no conversion"),
        (b"nonsense", r"g: can't be taken apart: UnpicklingError"),
        (saved(nn.Linear(2, 2))[:-30], r"g: can't be taken apart: RuntimeError"),
    ],
)
def test_what_is_no_module_is_named(data: bytes, message: str) -> None:
    with pytest.raises(VocoderError, match=message):
        plain("g", data)


def convert(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "melmill", "vocoder", "convert", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_conversion_is_asked_for_twice_and_keeps_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "waveglow_1").write_bytes(saved({"model": Recorder()}))
    (tmp_path / "config.json").write_text(json.dumps({"waveglow_config": {"n_group": 8}}))
    out = tmp_path / "plain.pt"
    refused = Project(tmp_path).called("vocoder", "convert", str(tmp_path / "waveglow_1"), str(out))
    assert refused.returncode == 2
    assert "add --trust if you know where it comes from" in refused.stderr
    assert not out.exists()
    done = convert("--trust", tmp_path / "waveglow_1", out)
    assert (done.returncode, done.stderr) == (0, "")
    content = torch.load(out, weights_only=True)
    assert content["config"] == {"waveglow_config": {"n_group": 8}, "n_flows": 12, "name": "recorder"}
    assert set(content["state_dict"]) == set(Recorder().state_dict())


def test_a_conversion_that_fails_says_why_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "g_0").write_bytes(saved({"generator": STATE}))
    failed = Project(tmp_path).called("vocoder", "convert", "--trust", str(tmp_path / "g_0"), str(tmp_path / "out.pt"))
    assert (failed.returncode, failed.stderr) == (2, "error: g_0: holds no module, got dict: it needs no conversion\n")
    assert not (tmp_path / "out.pt").exists()


@pytest.mark.real
def test_waveglow_is_the_official_one_after_conversion(real_data: Path, tmp_path: Path) -> None:
    folder, M, official = Golden(real_data, "waveglow").case()
    with pytest.raises(VocoderError, match=r"waveglow_1: pickles a glow.WaveGlow object"):
        melmill.load_vocoder(folder / "waveglow_1")
    assert convert("--trust", folder / "waveglow_1", tmp_path / "plain.pt").returncode == 0
    voc = melmill.load_vocoder(tmp_path / "plain.pt")
    assert voc.family == "waveglow"
    noise = [0.3 * np.load(folder / f"z_{i}.npy") for i in range(3)]
    assert relative(voc(M, noise=noise), official) < TOLERANCE
