"""What signs: ECDSA keys on the curves that the format has."""

import hashlib
from collections.abc import Mapping
from typing import TypeGuard

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

HASHES: Mapping[str, hashes.HashAlgorithm] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}
"""The curves of the format (P-256, P-384 and P-521), each with the hash that it signs."""


class RefusalError(ValueError):
    """Why a signature does not count; the message ends a sentence that begins with a folder."""


def is_usable(key: object) -> TypeGuard[ec.EllipticCurvePublicKey]:
    """Return whether a public key is of a kind that the format has."""
    return isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in HASHES


def fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    """Return the name of a key in the format: the SHA-256 of its PEM form, in hexadecimal digits."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(key.public_bytes(serialization.Encoding.PEM, form)).hexdigest()
