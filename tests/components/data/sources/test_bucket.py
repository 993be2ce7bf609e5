"""Folders at a URL; how their names are read is tested in `test_layout.py`."""

import pytest

from components.data.sources.bucket import describe_bucket, open_bucket
from components.errors import DataError, StorageError
from components.storage.bucket import Bucket
from tests.components.data.sources.files import fill_bucket
from tests.s3 import S3


@pytest.fixture
def bucket(s3: S3) -> Bucket:
    return fill_bucket(s3, "a/1.jpg", "a/2.jpg")


def test_description_changes_with_a_files_content(s3: S3, bucket: Bucket) -> None:
    before = describe_bucket(bucket)
    assert (before["kind"], before["num_files"]) == ("folder", 2)
    assert describe_bucket(bucket) == before
    s3.put("photos/a/2.jpg", b"a/3.jpg")  # as long as before
    assert describe_bucket(bucket)["digest"] != before["digest"]


def test_photo_that_vanishes_while_reading_has_no_bytes(s3: S3, bucket: Bucket) -> None:
    source = open_bucket(bucket)
    s3.client.delete_object(Bucket=s3.name, Key="photos/a/1.jpg")
    assert [(photo.encoded, photo.reason) for photo in source.photos] == [(b"", "gone"), (b"a/2.jpg", "")]


def test_store_that_fails_while_photos_are_read_is_an_error(s3: S3, bucket: Bucket) -> None:
    s3.forbid("s3:GetObject")
    with pytest.raises(StorageError, match=rf"{bucket} cannot be used"):
        list(open_bucket(bucket).photos)


def test_url_without_photos_or_without_a_server_is_an_error(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=rf"needs one subfolder for each class.*Found none in {s3.url}/no"):
        describe_bucket(Bucket(f"{s3.url}/no"))
    s3.unplug(monkeypatch)
    with pytest.raises(StorageError, match="Could not connect"):
        describe_bucket(Bucket(f"{s3.url}/photos"))
