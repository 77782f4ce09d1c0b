"""Keys and certificates of a server and its devices."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAYS = 365


def make_server_keys(
    folder: Path, hosts: Sequence[str], *, begins: datetime | None = None, ends: datetime | None = None
) -> None:
    """Write ca.crt, server.crt and server.key (mode 0600) into `folder`.

    Args:
        folder: made if need be.
        hosts: the names and addresses that devices reach the server by; 127.0.0.1 is added, where the SuperLink's own
            ServerApp reaches it.
        begins: when the certificates hold from; an hour ago.
        ends: and to when; a year from now.
    """
    folder.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC)
    span = (begins or now - timedelta(hours=1), ends or now + timedelta(days=DAYS))
    authority, server = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer = _name("perfit-fed CA")
    names = [_alternative(host) for host in dict.fromkeys([*hosts, "127.0.0.1"])]
    ca = (
        _certificate(issuer, issuer, authority.public_key(), span)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority.public_key()), critical=False)
        .sign(authority, hashes.SHA256())
    )
    certificate = (
        _certificate(_name(hosts[0]), issuer, server.public_key(), span)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False)
        .sign(authority, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    _write(folder / "ca.crt", ca.public_bytes(pem))
    _write(folder / "server.crt", certificate.public_bytes(pem))
    private = server.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    _write(folder / "server.key", private)


def make_device_key(path: Path) -> Path:
    """Write an ECDSA P-384 key pair in OpenSSH's format, `path` (mode 0600) and `path`.pub; returns the latter."""
    path.parent.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP384R1())
    form = serialization.PrivateFormat.OpenSSH
    _write(path, key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    public = path.with_name(f"{path.name}.pub")
    ssh = (serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    _write(public, key.public_key().public_bytes(*ssh) + b"\n")
    return public


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, span: tuple[datetime, datetime]
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=key)
    return builder.serial_number(x509.random_serial_number()).not_valid_before(span[0]).not_valid_after(span[1])


def _usage(*, signs: bool) -> x509.KeyUsage:
    off = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only"), False
    )
    return x509.KeyUsage(digital_signature=not signs, key_cert_sign=signs, crl_sign=signs, decipher_only=False, **off)


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write(path: Path, content: bytes) -> None:
    """A new file, mode 0600. Raises FileExistsError rather than lose a key."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
