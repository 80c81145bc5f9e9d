"""The Python API: what it takes, what it gives, and what it refuses in one line."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import melmill
from melmill.pcm import as_float
from melmill.stages.numeric.resample import resample
from tests.flows.conftest import voice

SPEC = melmill.MelSpec(n_fft=256, hop_length=64, n_mels=20, sr=8000)
Y = as_float(voice(0.5, 120.0, seed=0))
M = melmill.mel(Y, SPEC)


def test_the_version_is_the_packages() -> None:
    assert melmill.__version__ == importlib.metadata.version("melmill")
    with pytest.raises(AttributeError, match="no attribute 'no_such_thing'"):
        melmill.no_such_thing  # noqa: B018


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(Y.tolist(), id="list"),
        pytest.param(torch.from_numpy(Y), id="tensor"),
        pytest.param(torch.from_numpy(Y).requires_grad_(), id="tensor with a gradient"),
        pytest.param(Y.astype(np.float64), id="double precision"),
    ],
)
def test_a_mel_is_made_of_arrays_lists_and_tensors(given: Any) -> None:
    assert melmill.mel(given, SPEC).tobytes() == M.tobytes()


def test_a_mel_of_another_rate_is_of_the_resampled_waveform() -> None:
    expected = melmill.mel(resample(Y, 16000, 8000), SPEC)
    assert melmill.mel(Y, SPEC, sr=16000).tobytes() == expected.tobytes()
    assert melmill.mel(Y, SPEC, sr=8000).tobytes() == M.tobytes()


@pytest.mark.parametrize("given", [M.tolist(), torch.from_numpy(M)], ids=["lists", "tensor"])
def test_mels_are_inverted_from_lists_and_tensors(given: Any) -> None:
    expected = melmill.invert(M, SPEC, n_iter=2)
    assert melmill.invert(given, SPEC, n_iter=2).tobytes() == expected.tobytes()
    assert melmill.invert_batch([given, M], SPEC, n_iter=2)[0].tobytes() == expected.tobytes()


@pytest.mark.parametrize("as_given", [np.ndarray.tolist, torch.from_numpy], ids=["list", "tensor"])
def test_lists_and_tensors_are_scored(as_given: Callable[[np.ndarray], Any]) -> None:
    y_hat = (0.9 * Y + 0.01 * np.random.default_rng(0).standard_normal(Y.size)).astype(np.float32)
    expected = melmill.score(Y, y_hat, 16000, ["si_sdr", "sc"])
    assert melmill.score(as_given(Y), as_given(y_hat), 16000, ["si_sdr", "sc"]) == expected
    assert expected["sc"].status.value == "ok"


def test_a_start_may_be_a_list() -> None:
    y, again = (melmill.invert(M, SPEC, n_iter=2, length=Y.size, start=start) for start in (Y, Y.tolist()))
    assert y.tobytes() == again.tobytes()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_the_device_is_chosen() -> None:
    assert melmill.invert(M, SPEC, n_iter=1, device="cpu").size
    with pytest.raises(melmill.DeviceMissing, match="device 'cuda' needs a CUDA device"):
        melmill.invert(M, SPEC, n_iter=1, device="cuda")


def test_a_bare_spec_has_a_window_of_the_transforms_length() -> None:
    assert melmill.MelSpec(n_fft=2048).win_length == 2048
    assert melmill.MelSpec(n_fft=512, win_length=None) == melmill.MelSpec(n_fft=512, win_length=512)
    assert melmill.MelSpec() == melmill.preset("paper")
    assert melmill.preset("torchaudio").win_length == 400
    assert melmill.preset("wavegrad").win_length == 1200


def _with_nan() -> np.ndarray:
    spoilt = M.copy()
    spoilt[3, 4] = np.nan
    return spoilt


REFUSED: dict[str, Callable[[], object]] = {
    # mel
    "y can't be read as an array": lambda: melmill.mel([[0.0], [0.0, 1.0]]),
    "y must hold real numbers, got <U1 in list": lambda: melmill.mel(["a"]),
    "y must hold real numbers, got complex128 in list": lambda: melmill.mel([1j]),
    "a waveform is .n_samples,., got shape .1, 4000.": lambda: melmill.mel(Y[np.newaxis, :4000], sr=8000),
    "a waveform is float32, float64 or int16, got int64": lambda: melmill.mel([1, 2]),
    "the waveform holds samples that are not finite": lambda: melmill.mel(np.full(4000, np.nan)),
    "look like 16-bit integers stored as floats: divide by 32768": lambda: melmill.mel(Y * 32768),
    "16-bit integers stored as floats: divide by 32768": lambda: melmill.score(Y * 32768, Y, 16000, ["sc"]),
    "no mel of its spec: its loudest frame would be 83 dB over": lambda: melmill.invert(M * 1e5, SPEC),
    "sr must be at least 1, got 0": lambda: melmill.mel(Y, sr=0),
    "sr must be a whole number, got 16000.0": lambda: melmill.mel(Y, sr=16000.0),  # type: ignore[arg-type]
    "spec must be a MelSpec, got 'paper'": lambda: melmill.mel(Y, "paper"),  # type: ignore[arg-type]
    "preset must be the name of a preset, got 3": lambda: melmill.mel(Y, preset=3),  # type: ignore[arg-type]
    "preset 'hifigam' does not exist; did you mean 'hifigan'": lambda: melmill.mel(Y, preset="hifigam"),
    "preset excludes spec": lambda: melmill.mel(Y, SPEC, preset="paper"),
    # invert
    "seed must not be negative, got -1": lambda: melmill.invert(M, SPEC, seed=-1),
    "seed must be a whole number, got 1.5": lambda: melmill.invert(M, SPEC, seed=1.5),  # type: ignore[arg-type]
    "n_iter must not be negative, got -1": lambda: melmill.invert(M, SPEC, n_iter=-1),
    "n_iter must be a whole number, got 2.5": lambda: melmill.invert(M, SPEC, n_iter=2.5),  # type: ignore[arg-type]
    "length must be at least 1, got 0": lambda: melmill.invert(M, SPEC, length=0),
    "length must be a whole number, got 10000.0": lambda: melmill.invert(M, SPEC, length=1e4),  # type: ignore[arg-type]
    "method must be one of .*, got 'x'": lambda: melmill.invert(M, SPEC, method="x"),
    "method must be the name of a solver, got None": lambda: melmill.invert(M, SPEC, method=None),  # type: ignore[arg-type]
    "magnitude must be 'nnls' or 'pinv', got 'x'": lambda: melmill.invert(M, SPEC, magnitude="x"),  # type: ignore[arg-type]
    "device must be 'cpu' or 'cuda', got 'tpu'": lambda: melmill.invert(M, SPEC, device="tpu"),  # type: ignore[arg-type]
    "rho must be finite, got inf": lambda: melmill.invert(M, SPEC, method="admm", rho=np.inf),
    "lam must be positive, got nan": lambda: melmill.invert(M, SPEC, method="admm", lam=np.nan),
    "rho must be a number, got '1'": lambda: melmill.invert(M, SPEC, method="admm", rho="1"),
    "beta is no parameter of 'admm'": lambda: melmill.invert(M, SPEC, method="admm", beta=1.0),
    "start must be one of random, zero, pghi or a wave": lambda: melmill.invert(M, SPEC, start="phgi"),
    "start must be a waveform .n_samples,., got shape": lambda: melmill.invert(M, SPEC, start=np.zeros((2, 9))),
    "start can't be read as an array": lambda: melmill.invert(M, SPEC, start=[[1.0], [1.0, 2.0]]),
    "a mel of this spec is .n_mels=20, n_frames.": lambda: melmill.invert(M.T, SPEC),
    "lengths must have one entry for each of 1 mels": lambda: melmill.invert_batch([M], SPEC, lengths=[1, 2]),
    "start must have one entry for each of 1 mels": lambda: melmill.invert_batch([M], SPEC, start=[]),
    "mels must be a sequence of mels, got 3": lambda: melmill.invert_batch(3, SPEC),  # type: ignore[arg-type]
    "lengths must have one entry for each of 1 mels, got 5": lambda: melmill.invert_batch([M], SPEC, lengths=5),  # type: ignore[arg-type]
    "mels.1. must hold real numbers": lambda: melmill.invert_batch([M, "a"], SPEC),
    "mels.1.: a mel of this spec is .n_mels=20": lambda: melmill.invert_batch([M, M.T], SPEC),
    "mels.1.: 1 mel values are not finite": lambda: melmill.invert_batch([M, _with_nan()], SPEC),
    "mels.1.: the mel has no frames": lambda: melmill.invert_batch([M, M[:, :0]], SPEC),
    "mels.1.: no mel of its spec": lambda: melmill.invert_batch([M, M * 1e5], SPEC),
    "mels.1.: the mel has .* frames but 9 samples": lambda: melmill.invert_batch([M, M], SPEC, lengths=[Y.size, 9]),
    "lengths.1. must be at least 1, got 0": lambda: melmill.invert_batch([M, M], SPEC, lengths=[Y.size, 0]),
    "start.1. must hold real numbers": lambda: melmill.invert_batch([M, M], SPEC, start=[Y, "a"]),
    "start.1. must be a waveform": lambda: melmill.invert_batch([M, M], SPEC, start=[Y, M], lengths=[Y.size] * 2),
    "mels.1.: the starting waveform has 9 samples": lambda: melmill.invert_batch(
        [M, M], SPEC, start=[Y, Y[:9]], lengths=[Y.size] * 2
    ),
    # score
    "y_hat must hold real numbers, got <U1 in list": lambda: melmill.score(Y, ["a"], 16000),
    "y_hat: a waveform is .n_samples,., got shape .1, 8000.": lambda: melmill.score(Y, Y[None], 16000),
    "y_hat: a waveform is float32, float64 or int16, got int64": lambda: melmill.score(Y, [1, 2], 16000),
    "sr must be a whole number, got '16 kHz'": lambda: melmill.score(Y, Y, "16 kHz"),  # type: ignore[call-overload]
    "sr must be at most 10000000, got 999999999": lambda: melmill.score(Y, Y, 999999999),
    "metrics must be a list of texts such as .'pesq_wb'., got 'sc'": lambda: melmill.score(Y, Y, 16000, "sc"),
    # specs
    "n_fft must be a whole number, got 1024.0": lambda: melmill.MelSpec(n_fft=1024.0),  # type: ignore[arg-type]
    "hop_length must be at least 1, got 0": lambda: melmill.MelSpec(hop_length=0),
    "win_length must not exceed n_fft, got 512 > 256": lambda: melmill.MelSpec(n_fft=256, win_length=512),
    "fmin must be finite, got nan": lambda: melmill.MelSpec(fmin=np.nan),
    "power must be a number, got 'two'": lambda: melmill.MelSpec(power="two"),  # type: ignore[arg-type]
    "scale must be positive, got 0": lambda: melmill.MelSpec(scale=0),
    "htk must be true or false, got 1": lambda: melmill.MelSpec(htk=1),  # type: ignore[arg-type]
    "clip must be .lowest, highest., got 3": lambda: melmill.MelSpec(clip=3),  # type: ignore[arg-type]
    "pcen must be a Pcen or None, got 'yes'": lambda: melmill.MelSpec(pcen="yes"),  # type: ignore[arg-type]
    "center must be true, false or 'same', got 'left'": lambda: melmill.MelSpec(center="left"),  # type: ignore[arg-type]
    # vocoders, stores and runs
    "device must be 'cpu' or 'cuda', got 'gpu'": lambda: melmill.load_vocoder("melmill-16k", device="gpu"),
    "url must be a path or URL, got 3": lambda: melmill.open(3),  # type: ignore[arg-type]
    "is not a store": lambda: melmill.open("no/such/store"),
    "path must be a path or URL, got None": lambda: melmill.run(None),  # type: ignore[arg-type]
    "pipeline 'no.yaml' can't be read": lambda: melmill.run("no.yaml"),
    "executor must be 'dask' or 'serial', got 'ray'": lambda: melmill.run(executor="ray"),  # type: ignore[arg-type]
    "set must be a mapping": lambda: melmill.run(set=["a=1"]),  # type: ignore[arg-type]
    "set can't hold <object": lambda: melmill.run(set={"a.b": object()}),
    "also must be a list of stores, got 's3://x'": lambda: melmill.run(also="s3://x"),
    "also must be a path or URL, got 3": lambda: melmill.run(also=[3]),  # type: ignore[list-item]
    "until must be the name of a node, got 3": lambda: melmill.run(until=3),  # type: ignore[arg-type]
    "store must be a path or URL, got 3": lambda: melmill.torch_dataset(3),  # type: ignore[arg-type]
    "mel must be the name of a node, got None": lambda: melmill.torch_dataset("x", mel=None),  # type: ignore[arg-type]
    "segment_frames must be at least 1, got 0": lambda: melmill.torch_dataset("x", segment_frames=0),
    "seed must not be negative, got -3": lambda: melmill.torch_dataset("x", seed=-3),
    "ids must be a sequence of ids, got 'a'": lambda: melmill.torch_dataset("x", ids="a"),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_is_one_line_of_ours(message: str) -> None:
    with pytest.raises(melmill.Error, match=message) as raised:
        REFUSED[message]()
    assert "\n" not in str(raised.value)


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """Return a pipeline over two recordings, in a folder of its own."""
    (tmp_path / "corpus").mkdir()
    for name, f0 in (("a", 110.0), ("b", 190.0)):
        soundfile.write(tmp_path / "corpus" / f"{name}.wav", voice(0.5, f0, seed=1), 16000, subtype="PCM_16")
    path = tmp_path / "pipeline.yaml"
    path.write_text(
        f"name: api\nstore: {tmp_path / 'store'}\nstages:\n"
        f"  speech: {{uses: audio_folder, root: {tmp_path / 'corpus'}, sr: 16000}}\n"
        "  mel: {uses: extract, from: speech}\n"
        "  gla: {uses: griffin_lim, from: mel, n_iter: 2}\n"
    )
    return path


def test_a_pipeline_is_run_and_gone_on_with(pipeline: Path, tmp_path: Path) -> None:
    first = melmill.run(pipeline, until="mel", executor="serial")
    assert (first.tasks.run, first.tasks.failed, first.utterances) == (2, 0, 2)
    values = {"gla.momentum": np.float64(1e-05), "gla.n_iter": np.array([1, 2])}
    second = melmill.run(str(pipeline), set=values, executor="serial")
    assert (second.tasks.run, second.tasks.reused) == (2, 2)
    assert melmill.open(tmp_path / "store")["gla[n_iter=2]"]["a"].shape == (8000,)
    elsewhere = melmill.run(pipeline, store=tmp_path / "elsewhere", executor="serial")
    assert elsewhere.as_dict()["tasks"] == {"total": 3, "run": 3, "reused": 0, "failed": 0}


def test_a_wrong_override_says_where(pipeline: Path) -> None:
    with pytest.raises(melmill.PipelineError, match=r"--set gla.n_iter=two: n_iter of griffin_lim must be"):
        melmill.run(pipeline, set={"gla.n_iter": "two"}, executor="serial")


def test_segments_are_typed(pipeline: Path, tmp_path: Path) -> None:
    melmill.run(pipeline, until="mel", executor="serial")
    segments = melmill.torch_dataset(tmp_path / "store", segment_frames=8, seed=1)
    mel, audio = segments[0]
    assert (tuple(mel.shape), tuple(audio.shape)) == ((80, 8), (8 * 256,))
    assert len(melmill.torch_dataset(melmill.open(tmp_path / "store"), ids=["b"])) == 1


def test_importing_is_light() -> None:
    heavy = {"numba", "torch", "zarr", "scipy", "librosa", "soxr", "distributed"}
    code = f"import sys, melmill; melmill.MelSpec(); print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=os.environ)
    assert done.stdout.strip() == ""
