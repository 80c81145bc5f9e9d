"""Run vocoders that are programs: TorchScript, torch.export archives and ONNX.

A program is code: load only those that you trust. A ``.pt2`` that would unpickle more than tensors
is refused anyway.
"""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.network import Checkpoint, Vocoder

# Frames of two mels that show how many samples a program makes of a frame.
_FEWER, _MORE = 32, 48


class Exported(Vocoder):
    """Run a program that maps mels to waveforms.

    It takes ``(1, n_mels, n_frames)`` and returns ``(1, n_samples)`` or ``(1, 1, n_samples)``.

    It runs one utterance at a time, as nobody knows what a program does with padding.

    Parameters
    ----------
    name : str
        File name, for messages.
    program : Module
    spec : MelSpec
        The mel that the user says it needs, as the file does not.

    Raises
    ------
    VocoderError
        The program does not take such mels with any number of frames. Or it makes another number of
        samples of a frame.
    """

    family: ClassVar[str] = "exported"

    def __init__(self, name: str, program: nn.Module, spec: MelSpec) -> None:
        super().__init__()
        self.name, self.program, self.spec = name, program, spec
        fewer, more = (
            self._run(torch.zeros(1, spec.n_mels, n_frames) + torch.as_tensor(self.silence).float()).numel()
            for n_frames in (_FEWER, _MORE)
        )
        if more - fewer != (_MORE - _FEWER) * spec.hop_length:
            raise VocoderError(
                f"{name}: makes {fewer} samples of {_FEWER} frames and {more} of {_MORE}, but the mel that you say it "
                f"needs has hop_length={spec.hop_length}"
            )
        self._extra = more - _MORE * spec.hop_length

    def n_samples(self, n_frames: int) -> int:
        """Return how many samples a mel of `n_frames` gives."""
        return max(0, n_frames * self.spec.hop_length + self._extra)

    def forward(self, mel: Tensor, lengths: Tensor | None = None, noise: Sequence[Tensor] = ()) -> Tensor:
        """Return the waveforms ``(batch, n_samples)`` of mels ``(batch, n_mels, n_frames)``."""
        ends = [mel.shape[-1]] * len(mel) if lengths is None else lengths.tolist()
        result = mel.new_zeros(len(mel), self.n_samples(mel.shape[-1]))
        for i, n_frames in enumerate(ends):
            y = self._run(mel[i : i + 1, :, :n_frames])
            if y.numel() != self.n_samples(n_frames):
                raise VocoderError(
                    f"{self.name}: made {y.numel()} samples of {n_frames} frames, expected {self.n_samples(n_frames)}"
                )
            result[i, : y.numel()] = y
        return result

    def _run(self, mel: Tensor) -> Tensor:
        try:
            with torch.no_grad():
                y = self.program(mel)
        except Exception as error:  # programs raise what they like
            raise VocoderError(
                f"{self.name}: does not take a mel of shape {tuple(mel.shape)}: {_line(error)}. Export it with the "
                "last axis dynamic, and say the mel that it was trained on"
            ) from error
        if not isinstance(y, Tensor) or y.ndim == 0 or y.numel() != y.shape[-1]:
            got = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
            raise VocoderError(
                f"{self.name}: gave {got} for a mel of shape {tuple(mel.shape)}, expected (1, n_samples) or "
                "(1, 1, n_samples)"
            )
        return y.flatten().float()


class _Sealed(nn.Module):
    """Keep `eval` away from an exported module, which has no modes to switch and would raise."""

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program

    def train(self, mode: bool = True) -> _Sealed:
        return self

    def forward(self, mel: Tensor) -> Any:  # noqa: ANN401 - a program may give anything
        return self.program(mel)


class _Onnx(nn.Module):
    """Run an ONNX graph of one input on one thread of the CPU."""

    def __init__(self, name: str, program: bytes) -> None:
        super().__init__()
        try:
            import onnxruntime
        except ModuleNotFoundError as error:
            raise VocoderError(
                f"{name}: running ONNX needs the package onnxruntime: pip install 'melmill[onnx]'"
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        # Failures are raised, and its log would only repeat them.
        options.log_severity_level = 4
        self._session = onnxruntime.InferenceSession(program, options, providers=["CPUExecutionProvider"])
        inputs = [one.name for one in self._session.get_inputs()]
        if len(inputs) != 1:
            raise VocoderError(f"{name}: has inputs {inputs}, expected one")
        self._input = inputs[0]

    def forward(self, mel: Tensor) -> Tensor:
        y = self._session.run(None, {self._input: mel.contiguous().numpy(force=True)})[0]
        return torch.from_numpy(y).to(mel.device)


def _torchscript(checkpoint: Checkpoint) -> nn.Module:
    program: nn.Module = torch.jit.load(io.BytesIO(checkpoint.program), map_location="cpu")  # type: ignore[no-untyped-call]
    return program.eval()


def _pt2(checkpoint: Checkpoint) -> nn.Module:
    _refuse_pickles(checkpoint)
    return _Sealed(torch.export.load(io.BytesIO(checkpoint.program)).module())


def _onnx(checkpoint: Checkpoint) -> nn.Module:
    return _Onnx(checkpoint.name, checkpoint.program)


_READERS: dict[str, Callable[[Checkpoint], nn.Module]] = {"torchscript": _torchscript, "pt2": _pt2, "onnx": _onnx}


def _refuse_pickles(checkpoint: Checkpoint) -> None:
    """Raise VocoderError where torch.export would unpickle more than tensors.

    That would run what the file says.
    """
    with zipfile.ZipFile(io.BytesIO(checkpoint.program)) as archive:
        for member in archive.namelist():
            if member.endswith("_config.json") and _pickles(json.loads(archive.read(member))):
                raise _pickled(checkpoint, member)
            if member.endswith(".pt"):
                try:
                    torch.load(io.BytesIO(archive.read(member)), weights_only=True)
                except pickle.UnpicklingError as error:
                    raise _pickled(checkpoint, member) from error


def _pickles(payload: Any) -> bool:  # noqa: ANN401 - JSON
    entries = payload.get("config", {}) if isinstance(payload, dict) else {}
    return any(entry.get("use_pickle") for entry in entries.values())


def _pickled(checkpoint: Checkpoint, member: str) -> VocoderError:
    return VocoderError(
        f"{checkpoint.name}: {member!r} in it pickles more than tensors: reading it would run its code. Export the "
        "model again with plain tensors"
    )


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def build(checkpoint: Checkpoint) -> Exported:
    """Make the model of a program that the user says the mel of."""
    loaded = module(checkpoint)
    if checkpoint.mel is None:
        raise VocoderError(
            f"{checkpoint.name}: a program does not say which mel it needs: give mel= a preset's name or a MelSpec"
        )
    return Exported(checkpoint.name, loaded, checkpoint.mel).eval().requires_grad_(False)


def module(checkpoint: Checkpoint) -> nn.Module:
    """Return what runs a program.

    Raises
    ------
    VocoderError
        It is no program, or can't be read.
    """
    if checkpoint.layout not in _READERS:
        raise VocoderError(f"{checkpoint.name}: is a {checkpoint.layout!r} checkpoint, expected {', '.join(_READERS)}")
    try:
        return _READERS[checkpoint.layout](checkpoint)
    except VocoderError:
        raise
    except Exception as error:  # each format raises its own
        raise VocoderError(
            f"{checkpoint.name}: {len(checkpoint.program)} bytes can't be read as {checkpoint.layout}: {_line(error)}. "
            "Is it whole, and of a version that is installed?"
        ) from error
