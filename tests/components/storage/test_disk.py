"""An error of a disk is explained by its reason, whichever library raised it."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from components.errors import DataError, StorageError
from components.storage import disk
from components.storage.disk import explain, find_problem
from components.storage.files import atomic_write


def error(number: int, path: Path | None = None) -> OSError:
    return OSError(number, os.strerror(number), None if path is None else str(path))


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "Free some space in {folder}; the same command goes on from here."),
        (errno.EDQUOT, "Free some space in {folder}; the same command goes on from here."),
        (errno.EACCES, "choose another folder."),
        (errno.EPERM, "choose another folder."),
        (errno.EROFS, "The disk is read-only: choose another folder."),
        (errno.ENOTDIR, "A file is where a folder must be"),
        (errno.EEXIST, "Something else is there already"),
        (errno.EMFILE, "ulimit -n"),
    ],
)
def test_the_advice_fits_the_reason(tmp_path, number, advice):
    message = explain(error(number, tmp_path / "new" / "file"))
    assert message.startswith(f"{tmp_path / 'new' / 'file'}: {os.strerror(number)}. ")
    assert advice.format(folder=tmp_path) in message
    assert ("Free some space" in message) == (number in (errno.ENOSPC, errno.EDQUOT))


def test_without_advice_that_fits_there_is_none(tmp_path):
    assert explain(error(errno.ENOENT, tmp_path)) == f"{tmp_path}: No such file or directory."


def test_a_full_disk_without_a_path_is_looked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "_free_bytes", lambda folder: 0 if Path(folder).name == "b" else 10**9)
    for name in "abc":
        (tmp_path / name).mkdir()
    message = explain(error(errno.ENOSPC), [tmp_path / name for name in "abc"])
    assert f"Free some space in {tmp_path / 'b'};" in message


def test_of_copies_that_failed_the_first_is_explained(tmp_path):
    failed = shutil.Error([("source", str(tmp_path / "copy"), f"[Errno 28] {os.strerror(28)}: 'source'")])
    message = explain(failed)
    assert message.startswith(f"{tmp_path / 'copy'}: No space left on device. Free some space in {tmp_path}")


class ResourceExhaustedError(Exception):
    """What TensorFlow raises."""


@pytest.mark.parametrize(
    "exc",
    [
        ResourceExhaustedError("{folder}/variables; No space left on device"),
        OSError("Can't synchronously write data (file write failed: errno = 28, error message = '')"),
        RuntimeError("Unable to flush: [Errno 28] No space left on device"),
        DataError("The server ended: No space left on device"),
        error(errno.ENOSPC),
    ],
)
def test_a_library_s_error_of_a_full_disk_is_one(tmp_path, exc):
    problem = find_problem(exc, [tmp_path])
    assert isinstance(problem, StorageError)
    assert f"No space left on device. Free some space in {tmp_path};" in str(problem)


def test_an_opaque_error_on_a_full_disk_says_what_it_was(tmp_path, monkeypatch):
    assert find_problem(RuntimeError("Flush failed"), [tmp_path]) is None
    monkeypatch.setattr(disk, "_free_bytes", lambda folder: 0)
    message = str(find_problem(RuntimeError("Flush failed"), [tmp_path]))
    assert message.startswith(f"{tmp_path}: No space left on device (RuntimeError: Flush failed). Free some space in")


def test_the_cause_of_an_error_counts(tmp_path):
    exc = RuntimeError("cannot save")
    exc.__cause__ = error(errno.EROFS, tmp_path)
    assert "The disk is read-only" in str(find_problem(exc, []))


def test_an_error_that_is_explained_stays_what_it_is(tmp_path):
    exc = DataError("The photos cannot be read.")
    exc.__cause__ = error(errno.EACCES, tmp_path)
    assert find_problem(exc, [tmp_path]) is None


def test_a_write_that_fails_names_its_file_and_leaves_nothing(tmp_path):
    def write() -> None:
        with atomic_write(tmp_path / "a.json") as temporary:
            temporary.touch()
            raise error(errno.ENOSPC)

    with pytest.raises(OSError, match="No space left") as info:
        write()
    assert info.value.filename == str(tmp_path / "a.json")
    assert list(tmp_path.iterdir()) == []
