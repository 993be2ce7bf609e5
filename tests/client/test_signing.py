"""A signed folder: what was signed verifies, anything else is refused with its reason, and no byte may change."""

import base64
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from client.classifier_client import MissingLibraryError, SignatureError
from client.classifier_client.signing import SignedFolder, bundle, read_verify_key
from export.signing import read_signer
from tests.signing_keys import Pair, write_certified_key, write_key, write_private

FILES = {
    "saved_model.pb": b"graph" * 20,
    "variables/variables.index": b"index" * 5,
    "assets.extra/model_spec.json": b'{"model_name": "flowers"}',
    "empty": b"",
}
UV = Path(sys.executable).with_name("uv")
NUM_CHANGES = 300


def make_version(folder: Path) -> Path:
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def sign(folder: Path, pair: Pair) -> None:
    read_signer(pair.private, pair.certificates).sign(folder, "flowers/1")


def verify(folder: Path, pair: Pair) -> None:
    SignedFolder(folder, read_verify_key(pair.public)).check()


@pytest.fixture(params=["key", "P-384", "certificate", "with root"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Pair:
    if request.param in ("key", "P-384"):
        return write_key(tmp_path, curve=ec.SECP384R1 if request.param == "P-384" else ec.SECP256R1)
    return write_certified_key(tmp_path, with_root=request.param == "with root")


@pytest.fixture
def version(tmp_path: Path, pair: Pair) -> Path:
    folder = make_version(tmp_path / "1")
    sign(folder, pair)
    return folder


def refuse(folder: Path, pair: Pair, reason: str) -> None:
    with pytest.raises(SignatureError, match=reason):
        verify(folder, pair)


def test_what_was_signed_verifies_and_is_read(version: Path, pair: Pair) -> None:
    signed = SignedFolder(version, read_verify_key(pair.public))
    signed.check()
    signed.check_untouched()
    assert {name: signed.read(name) for name in FILES} == FILES
    shutil.copytree(version, version.with_name("elsewhere"))
    verify(version.with_name("elsewhere"), pair)
    version.with_name("link").symlink_to(version)
    verify(version.with_name("link"), pair)


# Of what cryptography says of certificates that are damaged, but not beyond reading.
@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@pytest.mark.parametrize("pair", ["key", "with root"], indirect=True)
@pytest.mark.parametrize("part", ["files", "signature"])
def test_no_byte_may_change(version: Path, pair: Pair, part: str) -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    unnoticed = []
    names = [name for name in FILES if FILES[name]] if part == "files" else ["model.sig"]
    for _ in range(NUM_CHANGES):
        path = version / chance.choice(names)
        before = path.read_bytes()
        position, change = chance.randrange(len(before)), chance.randrange(1, 256)
        path.write_bytes(before[:position] + bytes([before[position] ^ change]) + before[position + 1 :])
        reason = ""
        try:
            verify(version, pair)
        except SignatureError as exc:
            reason = exc.reason
        if not re.search(path.name if part == "files" else r"signed with|signature|model\.sig", reason):
            unnoticed.append(f"byte {position} of {path.name}, xor {change}: {reason}")
        path.write_bytes(before)
    assert not unnoticed, f"seed {seed}: {unnoticed}"
    verify(version, pair)


def test_names_may_not_change(version: Path, pair: Pair) -> None:
    (version / "assets.extra" / "added").touch()
    refuse(version, pair, "holds 'assets.extra/added', which the signature does not name")
    (version / "assets.extra" / "added").unlink()
    (version / "empty").rename(version / "renamed")
    refuse(version, pair, "holds 'renamed', which the signature does not name")
    (version / "renamed").unlink()
    refuse(version, pair, "does not hold 'empty', which the signature names")
    (version / "empty").touch()
    (version / "variables" / "model.sig").touch()
    refuse(version, pair, "holds 'variables/model.sig'")


def test_links_and_pipes_are_refused(version: Path, pair: Pair, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    shutil.copy(version / "saved_model.pb", outside)
    (version / "saved_model.pb").unlink()
    (version / "saved_model.pb").symlink_to(outside)
    refuse(version, pair, r"holds 'saved_model.pb', which is a symbolic link")
    (version / "saved_model.pb").unlink()
    os.mkfifo(version / "saved_model.pb")
    refuse(version, pair, r"holds 'saved_model.pb', which is no regular file")


def test_a_folder_without_a_sound_signature_is_refused(version: Path, pair: Pair) -> None:
    signature = version / "model.sig"
    content = signature.read_bytes()
    for damaged in (b"", b"[]", b"{}", b"[" * 100_000, content[:-1], content + b"\n", content * 2, b"\xff"):
        signature.write_bytes(damaged)
        refuse(version, pair, "model.sig")
    signature.unlink()
    refuse(version, pair, r"1 has no model\.sig\. Copy it again")
    signature.mkdir()
    refuse(version, pair, r"cannot be read: 'model.sig'")
    refuse(version / "saved_model.pb", pair, "Not a directory")
    refuse(version / "nowhere", pair, "No such file")


def test_another_signer_is_refused(version: Path, tmp_path: Path, pair: Pair) -> None:
    other = write_key(tmp_path, "other"), write_certified_key(tmp_path, "stranger")
    refuse(version, other[0], "is signed with (another key|a certificate)")
    refuse(version, other[1], "is signed with (another key|a certificate that the verify key does not vouch for)")
    both = tmp_path / "both.pub"
    both.write_bytes(b"".join(each.public.read_bytes() for each in (*other, pair)))
    verify(version, Pair(pair.private, both))


@pytest.mark.parametrize("pair", ["key"], indirect=True)
def test_a_signature_over_something_else_is_refused(version: Path, pair: Pair, monkeypatch: Any) -> None:
    write = bundle.write_statement

    def write_other(change: Callable[[Any], object]) -> None:
        def written(*arguments: Any) -> bytes:
            statement = json.loads(write(*arguments))
            change(statement)
            return json.dumps(statement).encode()

        monkeypatch.setattr("export.signing.write_statement", written)
        sign(version, pair)

    write_other(lambda s: s.update(predicateType="https://slsa.dev/provenance/v1"))
    refuse(version, pair, "over something else than files, .*slsa")
    write_other(lambda s: s["predicate"]["serialization"].update(method="shards"))
    refuse(version, pair, "sha256, shards, and not")
    write_other(lambda s: s["subject"][0]["digest"].update(sha256="0" * 64))
    refuse(version, pair, "contradicts itself")
    write_other(lambda s: s["predicate"]["resources"].append(s["predicate"]["resources"][0]))
    refuse(version, pair, "contradicts itself")
    write_other(lambda s: s["predicate"].pop("resources"))
    refuse(version, pair, "damaged")
    # Nothing is left out, whatever is signed.
    write_other(lambda s: s["predicate"]["serialization"]["ignore_paths"].append("hidden"))
    (version / "hidden").touch()
    refuse(version, pair, "holds 'hidden'")


def test_a_file_that_is_written_while_it_is_loaded_is_noticed(version: Path, pair: Pair) -> None:
    signed = SignedFolder(version, read_verify_key(pair.public))
    signed.check()
    path = version / "saved_model.pb"
    before = path.stat()
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(SignatureError, match=r"was changed while it was loaded: 'saved_model\.pb'"):
        signed.check_untouched()
    signed.check()
    (version / "added").touch()
    with pytest.raises(SignatureError, match="was changed while it was loaded: 'added'"):
        signed.check_untouched()


def test_a_verify_key_must_be_public_and_of_a_known_kind(tmp_path: Path) -> None:
    pair = write_key(tmp_path)
    with pytest.raises(ValueError, match=r"must be public.*openssl pkey"):
        read_verify_key(pair.private)
    with pytest.raises(ValueError, match=r"must be readable.*No such file"):
        read_verify_key(tmp_path / "none")
    rsa_key = rsa.generate_private_key(65537, 2048)
    write_private(tmp_path / "rsa.pem", rsa_key)
    subprocess.run(["openssl", "pkey", "-in", "rsa.pem", "-pubout", "-out", "rsa.pub"], cwd=tmp_path, check=True)
    with pytest.raises(ValueError, match="1 keys, 0 of them"):
        read_verify_key(tmp_path / "rsa.pub")
    (tmp_path / "text").write_text("no key")
    with pytest.raises(ValueError, match=r"0 keys.*0 certificates"):
        read_verify_key(tmp_path / "text")
    (tmp_path / "cut").write_bytes(pair.public.read_bytes().replace(b"\n", b"\n!", 1))
    with pytest.raises(ValueError, match="damaged"):
        read_verify_key(tmp_path / "cut")


def test_certificates_of_no_sense_are_refused(tmp_path: Path) -> None:
    pair = write_certified_key(tmp_path)
    version = make_version(tmp_path / "1")
    sign(version, pair)
    signature = version / "model.sig"
    content = json.loads(signature.read_bytes())
    [leaf, _] = content["verificationMaterial"]["x509CertificateChain"]["certificates"]
    der = bytearray(base64.b64decode(leaf["rawBytes"]))
    der[der.index(b"\xa0\x03\x02\x01\x02") + 4] = 74  # its version
    leaf["rawBytes"] = base64.b64encode(der).decode()
    signature.write_text(json.dumps(content, separators=(",", ":")))
    refuse(version, pair, r"damaged model\.sig")


def test_a_certificate_that_is_not_for_signatures_is_refused(tmp_path: Path, monkeypatch: Any) -> None:
    pair = write_certified_key(tmp_path, usage="key_agreement")
    version = make_version(tmp_path / "1")
    monkeypatch.setattr("export.signing.may_sign", lambda _: True)
    sign(version, pair)
    refuse(version, pair, "certificate that is not for signatures")


def test_without_the_library_the_error_names_the_extra() -> None:
    script = (
        "import sys; sys.modules['cryptography'] = None\n"
        "import client.classifier_client as client\n"
        "try: import client.classifier_client.signing\n"
        "except client.MissingLibraryError as exc: print(exc)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert "pip install 'classifier-client[verify]'" in done.stdout
    assert issubclass(MissingLibraryError, ImportError)


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """The format's own tool, in an environment of its own."""
    if not UV.exists():
        pytest.skip(f"needs uv beside {sys.executable}")
    folder = tmp_path_factory.mktemp("peer")
    # pyOpenSSL: it imports it without asking for it.
    for arguments in (
        ["venv", "--python", sys.executable, folder],
        ["pip", "install", "--python", folder, "model-signing==1.1.1", "pyOpenSSL"],
    ):
        subprocess.run([UV, *map(str, arguments)], check=True, capture_output=True, timeout=600)

    def call(*words: object) -> str:
        program = folder / "bin" / "model_signing"
        done = subprocess.run([program, *map(str, words)], capture_output=True, text=True, timeout=120, check=False)
        return done.stdout + done.stderr

    return call


@pytest.mark.slow
def test_the_formats_own_tool_verifies_ours_and_signs_what_we_verify(
    version: Path, pair: Pair, peer: Callable[..., str]
) -> None:
    signature = version / "model.sig"
    if pair.certificates:
        leaf, chain = version.with_name("leaf"), version.with_name("chain")
        leaf.write_bytes(pair.certificates.read_bytes())  # it takes the first
        chain.write_bytes(pair.certificates.read_bytes().split(b"-----END CERTIFICATE-----\n", 1)[1])
        ways = {
            "verify": ["certificate", "--certificate_chain", pair.public],
            "sign": ["certificate", "--signing_certificate", leaf, "--certificate_chain", chain],
        }
    else:
        ways = {"verify": ["key", "--public_key", pair.public], "sign": ["key"]}
    words = {"sign": ["--private_key", pair.private], "verify": []}
    rest = ["--signature", signature, version]
    assert "Verification succeeded" in peer("verify", *ways["verify"], *words["verify"], *rest)
    (version / "saved_model.pb").write_bytes(b"changed")
    assert "Verification failed" in peer("verify", *ways["verify"], *rest)
    refuse(version, pair, "saved_model.pb")
    signature.unlink()
    assert "Signing succeeded" in peer("sign", *ways["sign"], *words["sign"], *rest)
    verify(version, pair)
