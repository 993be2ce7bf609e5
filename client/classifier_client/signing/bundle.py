"""`model.sig`: a Sigstore bundle whose DSSE envelope holds an in-toto statement with the SHA-256 of each file.

Sources: https://github.com/ossf/model-signing-spec, `sigstore_bundle.proto` in
https://github.com/sigstore/protobuf-specs, and https://github.com/secure-systems-lab/dsse/blob/v1.0.2/protocol.md.

JSON and base64 can say the same thing in many ways. A bundle is read in one of them only, without white space, as
`model_signing` writes it: so none of its bytes can change unnoticed, not even one that means nothing.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec

from .keys import HASHES, RefusalError, fingerprint
from .verify_key import VerifyKey

SIGNATURE = "model.sig"
"""The name of the signature, directly in the folder."""

_MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
_PREDICATE_TYPE = "https://model_signing/signature/v1.0"
_SERIALIZATION = {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": [SIGNATURE]}
_SHOWN_CHARS = 64


def write_statement(name: str, digests: Mapping[str, str]) -> bytes:
    """Return the statement about a folder's files.

    Args:
        name: of the folder, for people.
        digests: the SHA-256 of each file, in hexadecimal digits, by its name with slashes.
    """
    resources = [{"name": file, "algorithm": "sha256", "digest": digest} for file, digest in sorted(digests.items())]
    subject = {"name": name, "digest": {"sha256": _digest_all(resources)}}
    predicate = {"serialization": _SERIALIZATION, "resources": resources}
    return _write(
        {"_type": _STATEMENT_TYPE, "subject": [subject], "predicateType": _PREDICATE_TYPE, "predicate": predicate}
    )


def read_statement(payload: bytes) -> dict[str, str]:
    """Return the SHA-256 of each file by its name.

    What the statement would leave out (`ignore_paths`) does not count: whoever reads it leaves out the signature alone.

    Raises:
        RefusalError: it is another kind of statement; a `ValueError`, `TypeError` or `LookupError`: it is none.
    """
    statement = json.loads(payload)
    predicate = statement["predicate"]
    resources, how = predicate["resources"], predicate["serialization"]
    kinds = {statement["_type"], statement["predicateType"]}
    if kinds != {_STATEMENT_TYPE, _PREDICATE_TYPE}:
        raise RefusalError(f"has a signature over something else than files, {_show(kinds)}")
    methods = {how["method"], how["hash_type"], *(each["algorithm"] for each in resources)}
    if methods != {"files", "sha256"}:
        raise RefusalError(f"has a signature over {_show(methods)}, and not over the sha256 of whole files")
    digests = {each["name"]: each["digest"] for each in resources}
    total = [subject["digest"]["sha256"] for subject in statement["subject"]]
    if len(digests) < len(resources) or total != [_digest_all(resources)]:
        raise RefusalError("has a signature that contradicts itself")
    return digests


def encode_envelope(payload: bytes) -> bytes:
    """Return the bytes that are signed: DSSE's pre-authentication encoding of a statement."""
    return b"DSSEv1 %d %s %d %s" % (len(_PAYLOAD_TYPE), _PAYLOAD_TYPE.encode(), len(payload), payload)


def write_bundle(
    payload: bytes, signature: bytes, *, key: ec.EllipticCurvePublicKey, chain: Sequence[bytes] = ()
) -> bytes:
    """Return a bundle.

    Args:
        payload: the statement.
        signature: of its envelope.
        key: public half of the key that signed.
        chain: the certificate of that key and those that vouch for it, in DER; without any, the key is named itself.
    """
    material: dict[str, Any] = {"publicKey": {"hint": fingerprint(key)}}
    if chain:
        material = {"x509CertificateChain": {"certificates": [{"rawBytes": _encode(der)} for der in chain]}}
    envelope = {
        "payload": _encode(payload),
        "payloadType": _PAYLOAD_TYPE,
        "signatures": [{"sig": _encode(signature), "keyid": ""}],
    }
    return _write(
        {
            "mediaType": _MEDIA_TYPE,
            "verificationMaterial": {**material, "tlogEntries": []},
            "dsseEnvelope": envelope,
        }
    )


def open_bundle(content: bytes, verify_key: VerifyKey) -> bytes:
    """Return the statement in a bundle, after its signature has been verified.

    Raises:
        RefusalError: it does not verify; a `ValueError`, `TypeError` or `LookupError`: it is no bundle.
    """
    bundle = json.loads(content)
    envelope, material = bundle["dsseEnvelope"], bundle["verificationMaterial"]
    payload, signature = _decode(envelope["payload"]), _decode(envelope["signatures"][0]["sig"])
    chain: list[bytes] = []
    if "publicKey" in material:
        hint = material["publicKey"]["hint"]
        if hint not in verify_key.keys:
            raise RefusalError(f"is signed with another key, {_show([hint])}")
        key = verify_key.keys[hint]
    else:
        chain = [_decode(each["rawBytes"]) for each in material["x509CertificateChain"]["certificates"]]
        from .certificates import check_chain  # most versions are signed with a key alone

        key = check_chain(chain, verify_key.roots)
    if _write(bundle) != content or bundle != json.loads(write_bundle(payload, signature, key=key, chain=chain)):
        raise RefusalError(f"has a {SIGNATURE} that is not written as the format's own tool writes it")
    try:
        key.verify(signature, encode_envelope(payload), ec.ECDSA(HASHES[key.curve.name]))
    except InvalidSignature:
        raise RefusalError("has a signature that does not verify: it was changed, or is another key's") from None
    return payload


def _digest_all(resources: Iterable[Mapping[str, str]]) -> str:
    """Return the digest of the whole: that of the files' digests, in their order."""
    return hashlib.sha256(b"".join(bytes.fromhex(each["digest"]) for each in resources)).hexdigest()


def _write(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _encode(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _decode(text: str) -> bytes:
    # What is no base64 is passed over, and then the bundle is not as it would be written.
    return base64.b64decode(text)


def _show(values: Iterable[object]) -> str:
    return ", ".join(sorted(str(value)[:_SHOWN_CHARS] for value in values))
