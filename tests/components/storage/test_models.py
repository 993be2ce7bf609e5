"""Models at a URL: pushed whole or not at all, whenever the pusher is killed, and a number belongs to one candidate."""

import itertools
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import fsspec
import pytest

from components import pusher
from components.errors import PushError, StorageError
from components.storage import cache
from components.storage import models as model_store
from components.storage.bucket import Bucket, RemoteFile
from components.storage.files import read_json
from components.storage.models import ModelBucket
from tests.components.candidates import Candidates
from tests.s3 import S3, Killed, killed_after


@pytest.fixture
def candidates(tmp_path: Path, s3: S3) -> Candidates:
    return Candidates(tmp_path, Bucket(f"{s3.url}/models"))


WHOLE = {
    "saved_model.pb",
    "variables/variables.index",
    "variables/variables.data-00000-of-00001",
    "assets.extra/model_spec.json",
    "assets.extra/lineage.json",
}


LITERT = {"flowers_int8.tflite", "model_spec.json"}


def visible(keys: Iterable[str]) -> dict[str, set[str]]:
    """Give the versions that a reader sees, those with their marker, and the files of each."""
    markers = [
        key for key in keys if key.endswith("/saved_model.pb") or re.fullmatch(r"tflite/\d+/model_spec.json", key)
    ]
    folders = [key.rpartition("/")[0] for key in markers if not key.startswith(".")]
    return {f: {key.removeprefix(f"{f}/") for key in keys if key.startswith(f"{f}/")} for f in folders}


def assert_nothing_half_is_visible(keys: Iterable[str]) -> None:
    for name, files in visible(keys).items():
        assert files == (LITERT if name.startswith("tflite") else WHOLE), name


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[Callable[[], Candidates]]:
    """Give a function that gives candidates and a place of their own, in a store whose writes take no time."""
    numbers = itertools.count()

    def make() -> Candidates:
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        return Candidates(folder, Bucket(f"memory:/{folder}"))

    yield make
    fsspec.filesystem("memory").store.clear()


def test_a_model_is_pushed_to_a_bucket(candidates, s3):
    candidates.add("a")
    candidates.convert("a", int8=True)
    push = candidates.push("a")
    assert push["path"] == f"{s3.url}/models/flowers/1"
    assert push["litert_path"] == f"{s3.url}/models/tflite/1"
    assert visible(s3.keys_below("models/")) == {"flowers/1": WHOLE, "tflite/1": LITERT}
    assert s3.get("models/flowers/1/saved_model.pb") == b"graph of a"
    assert not s3.keys_below("models/.staging")
    assert candidates.push("a") == push
    assert candidates.versions() == [1]


def test_versions_only_grow(candidates, s3):
    for key in ("a", "b", "c"):
        candidates.add(key)
    assert [candidates.push(key)["version"] for key in ("a", "b")] == [1, 2]
    assert pusher.rollback(candidates.models, "flowers") == (2, 1)
    assert candidates.versions() == [1]
    assert set(s3.keys_below("models/.withdrawn/flowers/2/")) == WHOLE
    assert not s3.keys_below("models/flowers/2")
    assert candidates.push("b")["reason"].startswith("withdrawn by a rollback as version 2;")
    assert candidates.push("c")["version"] == 3
    assert candidates.push("b", push_withdrawn=True)["version"] == 4


def test_versions_that_others_copied_there_count(candidates, s3):
    s3.put("models/flowers/7/saved_model.pb", b"graph")
    candidates.add("a")
    assert candidates.baseline("a")["version"] == 7
    assert candidates.push("a")["version"] == 8


def test_a_push_to_s3_that_is_killed_again_and_again_never_shows_half_a_version(candidates, s3):
    candidates.add("a")
    candidates.convert("a", int8=True)
    for number in itertools.count(0, 3):
        try:
            with killed_after(number):
                candidates.push("a")
            break
        except Killed:
            assert_nothing_half_is_visible(s3.keys_below("models/"))
            assert candidates.versions() in ([], [1])
    assert number > 2 * len(WHOLE)
    assert visible(s3.keys_below("models/")) == {"flowers/1": WHOLE, "tflite/1": LITERT}


def test_a_push_killed_at_any_write_is_completed_by_the_next_one(in_memory):
    for number in itertools.count():
        candidates = in_memory()
        for key in ("a", "b"):
            candidates.add(key)
            candidates.convert(key, int8=True)
        candidates.push("a")
        try:
            with killed_after(number):
                candidates.push("b")
            break
        except Killed:
            assert_nothing_half_is_visible(candidates.models.files())
            assert candidates.versions() in ([1], [1, 2])
        # What a killed push claimed is the same candidate's still, so no number is lost.
        assert candidates.push("b")["version"] == 2
        assert set(visible(candidates.models.files())) == {"flowers/1", "flowers/2", "tflite/1", "tflite/2"}
        assert_nothing_half_is_visible(candidates.models.files())
    # Its claim; then each file to staging, from there to its place, and out of staging.
    assert number == 1 + 3 * (len(WHOLE) + len(LITERT))


def test_a_killed_push_leaves_the_next_candidate_another_number(candidates, s3):
    for key in ("a", "b"):
        candidates.add(key)
    with pytest.raises(Killed), killed_after(8):  # its claim, five files to staging, two copied
        candidates.push("a")
    assert len(s3.keys_below("models/flowers/1")) == 2
    assert candidates.versions() == []
    assert candidates.push("b")["version"] == 2
    # Below a version that others have pushed since, a candidate would not be the newest.
    assert candidates.push("a")["version"] == 3
    assert candidates.versions() == [2, 3]


def test_a_rollback_killed_at_any_write_is_completed_by_the_next_one(in_memory):
    for number in itertools.count():
        candidates = in_memory()
        for key in ("a", "b", "c"):
            candidates.add(key)
            candidates.convert(key, int8=True)
            candidates.push(key)
        try:
            with killed_after(number):
                pusher.rollback(candidates.models, "flowers")
            break
        except Killed:
            assert candidates.versions() in ([1, 2, 3], [1, 2])
            assert all(files == WHOLE for v, files in visible(candidates.models.files()).items() if "flowers" in v)
        assert pusher.rollback(candidates.models, "flowers") == (3, 2), number
        assert candidates.versions() == [1, 2]
        assert not candidates.models.files("flowers/3")
        assert not candidates.models.files("tflite/3")
        assert set(candidates.models.files(".withdrawn/flowers/3")) == WHOLE
        assert set(candidates.models.files(".withdrawn/tflite/3")) == LITERT
    # Each file to where withdrawn ones are, and out of its place.
    assert number == 2 * (len(WHOLE) + len(LITERT))


def test_a_rollback_after_a_killed_one_and_a_push_withdraws_what_was_pushed(in_memory):
    candidates = in_memory()
    for key in ("a", "b", "c"):
        candidates.add(key)
    candidates.push("a")
    candidates.push("b")
    with pytest.raises(Killed), killed_after(len(WHOLE) + 1):  # copied, and out of sight
        pusher.rollback(candidates.models, "flowers")
    assert candidates.versions() == [1]
    assert candidates.push("c")["version"] == 3
    assert pusher.rollback(candidates.models, "flowers") == (3, 1)


def test_a_rollback_needs_an_earlier_version(candidates, s3):
    candidates.add("a")
    candidates.push("a")
    with pytest.raises(PushError, match=rf"{s3.url}/models/flowers holds version 1 alone"):
        pusher.rollback(candidates.models, "flowers")
    assert candidates.versions() == [1]


def test_candidates_pushed_at_once_get_numbers_of_their_own(s3):
    models = ModelBucket(Bucket(f"{s3.url}/models"))
    ready = threading.Barrier(8)
    numbers: list[int] = []

    def push(digest: str) -> None:
        ready.wait()
        numbers.append(models.new_version("flowers", digest))

    threads = [threading.Thread(target=push, args=(f"candidate-{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 9))


def test_the_baseline_is_named_by_its_url_and_fetched_when_it_is_needed(candidates, s3):
    for key in ("a", "b"):
        candidates.add(key)
    assert candidates.baseline("a") == {"version": None, "path": None}
    candidates.push("a")
    baseline = candidates.baseline("b")
    assert baseline == {"version": 1, "path": f"{s3.url}/models/flowers/1"}
    local = cache.fetch_folder(baseline["path"], marker="saved_model.pb")
    assert read_json(local / "assets.extra" / "lineage.json")["version"] == 1
    assert {p.relative_to(local).as_posix() for p in local.rglob("*") if p.is_file()} == WHOLE


# Bringing models to where a server reads them.


def test_a_local_folder_follows_the_models_at_a_url(candidates, tmp_path):
    served = tmp_path / "served"
    for key in ("a", "b"):
        candidates.add(key)
        candidates.convert(key, int8=True)
        candidates.push(key)
    assert model_store.fetch(candidates.models, "flowers", served) == 2
    names = [p.relative_to(served).as_posix() for p in sorted(served.rglob("*")) if p.is_file() and p.name != ".lock"]
    assert visible(names) == {"flowers/2": WHOLE, "tflite/2": LITERT}
    pusher.rollback(candidates.models, "flowers")
    assert model_store.fetch(candidates.models, "flowers", served) == 1
    assert pusher.versions(served, "flowers") == pusher.versions(served, "tflite") == [1]


def test_a_download_that_breaks_off_leaves_no_version(candidates, tmp_path, monkeypatch):
    candidates.add("a")
    candidates.push("a")
    download = Bucket.download

    def break_off(bucket: Bucket, names: Iterable[str], folder: Path) -> None:
        download(bucket, list(names)[:3], folder)
        raise Killed

    monkeypatch.setattr(Bucket, "download", break_off)
    with pytest.raises(Killed):
        model_store.fetch(candidates.models, "flowers", tmp_path / "served")
    assert pusher.versions(tmp_path / "served", "flowers") == []


def test_a_version_withdrawn_while_it_is_fetched_is_an_error(candidates, tmp_path, s3, monkeypatch):
    candidates.add("a")
    candidates.push("a")
    files = Bucket.files

    def withdraw_then_list(bucket: Bucket, folder: str = "") -> dict[str, RemoteFile]:
        if bucket.url.endswith("flowers/1"):
            s3.client.delete_object(Bucket=s3.name, Key="models/flowers/1/saved_model.pb")
        return files(bucket, folder)

    monkeypatch.setattr(Bucket, "files", withdraw_then_list)
    with pytest.raises(StorageError, match=r"flowers/1 cannot be used: FileNotFoundError"):
        model_store.fetch(candidates.models, "flowers", tmp_path / "served")
    assert pusher.versions(tmp_path / "served", "flowers") == []


def test_a_folder_with_models_of_its_own_is_left_alone(candidates, tmp_path):
    candidates.add("a")
    candidates.push("a")
    (tmp_path / "own").mkdir()
    own = Candidates(tmp_path / "own")
    for key in ("b", "c"):
        own.add(key)
        own.push(key)
    with pytest.raises(PushError, match=r"own/models holds a version 1 of flowers that is not the one in s3://.*--to"):
        model_store.fetch(candidates.models, "flowers", own.models)
    assert own.versions() == [1, 2]


def test_models_are_fetched_from_a_url_that_has_some(candidates, tmp_path):
    with pytest.raises(
        PushError, match=r"Models are fetched from a URL\. Received: models\. Give one with --models-dir"
    ):
        model_store.fetch(Path("models"), "flowers", tmp_path)
    with pytest.raises(PushError, match=r"There is no pushed model flowers in s3://.*/models\. Push one first"):
        model_store.fetch(candidates.models, "flowers", tmp_path)
