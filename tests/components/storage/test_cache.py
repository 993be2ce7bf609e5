"""What lies at a URL is fetched once, and again when it has changed."""

import pytest

from components.errors import StorageError
from components.storage import cache
from components.storage.bucket import Bucket
from tests.s3 import S3


def test_a_file_is_fetched_once_and_again_when_it_has_changed(s3: S3):
    s3.put("weights/backbone.weights.h5", b"one")
    local = cache.fetch_file(f"{s3.url}/weights/backbone.weights.h5")
    assert (local.name, local.read_bytes()) == ("backbone.weights.h5", b"one")
    written = local.stat().st_mtime_ns
    assert cache.fetch_file(f"{s3.url}/weights/backbone.weights.h5").stat().st_mtime_ns == written
    s3.put("weights/backbone.weights.h5", b"two")
    assert cache.fetch_file(f"{s3.url}/weights/backbone.weights.h5").read_bytes() == b"two"
    with pytest.raises(StorageError, match=r"There is no file at s3://.*/weights/none\. Give one"):
        cache.fetch_file(f"{s3.url}/weights/none")


def test_a_folder_is_fetched_whole_and_once(s3: S3, tmp_path, monkeypatch):
    files = {"saved_model.pb": "graph", "variables/variables.index": "index"}
    folder = tmp_path / "model"
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    Bucket(s3.url).upload(folder, "flowers/1", marker="saved_model.pb")
    local = cache.fetch_folder(f"{s3.url}/flowers/1", marker="saved_model.pb")
    assert {name: (local / name).read_text() for name in files} == files
    s3.unplug(monkeypatch)
    assert cache.fetch_folder(f"{s3.url}/flowers/1", marker="saved_model.pb") == local
    with pytest.raises(StorageError):
        cache.fetch_folder(f"{s3.url}/flowers/2", marker="saved_model.pb")
