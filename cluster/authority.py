"""A private certificate authority, and the certificates that it signs.

It needs the package cryptography, which melmill does not depend on.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from melmill.cluster.credentials import CA, CERT, KEY, Credentials, write_new
from melmill.cluster.errors import ClusterError

CA_KEY = "ca-key.pem"

# The clocks of hosts differ a little, so a certificate is valid from before it is made.
_EARLIER = timedelta(hours=1)


def make_folder(folder: Path, days: int) -> Path | None:
    """Make a certificate in `folder`, and first an authority where the folder has none.

    An old certificate and key stay beside the new ones, with ``.old`` after their names.

    Parameters
    ----------
    folder : Path
        It is made where it does not exist. Then only this user can read it.
    days : int
        How long the certificate is valid. A new authority is valid ten times as long.

    Returns
    -------
    Path or None
        The authority's key where a new authority was made.

    Raises
    ------
    ClusterError
        The folder holds half an authority, or one that is out of date.
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
    """Return credentials of a new authority that is not kept. They serve one run."""
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
                f"{str(folder / CA)!r} was valid until {certificate.not_valid_after_utc:%Y-%m-%d}: "
                "make a new authority in another folder"
            )
        return cls(certificate, key)

    def sign(self, days: int) -> Credentials:
        """Return a certificate for any role: its holder may be client, scheduler or worker."""
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
