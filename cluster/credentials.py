"""A private certificate authority and the certificates that it signs.

- Who may join a cluster: a certificate, its key, and the authority that both sides trust.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from melmill.cluster.blocks import Tls
from melmill.cluster.errors import ClusterError

if TYPE_CHECKING:
    from distributed import Security

CA, CERT, KEY = "ca.pem", "cert.pem", "key.pem"

_MAKE = "make new ones with `melmill cluster certs DIR`"


@dataclass(frozen=True, kw_only=True, repr=False)
class Credentials:
    """A certificate authority, a certificate and its private key, each as PEM text."""

    ca: str
    cert: str
    key: str

    def security(self) -> Security:
        """Return what Dask wants for a client, scheduler or worker that lets nobody else in."""
        from distributed import Security

        return Security(
            require_encryption=True,
            tls_ca_file=self.ca,
            **{f"tls_{role}_cert": self.cert for role in ("client", "scheduler", "worker")},
            **{f"tls_{role}_key": self.key for role in ("client", "scheduler", "worker")},
        )

    @contextmanager
    def files(self, folder: Path) -> Iterator[Tls]:
        """Write the three below `folder`, for this user's eyes only; yield where they are; remove them at the end."""
        with TemporaryDirectory(prefix=".tls-", dir=folder) as place:
            yield self.write(Path(place))

    def write(self, folder: Path) -> Tls:
        """Write the three into `folder`, the key for this user's eyes only; raise FileExistsError over another."""
        for name, text, mode in ((CA, self.ca, 0o644), (CERT, self.cert, 0o644), (KEY, self.key, 0o600)):
            write_new(folder / name, text, mode)
        return Tls(ca=str(folder / CA), cert=str(folder / CERT), key=str(folder / KEY))


def write_new(path: Path, text: str, mode: int) -> None:
    """Write a file that must not exist yet, never readable by more than `mode` says."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)


def load_credentials(security: Tls | str) -> Credentials:
    """Read certificates and check that they belong together and are in force.

    Raises
    ------
    ClusterError
        A file is missing or is no certificate, the key is another's, or the time of a certificate is over.
    """
    where = _places(security)
    texts = {name: _read(name, getattr(where, name)) for name in ("ca", "cert", "key")}
    _check(where, texts["ca"])
    return Credentials(**texts)


def _places(security: Tls | str) -> Tls:
    if isinstance(security, str):
        security = Tls(**{name: str(Path(security, file)) for name, file in (("ca", CA), ("cert", CERT), ("key", KEY))})
    return Tls(**{name: str(Path(path).expanduser()) for name, path in asdict(security).items()})


def _read(name: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not PEM text"
        raise ClusterError(f"security: {name} {path!r} can't be read: {reason}; {_MAKE}", "security") from error


def _check(where: Tls, ca: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=ca)
    except (ssl.SSLError, ValueError) as error:
        raise ClusterError(f"security: ca {where.ca!r} is not a certificate ({error}); {_MAKE}", "security") from error
    try:
        context.load_cert_chain(where.cert, where.key, password=_no_password(where.key))
    except ssl.SSLError as error:
        raise ClusterError(
            f"security: cert {where.cert!r} and key {where.key!r} are not a certificate and its key ({error.reason}); "
            f"{_MAKE}",
            "security",
        ) from error
    _check_trust(where)


def _no_password(key: str) -> Callable[[], str]:
    def refuse() -> str:
        raise ClusterError(f"security: key {key!r} has a password, which no worker could give; {_MAKE}", "security")

    return refuse


def _check_trust(where: Tls) -> None:
    """Shake hands with oneself: what every peer will do with this certificate."""
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
                _step(side)
    except ssl.SSLError as error:
        reason = getattr(error, "verify_message", "") or error.reason
        raise ClusterError(
            f"security: cert {where.cert!r} would be refused by whoever trusts {where.ca!r}: {reason}; {_MAKE}",
            "security",
        ) from error


def _step(side: ssl.SSLObject) -> None:
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return


CA_KEY = "ca-key.pem"

# Clocks of hosts differ a little.
_EARLIER = timedelta(hours=1)


def make_folder(folder: Path, days: int) -> Path | None:
    """Make an authority, and a certificate of it, in `folder`; or only another certificate where the authority is.

    The old certificate and key, if any, are kept beside the new ones with ``.old`` behind their names.

    Parameters
    ----------
    folder : Path
        Made where it does not exist, for this user's eyes only.
    days : int
        For how long the certificate holds. A new authority holds ten times as long.

    Returns
    -------
    Path or None
        The authority's key where a new authority was made.

    Raises
    ------
    ClusterError
        The folder holds half an authority, or one whose time is over.
    OSError
        The folder can't be written.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    there = [name for name in (CA, CA_KEY) if (folder / name).exists()]
    if len(there) == 1:
        raise ClusterError(
            f"{str(folder)!r} holds {there[0]} alone, half of an authority: put the other file back, or choose another "
            "folder for a new authority"
        )
    authority = _Authority.read(folder) if there else _Authority.new(10 * days)
    credentials = authority.sign(days)
    if not there:
        write_new(folder / CA_KEY, _private(authority.key), 0o600)
        write_new(folder / CA, credentials.ca, 0o644)
    for name, text, mode in ((CERT, credentials.cert, 0o644), (KEY, credentials.key, 0o600)):
        path = folder / name
        if path.exists():
            path.rename(path.with_name(f"{name}.old"))
        write_new(path, text, mode)
    return None if there else folder / CA_KEY


def temporary(days: int = 30) -> Credentials:
    """Return credentials of a new authority that nobody keeps: good for one run."""
    return _Authority.new(days).sign(days)


class _Authority:
    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.certificate = certificate
        self.key = key

    @classmethod
    def new(cls, days: int) -> _Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("melmill authority")
        builder = _builder(name, name, key, datetime.now(UTC) + timedelta(days=days))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(sign_certificates=True), critical=True)
        return cls(builder.sign(key, hashes.SHA256()), key)

    @classmethod
    def read(cls, folder: Path) -> _Authority:
        try:
            certificate = x509.load_pem_x509_certificate((folder / CA).read_bytes())
            key = serialization.load_pem_private_key((folder / CA_KEY).read_bytes(), password=None)
        except ValueError as error:
            raise ClusterError(f"{str(folder)!r} holds {CA} and {CA_KEY}, but they can't be read: {error}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise ClusterError(f"{str(folder / CA_KEY)!r} is not the key of {CA}: put the right one back")
        if certificate.not_valid_after_utc < datetime.now(UTC):
            raise ClusterError(
                f"{str(folder / CA)!r} was good until {certificate.not_valid_after_utc:%Y-%m-%d}: "
                "make a new authority in another folder"
            )
        return cls(certificate, key)

    def sign(self, days: int) -> Credentials:
        """Make a certificate for any role: whoever holds its key may be client, scheduler or worker."""
        key = ec.generate_private_key(ec.SECP256R1())
        until = min(datetime.now(UTC) + timedelta(days=days), self.certificate.not_valid_after_utc)
        builder = _builder(_name("melmill"), self.certificate.subject, key, until)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(sign_certificates=False), critical=True)
        roles = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        builder = builder.add_extension(roles, critical=False)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
        )
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("melmill")]), critical=False)
        return Credentials(
            ca=_public(self.certificate), cert=_public(builder.sign(self.key, hashes.SHA256())), key=_private(key)
        )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - _EARLIER)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _public(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _private(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
