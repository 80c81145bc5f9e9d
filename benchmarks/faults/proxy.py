"""A proxy between two processes that can be cut and mended."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress

# What a scheduler takes to listen.
_OPENS_S = 60.0


class Cable:
    """Carry connections to a port of this machine.

    When it is cut, it carries nothing and refuses nothing, like a broken network. What was sent
    arrives once it is mended.

    Parameters
    ----------
    port : int
        Destination of the connections.
    """

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._whole = threading.Event()
        self._whole.set()
        self._ends: list[socket.socket] = []
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._door.getsockname()[1]
        _start(self._accept)

    def cut(self) -> None:
        """Stop carrying data."""
        self._whole.clear()

    def mend(self) -> None:
        """Carry data again, what was waiting first."""
        self._whole.set()

    def close(self) -> None:
        """End all connections."""
        for end in [self._door, *self._ends]:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._whole.set()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._door.accept()
                self._ends.append(near)
                _start(self._connect, near)

    def _connect(self, near: socket.socket) -> None:
        self._whole.wait()
        far = self._reached()
        if far is None:
            near.close()
            return
        self._ends.append(far)
        _start(self._pump, near, far)
        _start(self._pump, far, near)

    def _reached(self) -> socket.socket | None:
        # Who comes too soon, before anybody listens, would be turned away where a refusal would have told it to wait.
        deadline = time.monotonic() + _OPENS_S
        while time.monotonic() < deadline:
            with suppress(OSError):
                return socket.create_connection(self._target)
            time.sleep(0.05)
        return None

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                self._whole.wait()
                sink.sendall(data)
        self._whole.wait()
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


def _start(function: object, *arguments: object) -> None:
    threading.Thread(target=function, args=arguments, daemon=True).start()  # type: ignore[arg-type]


def free_port() -> int:
    """Return a free port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        port: int = door.getsockname()[1]
    return port
