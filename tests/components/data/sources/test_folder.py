"""Folders on a disk; how their names are read is tested in `test_layout.py`."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from components.data.sources.folder import describe_folder, open_folder
from tests.components.data.sources.files import fill


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.chmod(0)], ids=["vanished", "not permitted"])
def test_file_that_cannot_be_read_has_no_bytes(
    spoil: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = open_folder(fill(tmp_path, "a/1.jpg", "a/2.jpg"))
    spoil(tmp_path / "a/1.jpg")
    if os.access(tmp_path / "a/1.jpg", os.R_OK):
        pytest.skip("root reads every file, whatever its permissions")
    assert [p.encoded for p in source.photos] == [b"", b"a/2.jpg"]
    assert "1.jpg cannot be read" in caplog.text


def test_subfolder_without_files_is_a_class(tmp_path: Path) -> None:
    assert open_folder(fill(tmp_path, "a/1.jpg", "b/")).class_names == ("a", "b")


def test_splits_and_classes_may_be_links_to_folders(tmp_path: Path) -> None:
    fill(tmp_path / "elsewhere", "a/1.jpg", "a/2.jpg")
    (tmp_path / "photos/test").mkdir(parents=True)
    (tmp_path / "photos/train").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos/test/b").symlink_to(tmp_path / "elsewhere/a")
    (tmp_path / "elsewhere/a/loop").symlink_to(tmp_path / "elsewhere/a")
    names = ["test/b/1.jpg", "test/b/2.jpg", "train/a/1.jpg", "train/a/2.jpg"]
    assert [photo.name for photo in open_folder(tmp_path / "photos").photos] == names


def test_description_changes_with_the_files(tmp_path: Path) -> None:
    first = describe_folder(fill(tmp_path, "a/1", "b/2"))
    assert first == describe_folder(tmp_path)
    assert (first["kind"], first["num_files"]) == ("folder", 2)
    os.utime(tmp_path / "a/1", (1, 1))
    touched = describe_folder(tmp_path)
    (tmp_path / "a/1").rename(tmp_path / "a/3")
    renamed = describe_folder(tmp_path)
    assert len({d["digest"] for d in (first, touched, renamed)}) == 3
