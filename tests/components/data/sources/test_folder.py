"""Folders on a disk; how their names are read is tested in `test_layout.py`."""

import os
from pathlib import Path
from typing import Any

import pytest

from components.data.sources.folder import describe_folder, open_folder
from components.errors import DataError
from tests.components.data.sources.files import fill


def test_file_that_cannot_be_read_has_no_bytes_and_a_reason(tmp_path: Path) -> None:
    source = open_folder(fill(tmp_path, "a/1.jpg", "a/2.jpg", "a/3.jpg"))
    (tmp_path / "a/1.jpg").unlink()
    (tmp_path / "a/3.jpg").unlink()
    os.mkfifo(tmp_path / "a/3.jpg")
    assert [(p.encoded, p.reason) for p in source.photos] == [(b"", "gone"), (b"a/2.jpg", ""), (b"", "not a file")]


def test_file_that_may_not_be_read_has_no_bytes_and_a_reason(tmp_path: Path) -> None:
    source = open_folder(fill(tmp_path, "a/1.jpg"))
    (tmp_path / "a/1.jpg").chmod(0)
    if os.access(tmp_path / "a/1.jpg", os.R_OK):
        pytest.skip("root reads every file, whatever its permissions")
    assert [(p.encoded, p.reason) for p in source.photos] == [(b"", "cannot be read: Permission denied")]


def test_link_to_nothing_is_listed_with_a_reason(tmp_path: Path) -> None:
    fill(tmp_path, "a/1.jpg")
    (tmp_path / "a/2.jpg").symlink_to(tmp_path / "gone.jpg")
    assert describe_folder(tmp_path)["num_files"] == 2
    assert [p.reason for p in open_folder(tmp_path).photos] == ["", "a link to nothing"]


def test_folder_that_cannot_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "a/1.jpg", "a/deep/2.jpg")
    scan = os.scandir

    def forbid(folder: Path) -> Any:
        if Path(folder).name == "deep":
            raise PermissionError(13, "Permission denied", str(folder))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", forbid)  # root may read every folder
    with pytest.raises(DataError, match=r"Every folder .* must be readable.*/a/deep is not: Permission denied\. Allow"):
        describe_folder(tmp_path)


def test_subfolder_without_files_is_a_class(tmp_path: Path) -> None:
    assert open_folder(fill(tmp_path, "a/1.jpg", "b/")).class_names == ("a", "b")


def test_splits_and_classes_may_be_links_to_folders(tmp_path: Path) -> None:
    fill(tmp_path / "elsewhere", "a/1.jpg", "a/2.jpg")
    (tmp_path / "photos/test").mkdir(parents=True)
    (tmp_path / "photos/train").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos/test/b").symlink_to(tmp_path / "elsewhere/a")
    (tmp_path / "elsewhere/a/loop").symlink_to(tmp_path / "elsewhere/a")
    (tmp_path / "elsewhere/a/more").symlink_to(fill(tmp_path / "third", "3.jpg"))
    names = [f"{folder}/{name}" for folder in ("test/b", "train/a") for name in ("1.jpg", "2.jpg", "more/3.jpg")]
    assert [photo.name for photo in open_folder(tmp_path / "photos").photos] == names


def test_description_changes_with_the_files(tmp_path: Path) -> None:
    first = describe_folder(fill(tmp_path, "a/1", "b/2"))
    assert first == describe_folder(tmp_path)
    assert (first["kind"], first["num_files"]) == ("folder", 2)
    os.utime(tmp_path / "a/1", (1, 1))
    touched = describe_folder(tmp_path)
    (tmp_path / "a/1").chmod(0o600)  # a photo that could not be read may be readable now
    allowed = describe_folder(tmp_path)
    (tmp_path / "a/1").rename(tmp_path / "a/3")
    renamed = describe_folder(tmp_path)
    assert len({d["digest"] for d in (first, touched, allowed, renamed)}) == 4


def test_names_need_not_be_utf8(tmp_path: Path) -> None:
    fill(tmp_path, "a/1.jpg")
    (tmp_path / os.fsdecode(b"a/caf\xe9.jpg")).write_bytes(b"e")
    assert describe_folder(tmp_path)["num_files"] == 2
    assert [os.fsencode(p.name) for p in open_folder(tmp_path).photos] == [b"a/1.jpg", b"a/caf\xe9.jpg"]
