"""Certificates that vouch for a key that signs (PKI), up to a root that the verify key holds."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import (
    Certificate,
    DuplicateExtension,
    ExtendedKeyUsage,
    ExtensionNotFound,
    InvalidVersion,
    KeyUsage,
    UnsupportedGeneralNameType,
    load_der_x509_certificate,
    load_pem_x509_certificates,
    verification,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from .keys import RefusalError, is_usable


@contextmanager
def _readable() -> Iterator[None]:
    """Turn what cryptography raises for certificates that are damaged, or of a kind that it does not know."""
    try:
        yield
    except (InvalidVersion, DuplicateExtension, UnsupportedGeneralNameType, UnsupportedAlgorithm) as exc:
        raise ValueError(str(exc)) from exc


def read_certificates(pem: bytes) -> list[Certificate]:
    """Return the certificates in PEM, at least one.

    Raises:
        ValueError: there is none, or one cannot be read.
    """
    with _readable():
        return load_pem_x509_certificates(pem)


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


def check_chain(ders: Sequence[bytes], roots: Sequence[Certificate]) -> ec.EllipticCurvePublicKey:
    """Return the key of the first certificate, for which the others and in the end a root vouch.

    As in the format's own tool, the time that counts is when the first one's validity began: nobody vouches for the
    time of a signature, and a version must not cease to load when a certificate ends.

    Args:
        ders: the certificates, in DER.
        roots: of the verify key.

    Raises:
        RefusalError: no root vouches for it, or it is not for signatures.
        ValueError: one cannot be read.
    """
    if not roots:
        raise RefusalError("is signed with a certificate, and the verify key has none to check it against")
    with _readable():
        return _check([load_der_x509_certificate(der) for der in ders], roots)


def _check(chain: Sequence[Certificate], roots: Sequence[Certificate]) -> ec.EllipticCurvePublicKey:
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
