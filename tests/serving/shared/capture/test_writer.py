import errno
import os
import shutil
import stat
from io import FileIO
from pathlib import Path
from typing import Any

import pytest

from serving.shared.capture.tfrecord import read_records
from serving.shared.capture.writer import CaptureOptions, FileWriter, parse_name

DAY_S = 86_400
NOW_S = 1_800_000_000.25


def make_options(folder: Path, **further: Any) -> CaptureOptions:
    return CaptureOptions(**{"folder": folder, "name": "web", "rate": 1, "with_inputs": True, **further})


def read(folder: Path) -> list[bytes]:
    """Return all records, by the time at which their files were begun."""
    found = []
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            found += [record.data for record in read_records(file) if record.data is not None]
    return found


def test_the_oldest_files_go_when_all_have_their_size(tmp_path: Path) -> None:
    writer = FileWriter(make_options(tmp_path, max_mb=0.01))
    other = tmp_path / "server-20200101T000000.000000-00000000.tfrecord"
    other.write_bytes(bytes(20_000))
    for number in range(100):
        writer.write(number.to_bytes(1, "big") * 400, NOW_S + number)
        sizes = [path.stat().st_size for path in tmp_path.glob("web-*")]
        assert sum(sizes) <= 10_000
    writer.close()
    assert other.exists()
    other.unlink()
    numbers = [data[0] for data in read(tmp_path)]
    assert numbers == list(range(numbers[0], 100))
    assert sum(sizes) > 7_000


def test_what_is_too_old_goes_and_nothing_younger_than_nine_tenths(tmp_path: Path) -> None:
    writer = FileWriter(make_options(tmp_path, max_age_days=10))
    for day in range(40):
        writer.write(day.to_bytes(1, "big"), NOW_S + day * DAY_S / 2)
    now_s = NOW_S + 19.5 * DAY_S
    writer.clean(now_s)
    writer.close()
    assert read(tmp_path)[0][0] in (19, 20, 21)
    writer.clean(now_s + 4 * DAY_S)  # nothing comes any more
    assert read(tmp_path)[0][0] in (27, 28, 29)
    writer.clean(now_s + 10 * DAY_S + 1)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_somebody_deletes_is_followed_by_another(tmp_path: Path) -> None:
    writer = FileWriter(make_options(tmp_path / "a"))
    writer.write(b"one", NOW_S)
    shutil.rmtree(tmp_path / "a")
    writer.clean(NOW_S)
    writer.write(b"two", NOW_S)
    writer.close()
    assert read(tmp_path / "a") == [b"two"]


def test_a_folder_and_a_file_are_made_for_the_owner_and_the_group(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    before = os.umask(0)
    try:
        writer = FileWriter(make_options(folder))
        writer.write(b"one", NOW_S)
        writer.close()
    finally:
        os.umask(before)
    (path,) = folder.iterdir()
    assert (stat.S_IMODE(folder.stat().st_mode), stat.S_IMODE(path.stat().st_mode)) == (0o750, 0o640)
    assert parse_name(path) == ("web", NOW_S)


@pytest.mark.parametrize("room_bytes", [0, 10, 30])
def test_a_full_disk_leaves_whole_records_alone(
    tmp_path: Path, room_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = {"bytes": 10_000}

    class FullFile(FileIO):
        def write(self, data: Any) -> int:
            if not room["bytes"]:
                raise OSError(errno.ENOSPC, "No space left on device")
            written = super().write(data[: room["bytes"]])
            room["bytes"] -= written
            return written

    monkeypatch.setattr("serving.shared.capture.writer.FileIO", FullFile)
    writer = FileWriter(make_options(tmp_path))
    writer.write(b"one", NOW_S)
    room["bytes"] = room_bytes
    with pytest.raises(OSError, match="No space"):
        writer.write(b"two" * 10, NOW_S)
    assert read(tmp_path) == [b"one"]
    room["bytes"] = room_bytes
    with pytest.raises(OSError, match="No space"):
        writer.write(b"two" * 10, NOW_S)
    room["bytes"] = 10_000
    writer.write(b"three", NOW_S + 1)
    writer.close()
    assert read(tmp_path) == [b"one", b"three"]
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("further", "message"),
    [
        ({"rate": 1.1}, "must be 0 to 1. Received: 1.1"),
        ({"rate": float("nan")}, "must be 0 to 1. Received: nan"),
        ({"max_mb": 0}, "max_mb of what is captured must be above 0. Received: 0"),
        ({"max_age_days": float("inf")}, "max_age_days of what is captured must be above 0. Received: inf"),
    ],
)
def test_options_that_cannot_be_are_refused(tmp_path: Path, further: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_options(tmp_path, **further)


@pytest.mark.parametrize("name", ["web.tfrecord", "web-20261399T000000.000000-00000000.tfrecord", "x.log"])
def test_other_files_have_no_time(name: str) -> None:
    assert parse_name(Path(name)) is None
