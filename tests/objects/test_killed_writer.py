"""A writer that is killed during an upload leaves nothing behind that hinders the next writer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from melmill.storage.files.location import Location
from tests.objects.proxy import Fault, Proxy, Request

ROOT = Path(__file__).parents[2]
SIZE = 4_000_000


def test_a_writer_killed_in_the_middle_of_an_upload(bucket: str, proxy: Proxy) -> None:
    place = Location(bucket)
    reached = threading.Event()

    def is_upload(request: Request) -> bool:
        if request.method == "PUT":
            reached.set()
        return request.method == "PUT"

    code = f"from melmill.storage.files.location import Location; Location({bucket!r}).put('a/shard', bytes({SIZE}))"
    # 245 pieces, so that the upload takes six seconds.
    with proxy.fault(Fault("trickle", is_upload, seconds=0.025)):
        victim = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
        try:
            assert reached.wait(60)
            assert victim.poll() is None
            assert place.tree() == {}
        finally:
            victim.send_signal(signal.SIGKILL)
            victim.wait()
    assert place.tree() == {}
    other = os.urandom(SIZE)
    place.put("a/shard", other)
    assert place.read("a/shard") == other
    assert place.tree() == {"a/shard": SIZE}
