"""Downloads from a real server on this machine, which cuts transfers off."""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from melmill.storage.errors import SourceError
from melmill.storage.files import downloads
from melmill.storage.files.downloads import Wanted, fetch_file

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serve one file, cut off after so many bytes an answer; says what it was asked."""

    content: bytes = CONTENT
    tag: str = '"one"'
    cut: int = 0
    ranges: bool = True
    fails: int = 0
    length: bool = True
    asked: list[dict[str, str]]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        server.asked.append({name: self.headers[name] or "" for name in ("Range", "If-Range")})
        if self.path != "/corpus.tar.gz":
            self.send_error(404)
            return
        if server.fails:
            server.fails -= 1
            self.send_error(503)
            return
        start = 0
        said = self.headers["Range"]
        if said and server.ranges and self.headers["If-Range"] in (None, server.tag):
            start = int(said.removeprefix("bytes=").removesuffix("-"))
            if start >= len(server.content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        else:
            self.send_response(200)
        body = server.content[start:]
        if server.length:
            self.send_header("Content-Length", str(len(body)))
        if server.tag:
            self.send_header("ETag", server.tag)
        self.end_headers()
        self.wfile.write(body[: server.cut] if server.cut else body)
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(downloads, "_PAUSES_S", (0.0, 0.0))
    made = Server(("127.0.0.1", 0), Handler)
    made.asked = []
    thread = threading.Thread(target=made.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def wanted(server: Server, **more: Any) -> Wanted:
    fields: dict[str, Any] = {
        "n_bytes": len(CONTENT),
        "sha256": SHA256,
        "urls": (f"{server.url}/corpus.tar.gz",),
        **more,
    }
    return Wanted(name="corpus.tar.gz", **fields)


def test_a_file_is_fetched_once(server: Server, tmp_path: Path) -> None:
    first = fetch_file(wanted(server), tmp_path / "data")
    assert (first.is_new, first.is_verified, first.sha256) == (True, True, SHA256)
    assert first.path.read_bytes() == CONTENT
    again = fetch_file(wanted(server), tmp_path / "data")
    assert (again.is_new, len(server.asked)) == (False, 1)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["corpus.tar.gz"]


@pytest.mark.parametrize("length", [True, False])
def test_a_transfer_that_is_cut_off_goes_on(server: Server, tmp_path: Path, length: bool) -> None:
    server.cut, server.length = 70_000, length
    assert fetch_file(wanted(server), tmp_path).path.read_bytes() == CONTENT
    assert [one["Range"] for one in server.asked] == ["", *(f"bytes={n * 70_000}-" for n in range(1, 5))]


def test_what_was_fetched_by_an_earlier_process_is_kept(server: Server, tmp_path: Path) -> None:
    (tmp_path / "corpus.tar.gz.part").write_bytes(CONTENT[:123_456])
    (tmp_path / "corpus.tar.gz.part.json").write_text(json.dumps({"stamp": '"one"'}))
    assert fetch_file(wanted(server), tmp_path).path.read_bytes() == CONTENT
    assert server.asked == [{"Range": "bytes=123456-", "If-Range": '"one"'}]


@pytest.mark.parametrize(
    ("stamp", "ranges"),
    [
        ('"other"', True),  # the server has another version
        ("", True),  # nobody knows which version was begun
        ('W/"one"', True),  # a weak tag proves no bytes
        ('"one"', False),  # the server knows no ranges
    ],
)
def test_a_file_is_begun_anew_where_the_rest_may_be_of_another(
    server: Server, tmp_path: Path, stamp: str, ranges: bool
) -> None:
    server.ranges = ranges
    (tmp_path / "corpus.tar.gz.part").write_bytes(b"x" * 1000)
    (tmp_path / "corpus.tar.gz.part.json").write_text(json.dumps({"stamp": stamp}))
    assert fetch_file(wanted(server), tmp_path).path.read_bytes() == CONTENT


def test_a_file_that_was_whole_when_it_was_stopped_is_verified(server: Server, tmp_path: Path) -> None:
    (tmp_path / "corpus.tar.gz.part").write_bytes(CONTENT)
    (tmp_path / "corpus.tar.gz.part.json").write_text(json.dumps({"stamp": '"one"'}))
    assert fetch_file(wanted(server), tmp_path).path.read_bytes() == CONTENT


def test_bytes_that_are_not_those_published_are_never_taken(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT[:-1] + b"x"
    with pytest.raises(SourceError, match=r"is not what was published \(SHA256 \w{12}, expected \w{12}\): what was"):
        fetch_file(wanted(server), tmp_path)
    assert not list(tmp_path.iterdir())
    server.content = CONTENT[:-1]
    with pytest.raises(SourceError, match=r"has 299,999 bytes, and corpus.tar.gz was published with 300,000"):
        fetch_file(wanted(server), tmp_path)
    (tmp_path / "corpus.tar.gz").write_bytes(CONTENT[:-1])
    with pytest.raises(
        SourceError, match=r"is there, and is not what was published \(299,999 bytes, expected 300,000\)"
    ):
        fetch_file(wanted(server), tmp_path)


def test_md5_proves_a_file_too(server: Server, tmp_path: Path) -> None:
    md5 = hashlib.md5(CONTENT).hexdigest()
    assert fetch_file(wanted(server, sha256="", md5=md5), tmp_path / "a").is_verified
    with pytest.raises(SourceError, match=r"MD5 \w{12}, expected 000000000000"):
        fetch_file(wanted(server, sha256="", md5="0" * 32), tmp_path / "b")
    unproven = fetch_file(wanted(server, sha256="", n_bytes=0), tmp_path / "c")
    assert (unproven.is_verified, unproven.sha256) == (False, SHA256)


def test_a_server_that_is_busy_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.fails = 2
    assert fetch_file(wanted(server), tmp_path).is_new
    server.fails = 99
    with pytest.raises(SourceError, match=r"can't be fetched: .* the server answers 503"):
        fetch_file(wanted(server), tmp_path / "b")


def test_a_network_that_fails_is_no_fault_of_the_folder(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(self: http.client.HTTPResponse, n: int) -> bytes:
        raise OSError(errno.EHOSTUNREACH, "No route to host")

    monkeypatch.setattr(http.client.HTTPResponse, "read", unreachable)
    with pytest.raises(SourceError, match=r"corpus.tar.gz can't be fetched: http://.*: .*No route to host"):
        fetch_file(wanted(server), tmp_path)


def test_mirrors_are_tried_in_their_order(server: Server, tmp_path: Path) -> None:
    urls = (f"{server.url}/nowhere/corpus.tar.gz", f"{server.url}/corpus.tar.gz")
    assert fetch_file(wanted(server, urls=urls), tmp_path).is_new
    with pytest.raises(SourceError, match=r"the server answers 404 Not Found. Try again, or name a mirror"):
        fetch_file(wanted(server, urls=urls[:1]), tmp_path / "b")
    with pytest.raises(SourceError, match=r"must begin with http:// or https://, got 'file:///etc/passwd'"):
        fetch_file(wanted(server, urls=("file:///etc/passwd",)), tmp_path / "b")


def test_a_server_that_does_not_answer_is_one_line(server: Server, tmp_path: Path) -> None:
    url = f"{server.url}/corpus.tar.gz"
    (tmp_path / "corpus.tar.gz.part").write_bytes(CONTENT[:1000])
    (tmp_path / "corpus.tar.gz.part.json").write_text(json.dumps({"stamp": '"one"'}))
    server.shutdown()
    server.server_close()
    with pytest.raises(SourceError, match=r"Connection refused.* 1,000 bytes are kept: run it again to go on"):
        fetch_file(wanted(server, urls=(url,)), tmp_path)
