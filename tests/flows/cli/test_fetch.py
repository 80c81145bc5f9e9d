"""`melmill fetch` for corpora with public addresses, from a server on this machine."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from melmill.errors import Error
from melmill.flows.cli.group import cli
from melmill.flows.execution.errors import RunFailed
from melmill.stages.ingest.facts import Download, Facts
from melmill.stages.ingest.reader import READERS
from melmill.storage.files import downloads


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Serve one archive, as LJ Speech's, and return the address of its folder."""
    monkeypatch.setattr(downloads, "_PAUSES_S", ())
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "LJ.tar.bz2").write_bytes(b"an archive")
    sha256 = hashlib.sha256(b"an archive").hexdigest()
    one = Download("LJ.tar.bz2", "http://127.0.0.1:9/LJ.tar.bz2", 10, sha256)
    reader = READERS["ljspeech"]
    assert reader.facts is not None
    said = {name: getattr(reader.facts, name) for name in ("url", "licence", "language", "rate", "layout", "texts")}
    monkeypatch.setattr(reader, "facts", Facts(**said, downloads=(one,)))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def call(*arguments: str) -> Any:
    return CliRunner().invoke(cli, ["fetch", *arguments])


def test_a_corpus_is_fetched_from_a_mirror(mirror: str, tmp_path: Path) -> None:
    result = call("ljspeech", str(tmp_path / "data"), "--mirror", mirror)
    assert "LJ.tar.bz2: fetched, 10 bytes, verified" in result.output
    assert f"in a pipeline: {{uses: ljspeech, root: {tmp_path}/data/LJ.tar.bz2}}" in result.output
    again = call("ljspeech", str(tmp_path / "data"), "--mirror", mirror, "--json")
    assert json.loads(again.output)["files"][0]["fetched"] is False


def test_an_address_that_does_not_answer_fails_in_a_line(mirror: str, tmp_path: Path) -> None:
    result = call("ljspeech", str(tmp_path / "data"))
    assert isinstance(result.exception, RunFailed)
    assert isinstance(result.exception, Error)
    assert "can't be fetched" in str(result.exception)
    assert not list((tmp_path / "data").iterdir())


def test_files_are_listed_with_sizes_and_checksums() -> None:
    result = call("librispeech", "nowhere", "--list")
    assert len(result.output.splitlines()) == 7
    assert "dev-clean.tar.gz  0.34 GB  sha256 76f87d09" in result.output
    listed = json.loads(call("librispeech", "nowhere", "--list", "--json", "--part", "dev-other").output)
    assert [one["n_bytes"] for one in listed["files"]] == [314305928]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("librispeech", "x"), "say which parts: --part dev-clean, or --part all"),
        (("librispeech", "x", "--part", "dev-clen"), "there is no part 'dev-clen'; did you mean 'dev-clean'?"),
        (("timit", "x"), "No such command 'timit'"),
    ],
)
def test_bad_usage_is_told(arguments: tuple[str, ...], said: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert said in result.output
