"""Where compiled code is kept on a machine that gives numba no folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

MODULE = """
from melmill.stages.numeric.lanes.vector import kernel

@kernel
def twice(x):
    return x + x

@kernel
def thrice(x):
    return x + twice(x)

print(thrice(2.0))
"""


@pytest.fixture
def module(tmp_path: Path) -> Path:
    """Return a module whose folder takes no cache, not even root's."""
    folder = tmp_path / "installed"
    folder.mkdir()
    (folder / "__pycache__").touch()
    (folder / "module.py").write_text(MODULE)
    return folder / "module.py"


def run(module: Path, temporary: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    unset = ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")
    env = {name: value for name, value in os.environ.items() if name not in unset}
    env |= {"HOME": "/dev/null", "TMPDIR": str(temporary), **settings}
    return subprocess.run([sys.executable, str(module)], env=env, check=False, capture_output=True, text=True)


def test_without_a_folder_code_is_kept_in_a_temporary_one(module: Path, tmp_path: Path) -> None:
    for _ in range(2):
        done = run(module, tmp_path)
        assert (done.returncode, done.stdout) == (0, "6.0\n"), done.stderr
        assert done.stderr.count("set NUMBA_CACHE_DIR to a folder that can be written to") == 1
    folder = tmp_path / f"melmill-numba-{os.geteuid()}"
    assert folder.stat().st_mode & 0o777 == 0o700
    # The second run loads what the first one compiled.
    assert len(list(folder.rglob("*.nbc"))) == 2


def test_a_folder_that_others_write_to_is_not_used(module: Path, tmp_path: Path) -> None:
    folder = tmp_path / f"melmill-numba-{os.geteuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    done = run(module, tmp_path)
    assert (done.returncode, done.stdout) == (0, "6.0\n"), done.stderr
    assert done.stderr.count("melmill compiles its code in every process") == 1
    assert not list(folder.iterdir())


def test_a_setting_that_names_a_file_is_no_folder(module: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run(module, tmp_path, NUMBA_CACHE_DIR=str(tmp_path / "file"))
    assert (done.returncode, done.stdout) == (0, "6.0\n"), done.stderr
    assert done.stderr.count("set NUMBA_CACHE_DIR to a folder that can be written to") == 1


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def unreadable(path: Path) -> None:
    """Put a folder in a file's place, which root can't read either."""
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("ending", ["nbi", "nbc"])
@pytest.mark.parametrize("damage", [emptied, unreadable])
def test_damaged_code_is_compiled_again(
    module: Path, tmp_path: Path, ending: str, damage: Callable[[Path], None]
) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    assert run(module, tmp_path, NUMBA_CACHE_DIR=str(folder)).stderr == ""
    for path in list(folder.rglob(f"*.{ending}")):
        damage(path)
    done = run(module, tmp_path, NUMBA_CACHE_DIR=str(folder))
    assert (done.returncode, done.stdout) == (0, "6.0\n"), done.stderr
    assert done.stderr.count("so melmill compiles it again") <= 1
    assert "Traceback" not in done.stderr


def test_a_full_disk_costs_a_warning(module: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    module.write_text(f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n{MODULE}")
    done = run(module, tmp_path, NUMBA_CACHE_DIR=str(folder))
    assert (done.returncode, done.stdout) == (0, "6.0\n"), done.stderr
    assert done.stderr.count("so melmill compiles it again: remove the folder, or set NUMBA_CACHE_DIR") == 1
    assert not list(folder.rglob("*.nbc"))
