"""What signatures are checked against: a PEM file of public keys and root certificates."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from .keys import fingerprint, is_usable

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

_PEM = re.compile(rb"-----BEGIN ([A-Z ]+)-----.*?-----END \1-----", re.DOTALL)


@dataclass(frozen=True)
class VerifyKey:
    """What signatures must be made with: one of the keys, or a certificate that one of the roots vouches for.

    Attributes:
        keys: by their fingerprints.
        roots: certificates of authorities.
    """

    keys: Mapping[str, ec.EllipticCurvePublicKey]
    roots: Sequence["Certificate"]


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
    certificates = [pem for kind, pem in blocks if kind == b"CERTIFICATE"]
    roots: Sequence[Certificate] = ()
    try:
        keys = [serialization.load_pem_public_key(pem) for kind, pem in blocks if kind == b"PUBLIC KEY"]
        if certificates:
            from .certificates import read_certificates  # it takes as long to import as all the rest

            roots = read_certificates(b"\n".join(certificates))
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise ValueError(f"A verify key must be sound PEM. {path} is damaged. Copy it again.") from exc
    usable = {fingerprint(key): key for key in keys if is_usable(key)}
    if len(usable) < len(keys) or not (usable or roots):
        raise ValueError(
            "A verify key must be a PEM file of different public keys (ECDSA on P-256, P-384 or P-521), or of "
            f"certificates. Received: {path} with {len(keys)} keys, {len(usable)} of them different and on such a "
            f"curve, and {len(roots)} certificates. Choose another file."
        )
    return VerifyKey(usable, roots)
