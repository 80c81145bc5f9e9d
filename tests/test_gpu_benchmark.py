"""The GPU benchmark's measuring, on the CPU."""

from __future__ import annotations

import pytest
import torch
from click.testing import CliRunner

from benchmarks.gpu import METHODS, main


def test_every_method_is_measured() -> None:
    done = CliRunner().invoke(main, ["--device", "cpu", "--minutes", "0.005", "--n-iter", "2"], catch_exceptions=False)
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert sum("copy bandwidth" in line and "GB/s" in line for line in lines) == 1
    for name, (_, least_bytes) in METHODS.items():
        assert any(line.startswith(f"{name}, 0.005 min: an iteration") for line in lines)
        (agreement,) = (line for line in lines if line.startswith(f"{name}: off the CPU engine"))
        assert agreement.endswith("yes")
        assert any(f"(least: {least_bytes})" in line for line in lines)


def test_without_a_gpu_it_says_so() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    done = CliRunner().invoke(main, [])
    assert done.exit_code == 1
    assert done.output.splitlines() == [f"torch {torch.__version__} finds no CUDA device: nothing was measured"]
