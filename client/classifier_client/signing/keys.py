"""The keys and certificates that signatures are checked against."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import (
    Certificate,
    DuplicateExtension,
    ExtendedKeyUsage,
    ExtensionNotFound,
    InvalidVersion,
    KeyUsage,
    UnsupportedGeneralNameType,
    load_pem_x509_certificate,
    verification,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

HASHES: Mapping[str, hashes.HashAlgorithm] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}
"""The curves of the format (P-256, P-384 and P-521), each with the hash that it signs."""

UNREADABLE = (ValueError, InvalidVersion, DuplicateExtension, UnsupportedGeneralNameType, UnsupportedAlgorithm)
"""What cryptography raises for a key or a certificate that is damaged, or that it does not know."""

_PEM = re.compile(rb"-----BEGIN ([A-Z ]+)-----.*?-----END \1-----", re.DOTALL)


class RefusalError(ValueError):
    """Why a signature does not count; the message ends a sentence that begins with a folder."""


@dataclass(frozen=True)
class VerifyKey:
    """What signatures must be made with: one of the keys, or a certificate that one of the roots vouches for.

    Attributes:
        keys: by their fingerprints.
        roots: certificates of authorities.
    """

    keys: Mapping[str, ec.EllipticCurvePublicKey]
    roots: Sequence[Certificate]


def read_verify_key(path: Path) -> VerifyKey:
    """Read a PEM file of public keys, of root certificates, or of both: several, while one takes over from another.

    Raises:
        ValueError: it cannot be read, holds neither, or holds a private key.
    """
    try:
        blocks = [(match[1], match[0]) for match in _PEM.finditer(path.read_bytes())]
    except OSError as exc:
        raise ValueError(f"A verify key must be readable. {path}: {exc.strerror or exc}. Check the path.") from exc
    if any(b"PRIVATE" in kind for kind, _ in blocks):
        raise ValueError(
            f"A verify key must be public. {path} holds a private key, which should stay where versions are signed. "
            "Take its public half: openssl pkey -in PRIVATE -pubout -out PUBLIC"
        )
    try:
        keys = [serialization.load_pem_public_key(pem) for kind, pem in blocks if kind == b"PUBLIC KEY"]
        roots = [load_pem_x509_certificate(pem) for kind, pem in blocks if kind == b"CERTIFICATE"]
    except UNREADABLE as exc:
        raise ValueError(f"A verify key must be sound PEM. {path} is damaged. Copy it again.") from exc
    usable = {fingerprint(key): key for key in keys if is_usable(key)}
    if len(usable) < len(keys) or not (usable or roots):
        raise ValueError(
            "A verify key must be a PEM file of different public keys (ECDSA on P-256, P-384 or P-521), or of "
            f"certificates. Received: {path} with {len(keys)} keys, {len(usable)} of them different and on such a "
            f"curve, and {len(roots)} certificates. Choose another file."
        )
    return VerifyKey(usable, roots)


def is_usable(key: object) -> TypeGuard[ec.EllipticCurvePublicKey]:
    """Return whether a public key is of a kind that the format has."""
    return isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in HASHES


def fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    """Return the name of a key in the format: the SHA-256 of its PEM form, in hexadecimal digits."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(key.public_bytes(serialization.Encoding.PEM, form)).hexdigest()


def may_sign(certificate: Certificate) -> bool:
    """Return whether a certificate says that its key is for signatures, or for signing code."""
    extensions = certificate.extensions
    try:
        if extensions.get_extension_for_class(KeyUsage).value.digital_signature:
            return True
    except ExtensionNotFound:
        pass
    try:
        return ExtendedKeyUsageOID.CODE_SIGNING in extensions.get_extension_for_class(ExtendedKeyUsage).value
    except ExtensionNotFound:
        return False


def check_chain(chain: Sequence[Certificate], roots: Sequence[Certificate]) -> ec.EllipticCurvePublicKey:
    """Return the key of the first certificate, for which the others and in the end a root vouch.

    As in the format's own tool, the time that counts is when the first one's validity began: nobody vouches for the
    time of a signature, and a version must not cease to load when a certificate ends.

    Raises:
        RefusalError: no root vouches for it, or it is not for signatures.
    """
    if not roots:
        raise RefusalError("is signed with a certificate, and the verify key has none to check it against")
    leaf, policy = chain[0], verification.ExtensionPolicy
    # Authorities may name other uses than TLS.
    of_authorities = policy.webpki_defaults_ca().may_be_present(
        ExtendedKeyUsage, verification.Criticality.AGNOSTIC, None
    )
    verifier = (
        verification.PolicyBuilder()
        .store(verification.Store(list(roots)))
        .time(leaf.not_valid_before_utc)
        .extension_policies(ca_policy=of_authorities, ee_policy=policy.permit_all())
        .build_client_verifier()
    )
    try:
        found = verifier.verify(leaf, list(chain[1:])).chain
    except verification.VerificationError as exc:
        raise RefusalError(f"is signed with a certificate that the verify key does not vouch for ({exc})") from exc
    if found[: len(chain)] != list(chain):
        raise RefusalError("has certificates in its signature that do not vouch for the one that signed")
    key = leaf.public_key()
    if not is_usable(key) or not may_sign(leaf):
        raise RefusalError("is signed with a certificate that is not for signatures (digitalSignature, codeSigning)")
    return key
