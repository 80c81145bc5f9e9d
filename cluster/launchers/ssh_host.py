"""The process on a host that holds its workers, started over SSH.

It reads from standard input which workers to start, and ends them when the input ends. So nothing
stays behind when the connection or the client is gone. Keys come this way as well, so that none is
in a file or a command line of the host.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from typing import Any, TextIO

READY = "ready"


def main() -> None:
    """Read one line of orders, start the workers, print `READY`, and wait for their end."""
    # Workers and libraries may print. The client waits for one line alone.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    orders = json.loads(sys.stdin.readline())
    os.environ.update(orders["environment"])
    import dask

    with dask.config.set(orders["settings"]):
        asyncio.run(_serve(orders, answers))


async def _serve(orders: dict[str, Any], answers: TextIO) -> None:
    from distributed import Nanny
    from distributed.comm import get_address_host_port
    from distributed.utils import get_ip

    from melmill.cluster.credentials import Credentials

    security = Credentials(**orders["credentials"]).security()
    # Of several addresses, the one in the scheduler's network. This sends nothing.
    host = get_ip(*get_address_host_port(orders["scheduler"]))
    nannies = [
        Nanny(orders["scheduler"], security=security, protocol="tls://", host=host, **options)
        for options in orders["workers"]
    ]
    try:
        await asyncio.gather(*nannies)
        print(READY, file=answers, flush=True)
        workers_ended = asyncio.gather(*(nanny.finished() for nanny in nannies))
        ends: list[asyncio.Future[Any]] = [asyncio.ensure_future(_input_ended()), workers_ended]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await asyncio.gather(*(nanny.close() for nanny in nannies), return_exceptions=True)


async def _input_ended() -> None:
    ended, loop = asyncio.Event(), asyncio.get_running_loop()

    def wait() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=wait, daemon=True).start()
    await ended.wait()


if __name__ == "__main__":
    main()
