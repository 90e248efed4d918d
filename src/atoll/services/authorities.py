"""Authorities: for each sandbox with brokered secrets one that only this sandbox trusts, and the certificates it signs.

Its key is derived from one of this server's and never leaves it; the same sandbox has the same authority after a
restart. Giving puts its certificate into the sandbox, the gateway speaks TLS under its name.
"""

from __future__ import annotations

import os
import secrets
import ssl
from collections import OrderedDict
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SEED_BYTES = 32
CONTEXTS_MAX = 512
AUTHORITY_DAYS, CERTIFICATE_DAYS = 3650, 30
RENEW_AFTER = timedelta(days=7)
CLOCK_SKEW = timedelta(days=1)
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of the group of P-256
SYSTEM_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)


class Authorities:
    """`seed_file` holds this server's secret; it is made when it is first needed."""

    def __init__(self, seed_file: Path) -> None:
        self._file = seed_file
        self._seed = b""
        self._contexts: OrderedDict[tuple[str, str], tuple[datetime, ssl.SSLContext]] = OrderedDict()

    def bundle(self, sandbox_id: str) -> bytes:
        """What the sandbox trusts, PEM: the host's authorities and its own."""
        return _system_bundle() + self._authority(sandbox_id)[1].public_bytes(serialization.Encoding.PEM)

    def context(self, sandbox_id: str, host: str) -> ssl.SSLContext:
        """To speak TLS as `host` to the programs of one sandbox; only HTTP/1.1 is spoken there."""
        now = datetime.now(UTC)
        known = self._contexts.pop((sandbox_id, host), None)
        if known is None or now > known[0]:
            known = (now + RENEW_AFTER, self._made(sandbox_id, host, now))
        self._contexts[sandbox_id, host] = known
        while len(self._contexts) > CONTEXTS_MAX:
            self._contexts.popitem(last=False)
        return known[1]

    def _made(self, sandbox_id: str, host: str, now: datetime) -> ssl.SSLContext:
        key, authority = self._authority(sandbox_id)
        own = ec.generate_private_key(ec.SECP256R1())
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        certificate = (
            _begun(now, CERTIFICATE_DAYS, own)
            .subject_name(x509.Name([]))
            .issuer_name(authority.subject)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage, critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["http/1.1"])
        _load(context, certificate, own)
        return context

    def _authority(self, sandbox_id: str) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        derived = HKDF(hashes.SHA256(), 48, None, f"atoll sandbox authority {sandbox_id}".encode()).derive(
            self._known()
        )
        key = ec.derive_private_key(int.from_bytes(derived, "big") % (_ORDER - 1) + 1, ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Atoll sandbox {sandbox_id}")])
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        certificate = (
            _begun(datetime.now(UTC), AUTHORITY_DAYS, key)
            .subject_name(name)
            .issuer_name(name)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return key, certificate

    def _known(self) -> bytes:
        if not self._seed:
            try:
                self._seed = _read(self._file)
            except FileNotFoundError:
                self._seed = _write(self._file)
        return self._seed


def _begun(now: datetime, days: int, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=days))
    )


def _load(context: ssl.SSLContext, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    """Python takes files only; this one is in memory and has no name."""
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    fd = os.memfd_create("atoll", os.MFD_CLOEXEC)
    try:
        os.write(fd, key.private_bytes(*form) + certificate.public_bytes(serialization.Encoding.PEM))
        context.load_cert_chain(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def _read(file: Path) -> bytes:
    seed = file.read_bytes()
    if len(seed) != SEED_BYTES:
        raise ValueError(f"{file} is damaged: remove it; sandboxes with brokered secrets have to be made again")
    return seed


def _write(file: Path) -> bytes:
    """Whole or not at all; what another process has written meanwhile counts."""
    seed = secrets.token_bytes(SEED_BYTES)
    made = file.with_name(f".{file.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with open(made, "xb", opener=_private) as out:
            out.write(seed)
            out.flush()
            os.fsync(out.fileno())
        try:
            os.link(made, file)
        except FileExistsError:
            return _read(file)
    finally:
        made.unlink(missing_ok=True)
    return seed


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _system_bundle() -> bytes:
    """The host's authorities; nothing where it has none in one file."""
    for path in (os.environ.get("SSL_CERT_FILE", ""), *SYSTEM_BUNDLES):
        try:
            found = Path(path).read_bytes() if path else b""
        except OSError:
            continue
        if found:
            return found if found.endswith(b"\n") else found + b"\n"
    return b""
