"""A proxy that counts the requests to a server, and lets them fail as networks and servers do."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import parse_qs, urlsplit

_PIECE = 16_384
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


@dataclass(frozen=True)
class Request:
    """What a client asked for. `key` is the path without the bucket."""

    method: str
    bucket: str
    key: str
    query: Mapping[str, list[str]]

    @property
    def kind(self) -> str:
        """Return ``LIST`` for a listing, else the method."""
        return "LIST" if self.method == "GET" and "list-type" in self.query else self.method


@dataclass
class Fault:
    """What is done to requests.

    Parameters
    ----------
    do : str
        ``status`` answers in place of the server. ``reset`` cuts the connection before the server
        gets the request, and ``lose`` after it has acted. ``cut`` ends the body of the answer half
        way. ``delay`` waits before it passes the request on, and ``trickle`` passes the body on
        slowly. ``overwrite`` drops the condition of a write, as servers do that know none.
    when : callable
        Which requests.
    times : int
        How many of them.
    status : int
    seconds : float
        Of a delay, or between pieces of what trickles.
    """

    do: Literal["status", "reset", "lose", "cut", "delay", "trickle", "overwrite"]
    when: Callable[[Request], bool] = lambda request: True
    times: int = 1_000_000
    status: int = 503
    seconds: float = 0.0


class Proxy:
    """Pass requests on to a server on this machine. `proxied` starts and ends it."""

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.requests: list[Request] = []
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.proxy = self  # type: ignore[attr-defined]

    @property
    def url(self) -> str:
        """URL of the proxy."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @contextmanager
    def fault(self, fault: Fault) -> Iterator[Fault]:
        """Apply a fault to the requests that are made in the block."""
        with self._lock:
            self._faults.append(fault)
        try:
            yield fault
        finally:
            with self._lock:
                self._faults.remove(fault)

    @contextmanager
    def counted(self, when: Callable[[Request], bool] = lambda request: True) -> Iterator[Counter[str]]:
        """Count the requests made in the block, by kind. The counts are complete at its end."""
        counts: Counter[str] = Counter()
        start = len(self.requests)
        yield counts
        counts.update(request.kind for request in self.requests[start:] if when(request))

    def heard(self, request: Request) -> Fault | None:
        """Record a request and return the fault to apply to it."""
        with self._lock:
            self.requests.append(request)
            for fault in self._faults:
                if fault.times > 0 and fault.when(request):
                    fault.times -= 1
                    return fault
        return None


@contextmanager
def proxied(upstream: int) -> Iterator[Proxy]:
    """Yield a proxy of the server at a port of this machine."""
    proxy = Proxy(upstream)
    thread = threading.Thread(target=proxy._server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy._server.shutdown()
        proxy._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body are two writes. Without this, the second waits for the first to arrive.
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def handle(self) -> None:
        """Ignore the broken connections of clients that were killed."""
        try:
            super().handle()
        except OSError:
            self.close_connection = True

    def _serve(self) -> None:
        proxy: Proxy = self.server.proxy  # type: ignore[attr-defined]
        split = urlsplit(self.path)
        bucket, _, key = split.path.removeprefix("/").partition("/")
        fault = proxy.heard(Request(self.command, bucket, key, parse_qs(split.query, keep_blank_values=True)))
        do = fault.do if fault else ""
        if fault and do == "reset":
            return self._reset()
        if fault and do == "delay":
            time.sleep(fault.seconds)
        upstream = http.client.HTTPConnection("127.0.0.1", proxy.upstream)
        try:
            if fault and do == "status":
                self._drain()
                return self._answer(fault.status, [], b"")
            if do == "overwrite":
                del self.headers["If-None-Match"]
            self._pass_on(upstream, fault.seconds if fault and do == "trickle" else 0.0)
            response = upstream.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException):
            return self._reset()
        finally:
            upstream.close()
        if do == "lose":
            return self._reset()
        headers = [pair for pair in response.getheaders() if pair[0].lower() not in _HOP_BY_HOP]
        length = int(response.headers.get("Content-Length") or len(body))
        if do == "cut":
            self._answer(response.status, headers, body[: len(body) // 2], length)
            return self._reset()
        return self._answer(response.status, headers, body, length)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _serve

    def _pieces(self) -> Iterator[bytes]:
        left = int(self.headers.get("Content-Length") or 0)
        while left:
            piece = self.rfile.read(min(_PIECE, left))
            if not piece:
                raise ConnectionError("the client left in the middle of a body")
            left -= len(piece)
            yield piece

    def _drain(self) -> None:
        for _ in self._pieces():
            pass

    def _pass_on(self, upstream: http.client.HTTPConnection, pause_s: float) -> None:
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() != "connection":
                upstream.putheader(name, value)
        upstream.endheaders()
        for piece in self._pieces():
            upstream.send(piece)
            if pause_s:
                time.sleep(pause_s)

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, length: int | None = None) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _reset(self) -> None:
        # Closing without lingering sends a reset, as a machine does that has restarted.
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True
