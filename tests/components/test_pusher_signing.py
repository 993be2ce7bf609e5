"""What is pushed with a key is signed before it is seen, stays so wherever it goes, and the key stays where it is."""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from client.classifier_client.signing import SignedFolder, read_verify_key
from components import pusher
from components.errors import PushError
from components.pusher import PusherOptions
from components.storage.models import ModelStore, open_models
from export.signing import PASSPHRASE
from tests.components.candidates import Candidates
from tests.signing_keys import Pair, write_certified_key, write_key


@pytest.fixture(params=["folder", "bucket"])
def candidates(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Candidates]:
    yield Candidates(tmp_path, f"memory:/{tmp_path}/models" if request.param == "bucket" else None)
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return write_key(tmp_path)


def download(models: ModelStore, name: str, folder: Path) -> Path:
    """Copy what is stored under a name to a folder of this machine."""
    for file in models._store.files(name):
        (folder / name / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / name / file).write_bytes(models._store.read(f"{name}/{file}") or b"")
    return folder / name


def verify(folder: Path, pair: Pair) -> None:
    SignedFolder(folder, read_verify_key(pair.public)).check()


def test_both_folders_of_a_version_are_signed_before_they_are_seen(candidates, pair, tmp_path, monkeypatch, caplog):
    candidates.add("a", int8=True)
    seen = []
    move = type(candidates.store).move

    def look_then_move(store, source, target, *, marker):
        seen.append("model.sig" in store.files(source))
        move(store, source, target, marker=marker)

    monkeypatch.setattr(type(candidates.store), "move", look_then_move)
    with caplog.at_level("INFO"):
        assert candidates.push("a", signing_key=str(pair.private))["version"] == 1
    assert all(seen)
    for name in ("flowers/1", "tflite/1"):
        verify(download(candidates.models, name, tmp_path / "copy"), pair)
    fingerprint = pusher.describe_source(PusherOptions(signing_key=str(pair.private)))["signed_by"]
    assert f"flowers/1 is signed by {fingerprint}" in caplog.text
    assert candidates.models.lineage("flowers", 1)["signed_by"] == fingerprint


def test_without_a_key_nothing_is_signed(candidates):
    candidates.add("a")
    candidates.push("a")
    candidates.assert_complete(1, "a")
    assert candidates.models.lineage("flowers", 1)["signed_by"] is None
    assert pusher.describe_source(PusherOptions()) == {}


def test_signatures_stay_valid_through_rollback_and_fetch(candidates, pair, tmp_path):
    candidates.add("a", "b", int8=True)
    for key in ("a", "b"):
        candidates.push(key, signing_key=str(pair.private))
    candidates.models.rollback("flowers")
    for name in ("flowers/1", "tflite/1", ".withdrawn/flowers/2", ".withdrawn/tflite/2"):
        verify(download(candidates.models, name, tmp_path / "copy"), pair)
    if "://" in str(candidates.store):
        candidates.models.fetch("flowers", tmp_path / "fetched")
        for name in ("flowers/1", "tflite/1"):
            verify(tmp_path / "fetched" / name, pair)
        assert open_models(tmp_path / "fetched").versions("flowers") == [1]


def test_another_signer_pushes_the_same_model_again_and_says_so(candidates, pair, tmp_path, caplog):
    candidates.add("a", int8=True)
    candidates.push("a")
    key = {"signing_key": str(pair.private)}
    assert candidates.push("a", **key)["version"] == 2
    assert "version 1 is the same model, and not signed: it is pushed again, signed" in caplog.text
    assert candidates.push("a", **key)["version"] == 2
    other = write_key(tmp_path, "other")
    assert candidates.push("a", signing_key=str(other.private))["version"] == 3
    assert "version 2 is the same model, and signed by another one, " in caplog.text
    verify(download(candidates.models, "tflite/3", tmp_path / "copy"), other)
    # Who does not sign has nothing against a signature.
    assert candidates.push("a")["version"] == 3
    certified = write_certified_key(tmp_path)
    options = {"signing_key": str(certified.private), "signing_certificates": str(certified.certificates)}
    assert candidates.push("a", **options)["version"] == 4
    verify(download(candidates.models, "flowers/4", tmp_path / "copy"), certified)
    # The same key, named instead of certified.
    assert candidates.push("a", signing_key=str(certified.private))["version"] == 5


def test_what_a_key_is_found_to_lack_is_said_before_the_training(tmp_path, pair, monkeypatch):
    def refuse(reason, **options):
        with pytest.raises(PushError, match=reason) as caught:
            pusher.describe_source(PusherOptions(**{name: str(value) for name, value in options.items()}))
        assert "pusher.signing_key" in str(caught.value)

    locked = write_key(tmp_path, "locked", passphrase="open sesame").private
    refuse(r"none\.pem: No such file", signing_key=tmp_path / "none.pem")
    refuse(r"key\.pub holds none that can be read\. Choose", signing_key=pair.public)
    refuse(rf"locked\.pem has one: set {PASSPHRASE}", signing_key=locked)
    monkeypatch.setenv(PASSPHRASE, "wrong")
    refuse(rf"or {PASSPHRASE} is not its passphrase", signing_key=locked)
    monkeypatch.setenv(PASSPHRASE, "open sesame")
    assert pusher.describe_source(PusherOptions(signing_key=str(locked)))["signed_by"]
    first, second = write_certified_key(tmp_path, "first"), write_certified_key(tmp_path, "second", days=-1)
    refuse("begins with another one's", signing_key=first.private, signing_certificates=second.certificates)
    refuse("must be valid now", signing_key=second.private, signing_certificates=second.certificates)
    refuse("with none that can be read", signing_key=first.private, signing_certificates=first.private)
    other = write_certified_key(tmp_path, "other", usage="key_agreement")
    refuse("must be for signatures", signing_key=other.private, signing_certificates=other.certificates)


def test_a_key_that_is_given_itself_is_refused_and_not_repeated(pair):
    text = pair.private.read_text()
    with pytest.raises(ValueError, match="must be the path of a file") as caught:
        PusherOptions(signing_key=text)
    assert text.splitlines()[1] not in str(caught.value)
    with pytest.raises(ValueError, match="need a signing_key"):
        PusherOptions(signing_certificates="chain.pem")
