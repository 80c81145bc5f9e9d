"""The server of the status page: tornado, which comes with Dask. It reads stores and writes nothing."""

from __future__ import annotations

import asyncio
import json
import mimetypes
import re
import signal
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import tornado.httpserver
import tornado.netutil
import tornado.web

from melmill.errors import Error
from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.tasks.report import TRENDS_PAGE
from melmill.flows.watching.serving.access import Access
from melmill.flows.watching.serving.site import Site, resource

# Requests that read stores at the same time.
_READERS = 4
_PAGE_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; media-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# Pages of reports bring a policy of their own. Their scripts must not read the other pages.
_FILE_POLICY = "sandbox allow-scripts allow-downloads allow-top-navigation; frame-ancestors 'none'"
_STYLED_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"


class _Handler(tornado.web.RequestHandler):
    """Answer GET and HEAD with what a function reads, in a thread, for those who may read."""

    SUPPORTED_METHODS = ("GET", "HEAD")
    policy = _PAGE_POLICY
    content_type = "text/html; charset=UTF-8"

    def initialize(self, site: Site, access: Access, pool: ThreadPoolExecutor) -> None:
        self.site, self.access, self.pool = site, access, pool

    def set_default_headers(self) -> None:
        self.set_header("Server", "melmill")
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("X-Frame-Options", "DENY")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Content-Security-Policy", self.policy)

    def prepare(self) -> None:
        if not self.access.knows_host(self.request.host):
            raise tornado.web.HTTPError(421)
        if not self.access.admits(self.request.headers.get("Authorization")):
            raise tornado.web.HTTPError(401)

    async def _send(self, read: Callable[[], bytes]) -> None:
        try:
            data = await asyncio.get_running_loop().run_in_executor(self.pool, read)
        except (KeyError, FileNotFoundError) as error:
            raise tornado.web.HTTPError(404) from error
        except Error as error:
            self.set_status(503)
            self.set_header("Content-Type", "text/plain; charset=UTF-8")
            self.finish(f"{error}\n")
            return
        self.set_header("Content-Type", self.content_type)
        self._write_ranged(data)

    def _write_ranged(self, data: bytes) -> None:
        """Answer with all bytes, or with the range that a player asks for."""
        self.set_header("Accept-Ranges", "bytes")
        wanted = self.request.headers.get("Range", "")
        begin, _, end = wanted.removeprefix("bytes=").partition("-")
        if wanted.startswith("bytes=") and begin.isdecimal() and (end == "" or end.isdecimal()):
            first, last = int(begin), min(int(end or len(data)), len(data) - 1)
            if first > last:
                raise tornado.web.HTTPError(416)
            self.set_status(206)
            self.set_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
            data = data[first : last + 1]
        self.finish(data)

    async def head(self, *args: str) -> None:
        answer = self.get(*args)
        if answer is not None:
            await answer

    def write_error(self, status_code: int, **_: Any) -> None:  # noqa: ANN401 - as tornado calls it
        self.set_header("Content-Type", "text/plain; charset=UTF-8")
        if status_code == 401:
            self.set_header("WWW-Authenticate", 'Basic realm="melmill", charset="UTF-8"')
        says = {401: "a password is needed", 404: "there is no such page", 421: "this server has another name"}
        self.finish(f"{status_code}: {says.get(status_code, self._reason)}\n")


class _Front(_Handler):
    async def get(self) -> None:
        await self._send(self.site.front)


class _Page(_Handler):
    async def get(self, name: str, page: str = "") -> None:
        made = {"": self.site.store, "quarantine": self.site.quarantine, "disk": self.site.disk}[page]
        await self._send(lambda: made(name))


class _Trends(_Handler):
    policy = _STYLED_POLICY

    async def get(self, name: str) -> None:
        await self._send(lambda: self.site.trends(name))


class _StoredTrends(_Handler):
    """Lead from where reports look for the page of trends to the one that is served."""

    async def get(self, name: str) -> None:
        if name not in self.site.stores:
            raise tornado.web.HTTPError(404)
        self.redirect(f"/{name}/trends")


class _Run(_Handler):
    async def get(self, name: str, run_id: str) -> None:
        await self._send(lambda: self.site.run(name, run_id))


class _Progress(_Handler):
    content_type = "application/json"

    async def get(self, name: str) -> None:
        await self._send(lambda: json.dumps(self.site.progress(name)).encode())


class _Audio(_Handler):
    content_type = "audio/wav"

    async def get(self, name: str, node: str, utterance_id: str) -> None:
        await self._send(lambda: self.site.stores[name].audio(node, utterance_id))


class _File(_Handler):
    policy = _FILE_POLICY

    async def get(self, name: str, file: str) -> None:
        self.content_type = mimetypes.guess_type(file)[0] or "application/octet-stream"
        if self.content_type.startswith("text/"):
            self.content_type += "; charset=UTF-8"
        await self._send(lambda: self.site.stores[name].file(file))


class _Resource(_Handler):
    async def get(self, name: str) -> None:
        self.content_type = "text/css; charset=UTF-8" if name.endswith(".css") else "text/javascript; charset=UTF-8"
        await self._send(lambda: resource(name).encode())


def application(site: Site, access: Access, pool: ThreadPoolExecutor) -> tornado.web.Application:
    """Return the server's application: which address shows what."""
    parts = {"site": site, "access": access, "pool": pool}
    return tornado.web.Application(
        [
            (r"/", _Front, parts),
            (r"/own/(page\.css|site\.css|site\.js)", _Resource, parts),
            (r"/(\d+)/", _Page, parts),
            (r"/(\d+)/(quarantine|disk)", _Page, parts),
            (r"/(\d+)/trends", _Trends, parts),
            (r"/(\d+)/progress\.json", _Progress, parts),
            (r"/(\d+)/run/([0-9A-Za-z]+)", _Run, parts),
            (r"/(\d+)/audio/([^/]+)/(.+)\.wav", _Audio, parts),
            (rf"/(\d+)/files/{re.escape(TRENDS_PAGE)}", _StoredTrends, parts),
            (r"/(\d+)/files/(.+)", _File, parts),
        ],
        default_handler_class=_Nothing,
        default_handler_args=parts,
        log_function=lambda handler: None,
    )


class _Nothing(_Handler):
    async def get(self, *_: str) -> None:
        raise tornado.web.HTTPError(404)


def tls_context(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """Return what encrypts by a certificate and its key, None without; raise PipelineError."""
    if certificate is None and key is None:
        return None
    if certificate is None:
        raise PipelineError("expected the certificate of the key", "--certificate")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise PipelineError(f"can't use {str(certificate)!r}: {error.strerror or error}", "--certificate") from error
    return context


def serve(
    site: Site, access: Access, port: int, ready: Callable[[str], None], tls: ssl.SSLContext | None = None
) -> None:
    """Serve until SIGINT or SIGTERM.

    Parameters
    ----------
    site : Site
    access : Access
    port : int
        0: any free one.
    ready : callable
        Receives the address when the server answers.
    tls : ssl.SSLContext or None
        Encrypts what is served.

    Raises
    ------
    PipelineError
        The address is taken, or is not one of this machine.
    """
    asyncio.run(_serve(site, access, port, ready, tls))


async def _serve(
    site: Site, access: Access, port: int, ready: Callable[[str], None], tls: ssl.SSLContext | None
) -> None:
    with ThreadPoolExecutor(_READERS, thread_name_prefix="melmill-serve") as pool:
        server = tornado.httpserver.HTTPServer(application(site, access, pool), ssl_options=tls)
        try:
            sockets = tornado.netutil.bind_sockets(port, access.host.strip("[]"))
        except OSError as error:
            raise PipelineError(f"can't listen at {access.host}:{port}: {error.strerror or error}", "--port") from error
        server.add_sockets(sockets)
        bound = sockets[0].getsockname()[1]
        host = f"[{access.host}]" if ":" in access.host and "[" not in access.host else access.host
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stopped.set)
        ready(f"{'https' if tls else 'http'}://{host}:{bound}/")
        await stopped.wait()
        server.stop()
        await server.close_all_connections()
