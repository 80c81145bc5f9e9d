"""A client of a scheduler that somebody else started."""

from __future__ import annotations

import asyncio

from distributed import Client, Security, rpc
from distributed.utils import LoopRunner

from melmill.cluster.credentials import Credentials

# Where nobody listens at all, Dask says so when the time is over.
_GRACE_S = 1.0


def join(address: str, credentials: Credentials | None, timeout_s: float) -> Client:
    """Return a client of the scheduler at an address.

    Raises
    ------
    ConnectionError
        No scheduler answers there in time, or it does not let us in; says in one line why.
    """
    security = credentials.security() if credentials else Security()
    try:
        # In a loop of its own: a caller, such as a notebook, may be in one already.
        who = str(LoopRunner().run_sync(_asked, address, security, timeout_s))
        if who == "Scheduler":
            return Client(address, timeout=timeout_s, set_as_default=False, security=security)
    except TimeoutError as error:
        raise ConnectionError(str(error) or f"who listens there said nothing in {timeout_s:g} s") from error
    # What is no scheduler may answer anything.
    except Exception as error:
        raise ConnectionError(" ".join(str(error).split())) from error
    raise ConnectionError(f"it is the address of a {who.lower()}")


async def _asked(address: str, security: Security, timeout_s: float) -> str:
    """Ask who listens at an address.

    A client waits without limit for a greeting, and one that failed halfway locks up the next when it is collected as
    that begins: so none is made before it is sure to succeed.
    """
    connection_args = security.get_connection_args("client")
    limit = asyncio.timeout(timeout_s + _GRACE_S)
    async with limit, rpc(address, timeout=timeout_s, connection_args=connection_args) as peer:
        answer = await peer.identity()
    return str(answer["type"])
