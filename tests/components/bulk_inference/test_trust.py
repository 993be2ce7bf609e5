"""Models from a bucket, and who may be trusted: digests and signatures of files, certificates and tokens of servers."""

import hashlib
import json
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from PIL import Image
from pyarrow import parquet

from client.classifier_client import SignatureError
from client.classifier_client.transports.connection import TOKEN_VARIABLE
from components.bulk_inference.classifier import Classifier, Trust
from components.errors import InferenceError
from components.storage.bucket import Bucket
from export.signing import read_signer
from pipelines import __main__ as command_line
from tests.client.fakes import FakeGrpc, FakeRest
from tests.s3 import S3
from tests.signing_keys import write_key

FILE = "colours_int8.tflite"


@pytest.fixture
def version(colour_models: Path, tmp_path: Path) -> Path:
    """A folder of LiteRT files as the pusher leaves it, of version 7."""
    folder = tmp_path / "pushed" / "tflite" / "7"
    folder.mkdir(parents=True)
    content = (colour_models / "tflite" / "3" / FILE).read_bytes()
    (folder / FILE).write_bytes(content)
    files = {"int8": {"name": FILE, "size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}}
    spec = {"class_names": ["red", "green", "blue"], "model_version": 7, "files": files}
    (folder / "model_spec.json").write_text(json.dumps(spec))
    return folder


@pytest.fixture
def run(tmp_path: Path, own_logging: None) -> Callable[..., int]:
    """Return the function that classifies one red image."""
    (tmp_path / "images").mkdir()
    Image.new("RGB", (20, 20), "red").save(tmp_path / "images" / "red.png")

    def run(*arguments: str) -> int:
        folders = ["--input", str(tmp_path / "images"), "--output", str(tmp_path / "out")]
        return command_line.main(["infer", *folders, *arguments])

    return run


def row(tmp_path: Path) -> dict[str, Any]:
    (found,) = parquet.read_table(tmp_path / "out").to_pylist()
    return found


# Models in a bucket.


def test_the_newest_version_in_a_bucket_classifies(run, s3: S3, version, tmp_path):
    Bucket(s3.url).upload(version, "models/tflite/7", marker="model_spec.json")
    Bucket(s3.url).upload(version, "models/tflite/8", marker="model_spec.json")
    s3.client.delete_object(Bucket=s3.name, Key="models/tflite/8/model_spec.json")  # being published, or withdrawn
    assert run("--models-dir", f"{s3.url}/models") == 0
    assert (row(tmp_path)["label"], row(tmp_path)["model_version"]) == ("red", "7")
    for model in ("models/colours", "models/tflite/7", f"models/tflite/7/{FILE}"):
        assert run("--model", f"{s3.url}/{model}") == 0, model


def test_a_file_in_a_bucket_that_is_not_the_one_of_its_spec_is_refused(run, s3: S3, version, capsys):
    Bucket(s3.url).upload(version, "models/tflite/7", marker="model_spec.json")
    s3.put(f"models/tflite/7/{FILE}", (version / FILE).read_bytes()[:-1] + b"?")
    assert run("--models-dir", f"{s3.url}/models") == 1
    assert "A LiteRT file must be the one whose sha256 the model_spec.json beside it has" in capsys.readouterr().err


def test_a_bucket_without_models_is_an_error_that_says_so(run, s3: S3, capsys):
    s3.put("photos/1.jpg", b"photo")
    assert run("--models-dir", f"{s3.url}/models") == 1
    assert f"Nothing is there: {s3.url}/models. LiteRT files in {s3.url}/models: none" in capsys.readouterr().err


@pytest.mark.parametrize("is_remote", [False, True])
def test_a_signed_file_is_verified_with_all_that_was_signed(request, version, tmp_path, is_remote):
    pair, other = write_key(tmp_path), write_key(tmp_path, "other")
    read_signer(pair.private).sign(version, "tflite/7")
    model = str(version / FILE)
    if is_remote:
        s3 = request.getfixturevalue("s3")
        Bucket(s3.url).upload(version, "tflite/7", marker="model_spec.json")
        model = f"{s3.url}/tflite/7/{FILE}"
    Classifier(model, trust=Trust(verify_key=pair.public)).open().close()
    with pytest.raises(SignatureError, match="as it was signed"):
        Classifier(model, trust=Trust(verify_key=other.public)).open()
    with pytest.raises(InferenceError, match=r"missing\.pub"):
        Classifier(model, trust=Trust(verify_key=tmp_path / "missing.pub")).open()


# Servers.


@pytest.fixture(params=["rest", "grpc"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """A server over TLS, whose certificate `ca.pem` vouches for."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    certificate = authority.issue_cert("127.0.0.1")
    if request.param == "rest":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        fake: Any = FakeRest(ssl_context=context)
    else:
        chain = b"".join(pem.bytes() for pem in certificate.cert_chain_pems)
        fake = FakeGrpc(credentials=grpc.ssl_server_credentials([(certificate.private_key_pem.bytes(), chain)]))
    with fake as server:
        server.url = f"{request.param}://{server.target}"
        yield server


@pytest.mark.parametrize("source", ["file", "environment"])
def test_a_server_over_tls_gets_the_token(run, server, tmp_path, monkeypatch, capsys, source):
    given = []
    if source == "file":
        (tmp_path / "token").write_text("s3cret\n")
        given = ["--token-file", str(tmp_path / "token")]
        monkeypatch.setenv(TOKEN_VARIABLE, "another")
    else:
        monkeypatch.setenv(TOKEN_VARIABLE, "s3cret")
    assert run("--model", server.url, "--ca-file", str(tmp_path / "ca.pem"), *given) == 0
    assert set(server.tokens) == {"Bearer s3cret"}
    assert row(tmp_path)["label"] == "tulip"
    said = capsys.readouterr()
    files = [path for path in (tmp_path / "out").iterdir() if path.is_file()]
    assert "s3cret" not in said.out + said.err
    assert not any(b"s3cret" in path.read_bytes() for path in files)


def test_a_server_whose_certificate_nobody_vouches_for_gets_no_token(server, tmp_path, monkeypatch):
    monkeypatch.setenv(TOKEN_VARIABLE, "s3cret")
    monkeypatch.setattr("client.classifier_client.transports.connection._FIRST_WAIT_S", 0.0)
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    for trust in (Trust(tls=True), Trust(ca_file=tmp_path / "other.pem")):
        with pytest.raises(Exception, match=r"(?i)certificate.verify.failed") as failed:
            Classifier(server.url, trust=trust).open()
        assert "s3cret" not in str(failed.value)
    assert server.tokens == []


def test_what_is_for_the_other_kind_of_model_is_refused(run, tmp_path, colour_models, capsys):
    pair = write_key(tmp_path)
    models = ["--models-dir", str(colour_models)]
    for arguments, reason in (
        (["--model", "rest://localhost:1", "--verify-key", str(pair.public)], "--verify-key is for LiteRT files"),
        ([*models, "--tls"], "--tls, --ca-file and --token-file are for a server"),
        (["--model", "rest://localhost:1", "--token-file", str(tmp_path / "none")], "--token-file must be readable"),
        (["--model", "rest://localhost:1", "--ca-file", str(pair.public)], "ca_file must be a file of PEM cert"),
    ):
        assert run(*arguments) == 1
        assert reason in capsys.readouterr().err
