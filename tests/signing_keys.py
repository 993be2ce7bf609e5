"""Keys and certificates to sign with, each in files as openssl writes them: what the tests of signatures share."""

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

PEM = serialization.Encoding.PEM
NOW = datetime.datetime.now(datetime.timezone.utc)


@dataclass(frozen=True)
class Pair:
    """The files of a private key and of what verifies it; `certificates` with PKI."""

    private: Path
    public: Path
    certificates: Path | None = None


def write_key(folder: Path, name: str = "key", *, curve: Any = ec.SECP256R1, passphrase: str = "") -> Pair:
    """Write a new key."""
    key = ec.generate_private_key(curve())
    pair = Pair(folder / f"{name}.pem", folder / f"{name}.pub")
    write_private(pair.private, key, passphrase)
    pair.public.write_bytes(key.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    return pair


def write_private(path: Path, key: Any, passphrase: str = "") -> None:
    """Write a private key of any kind."""
    locked = serialization.BestAvailableEncryption(passphrase.encode()) if passphrase else serialization.NoEncryption()
    path.write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, locked))


def write_certified_key(
    folder: Path, name: str = "leaf", *, usage: str = "digital_signature", days: int = 30, with_root: bool = False
) -> Pair:
    """Write a new key with a certificate of a new intermediate authority, and the root that vouches for that.

    Args:
        folder: for the files.
        name: of the files.
        usage: of the certificate's key, as `KeyUsage` names it.
        days: from now, for which the certificate is valid; below 0 it is not any more.
        with_root: put the root after the others, too.
    """
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(3)]
    root = _certify("root", keys[0], "root", keys[0])
    middle = _certify("middle", keys[1], "root", keys[0])
    leaf = _certify(name, keys[2], "middle", keys[1], usage=usage, days=days)
    pair = Pair(folder / f"{name}.pem", folder / f"{name}.root.pem", folder / f"{name}.chain.pem")
    write_private(pair.private, keys[2])
    pair.public.write_bytes(root.public_bytes(PEM))
    chain = [leaf, middle, *([root] if with_root else ())]
    pair.certificates.write_bytes(b"".join(each.public_bytes(PEM) for each in chain))  # type: ignore[union-attr]
    return pair


def _certify(name: str, key: Any, issuer: str, issuer_key: Any, *, usage: str = "", days: int = 30) -> x509.Certificate:
    uses = dict.fromkeys(
        (
            *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
            *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
        ),
        False,
    )
    identifier = x509.SubjectKeyIdentifier.from_public_key
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - datetime.timedelta(40 if usage else 50))
        .not_valid_after(NOW + datetime.timedelta(days))
        .add_extension(x509.BasicConstraints(ca=not usage, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**{**uses, usage or "key_cert_sign": True}), critical=True)
        .add_extension(identifier(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier(issuer_key.public_key())),
            critical=False,
        )
        .sign(issuer_key, hashes.SHA256())
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])
