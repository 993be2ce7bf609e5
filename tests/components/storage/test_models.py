"""Models in a bucket: nothing is seen in halves, whenever a push or a rollback is killed, and a number is claimed once.

What folders and buckets have in common is in `test_pusher.py`.
"""

import itertools
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import fsspec
import pytest

from components.errors import PushError, StorageError
from components.storage import cache
from components.storage.bucket import Bucket
from components.storage.files import FileInfo, read_json
from components.storage.models import open_models
from tests.components.candidates import FILES, Candidates
from tests.s3 import S3, Killed, killed_after

MODEL = FILES | {"assets.extra/lineage.json"}
LITERT = {"flowers_int8.tflite", "model_spec.json"}


def visible(keys: Iterable[str]) -> dict[str, set[str]]:
    """Return the versions that a reader sees, those with their marker, and the files of each."""
    markers = [
        key for key in keys if key.endswith("/saved_model.pb") or re.fullmatch(r"tflite/\d+/model_spec.json", key)
    ]
    folders = [key.rpartition("/")[0] for key in markers if not key.startswith(".")]
    return {f: {key.removeprefix(f"{f}/") for key in keys if key.startswith(f"{f}/")} for f in folders}


def assert_all_visible_is_complete(keys: Iterable[str]) -> None:
    for name, files in visible(keys).items():
        assert files == (LITERT if name.startswith("tflite") else MODEL), name


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[Callable[[], Candidates]]:
    """Return a function that makes candidates and a bucket of their own, whose writes take no time."""
    numbers = itertools.count()

    def make() -> Candidates:
        folder = tmp_path / str(next(numbers))
        return Candidates(folder, f"memory:/{folder}")

    yield make
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def candidates(in_memory: Callable[[], Candidates]) -> Candidates:
    return in_memory()


def test_a_push_to_s3_that_is_killed_again_and_again_never_shows_an_incomplete_version(s3: S3, tmp_path):
    candidates = Candidates(tmp_path, f"{s3.url}/models")
    candidates.add("a", int8=True)
    for number in itertools.count(0, 3):
        try:
            with killed_after(number):
                push = candidates.push("a")
            break
        except Killed:
            assert_all_visible_is_complete(s3.keys_below("models/"))
            assert candidates.versions() in ([], [1])
    assert number > 2 * len(MODEL)
    assert visible(s3.keys_below("models/")) == {"flowers/1": MODEL, "tflite/1": LITERT}
    assert s3.get("models/flowers/1/saved_model.pb") == b"graph of a"
    assert push["path"] == f"{s3.url}/models/flowers/1"
    assert push["litert_path"] == f"{s3.url}/models/tflite/1"
    assert candidates.push("a") == push
    assert candidates.versions() == [1]


def test_a_push_killed_at_any_write_is_completed_by_the_next_one(in_memory):
    for number in itertools.count():
        candidates = in_memory()
        candidates.add("a", "b", int8=True)
        candidates.push("a")
        try:
            with killed_after(number):
                candidates.push("b")
            break
        except Killed:
            assert_all_visible_is_complete(candidates.store.files())
            assert candidates.versions() in ([1], [1, 2])
        # What a killed push claimed is the same candidate's still, so no number is lost.
        assert candidates.push("b")["version"] == 2
        assert set(visible(candidates.store.files())) == {"flowers/1", "flowers/2", "tflite/1", "tflite/2"}
        assert_all_visible_is_complete(candidates.store.files())
    # Its claim; then each file to staging, from there to its version, and out of staging.
    assert number == 1 + 3 * (len(MODEL) + len(LITERT))


def test_a_killed_push_leaves_the_next_candidate_another_number(candidates):
    candidates.add("a", "b")
    with pytest.raises(Killed), killed_after(8):  # its claim, five files to staging, two copied
        candidates.push("a")
    assert len(candidates.store.files("flowers/1")) == 2
    assert candidates.versions() == []
    assert candidates.push("b")["version"] == 2
    # Below a version that others have pushed since, a candidate would not be the newest.
    assert candidates.push("a")["version"] == 3
    assert candidates.versions() == [2, 3]


def test_a_rollback_killed_at_any_write_is_completed_by_the_next_one(in_memory):
    for number in itertools.count():
        candidates = in_memory()
        candidates.add("a", "b", "c", int8=True)
        for key in ("a", "b", "c"):
            candidates.push(key)
        try:
            with killed_after(number):
                candidates.models.rollback("flowers")
            break
        except Killed:
            assert candidates.versions() in ([1, 2, 3], [1, 2])
            assert all(files == MODEL for v, files in visible(candidates.store.files()).items() if "flowers" in v)
        assert candidates.models.rollback("flowers") == (3, 2), number
        assert candidates.versions() == [1, 2]
        assert not candidates.store.files("flowers/3")
        assert not candidates.store.files("tflite/3")
        assert set(candidates.store.files(".withdrawn/flowers/3")) == MODEL
        assert set(candidates.store.files(".withdrawn/tflite/3")) == LITERT
    # Each file to where withdrawn ones are, and out of its version.
    assert number == 2 * (len(MODEL) + len(LITERT))


def test_a_rollback_after_a_killed_one_and_a_push_withdraws_what_was_pushed(candidates):
    candidates.add("a", "b", "c")
    candidates.push("a")
    candidates.push("b")
    with pytest.raises(Killed), killed_after(len(MODEL) + 1):  # copied, and out of sight
        candidates.models.rollback("flowers")
    assert candidates.versions() == [1]
    assert candidates.push("c")["version"] == 3
    assert candidates.models.rollback("flowers") == (3, 1)


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_candidates_pushed_at_once_get_numbers_of_their_own(request, tmp_path, kind):
    url = f"{request.getfixturevalue('s3').url}/models" if kind == "s3" else str(tmp_path)
    models = open_models(url)
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


def test_the_baseline_is_fetched_by_its_url_when_it_is_needed(candidates, tmp_path, monkeypatch):
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path / "cache"))
    candidates.add("a", "b")
    candidates.push("a")
    local = cache.fetch_folder(candidates.baseline("b")["path"], marker="saved_model.pb")
    assert read_json(local / "assets.extra" / "lineage.json")["version"] == 1
    assert {p.relative_to(local).as_posix() for p in local.rglob("*") if p.is_file()} == MODEL


# Bringing models to where a server reads them.


def test_a_local_folder_follows_the_models_at_a_url(candidates, tmp_path):
    served = tmp_path / "served"
    candidates.add("a", "b", int8=True)
    candidates.push("a")
    candidates.push("b")
    assert candidates.models.fetch("flowers", served) == 2
    names = [p.relative_to(served).as_posix() for p in sorted(served.rglob("*")) if p.is_file() and p.name != ".lock"]
    assert visible(names) == {"flowers/2": MODEL, "tflite/2": LITERT}
    candidates.models.rollback("flowers")
    assert candidates.models.fetch("flowers", served) == 1
    assert open_models(served).versions("flowers") == open_models(served).versions("tflite") == [1]


def test_a_download_that_breaks_off_leaves_no_version(candidates, tmp_path, monkeypatch):
    candidates.add("a")
    candidates.push("a")
    download = Bucket.download

    def break_off(bucket: Bucket, names: Iterable[str], folder: Path) -> None:
        download(bucket, list(names)[:3], folder)
        raise Killed

    monkeypatch.setattr(Bucket, "download", break_off)
    with pytest.raises(Killed):
        candidates.models.fetch("flowers", tmp_path / "served")
    assert open_models(tmp_path / "served").versions("flowers") == []


def test_a_version_withdrawn_while_it_is_fetched_is_an_error(candidates, tmp_path, monkeypatch):
    candidates.add("a")
    candidates.push("a")
    files = Bucket.files

    def withdraw_then_list(bucket: Bucket, folder: str = "") -> dict[str, FileInfo]:
        if bucket.url.endswith("flowers/1"):
            bucket.remove_file("saved_model.pb")
        return files(bucket, folder)

    monkeypatch.setattr(Bucket, "files", withdraw_then_list)
    with pytest.raises(StorageError, match=r"flowers/1 cannot be used: FileNotFoundError"):
        candidates.models.fetch("flowers", tmp_path / "served")
    assert open_models(tmp_path / "served").versions("flowers") == []


@pytest.mark.parametrize("file", ["flowers/1/variables/variables.index", "tflite/1/flowers_int8.tflite"])
def test_a_model_damaged_at_its_url_is_not_fetched(candidates, tmp_path, file):
    candidates.add("a", int8=True)
    candidates.push("a")
    candidates.store.write(file, b"other")
    with pytest.raises(PushError, match=f"What is fetched must be what was pushed, and .*{file} has another content"):
        candidates.models.fetch("flowers", tmp_path / "served")
    assert open_models(tmp_path / "served").versions("flowers") == []


def test_a_folder_with_models_of_its_own_is_left_alone(candidates, tmp_path):
    candidates.add("a")
    candidates.push("a")
    own = Candidates(tmp_path / "own")
    own.add("b", "c")
    own.push("b")
    own.push("c")
    with pytest.raises(
        PushError, match=r"own/models holds a version 1 of flowers that is not the one in memory:.*--to"
    ):
        candidates.models.fetch("flowers", Path(str(own.store)))
    assert own.versions() == [1, 2]


def test_models_are_fetched_from_a_url_that_has_some(candidates, tmp_path):
    with pytest.raises(
        PushError, match=r"Models are fetched from a URL\. Received: models\. Give one with --models-dir"
    ):
        open_models("models").fetch("flowers", tmp_path)
    with pytest.raises(PushError, match=r"There is no pushed model flowers in memory:.*\. Push one first"):
        candidates.models.fetch("flowers", tmp_path)
