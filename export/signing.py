"""Sign what is shipped: reads a private key, writes `model.sig` into a folder.

`client/classifier_client/signing` knows the format and verifies it.

A key is read where it lies and stays there. What is passed on is the fingerprint of its public half.
"""

import hashlib
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import Certificate

from client.classifier_client.signing.bundle import SIGNATURE, encode_envelope, write_bundle, write_statement
from client.classifier_client.signing.certificates import may_sign, read_certificates
from client.classifier_client.signing.folder import hash_file, list_files
from client.classifier_client.signing.keys import HASHES, fingerprint, is_usable

PASSPHRASE = "PIPELINE_SIGNING_PASSPHRASE"
"""The environment variable with the passphrase of the key."""


@dataclass(frozen=True)
class Signer:
    """A private key, and the certificates that vouch for it.

    Attributes:
        chain: the key's certificate and those that vouch for it, in DER; empty for a key alone.
    """

    _key: ec.EllipticCurvePrivateKey = field(repr=False)
    chain: tuple[bytes, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Return the SHA-256 of the certificate, else of the public key as signatures name it."""
        return hashlib.sha256(self.chain[0]).hexdigest() if self.chain else fingerprint(self._key.public_key())

    def sign(self, folder: Path, name: str) -> None:
        """Write the signature of all files in a folder; `name` is the folder's, for people.

        Raises:
            ValueError: the folder holds something that is no file, such as a symbolic link.
            OSError: it cannot be read or written.
        """
        statement = write_statement(name, {file: hash_file(folder / file)[0] for file in list_files(folder)})
        key = self._key.public_key()
        signature = self._key.sign(encode_envelope(statement), ec.ECDSA(HASHES[key.curve.name]))
        (folder / SIGNATURE).write_bytes(write_bundle(statement, signature, key=key, chain=self.chain))


def read_signer(key_path: Path, certificates_path: Path | None = None) -> Signer:
    """Read a private key, with the passphrase in the environment where it needs one, and perhaps its certificates.

    Args:
        key_path: a PEM file: ECDSA on P-256, P-384 or P-521.
        certificates_path: a PEM file: the key's certificate, then those that vouch for it.

    Raises:
        ValueError: a file cannot be read or is not what it should be, the passphrase is missing or wrong, or the
            certificate is another key's, not valid now or not for signatures. The message has no content of the files.
    """
    key = _load_key(_read(key_path), key_path)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not is_usable(key.public_key()):
        raise ValueError(
            f"A signing key must be ECDSA on P-256, P-384 or P-521. The one in {key_path} is not. Make one: "
            "openssl ecparam -name prime256v1 -genkey -noout -out FILE"
        )
    if certificates_path is None:
        return Signer(key)
    try:
        chain = read_certificates(_read(certificates_path))
    except ValueError as exc:
        raise ValueError(
            f"Signing certificates must be PEM, at least one. Received: {certificates_path}, with none that can be "
            "read. Choose another file."
        ) from exc
    _check_certificate(chain[0], key, certificates_path)
    return Signer(key, tuple(each.public_bytes(serialization.Encoding.DER) for each in chain))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise ValueError(f"What signs must be readable. {path}: {exc.strerror or exc}. Check the path.") from exc


def _load_key(content: bytes, path: Path) -> object:
    passphrase = os.environ.get(PASSPHRASE, "").encode() if b"ENCRYPTED" in content else None
    if passphrase == b"":
        raise ValueError(f"A signing key with a passphrase needs it. {path} has one: set {PASSPHRASE}.")
    try:
        return serialization.load_pem_private_key(content, passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        wrong = f", or {PASSPHRASE} is not its passphrase" if passphrase else ""
        raise ValueError(
            f"A signing key must be a private key in PEM. {path} holds none that can be read{wrong}. "
            "Choose another file."
        ) from exc


def _check_certificate(certificate: Certificate, key: ec.EllipticCurvePrivateKey, path: Path) -> None:
    if certificate.public_key() != key.public_key():
        raise ValueError(
            f"The first of the signing certificates must be the signing key's. {path} begins with another one's. "
            "Put the key's own first, then those that vouch for it."
        )
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not begin.timestamp() <= time.time() <= end.timestamp():
        raise ValueError(
            f"A signing certificate must be valid now. The one in {path} is from {begin:%Y-%m-%d} to {end:%Y-%m-%d}. "
            "Get a new one."
        )
    if not may_sign(certificate):
        raise ValueError(
            f"A signing certificate must be for signatures (digitalSignature, or codeSigning). The one in {path} is "
            "not. Get one that is."
        )
