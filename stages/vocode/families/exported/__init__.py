"""The family `exported`: programs rather than weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from melmill.stages.vocode.family import Family

if TYPE_CHECKING:
    from melmill.stages.vocode.network import Checkpoint

_LAYOUTS = ("torchscript", "pt2", "onnx")


def _recognises(checkpoint: Checkpoint) -> bool:
    return checkpoint.layout in _LAYOUTS


FAMILY = Family(
    name="exported",
    about="A program: TorchScript, a torch.export archive or ONNX. It is code: name only those that you trust.",
    network="melmill.stages.vocode.families.exported.program",
    recognises=_recognises,
    one_pass=False,
)
