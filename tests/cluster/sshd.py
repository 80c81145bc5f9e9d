"""A temporary SSH server with keys of its own."""

from __future__ import annotations

import getpass
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.processes import ROOT, answers, find, free_port, server

CONFIG = """\
Port {port}
ListenAddress {host}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
SetEnv PYTHONPATH={root}
"""


@dataclass(frozen=True)
class Keys:
    """A user's key, and the file of host keys that the user trusts."""

    folder: Path

    @property
    def user(self) -> str:
        return getpass.getuser()

    @property
    def key(self) -> str:
        return str(self.folder / "user_key")

    @property
    def known_hosts(self) -> str:
        return str(self.folder / "known_hosts")


def make_keys(folder: Path) -> Keys:
    for name in ("host_key", "user_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    (folder / "authorized_keys").write_text((folder / "user_key.pub").read_text())
    (folder / "known_hosts").touch()
    return Keys(folder)


@contextmanager
def sshd(keys: Keys, host: str = "127.0.0.1", port: int | None = None, inside: Sequence[str] = ()) -> Iterator[int]:
    """Run a server for the user of `keys` and yield its port.

    `inside` is a command that runs commands elsewhere.
    """
    port = port or free_port(host)
    config = keys.folder / f"sshd-{host}-{port}.conf"
    config.write_text(CONFIG.format(port=port, host=host, folder=keys.folder, root=ROOT))
    Path("/run/sshd").mkdir(exist_ok=True)
    public = (keys.folder / "host_key.pub").read_text()
    with (keys.folder / "known_hosts").open("a") as known:
        known.write(f"[{host}]:{port} {public}")
    program = find("sshd")
    assert program is not None
    command = [*inside, program, "-D", "-e", "-f", str(config)]
    with server(command, keys.folder / f"sshd-{host}.log", lambda: answers(host, port)):
        yield port
