"""The fleet's own certificate authority: `camserver fleet ca` makes it and the hosts' certificates.

It needs the package `cryptography` (`pip install 'camserver[fleet]'`). Other certificates do as
well: each must be for the host's name in the fleet, and for clients and servers.
"""

from __future__ import annotations

import datetime
import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_DAYS, HOST_DAYS = 3650, 825
CA_FILE, CA_KEY = "ca.pem", "ca.key"


def make_authority(folder: Path, fleet: str) -> Path:
    """Make an authority in a folder, and return its certificate's file.

    Raises FileExistsError when there is one, and OSError.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"camserver fleet {fleet}")
    certificate = (
        _builder(name, name, key, AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    _write(folder / CA_KEY, _key_bytes(key), 0o600)
    _write(folder / CA_FILE, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    return folder / CA_FILE


def issue(folder: Path, host: str) -> tuple[Path, Path]:
    """Make the certificate and the key of a host: (certificate, key). Older ones are replaced.

    Raises OSError when there is no authority in the folder, ValueError when the files of this
    name are others than a host's.
    """
    files = folder / f"{host}.pem", folder / f"{host}.key"
    if files[0].name == CA_FILE or files[0].exists() != files[1].exists():
        raise ValueError(f"{files[0]} or {files[1]} is no host's: it is not replaced")
    authority = x509.load_pem_x509_certificate((folder / CA_FILE).read_bytes())
    signer = serialization.load_pem_private_key((folder / CA_KEY).read_bytes(), None)
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise OSError(f"{folder / CA_KEY}: is not a key that this command has made")
    key = ec.generate_private_key(ec.SECP256R1())
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    certificate = (
        _builder(_name(host), authority.subject, key, HOST_DAYS)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(issuer, critical=False)
        .sign(signer, hashes.SHA256())
    )
    _replace(files[1], _key_bytes(key), 0o600)
    _replace(files[0], certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    return files


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))  # the clocks of hosts may differ
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _key_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _replace(path: Path, data: bytes, mode: int) -> None:
    """Write a file, or replace it at once. Raises OSError."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    _write(new, data, mode)
    new.replace(path)


def _write(path: Path, data: bytes, mode: int) -> None:
    """Write a new file. Raises FileExistsError, OSError."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
