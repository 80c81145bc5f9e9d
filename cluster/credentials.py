"""Who may join a cluster: a certificate, its key, and the authority that both sides trust."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from melmill.cluster.errors import ClusterError

if TYPE_CHECKING:
    from distributed import Security

CA, CERT, KEY = "ca.pem", "cert.pem", "key.pem"

_MAKE = "make new ones with `melmill cluster certs DIR`"


@dataclass(frozen=True, kw_only=True)
class Tls:
    """Certificates for mutual TLS, as files in PEM form. `melmill cluster certs` makes them.

    Parameters
    ----------
    ca : str
        Certificate of the authority that signs all others.
    cert, key : str
        This party's certificate and its private key.
    """

    ca: str
    cert: str
    key: str


@dataclass(frozen=True, kw_only=True, repr=False)
class Credentials:
    """A certificate authority, a certificate and its private key, each as PEM text."""

    ca: str
    cert: str
    key: str

    def security(self) -> Security:
        """Return Dask's options of a client, scheduler or worker that lets nobody else in."""
        from distributed import Security

        return Security(
            require_encryption=True,
            tls_ca_file=self.ca,
            **{f"tls_{role}_cert": self.cert for role in ("client", "scheduler", "worker")},
            **{f"tls_{role}_key": self.key for role in ("client", "scheduler", "worker")},
        )

    @contextmanager
    def files(self, folder: Path) -> Iterator[Tls]:
        """Write the three into a new folder below `folder`, yield their paths, remove them.

        Only this user can read the folder.
        """
        with TemporaryDirectory(prefix=".tls-", dir=folder) as place:
            yield self.write(Path(place))

    def write(self, folder: Path) -> Tls:
        """Write the three into `folder` and return their paths; only this user can read the key.

        Raises
        ------
        FileExistsError
            One of them exists.
        """
        for name, text, mode in ((CA, self.ca, 0o644), (CERT, self.cert, 0o644), (KEY, self.key, 0o600)):
            write_new(folder / name, text, mode)
        return Tls(ca=str(folder / CA), cert=str(folder / CERT), key=str(folder / KEY))


def write_new(path: Path, text: str, mode: int) -> None:
    """Write a file that does not exist yet. It has its `mode` from the start."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)


def load_credentials(security: Tls | str) -> Credentials:
    """Return the certificates of files, or of a folder that ``melmill cluster certs`` made.

    Raises
    ------
    ClusterError
        A file is missing or is no certificate, the key does not belong to it, or it is out of date.
    """
    if isinstance(security, str):
        security = Tls(**{name: str(Path(security, file)) for name, file in (("ca", CA), ("cert", CERT), ("key", KEY))})
    where = Tls(**{name: str(Path(path).expanduser()) for name, path in asdict(security).items()})
    texts = {}
    for name, path in asdict(where).items():
        try:
            texts[name] = Path(path).read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not PEM text"
            raise ClusterError(f"security: {name} {path!r} can't be read: {reason}; {_MAKE}", "security") from error

    def refuse_password() -> str:
        raise ClusterError(
            f"security: key {where.key!r} has a password, which no worker can enter; {_MAKE}", "security"
        )

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=texts["ca"])
    except (ssl.SSLError, ValueError) as error:
        raise ClusterError(f"security: ca {where.ca!r} is not a certificate ({error}); {_MAKE}", "security") from error
    try:
        context.load_cert_chain(where.cert, where.key, password=refuse_password)
    except ssl.SSLError as error:
        raise ClusterError(
            f"security: cert {where.cert!r} and key {where.key!r} are not a certificate and its key ({error.reason}); "
            f"{_MAKE}",
            "security",
        ) from error
    _check_trust(where)
    return Credentials(**texts)


def _check_trust(where: Tls) -> None:
    """Do a TLS handshake in memory, with this certificate on both sides, as every peer will."""
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    server.verify_mode = ssl.CERT_REQUIRED
    for context in (server, client):
        context.load_verify_locations(where.ca)
        context.load_cert_chain(where.cert, where.key)
    pipes = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(pipes[0], pipes[1]),
        server.wrap_bio(pipes[1], pipes[0], server_side=True),
    ]
    try:
        for _ in range(4):
            for side in sides:
                with suppress(ssl.SSLWantReadError):
                    side.do_handshake()
    except ssl.SSLError as error:
        reason = getattr(error, "verify_message", "") or error.reason
        raise ClusterError(
            f"security: cert {where.cert!r} is refused by peers that trust {where.ca!r}: {reason}; {_MAKE}",
            "security",
        ) from error
