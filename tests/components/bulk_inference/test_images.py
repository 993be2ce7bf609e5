"""Which images are listed: no image file vanishes, whatever it is, and what it was is known."""

import errno
import os
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from client.classifier_client import ImageError
from components.bulk_inference.images import ListedImage, fetch_image, list_images
from components.errors import InferenceError

real_scandir = os.scandir


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three files named as images, and others."""
    images = tmp_path / "images"
    (images / "more").mkdir(parents=True)
    for name in ("b.jpg", "a.PNG", "more/c.webp", "notes.txt", ".hidden.jpg"):
        (images / name).write_bytes(b"content")
    return images


@pytest.fixture
def as_somebody() -> Iterator[Path]:
    """Yield an empty folder, while the process is not the administrator, who may read everything."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            os.seteuid(user)


def paths(path_or_url: str) -> list[str]:
    return [image.path for image in list_images(path_or_url).images]


def test_images_of_a_folder_are_listed_in_order(folder):
    names = ["a.PNG", "b.jpg", "more/c.webp"]
    assert paths(str(folder)) == [f"{folder}/{name}" for name in names]
    assert paths(f"file://{folder}") == [f"file://{folder}/{name}" for name in names]


def test_the_same_folder_gives_the_same_paths_however_it_is_written(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert (
        paths("images")
        == paths("./images")
        == paths("images/")
        == ["images/a.PNG", "images/b.jpg", "images/more/c.webp"]
    )
    monkeypatch.chdir(folder)
    assert paths(".") == ["a.PNG", "b.jpg", "more/c.webp"]


def test_a_pattern_lists_what_matches_once(folder):
    assert paths(f"{folder}/**/*.[jw]*") == [f"{folder}/b.jpg", f"{folder}/more/c.webp"]
    assert paths(f"file://{folder}/*.jpg") == [f"file://{folder}/b.jpg"]
    assert paths(f"{folder}/b.jpg") == [f"{folder}/b.jpg"]


@pytest.mark.parametrize("name", ["nowhere", "*.gif", "empty", "b.jpeg"])
@pytest.mark.parametrize("kind", ["", "file://"])
def test_no_image_is_an_error_that_says_what_is_looked_for(folder, name, kind):
    (folder / "empty").mkdir()
    with pytest.raises(InferenceError, match=rf"{name.replace('*', '.')}"):
        list_images(f"{kind}{folder}/{name}")


@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_every_image_format_is_listed_and_all_else_is_counted(tmp_path, kind):
    images = ["a.tif", "b.TIFF", "c.avif", "d.heic", "e.jxl", "f.jfif", "g.svg", "h.jpg"]
    others = ["1.txt", "2.txt", "3.json", "README", ".DS_Store"]
    if kind == "folder":
        where = str(tmp_path)
        for name in images + others:
            (tmp_path / name).touch()
    else:
        where = f"memory://{uuid.uuid4()}"
        for name in images + others:
            fsspec.filesystem("memory").pipe_file(f"{where}/{name}", b"content")
    listing = list_images(where)
    assert [image.path for image in listing.images] == [f"{where}/{name}" for name in images]
    assert listing.left_out == Counter({".txt": 2, ".json": 1, "hidden": 1, "without a suffix": 1})
    assert listing.describe_left_out() == "5 other files left out: .txt 2, .json 1, hidden 1, without a suffix 1"


def test_an_error_counts_what_else_is_there(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InferenceError, match=r"Nothing is there .* \(1 other files left out: \.txt 1\)"):
        list_images(str(tmp_path))


# What an image was.


def test_a_changed_photo_has_another_version(folder):
    before = list(list_images(str(folder)).images)
    assert list(list_images(str(folder)).images) == before
    (folder / "b.jpg").write_bytes(b"CONTENT")
    after = list(list_images(str(folder)).images)
    assert [image for image in after if image not in before] == [after[1]]
    assert after[1].path == before[1].path


@pytest.mark.parametrize("pattern", ["", "/*.png"])
def test_a_changed_object_has_another_version(pattern):
    bucket = f"memory://{uuid.uuid4()}"
    memory = fsspec.filesystem("memory")
    memory.pipe_file(f"{bucket}/a.png", b"content")
    before = list(list_images(bucket + pattern).images)
    assert list(list_images(bucket + pattern).images) == before
    memory.rm(f"{bucket}/a.png")
    memory.pipe_file(f"{bucket}/a.png", b"CONTENT")
    after = list(list_images(bucket + pattern).images)
    assert after != before
    assert [image.path for image in after] == [image.path for image in before]


# What cannot be read.


def test_a_folder_behind_a_link_is_listed_and_a_loop_is_not_followed(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "d.jpg").touch()
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "more" / "up").symlink_to(folder)
    listing = list_images(str(folder))
    assert [image.path for image in listing.images] == [
        f"{folder}/{name}" for name in ("a.PNG", "b.jpg", "link/d.jpg", "more/c.webp")
    ]
    assert listing.left_out["a link to a folder above"] == 1


def test_what_is_no_file_and_what_a_link_has_lost_are_listed_with_the_reason(folder):
    (folder / "d.jpg").symlink_to("gone.jpg")
    (folder / "e.jpg").symlink_to("e.jpg")
    (folder / "others").symlink_to("gone")
    os.mkfifo(folder / "f.jpg")
    errors = {Path(image.path).name: image.error for image in list_images(str(folder)).images if image.error}
    assert set(errors) == {"d.jpg", "e.jpg", "others", "f.jpg"}
    assert "No such file" in errors["d.jpg"]
    assert "regular file" in errors["f.jpg"]


def test_an_unreadable_folder_and_an_unreadable_photo_are_listed_with_the_reason(as_somebody):
    (as_somebody / "closed").mkdir()
    for name in ("a.jpg", "b.jpg", "closed/c.jpg"):
        (as_somebody / name).touch()
    (as_somebody / "link").symlink_to("closed/c.jpg")
    (as_somebody / "a.jpg").chmod(0)
    (as_somebody / "closed").chmod(0)
    photo, readable, closed, link = list_images(str(as_somebody)).images
    assert "Permission denied" in (link.error or "")
    assert "no permission" in (photo.error or "")
    assert readable.error is None
    assert closed.path == f"{as_somebody}/closed"
    assert "this folder cannot be read (Permission denied)" in (closed.error or "")
    with pytest.raises(InferenceError, match="this folder cannot be read"):
        list_images(closed.path)
    (as_somebody / "link").unlink()
    (as_somebody / "a.jpg").chmod(0o600)
    (as_somebody / "closed").chmod(0o700)
    repaired = list(list_images(str(as_somebody)).images)
    assert [image.error for image in repaired] == [None] * 3
    assert repaired[0] != photo


class FailingDisk:
    """What `os.scandir` returns, of a folder whose disk fails after the first entry."""

    def __init__(self, path: str) -> None:
        self._entries = real_scandir(path)

    def __enter__(self) -> Iterator[os.DirEntry[str]]:
        return self._read()

    def __exit__(self, *_: object) -> None:
        self._entries.close()

    def _read(self) -> Iterator[os.DirEntry[str]]:
        yield next(self._entries)
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_folder_whose_disk_fails_midway_keeps_its_images_and_says_that_some_are_missing(folder, monkeypatch):
    monkeypatch.setattr(os, "scandir", FailingDisk)
    error, *_ = list_images(str(folder / "more")).images
    assert error == ListedImage(
        f"{folder}/more",
        error="this folder cannot be read to its end (Input/output error): not all of its images have rows",
    )
    assert paths(str(folder / "more")) == [f"{folder}/more", f"{folder}/more/c.webp"]


def test_what_was_listed_with_an_error_is_not_read():
    result: Any = fetch_image(ListedImage("a.jpg", error="cannot be read"))
    assert isinstance(result, ImageError)
    assert (result.image, result.reason) == ("a.jpg", "cannot be read")
