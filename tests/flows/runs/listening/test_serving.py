"""The server of a listening test: what it shows, what it takes, and to whom."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.flows.conftest import ROOT
from tests.flows.runs.listening.conftest import Listening


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Serve a test, and yield its address and the process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "melmill", "listen", "serve", str(folder), "--port", "0"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        yield line.split(" at ")[1].split()[0], process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)


def asked(url: str, body: object = None, **headers: str) -> tuple[int, bytes]:
    data = None if body is None else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, named), timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_a_result_is_stored_once_and_nothing_else_is_shown(listening: Listening) -> None:
    design = listening.make("preference", n=1)
    (trial,) = design.trials
    a, b = trial.stimuli
    answer: dict[str, Any] = {"trial": "0001", "a": a, "b": b, "answer": "a"}
    result = {"format": 1, "test": design.test_id, "listener": "anna", "finished_at": "x", "answers": [answer]}
    with served(listening.folder / "preference") as (url, process):
        status, page = asked(url)
        assert status == 200
        assert b'<meta name="melmill-results" content="results">' in page
        assert asked(f"{url}trials/0001.js")[1] == (listening.folder / "preference/trials/0001.js").read_bytes()
        assert asked(f"{url}results", result)[0] == asked(f"{url}results", result)[0] == 200
        assert asked(f"{url}results", {**result, "test": "abx-0"}) == (
            400, json.dumps({"error": f"the result is of test 'abx-0', and this is '{design.test_id}'"}).encode()
        )  # fmt: skip
        assert asked(f"{url}results", {**result, "answers": [{"trial": "0002"}]})[0] == 400
        assert asked(f"{url}results", "x")[0] == 400
        for path in ("results", "trials/0002.js", "trials/../index.html", "store", "..%2f..%2fanna.json"):
            assert asked(f"{url}{path}")[0] in (404, 405), path
        # Another site that has this address under its own name, or that sends from its own page.
        assert asked(url, Host="evil.example")[0] == 403
        assert asked(f"{url}results", result, Origin="http://evil.example")[0] == 403
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130
        assert process.stdout is not None
        assert process.stdout.read().startswith("anna: 1 of 1 answers in results/")
    (file,) = (listening.folder / "preference" / "results").iterdir()
    assert json.loads(file.read_text())["answers"] == [answer]


@pytest.mark.parametrize("folder", ["store", "nothing"])
def test_a_folder_without_a_test_is_one_line(listening: Listening, folder: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "melmill", "listen", "serve", str(listening.folder / folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "holds no listening test" in done.stderr
