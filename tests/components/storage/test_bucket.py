"""Folders at a URL: what is written is read back, markers come last and go first, and a dead store is found at once."""

import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from components.errors import StorageError
from components.storage import bucket as storage
from components.storage.bucket import Bucket
from tests.s3 import S3, Killed, killed_after

FILES = {"saved_model.pb": "graph", "variables/variables.index": "index", "assets.extra/a b+ü.json": "{}"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        path = tmp_path / "model" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path / "model"


@pytest.fixture(params=["s3", "file", "memory"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bucket]:
    """A place in each kind of store: over the network, on disk, in memory."""
    if request.param == "s3":
        yield Bucket(f"{request.getfixturevalue('s3').url}/below")
    elif request.param == "file":
        yield Bucket(f"file://{tmp_path}/remote")
    else:
        yield Bucket(f"memory://{tmp_path.name}")
        fsspec.filesystem("memory").store.clear()


def read_all(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*") if p.is_file()}


def test_what_is_uploaded_is_downloaded_again(bucket, folder, tmp_path):
    bucket.upload(folder, "flowers/1", marker="saved_model.pb")
    assert bucket.names("flowers/1") == ["assets.extra", "saved_model.pb", "variables"]
    found = bucket.files("flowers/1")
    assert {name: file.size_bytes for name, file in found.items()} == {n: len(c) for n, c in FILES.items()}
    (bucket / "flowers/1").download(found, tmp_path / "back")
    assert read_all(tmp_path / "back") == FILES


def test_what_is_not_there_is_none_or_empty(bucket):
    assert bucket.read("none") is bucket.find("none") is bucket.read_json("none") is None
    assert bucket.names("none") == []
    assert bucket.files() == {}
    bucket.remove("none", marker="saved_model.pb")


def test_another_content_is_another_version(bucket):
    bucket.write("a", b"one")
    first = bucket.find("a")
    assert bucket.find("a") == first
    bucket.write("a", b"two")
    assert bucket.find("a") != first


def test_the_empty_objects_that_stand_for_folders_are_no_files(s3: S3):
    for key in ("photos/", "photos/rose/", "photos/rose/1.jpg"):
        s3.put(key, b"1" if key.endswith("jpg") else b"")
    bucket = Bucket(f"{s3.url}/photos")
    assert list(bucket.files()) == ["rose/1.jpg"]
    assert bucket.names() == ["rose"]


def test_only_one_gets_what_two_claim(bucket):
    assert bucket.claim(".versions/1", b"mine")
    assert not bucket.claim(".versions/1", b"yours")
    assert bucket.read(".versions/1") == b"mine"


def test_files_are_read_in_order(bucket):
    names = [f"photos/{number:03d}" for number in range(storage._NUM_AHEAD + 6)]
    for name in names:
        bucket.write(name, name.encode())
    assert list(bucket.read_each([*names, "gone"])) == [*(name.encode() for name in names), None]


def test_a_copy_is_all_of_it_and_a_removal_leaves_nothing(bucket, folder):
    bucket.upload(folder, "from", marker="saved_model.pb")
    bucket.copy("from", "to", marker="saved_model.pb")
    bucket.remove("from", marker="saved_model.pb")
    assert bucket.files("from") == {}
    assert set(bucket.files("to")) == set(FILES)


def test_the_marker_is_written_last_and_removed_first(bucket, folder):
    def marked(name: str) -> tuple[bool, int]:
        files = bucket.files(name)
        return "saved_model.pb" in files, len(files)

    for number in range(len(FILES)):
        with pytest.raises(Killed), killed_after(number):
            bucket.upload(folder, f"up-{number}", marker="saved_model.pb")
        assert marked(f"up-{number}") == (False, number)
        bucket.upload(folder, f"down-{number}", marker="saved_model.pb")
        with pytest.raises(Killed), killed_after(number):
            bucket.remove(f"down-{number}", marker="saved_model.pb")
        assert marked(f"down-{number}") == (number == 0, len(FILES) - number)


def test_a_check_leaves_nothing_behind(bucket):
    bucket.check_writable()
    assert bucket.files() == {}


# What cannot work.


def test_a_bucket_that_does_not_exist_is_found(s3: S3):
    with pytest.raises(
        StorageError, match=rf"{s3.url}-2/runs cannot be used: FileNotFoundError: The specified bucket does not exist\."
    ):
        Bucket(f"{s3.url}-2/runs").check_writable()


def test_a_bucket_that_may_not_be_written_to_is_found(s3: S3):
    s3.forbid("s3:PutObject")
    with pytest.raises(StorageError, match=rf"{s3.url} cannot be used: .*(Forbidden|Denied).*\. Check the address"):
        Bucket(s3.url).check_writable()


def test_a_store_that_refuses_connections_is_found_in_seconds(s3: S3, monkeypatch):
    s3.unplug(monkeypatch)
    started = time.monotonic()
    with pytest.raises(
        StorageError, match=r"s3://dead cannot be used: EndpointConnectionError: Could not connect .*127\.0\.0\.1"
    ):
        Bucket("s3://dead").check_writable()
    assert time.monotonic() - started < 10


def test_a_store_that_never_answers_is_given_up(s3: S3, monkeypatch):
    monkeypatch.setattr(storage, "PROBE_TIMEOUT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        s3.lead_to(silent, monkeypatch)
        for check in (Bucket("s3://silent").check_writable, Bucket("s3://silent").check_readable):
            with pytest.raises(StorageError, match="s3://silent cannot be used: no answer in time"):
                check()


def test_a_name_that_leads_out_of_its_folder_is_refused(s3: S3, tmp_path):
    s3.put("runs/../../evil", b"content")
    bucket = Bucket(f"{s3.url}/runs")
    with pytest.raises(
        StorageError, match=r"Names at a URL must not lead out of their folder\. Received: .*/runs/\.\./"
    ):
        bucket.download(bucket.files(), tmp_path / "a" / "b")
    assert not list(tmp_path.rglob("evil"))
    assert not list(tmp_path.rglob(".incoming-*"))


def test_a_missing_package_is_named_with_what_to_run(monkeypatch):
    for kind, package in (("s3", "s3fs"), ("gs", "gcsfs")):
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, kind, raising=False)
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(StorageError, match=rf"{kind}:// needs {package}, which is not installed\. Run: make scale"):
            Bucket(f"{kind}://bucket")


def test_an_unknown_kind_of_url_is_an_error():
    with pytest.raises(StorageError, match=r"No store is known for s4://\. Received: s4://bucket\. Use s3://"):
        storage.place("s4://bucket")


def test_a_path_stays_a_path():
    assert storage.place("some/runs") == Path("some/runs")
    assert str(storage.place("memory://some/runs")) == "memory://some/runs"
