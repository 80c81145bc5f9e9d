"""A small server on this machine for one listening test. It stores what listeners send as files."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.runs.listening.making import TRIALS
from melmill.flows.runs.listening.page import PAGE, RESULTS_META, read_public
from melmill.flows.runs.listening.stored import answers_bytes
from melmill.flows.watching.serving.access import Access
from melmill.stages.numeric.errors import StageError
from melmill.stages.score.listeners.answers import Answers
from melmill.storage.files.location import Location

if TYPE_CHECKING:
    from tornado.web import Application

LOOPBACK = "127.0.0.1"
RESULTS = "results"
# A result of a thousand pages is a tenth of this.
_MOST_BYTES = 4 * 2**20

Say = Callable[[str], None]


class Reception:
    """What a server does with the files of a test, and with answers that arrive.

    Parameters
    ----------
    folder : str
        That `melmill listen` made.

    Raises
    ------
    PipelineError
        The folder holds no test.
    """

    def __init__(self, folder: str) -> None:
        self.location = Location(folder)
        try:
            page = self.location.read(PAGE)
        except (FileNotFoundError, NotADirectoryError):
            page = b""
        public = read_public(page)
        if public is None:
            raise PipelineError(f"{self.location.url} holds no listening test: make one with `melmill listen STORE -o`")
        self.test: Mapping[str, Any] = public
        self.page = page.replace(RESULTS_META.encode(), RESULTS_META.replace('""', f'"{RESULTS}"').encode())
        self.trials = {str(trial["name"]) for trial in public["trials"]}

    def sounds(self, trial: str) -> bytes | None:
        """Return the script of a trial's sounds, None if there is no such trial."""
        return self.location.read(f"{TRIALS}/{trial}.js") if trial in self.trials else None

    def take(self, body: bytes) -> tuple[str, Answers]:
        """Store what a listener sent; return its file and the answers. The same answers have one file.

        Raises
        ------
        StageError
            It is no result of this test.
        """
        try:
            fields = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise StageError(f"is no JSON ({error})") from error
        given = Answers.from_plain(fields)
        if given.test_id != self.test["id"]:
            raise StageError(f"is of test {given.test_id!r}, and this is {self.test['id']!r}")
        unknown = given.answers.keys() - self.trials
        if unknown or not given.answers:
            raise StageError(f"answers {min(unknown)!r}, which the test does not have" if unknown else "has no answers")
        data = answers_bytes(given)
        names = (hashlib.sha256(part).hexdigest() for part in (given.listener.encode(), data))
        name = "-".join(one[:12] for one in names) + ".json"
        (self.location / RESULTS).replace(name, data)
        return f"{RESULTS}/{name}", given


def application(reception: Reception, say: Say) -> Application:
    """Return the server's application; `say` gets a line for each result that arrives."""
    from tornado.web import Application, HTTPError, RequestHandler

    access = Access(host=LOOPBACK)

    class Handler(RequestHandler):
        def prepare(self) -> None:
            # A page of another site must not reach this server by a name of its own.
            origin = self.request.headers.get("Origin")
            is_foreign = origin is not None and origin.partition("://")[2] != self.request.host
            if is_foreign or not access.knows_host(self.request.host):
                raise HTTPError(403)

        def set_default_headers(self) -> None:
            self.set_header("Cache-Control", "no-store")
            self.set_header("X-Content-Type-Options", "nosniff")
            self.set_header("Referrer-Policy", "no-referrer")
            self.clear_header("Server")

    class Index(Handler):
        def get(self) -> None:
            self.finish(reception.page)

    class Sounds(Handler):
        def get(self, trial: str) -> None:
            data = reception.sounds(trial)
            if data is None:
                raise HTTPError(404)
            self.set_header("Content-Type", "text/javascript; charset=utf-8")
            self.finish(data)

    class Results(Handler):
        def post(self) -> None:
            try:
                file, given = reception.take(self.request.body)
            except StageError as error:
                self.set_status(400)
                self.finish({"error": f"the result {error}"})
                return
            say(f"{given.listener}: {len(given.answers)} of {len(reception.trials)} answers in {file}")
            self.finish({"file": file})

    return Application([(r"/(?:index\.html)?", Index), (rf"/{TRIALS}/(\d+)\.js", Sounds), (rf"/{RESULTS}", Results)])


def serve(folder: str, port: int, say: Say) -> None:
    """Serve a test on this machine until interrupted. Port 0 takes a free one.

    Raises
    ------
    PipelineError
        The folder holds no test, or the port is taken.
    """
    asyncio.run(_serve(Reception(folder), port, say))


async def _serve(reception: Reception, port: int, say: Say) -> None:
    from tornado.httpserver import HTTPServer
    from tornado.netutil import bind_sockets

    try:
        sockets = bind_sockets(port, LOOPBACK)
    except OSError as error:
        raise PipelineError(f"--port {port} can't be used ({error.strerror}): name another one") from error
    server = HTTPServer(application(reception, say), max_body_size=_MOST_BYTES, max_buffer_size=_MOST_BYTES)
    server.add_sockets(sockets)
    say(f"{reception.test['title']} at http://{LOOPBACK}:{sockets[0].getsockname()[1]}/ until ctrl-C")
    try:
        await asyncio.Event().wait()
    finally:
        server.stop()
        await server.close_all_connections()
