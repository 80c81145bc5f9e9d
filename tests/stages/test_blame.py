"""Who is to blame for an exception, by its type, its number and its message."""

from __future__ import annotations

import errno
import subprocess
from concurrent.futures.process import BrokenProcessPool

import numba
import numpy as np
import pytest
import torch

from melmill.stages.blame import Blame, blame, culprit, headline
from melmill.stages.contract import Item, Outcome, each
from melmill.stages.errors import CompilerFailed
from melmill.stages.numeric.errors import ContractError, DeviceMissing, Unusable
from melmill.storage.utterance import Utterance


def raised_from(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def array_too_large() -> Exception:
    with pytest.raises(MemoryError) as error:
        np.empty(2**60, dtype=np.uint8)
    return error.value


TABLE = [
    # Refused on purpose, whatever the refusal was raised from.
    (Unusable("file is empty"), Blame.UTTERANCE),
    (raised_from(Unusable("no audio"), OSError(errno.EIO, "Input/output error")), Blame.UTTERANCE),
    # What data usually cause.
    (ValueError("too loud"), Blame.LIKELY_UTTERANCE),
    (ContractError("another rate"), Blame.LIKELY_UTTERANCE),
    (ZeroDivisionError(), Blame.LIKELY_UTTERANCE),
    (RuntimeError("mat1 and mat2 shapes cannot be multiplied (80x3 and 4x80)"), Blame.LIKELY_UTTERANCE),
    (FileNotFoundError(errno.ENOENT, "No such file or directory", "a.wav"), Blame.LIKELY_UTTERANCE),
    (OSError(errno.ENAMETOOLONG, "File name too long"), Blame.LIKELY_UTTERANCE),
    (OSError("cannot identify image file"), Blame.LIKELY_UTTERANCE),
    # What machines usually cause.
    (MemoryError(), Blame.LIKELY_MACHINE),
    (array_too_large(), Blame.LIKELY_MACHINE),
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), Blame.LIKELY_MACHINE),
    (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), Blame.LIKELY_MACHINE),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), Blame.LIKELY_MACHINE),
    (OSError(errno.ENOMEM, "Cannot allocate memory"), Blame.LIKELY_MACHINE),
    (subprocess.CalledProcessError(1, ["sox"]), Blame.LIKELY_MACHINE),
    (subprocess.TimeoutExpired(["sox"], 60.0), Blame.LIKELY_MACHINE),
    (BrokenProcessPool("a child died"), Blame.LIKELY_MACHINE),
    (BrokenPipeError(errno.EPIPE, "Broken pipe"), Blame.LIKELY_MACHINE),
    (TimeoutError("the bucket does not answer"), Blame.LIKELY_MACHINE),
    # What no datum can cause.
    (RuntimeError("CUDA error: an illegal memory access was encountered"), Blame.MACHINE),
    (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), Blame.MACHINE),
    (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), Blame.MACHINE),
    (RuntimeError("Found no NVIDIA driver on your system"), Blame.MACHINE),
    (torch.AcceleratorError("unspecified launch failure"), Blame.MACHINE),
    (RuntimeError("can't start new thread"), Blame.MACHINE),
    (RuntimeError("cannot cache function 'f': no locator available for file '/x.py'"), Blame.MACHINE),
    (numba.core.errors.LoweringError("no such intrinsic"), Blame.MACHINE),
    (ModuleNotFoundError("No module named 'pesq'"), Blame.MACHINE),
    (OSError("libcudart.so.12: cannot open shared object file: No such file or directory"), Blame.MACHINE),
    (OSError(errno.ENOSPC, "No space left on device"), Blame.MACHINE),
    (OSError(errno.EIO, "Input/output error"), Blame.MACHINE),
    (OSError(errno.EMFILE, "Too many open files"), Blame.MACHINE),
    (PermissionError(errno.EACCES, "Permission denied", "/scratch/x"), Blame.MACHINE),
    (OSError(errno.EROFS, "Read-only file system"), Blame.MACHINE),
    (DeviceMissing("device 'cuda' needs a CUDA device"), Blame.MACHINE),
    (CompilerFailed("can't compile"), Blame.MACHINE),
    # A library may wrap what the machine did.
    (raised_from(ValueError("does not take it"), RuntimeError("CUDA error: out of luck")), Blame.MACHINE),
]


@pytest.mark.parametrize(("error", "expected"), TABLE, ids=lambda value: str(value)[:40])
def test_an_exception_says_who_is_to_blame(error: Exception, expected: Blame) -> None:
    assert blame(error).blame is expected


def test_a_machine_to_blame_has_a_remedy_unless_the_message_has_one() -> None:
    without = {type(error) for error, expected in TABLE if expected > 1 and not blame(error).remedy}
    assert without == {DeviceMissing, CompilerFailed}


def test_the_one_that_decides_is_the_cause() -> None:
    cause = RuntimeError("CUDA error: out of luck")
    assert culprit(raised_from(ValueError("does not take it"), cause)) is cause


def test_a_headline_is_one_line() -> None:
    assert headline(RuntimeError("CUDA error: x\nCompile with TORCH_USE_CUDA_DSA")) == "RuntimeError: CUDA error: x"
    assert headline(MemoryError()) == "MemoryError"


def test_each_passes_on_what_machines_raise() -> None:
    utterance = Utterance(
        utterance_id="a", subset="", speaker_id="", chapter_id="", text="", path="a", size_bytes=1, mtime_ns=1,
        source_sr=16000, source_n_samples=1, sr=16000, n_samples=1,
    )  # fmt: skip
    items = [Item(utterance=utterance, inputs={}, seed=0)]

    def failing(error: Exception) -> list[Outcome]:
        def one(item: Item) -> Outcome:
            raise error

        return each(items, one)

    (outcome,) = failing(ValueError("too loud"))
    assert outcome.rejected is not None
    assert outcome.rejected.reason == "ValueError: too loud"
    with pytest.raises(MemoryError):
        failing(MemoryError())
