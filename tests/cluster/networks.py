"""Several hosts on one machine: network namespaces, joined by a bridge to this one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

HERE = "10.231.{net}.1"


@dataclass(frozen=True)
class Host:
    """A network namespace with one address."""

    namespace: str
    address: str
    cable: str

    @property
    def inside(self) -> tuple[str, ...]:
        """Command that runs the command after it in the namespace."""
        return ("ip", "netns", "exec", self.namespace)

    def unplug(self) -> None:
        ip("link", "set", self.cable, "down")

    def plug_in(self) -> None:
        ip("link", "set", self.cable, "up")


def ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


@contextmanager
def hosts(count: int) -> Iterator[tuple[str, Sequence[Host]]]:
    """Yield this machine's address on a new network, and the hosts on it."""
    mark = f"{os.getpid() % 100_000:x}"
    net = os.getpid() % 200
    here, bridge = HERE.format(net=net), f"mmb{mark}"
    with ExitStack() as stack:
        try:
            ip("link", "add", bridge, "type", "bridge")
        except OSError as error:
            pytest.skip(f"no network can be made here: {error}")
        stack.callback(ip, "link", "delete", bridge)
        ip("address", "add", f"{here}/24", "dev", bridge)
        ip("link", "set", bridge, "up")
        made = [Host(f"mmn{mark}-{i}", f"10.231.{net}.{11 + i}", f"mmv{mark}-{i}") for i in range(count)]
        for host in made:
            ip("netns", "add", host.namespace)
            stack.callback(ip, "netns", "delete", host.namespace)
            ip("link", "add", host.cable, "type", "veth", "peer", "name", "eth0", "netns", host.namespace)
            ip("link", "set", host.cable, "master", bridge, "up")
            ip("-n", host.namespace, "address", "add", f"{host.address}/24", "dev", "eth0")
            for device in ("eth0", "lo"):
                ip("-n", host.namespace, "link", "set", device, "up")
        yield here, made
