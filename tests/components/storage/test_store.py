"""A folder and a bucket keep the same promises: files as written, nothing seen in halves, a name claimed once."""

import pickle
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from components.errors import StorageError
from components.storage import bucket as storage
from components.storage.bucket import Bucket
from components.storage.folder import Folder
from components.storage.store import Store, open_store
from tests.s3 import S3, Killed, killed_after

FILES = {"saved_model.pb": b"graph", "variables/variables.index": b"index", "assets.extra/a b+ü.json": b"{}"}
MARKER = "saved_model.pb"
BUCKETS = ("s3", "file", "memory")


@pytest.fixture(params=["folder", *BUCKETS])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A folder, and a bucket of each kind: over the network, on disk, in memory."""
    if request.param == "s3":
        yield open_store(f"{request.getfixturevalue('s3').url}/below")
    elif request.param == "memory":
        yield open_store(f"memory://{tmp_path.name}")
        fsspec.filesystem("memory").store.clear()
    else:
        yield open_store(tmp_path / "store" if request.param == "folder" else f"file://{tmp_path}/store")


bucket = pytest.mark.parametrize("store", BUCKETS, indirect=True)


def fill(folder: Path) -> None:
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def publish(store: Store, name: str) -> None:
    with store.staged(name, marker=MARKER) as folder:
        fill(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fill(tmp_path / "model")
    return tmp_path / "model"


def read_all(store: Store, folder: str) -> dict[str, bytes | None]:
    names = list(store.files(folder))
    return dict(zip(names, store.read_each(f"{folder}/{name}".lstrip("/") for name in names), strict=True))


def test_a_path_is_a_folder_and_a_url_a_bucket():
    assert open_store("some/runs") == Folder(Path("some/runs"))
    assert str(open_store("some") / "runs") == "some/runs"
    assert str(open_store("some").absolute()) == str(Path("some").absolute())
    for bucket in (open_store("memory://some/runs"), open_store("memory://some") / "runs"):
        assert isinstance(bucket, Bucket)
        assert str(bucket) == str(bucket.absolute()) == "memory://some/runs"


def test_what_is_staged_is_there_after_the_block(store):
    with store.staged("flowers/1", marker=MARKER) as folder:
        fill(folder)
        assert store.files("flowers") == {}
    assert store.names("flowers/1") == ["assets.extra", "saved_model.pb", "variables"]
    assert read_all(store, "flowers/1") == FILES
    sizes = {name: file.size_bytes for name, file in store.files("flowers/1").items()}
    assert sizes == {name: len(content) for name, content in FILES.items()}
    assert store.files(".staging") == {}


def test_a_block_that_fails_leaves_nothing(store):
    def fill_and_fail(folder: Path) -> None:
        fill(folder)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), store.staged("flowers/1", marker=MARKER) as folder:
        fill_and_fail(folder)
    assert store.files() == {}


def test_what_is_not_there_is_none_or_empty(store):
    assert store.read("none") is None
    assert list(store.read_each(["none"])) == [None]
    assert store.names("none") == []
    assert store.files() == {}
    store.move("none", "elsewhere", marker=MARKER)
    assert store.files() == {}


def test_a_file_has_the_content_that_was_written_last(store):
    store.write("below/a", b"0123456789")
    first = store.files()
    assert store.files() == first
    store.write("below/a", b"another content")
    assert store.files() != first
    assert store.read("below/a") == b"another content"
    assert store.read("below/a", 8, 15) == b"content"
    assert (store / "below").read("a") == b"another content"
    store.remove_file("below/a")
    assert store.files() == {}


def test_pieces_become_one_file_or_none(store):
    def fail() -> Iterator[bytes]:
        yield b"half"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.write_pieces("below/a", fail())
    assert store.files() == {}
    store.write_pieces("below/a", [b"012", b"", b"3"])
    assert store.read("below/a") == b"0123"
    with pytest.raises(ZeroDivisionError):
        store.write_pieces("below/a", fail())
    store.write_pieces("b", iter(()))
    assert read_all(store, "") == {"b": b"", "below/a": b"0123"}


def test_only_one_gets_what_two_claim(store):
    assert store.claim(".versions/1", b"mine")
    assert not store.claim(".versions/1", b"yours")
    assert store.claim(".versions/1", b"mine")  # as where the response to the first was lost
    assert store.read(".versions/1") == b"mine"


def test_files_are_read_in_order(store, monkeypatch):
    monkeypatch.setattr(storage, "_NUM_AHEAD", 4)
    names = [f"photos/{number}" for number in range(9)]
    for name in names:
        store.write(name, name.encode())
    assert list(store.read_each([*names, "gone"])) == [*(name.encode() for name in names), None]


def test_what_is_moved_is_all_there_and_leaves_nothing(store):
    publish(store, "from")
    store.move("from", "below/to", marker=MARKER)
    assert store.files("from") == {}
    assert read_all(store, "below/to") == FILES


def test_a_store_goes_to_another_process(store):
    store.write("a", b"content")
    assert pickle.loads(pickle.dumps(store)).read("a") == b"content"


def test_a_check_and_a_lock_leave_nothing_to_see(store):
    store.check_writable()
    with store.lock():
        assert store.names() == []
        assert store.files() == {}


# Folders alone.


def test_whoever_holds_the_lock_removes_what_killed_writers_left(tmp_path):
    (tmp_path / ".part.parquet.77.tmp").touch()
    (tmp_path / ".staging" / "flowers-1").mkdir(parents=True)
    store = Folder(tmp_path)
    with store.lock():
        publish(store, "flowers/2")
    assert store.names() == ["flowers"]


def test_a_folder_that_cannot_be_made_is_found(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="file/runs"):
        Folder(tmp_path / "file" / "runs").check_writable()


# Buckets alone.


@bucket
def test_what_is_uploaded_is_downloaded_again(store, folder, tmp_path):
    store.upload(folder, "flowers/1", marker=MARKER)
    (store / "flowers/1").download(FILES, tmp_path / "back")
    assert read_all(Folder(tmp_path), "back") == FILES


@bucket
def test_another_content_is_another_version(store):
    assert store.find("a") is None
    store.write("a", b"one")
    first = store.find("a")
    assert store.find("a") == first
    store.write("a", b"two")
    assert store.find("a") != first


@bucket
def test_files_are_found_by_a_pattern(store, folder):
    store.upload(folder, "model", marker=MARKER)
    files = {f"model/{name}": info for name, info in store.files("model").items()}
    assert store.match("model/*") == {name: files[name] for name in ("model/saved_model.pb",)}
    assert list(store.match("model/**/*.[ij]*")) == ["model/assets.extra/a b+ü.json", "model/variables/variables.index"]
    assert list(store.match("model/saved_model.pb")) == ["model/saved_model.pb"]
    assert store.match("none/*") == store.match("none") == store.match("model") == {}


@bucket
def test_the_marker_is_written_last_and_removed_first(store, folder):
    def marked(name: str) -> tuple[bool, int]:
        files = store.files(name)
        return MARKER in files, len(files)

    for number in range(len(FILES)):
        with pytest.raises(Killed), killed_after(number):
            store.upload(folder, f"up-{number}", marker=MARKER)
        assert marked(f"up-{number}") == (False, number)
        store.upload(folder, f"down-{number}", marker=MARKER)
        with pytest.raises(Killed), killed_after(number):
            store.remove(f"down-{number}", marker=MARKER)
        assert marked(f"down-{number}") == (number == 0, len(FILES) - number)
        store.remove(f"down-{number}", marker=MARKER)
        assert store.files(f"down-{number}") == {}


def test_the_empty_objects_that_stand_for_folders_are_no_files(s3: S3):
    for key in ("photos/", "photos/rose/", "photos/rose/1.jpg"):
        s3.put(key, b"1" if key.endswith("jpg") else b"")
    bucket = Bucket(f"{s3.url}/photos")
    assert list(bucket.files()) == ["rose/1.jpg"]
    assert bucket.names() == ["rose"]


def test_a_bucket_that_does_not_exist_is_found(s3: S3):
    with pytest.raises(
        StorageError, match=rf"{s3.url}-2/runs cannot be used: FileNotFoundError: The specified bucket does not exist\."
    ):
        Bucket(f"{s3.url}-2/runs").check_writable()


def test_a_bucket_that_may_not_be_written_to_is_found(s3: S3):
    s3.forbid("s3:PutObject")
    with pytest.raises(StorageError, match=rf"{s3.url} cannot be used: .*(Forbidden|Denied).*\. Check the address"):
        Bucket(s3.url).check_writable()


def test_a_service_that_refuses_connections_is_found_in_seconds(s3: S3, monkeypatch):
    s3.unplug(monkeypatch)
    started = time.monotonic()
    with pytest.raises(
        StorageError, match=r"s3://dead cannot be used: EndpointConnectionError: Could not connect .*127\.0\.0\.1"
    ):
        Bucket("s3://dead").check_writable()
    assert time.monotonic() - started < 10


def test_a_service_that_never_responds_is_given_up(s3: S3, monkeypatch):
    monkeypatch.setattr(storage, "PROBE_TIMEOUT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        s3.lead_to(silent, monkeypatch)
        for check in (Bucket("s3://silent").check_writable, Bucket("s3://silent").check_readable):
            with pytest.raises(StorageError, match="s3://silent cannot be used: no response in time"):
                check()


def test_what_a_service_raises_becomes_an_error_of_ours(monkeypatch):
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("no credentials")

    bucket = Bucket("memory://bucket/out")
    monkeypatch.setattr(bucket._files, "ls", refuse)
    with pytest.raises(StorageError, match=r"memory://bucket/out cannot be used: RuntimeError: no credentials\. Check"):
        bucket.names()


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
            open_store(f"{kind}://bucket")


def test_an_unknown_kind_of_url_is_an_error():
    with pytest.raises(StorageError, match=r"No store is known for s4://\. Received: s4://bucket\. Use s3://"):
        open_store("s4://bucket")
