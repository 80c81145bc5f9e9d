"""Who may read the status page."""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from melmill.flows.pipeline.errors import PipelineError
from melmill.storage.errors import StoreError
from melmill.storage.files.location import folder_and_name

SHORTEST_PASSWORD = 8
_LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True, kw_only=True)
class Access:
    """Where the page is served, and to whom.

    Parameters
    ----------
    host : str
        Address to listen at.
    password : str or None
        What readers must give, with any user name. None: nothing, which only a loopback address allows.

    Raises
    ------
    PipelineError
        Others could read the page without a password, or it is too short.
    """

    host: str
    password: str | None = None

    def __post_init__(self) -> None:
        """Check every field."""
        if self.password is None and not self.is_loopback:
            raise PipelineError(
                f"other machines can reach {self.host!r}, so the page needs a password there: "
                "give --password-file FILE, or set MELMILL_SERVE_PASSWORD",
                "--host",
            )
        if self.password is not None and len(self.password) < SHORTEST_PASSWORD:
            raise PipelineError(f"the password must have {SHORTEST_PASSWORD} characters at least", "--password-file")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the address."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False

    def knows_host(self, host: str) -> bool:
        """Tell whether a request names this server by a name that it has.

        A page of elsewhere can let a name of its own mean 127.0.0.1. Its requests carry that name.
        """
        if not self.is_loopback:
            return True  # there the password keeps others out
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        return name in {*_LOCAL_NAMES, self.host}

    def admits(self, authorization: str | None) -> bool:
        """Tell whether a request's Authorization header (HTTP Basic) has the password."""
        if self.password is None:
            return True
        scheme, _, given = (authorization or "").partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            _, _, password = base64.b64decode(given, validate=True).partition(b":")
        except (binascii.Error, ValueError):
            return False
        return hmac.compare_digest(password, self.password.encode())


def read_password(file: Path) -> str:
    """Return the first line of a file; raise PipelineError if it can't be read."""
    folder, name = folder_and_name(str(file))
    try:
        return folder.read(name).decode().partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError, StoreError) as error:
        raise PipelineError(f"{str(file)!r} can't be read: {error}", "--password-file") from error
