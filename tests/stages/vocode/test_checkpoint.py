"""Checkpoint files to plain tensors."""

from __future__ import annotations

import contextlib
import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.files.checkpoint import read
from tests.stages.vocode.tiny import saved

W = torch.arange(6.0).reshape(2, 3)
STATE = {"conv.weight": W, "conv.bias": torch.ones(2)}


def assert_state(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert list(found) == list(wanted)
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value)


@pytest.mark.parametrize(
    ("content", "layout"),
    [
        (STATE, "bare"),
        ({"generator": STATE}, "generator"),
        ({"model_g": STATE, "model_d": {}, "step": 3, "optim_g": {"state": {}}}, "model_g"),
        ({"model": STATE, "iteration": 1}, "model"),
        ({"state_dict": STATE, "global_step": 7}, "state_dict"),
        ({"model": {"generator": STATE, "discriminator": {}}, "steps": 2}, "model.generator"),
        ({"generator": {f"module.{key}": value for key, value in STATE.items()}}, "generator"),
    ],
)
def test_containers_are_opened(content: object, layout: str) -> None:
    found = read("g", saved(content))
    assert found.layout == layout
    assert_state(dict(found.state), STATE)
    assert found.config == {}


GENERATOR = {"conv_pre.weight": W, "ups.0.weight": 2.0 * W, "mean": torch.ones(2)}
MELGAN = {"generator.1.weight": W, "generator.4.blocks.0.2.weight": 2.0 * W}


def prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize(
    "content",
    [
        prefixed("generator.", GENERATOR),
        {"generator": prefixed("_orig_mod.", GENERATOR)},
        {"generator": prefixed("module._orig_mod.", GENERATOR)},
        {
            "generator": {
                "ups.0._orig_mod.weight" if key == "ups.0.weight" else key: GENERATOR[key] for key in GENERATOR
            }
        },
        {"generator": prefixed("module.", GENERATOR) | {"n_averaged": torch.tensor(3)}},
        {"state_dict": prefixed("generator.", GENERATOR) | {"mpd.x.weight": W}, "hyper_parameters": {"a": 1}},
        {"state_dict": prefixed("model.generator._orig_mod.", GENERATOR) | {"model.msd.x.weight": W}},
        {"state_dict": prefixed("vocoder.", GENERATOR)},
        {"model": prefixed("model_g.", GENERATOR) | {"model_d.x.weight": W}, "step": 1},
    ],
)
def test_prefixes_of_wrappers_are_dropped(content: object) -> None:
    assert_state(dict(read("g", saved(content)).state), GENERATOR)


@pytest.mark.parametrize("content", [MELGAN, {"state_dict": prefixed("generator.", MELGAN) | {"mpd.x.weight": W}}])
def test_a_list_of_layers_keeps_its_name(content: object) -> None:
    assert_state(dict(read("g", saved(content)).state), MELGAN)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hp_str", "audio:\n  hop_length: 256\ngen: {noise_dim: 64}\n---\nlog: x\n"),
        ("config", {"audio": {"hop_length": 256}, "gen": {"noise_dim": 64}, "log": "x"}),
        ("params", {"audio": {"hop_length": 256}, "gen": {"noise_dim": 64}, "log": "x"}),
    ],
)
def test_settings_inside_are_read(key: str, value: object) -> None:
    assert read("g", saved({"model": STATE, key: value})).config == {
        "audio": {"hop_length": 256},
        "gen": {"noise_dim": 64},
        "log": "x",
    }


@pytest.mark.parametrize(
    "dtype",
    [torch.float16, torch.bfloat16, torch.float64],
)
def test_every_precision_becomes_single(dtype: torch.dtype) -> None:
    found = read("g", saved({"weight": W.to(dtype), "step": torch.tensor(3)})).state
    assert found["weight"].dtype == torch.float32
    assert found["step"].dtype == torch.int64
    torch.testing.assert_close(found["weight"], W)


@pytest.mark.parametrize(
    "make", [lambda: nn.Conv1d(3, 4, 5), lambda: nn.ConvTranspose1d(3, 4, 5), lambda: nn.Linear(3, 4)]
)
@pytest.mark.parametrize("parametrised", [True, False])
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
def test_weight_norm_is_folded_as_torch_computes_it(make: Callable[[], nn.Module], parametrised: bool) -> None:
    layer = make()
    if parametrised:
        nn.utils.parametrizations.weight_norm(layer)
        g = layer.get_parameter("parametrizations.weight.original0")
    else:
        nn.utils.weight_norm(layer)
        g = layer.get_parameter("weight_g")
    with torch.no_grad():
        g.mul_(3.0)
    found = read("g", saved({f"up.{key}": value for key, value in layer.state_dict().items()})).state
    if not parametrised:
        nn.utils.remove_weight_norm(layer)
    assert set(found) == {"up.weight", "up.bias"}
    weight: Any = layer.weight
    torch.testing.assert_close(found["up.weight"], weight.detach())


def test_both_formats_of_torch_are_read() -> None:
    file = io.BytesIO()
    torch.save({"generator": STATE}, file, _use_new_zipfile_serialization=False)
    assert_state(dict(read("g", file.getvalue()).state), STATE)


def safetensors(tensors: dict[str, Tensor], **metadata: str) -> bytes:
    """Return tensors in the format as its page describes it."""
    names = {torch.float32: "F32", torch.float16: "F16", torch.int64: "I64"}
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    data = b""
    for key, value in tensors.items():
        raw = value.contiguous().numpy().tobytes()
        offsets = [len(data), len(data) + len(raw)]
        header[key] = {"dtype": names[value.dtype], "shape": list(value.shape), "data_offsets": offsets}
        data += raw
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def test_safetensors_are_read() -> None:
    tensors = {"a": W, "b": W.half(), "n": torch.tensor([1, 2]), "one": torch.tensor(4.0), "none": torch.empty(0, 3)}
    found = read("model.safetensors", safetensors(tensors, format="pt"))
    assert found.layout == "bare"
    assert_state(dict(found.state), {**tensors, "b": W})


class CountedBytes(bytes):
    """Bytes that count how many of them were copied by slices."""

    n_copied = 0

    def __getitem__(self, key: Any) -> Any:
        part = super().__getitem__(key)
        self.n_copied += len(part) if isinstance(key, slice) else 0
        return part


def test_only_the_header_of_safetensors_is_copied_beside_the_tensors() -> None:
    tensors = {f"t{i}": torch.full((1000,), float(i)) for i in range(50)}
    data = CountedBytes(safetensors(tensors))
    n_header = int.from_bytes(data[:8], "little")
    data.n_copied = 0
    assert_state(dict(read("model.safetensors", data).state), tensors)
    assert data.n_copied < n_header + 100


@pytest.mark.parametrize("cut", [9, 40, -1])
def test_truncated_safetensors_are_refused(cut: int) -> None:
    with pytest.raises(VocoderError, match=r"model.safetensors: is truncated or not safetensors"):
        read("model.safetensors", safetensors({"a": W})[:cut])


def _legacy(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


@pytest.mark.parametrize("write", [saved, _legacy])
@pytest.mark.parametrize("kept", [0.0, 0.2, 0.6, 0.99])
def test_truncated_files_are_refused(write: Any, kept: float) -> None:
    data = write({"generator": STATE})
    data = data[: int(kept * len(data))]
    with pytest.raises(VocoderError, match=rf"^g_1: is truncated or not a checkpoint \({len(data)} bytes; expected"):
        read("g_1", data)


class Hostile:
    """Leaves a trace where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


def test_nothing_but_tensors_is_unpickled(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    with pytest.raises(VocoderError, match=r"g: pickles a posix.mkdir object.* melmill vocoder convert --trust g OUT"):
        read("g", saved({"model": Hostile(trace)}))
    assert not trace.exists()


@pytest.mark.parametrize("write", [saved, _legacy])
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code:UserWarning")
def test_a_pickled_module_is_refused_with_the_way_out(write: Any) -> None:
    with pytest.raises(VocoderError, match=r"waveglow: pickles a torch.nn.*Linear object, .* melmill vocoder convert"):
        read("waveglow", write({"model": nn.Linear(2, 3)}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"mpd": {"a": W}, "epoch": 3}, r"g: holds no generator: expected one of generator, .*, got 'mpd', 'epoch'"),
        ([W], r"g: holds no generator: .* got list"),
        ({"w_g": W, "x.weight_g": torch.ones(2, 1)}, r"g: tensor 'x.weight_v' is missing beside 'x.weight_g'"),
        ({"x.weight_v": W}, r"g: tensor 'x.weight_g' is missing beside 'x.weight_v'"),
        (
            {"x.weight_v": W, "x.weight_g": torch.ones(3, 1)},
            r"weight norm of 'x' has g of shape \(3, 1\) for v of \(2, 3\)",
        ),
        ({"a": W, "x": torch.tensor([1.0, float("nan")])}, r"g: tensor 'x' holds NaN or infinity"),
    ],
)
def test_what_is_no_generator_is_refused(content: object, message: str) -> None:
    with pytest.raises(VocoderError, match=message):
        read("g", saved(content))


def test_names_that_are_no_text_are_passed_over() -> None:
    content: dict[Any, Any] = {**STATE, 7: W}
    assert_state(dict(read("g", saved(content)).state), STATE)


def test_a_damaged_table_of_contents_is_refused() -> None:
    """The name of a member is no UTF-8, though its flag says so."""
    data = zipped("voc/caf\u00e9").replace("caf\u00e9".encode(), b"caf\xff\xff")
    with pytest.raises(VocoderError, match=r"^g_1: is truncated or not a checkpoint"):
        read("g_1", data)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
@pytest.mark.parametrize("byte", [0, 128])
def test_no_damaged_byte_of_a_pickle_ends_in_another_error(byte: int) -> None:
    """Other opcodes make the unpickler raise AssertionError, TypeError and more."""
    data = _legacy({"generator": {"a": torch.ones(2)}})
    for at in range(len(data)):
        with contextlib.suppress(VocoderError):
            read("g_1", data[:at] + bytes([byte]) + data[at + 1 :])


def test_a_pointer_in_place_of_the_file_is_told() -> None:
    with pytest.raises(VocoderError, match=r"g: is a Git LFS pointer of 42 bytes.* run `git lfs pull`"):
        read("g", b"version https://git-lfs.github.com/spec/v1")


def zipped(*members: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for member in members:
            archive.writestr(member, b"")
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "layout"),
    [
        ("voc.pt", zipped("voc/data.pkl", "voc/constants.pkl", "voc/code/a.py"), "torchscript"),
        ("voc.pt2", zipped("voc/archive_format", "voc/models/model.json"), "pt2"),
        ("voc.pt2", zipped("serialized_exported_program.json", "version"), "pt2"),
        ("voc.onnx", b"\x08\x07", "onnx"),
    ],
)
def test_programs_are_kept_whole(name: str, data: bytes, layout: str) -> None:
    found = read(name, data)
    assert (found.layout, found.program, dict(found.state)) == (layout, data, {})
