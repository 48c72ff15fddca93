"""A certificate authority for tests, on the cryptography library, which the gate does not use."""

import base64
import datetime
import hashlib
import pathlib

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


def private_key(kind: str):
    if kind == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ec.generate_private_key(ec.SECP256R1())


class Authority:
    """Writes its certificate, and those it signs, to a directory."""

    def __init__(self, directory: pathlib.Path):
        self.directory = directory
        self.key = private_key("ec")
        self.name = "authority"
        self.certificate = self._sign("authority", self.key, [], is_authority=True)
        (directory / "ca.crt").write_bytes(self.certificate.public_bytes(Encoding.PEM))

    def issue(self, file: str, name: str, kind: str = "ec", form: PrivateFormat = PrivateFormat.PKCS8) -> str:
        """Writes FILE.crt and FILE.key, and returns the thumbprint (`x5t#S256`, RFC 8705 section 3.1)."""
        key = private_key(kind)
        certificate = self._sign(name, key, [x509.DNSName(name)], is_authority=False)
        (self.directory / f"{file}.key").write_bytes(key.private_bytes(Encoding.PEM, form, NoEncryption()))
        (self.directory / f"{file}.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
        digest = hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    def _sign(self, name: str, key, names: list, is_authority: bool) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def revoke(self, *files: str, number: int | None = 1):
        """Writes ca.crl, which revokes exactly these certificates. `number=None` omits the required CRL number."""
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now - datetime.timedelta(minutes=1))
            .next_update(now + datetime.timedelta(days=1))
        )
        for file in files:
            certificate = x509.load_pem_x509_certificate((self.directory / f"{file}.crt").read_bytes())
            revoked = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number)
            builder = builder.add_revoked_certificate(revoked.revocation_date(now).build())
        if number is not None:
            builder = builder.add_extension(x509.CRLNumber(number), critical=False)
        new = self.directory / "new.crl"
        new.write_bytes(builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM))
        # Atomic, so that the gate never reads half a list.
        new.rename(self.directory / "ca.crl")
