"""An S3 server as a process of its own: ``python -m tests.objects.moto_process PORT``.

moto looks for an object and then writes it, and another thread may come between the two. A server
that has conditional writes does both in one step. So does this one: writes go one after the other,
and a body is read before its write begins.
"""

from __future__ import annotations

import io
import logging
import sys
import threading
from collections.abc import Iterable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import run_simple


class OneWriteAtATime:
    """Give the application whole requests, and only one at a time that writes."""

    def __init__(self, application: Any) -> None:
        self.application = application
        self.lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        expected = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(expected) if expected else b""
        if len(body) < expected:
            start_response("400 Bad Request", [("Content-Length", "0"), ("Connection", "close")])
            return [b""]
        environ["wsgi.input"] = io.BytesIO(body)
        if environ["REQUEST_METHOD"] in ("PUT", "POST", "DELETE"):
            with self.lock:
                return list(self.application(environ, start_response))
        return list(self.application(environ, start_response))


class Handler(MotoRequestHandler):
    """Keep connections open, as real servers do."""

    protocol_version = "HTTP/1.1"


if __name__ == "__main__":
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    run_simple(
        "127.0.0.1",
        int(sys.argv[1]),
        OneWriteAtATime(DomainDispatcherApplication(create_backend_app)),
        threaded=True,
        request_handler=Handler,
    )
