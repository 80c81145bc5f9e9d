from __future__ import annotations

import io
import json
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.presets import preset
from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.files.checkpoint import read
from melmill.stages.vocode.network import Vocoder
from melmill.stages.vocode.registry import family
from tests.stages.vocode.tiny import assert_padding_is_not_heard, randomised, relative

# torch still reads and writes TorchScript, and says that torch.export is the future.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

SPEC = replace(preset("hifigan"), n_mels=6, hop_length=8, n_fft=64, win_length=32)


class Net(nn.Module):
    """Upsample by 8; its last convolution looks past an utterance's end."""

    def __init__(self, n_mels: int = 6, channel_axis: bool = True, cut: int = 0) -> None:
        super().__init__()
        self.channel_axis, self.cut = channel_axis, cut
        self.up = nn.ConvTranspose1d(n_mels, 4, 16, stride=8, padding=4)
        self.last = nn.Conv1d(4, 1, 7, padding=3)
        self.load_state_dict(randomised(self))

    def forward(self, mel: Tensor) -> Tensor:
        y = torch.tanh(self.last(self.up(mel)))
        if self.cut:
            y = y[..., : -self.cut]
        return y if self.channel_axis else y[:, 0]


def torchscript(net: nn.Module) -> bytes:
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(net, torch.zeros(1, 6, 12)), file)  # type: ignore[no-untyped-call]
    return file.getvalue()


def pt2(net: nn.Module, **shapes: Any) -> bytes:
    file = io.BytesIO()
    shapes = shapes or {"mel": {0: torch.export.Dim("batch"), 2: torch.export.Dim("n_frames")}}
    torch.export.save(torch.export.export(net, (torch.zeros(2, 6, 12),), dynamic_shapes=shapes), file)
    return file.getvalue()


def field(number: int, value: int | str | bytes) -> bytes:
    """Write one field of a Protocol Buffers message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def onnx(net: Net, inputs: Sequence[str] = ("mel",)) -> bytes:
    """Write `net` as ONNX by hand, as the exporter needs packages that a user of the file does not."""

    def tensor(name: str, value: Tensor) -> bytes:
        shape = b"".join(field(1, size) for size in value.shape)
        return field(5, shape + field(2, 1) + field(8, name) + field(9, value.detach().numpy().tobytes()))

    def whole_numbers(name: str, values: Sequence[int]) -> bytes:
        return field(5, field(1, name) + b"".join(field(8, value) for value in values) + field(20, 7))

    def node(kind: str, reads: Sequence[str], writes: str, attributes: bytes = b"") -> bytes:
        return field(1, b"".join(field(1, name) for name in reads) + field(2, writes) + field(4, kind) + attributes)

    def port(number: int, name: str, axes: Sequence[int | str]) -> bytes:
        shape = b"".join(field(1, field(1, axis) if isinstance(axis, int) else field(2, axis)) for axis in axes)
        return field(number, field(1, name) + field(2, field(1, field(1, 1) + field(2, shape))))

    graph = (
        node("ConvTranspose", ["mel", "a", "b"], "h", whole_numbers("strides", [8]) + whole_numbers("pads", [4, 4]))
        + node("Conv", ["h", "c", "d"], "g", whole_numbers("pads", [3, 3]))
        + node("Tanh", ["g"], "y")
        + field(2, "net")
        + b"".join(tensor(name, value) for name, value in zip("abcd", net.parameters(), strict=True))
        + b"".join(port(11, name, ["batch", 6, "n_frames"]) for name in inputs)
        + port(12, "y", ["batch", 1, "n_samples"])
    )
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 17))


WRITERS: dict[str, Callable[[Net], bytes]] = {"net.ts": torchscript, "net.pt2": pt2, "net.onnx": onnx}


def loaded(name: str, data: bytes, mel: MelSpec | None = SPEC) -> Vocoder:
    if name.endswith(".onnx"):
        pytest.importorskip("onnxruntime")
    return family("exported").build(replace(read(name, data), mel=mel))


@pytest.mark.parametrize("name", WRITERS)
def test_a_program_gives_what_the_model_gave(name: str) -> None:
    net, mel = Net().requires_grad_(False), torch.rand(3, 6, 20)
    vocoder = loaded(name, WRITERS[name](net))
    assert relative(vocoder(mel), net(mel)[:, 0]) < 1e-6
    assert vocoder.spec == SPEC
    assert vocoder.n_samples(20) == 160


@pytest.mark.parametrize("name", WRITERS)
def test_a_batch_equals_its_utterances(name: str) -> None:
    assert_padding_is_not_heard(loaded(name, WRITERS[name](Net())), [9, 4, 7])


def test_a_program_without_a_channel_axis() -> None:
    net, mel = Net(channel_axis=False).requires_grad_(False), torch.rand(1, 6, 20)
    assert relative(loaded("net.ts", torchscript(net))(mel), net(mel)) < 1e-6


def test_fewer_samples_than_hops() -> None:
    # as Vocos, whose last frame has no samples of its own
    vocoder = loaded("net.ts", torchscript(Net(cut=8)))
    assert vocoder(torch.rand(2, 6, 20)).shape == (2, 152)
    assert vocoder.n_samples(20) == 152


def test_programs_are_recognised_by_their_layout() -> None:
    layouts = {name: read(name, write(Net())).layout for name, write in WRITERS.items()}
    assert layouts == {"net.ts": "torchscript", "net.pt2": "pt2", "net.onnx": "onnx"}
    assert all(family("exported").recognises(read(name, write(Net()))) for name, write in WRITERS.items())


def test_the_mel_must_be_given() -> None:
    with pytest.raises(VocoderError, match=r"net.ts: a program does not say which mel it needs: give mel="):
        loaded("net.ts", torchscript(Net()), mel=None)


@pytest.mark.parametrize("name", WRITERS)
def test_another_number_of_bands_is_refused(name: str) -> None:
    with pytest.raises(VocoderError, match=rf"{name}: does not take a mel of shape \(1, 7, \d+\)"):
        loaded(name, WRITERS[name](Net()), mel=replace(SPEC, n_mels=7))


def test_another_hop_is_refused() -> None:
    with pytest.raises(VocoderError, match=r"makes 256 samples of 32 frames and 384 of 48.*hop_length=16"):
        loaded("net.ts", torchscript(Net()), mel=replace(SPEC, hop_length=16))


def test_a_fixed_number_of_frames_is_refused() -> None:
    with pytest.raises(VocoderError, match=r"does not take a mel of shape .* with the last axis dynamic"):
        loaded("net.pt2", pt2(Net(), mel={0: torch.export.Dim("batch")}))


def test_what_is_no_waveform_is_refused() -> None:
    with pytest.raises(VocoderError, match=r"gave \(1, 4, 256\) for a mel of shape \(1, 6, 32\), expected"):
        loaded("net.ts", torchscript(Net().up))


@pytest.mark.parametrize("name", WRITERS)
def test_a_damaged_program_is_refused(name: str) -> None:
    data = WRITERS[name](Net())
    checkpoint = replace(read(name, data), mel=SPEC, program=data[: len(data) // 2])
    if name.endswith(".onnx"):
        pytest.importorskip("onnxruntime")
    with pytest.raises(VocoderError, match=rf"{name}: {len(data) // 2} bytes can't be read as"):
        family("exported").build(checkpoint)


def rewritten(data: bytes, change: Callable[[str, bytes], bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w") as new:
        for member in old.namelist():
            new.writestr(member, change(member, old.read(member)))
    return file.getvalue()


def test_an_archive_that_pickles_its_weights_is_refused() -> None:
    def pickling(member: str, content: bytes) -> bytes:
        if not member.endswith("weights_config.json"):
            return content
        payload = json.loads(content)
        for entry in payload["config"].values():
            entry["use_pickle"] = True
        return json.dumps(payload).encode()

    with pytest.raises(VocoderError, match=r"weights_config.json' in it pickles more than tensors"):
        loaded("net.pt2", rewritten(pt2(Net()), pickling))


def test_an_archive_that_pickles_its_inputs_is_refused() -> None:
    def pickling(member: str, content: bytes) -> bytes:
        if not member.endswith(".pt"):
            return content
        file = io.BytesIO()
        torch.save(Net(), file)
        return file.getvalue()

    with pytest.raises(VocoderError, match=r"model.pt' in it pickles more than tensors: reading it would run its code"):
        loaded("net.pt2", rewritten(pt2(Net()), pickling))


def test_onnx_of_two_inputs_is_refused() -> None:
    with pytest.raises(VocoderError, match=r"has inputs \['mel', 'sigma'\], expected one"):
        loaded("net.onnx", onnx(Net(), inputs=["mel", "sigma"]))


def test_onnx_without_its_runtime_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(VocoderError, match=r"pip install 'melmill\[onnx\]'"):
        family("exported").build(replace(read("net.onnx", onnx(Net())), mel=SPEC))
