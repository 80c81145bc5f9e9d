"""Scoring and trust in a network namespace that has no network at all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

UNSHARE = shutil.which("unshare")


def apart(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command of this Python where there is no network, not even to this machine."""
    assert UNSHARE is not None
    return subprocess.run(
        [UNSHARE, "--net", sys.executable, *command], capture_output=True, text=True, timeout=500, check=False
    )


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or UNSHARE is None, reason="a network namespace needs root and unshare")
def test_scores_and_trust_need_no_network(tmp_path: Path) -> None:
    rng, n = np.random.default_rng(0), 12000
    for folder, error in (("ref", 0.0), ("est", 0.01)):
        (tmp_path / folder).mkdir()
        for i in range(8):
            own = np.random.default_rng(i)
            y = 0.1 * own.standard_normal(n) * np.sin(np.linspace(0, 20, n)) ** 2 + error * rng.standard_normal(n)
            soundfile.write(tmp_path / folder / f"u{i}.wav", y, 16000)
    reach = "import socket; socket.create_connection(('127.0.0.1', 9), 1)"
    assert "unreachable" in apart("-c", reach).stderr.lower()

    ref, est, out = (str(tmp_path / name) for name in ("ref", "est", "out"))
    scored = apart("-m", "melmill", "score", ref, est, "-o", out, "-m", "all", "-j", "1", "--json")
    assert scored.returncode == 0, scored.stderr
    assert {row["metric"] for row in json.loads(scored.stdout)["table"]} >= {"estoi", "mstft", "sc_db"}
    trusted = apart("-m", "melmill", "trust", ref, "-m", "sc", "-d", "noise", "-d", "gain", "-j", "1", "--json")
    assert trusted.returncode == 0, trusted.stderr
    noise, gain = json.loads(trusted.stdout)["damages"]
    assert (noise["verdict"], noise["n"]) == ("right", 8)
    assert gain["verdict"] == "moves"
