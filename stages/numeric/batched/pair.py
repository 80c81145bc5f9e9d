"""Complex numbers as pairs of reals, which torch's compiler fuses where it can't complex tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from melmill.stages.numeric.compiled.misfit import TINY

_LOW = 0xFFFFFFFF


@dataclass(frozen=True)
class Pair:
    """Real and imaginary parts, tensors of one shape."""

    real: Tensor
    imag: Tensor

    def __add__(self, other: Pair) -> Pair:
        """Add bin by bin."""
        return Pair(self.real + other.real, self.imag + other.imag)

    def __sub__(self, other: Pair) -> Pair:
        """Subtract bin by bin."""
        return Pair(self.real - other.real, self.imag - other.imag)

    def times(self, factor: Tensor) -> Pair:
        """Scale by reals."""
        return Pair(self.real * factor, self.imag * factor)

    def modulus(self) -> Tensor:
        """Return the absolute value, at least the root of `TINY`, so that 0 divided by it is 0."""
        return torch.sqrt(self.real * self.real + self.imag * self.imag + TINY)


def packed(spectrum: Tensor) -> Tensor:
    """Return a complex64 tensor as int64, in the same memory: one element, and so one kernel index, a bin."""
    return spectrum.view(torch.int64)


def parts(spectrum: Tensor) -> Pair:
    """Return the parts of a complex tensor, views of it, or those of a packed one.

    >>> parts(packed(torch.tensor([1 - 2j])))
    Pair(real=tensor([1.]), imag=tensor([-2.]))
    """
    if spectrum.is_complex():
        return Pair(spectrum.real, spectrum.imag)
    low, high = (spectrum & _LOW).to(torch.int32), (spectrum >> 32).to(torch.int32)
    return Pair(low.view(torch.float32), high.view(torch.float32))


def store(spectrum: Tensor, value: Pair) -> None:
    """Overwrite a complex or packed tensor."""
    if spectrum.is_complex():
        spectrum.real.copy_(value.real)
        spectrum.imag.copy_(value.imag)
        return
    low, high = (part.view(torch.int32).to(torch.int64) for part in (value.real, value.imag))
    spectrum.copy_((high << 32) | (low & _LOW))
