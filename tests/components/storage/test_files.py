"""A write is atomic, and one writer at a time holds a lock."""

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from components.storage import files
from components.storage.files import file_lock, read_json, write_json


def test_json_is_read_as_it_was_written(tmp_path):
    value = {"größe": [1, 2.5, None, True], "name": "Löwenzahn"}
    write_json(tmp_path / "value.json", value)
    assert read_json(tmp_path / "value.json") == value
    assert "Löwenzahn" in (tmp_path / "value.json").read_text(encoding="utf-8")
    assert [p.name for p in tmp_path.iterdir()] == ["value.json"]


def test_the_old_file_is_there_until_the_new_one_is_complete(tmp_path, monkeypatch):
    path = tmp_path / "value.json"
    write_json(path, "old")
    seen = []
    replace = Path.replace

    def look_then_replace(temporary: Path, target: Path) -> Path:
        seen.append((read_json(path), read_json(temporary)))
        return replace(temporary, target)

    monkeypatch.setattr(Path, "replace", look_then_replace)
    write_json(path, "new")
    assert seen == [("old", "new")]
    assert read_json(path) == "new"


def test_what_cannot_be_json_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "value.json", "old")
    with pytest.raises(TypeError):
        write_json(tmp_path / "value.json", {"path": tmp_path})
    assert read_json(tmp_path / "value.json") == "old"


def test_a_killed_writer_leaves_the_old_file_and_a_torn_one_that_can_be_told(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, "old")
    code = (
        "import os, signal; from pathlib import Path; from components.storage.files import write_json\n"
        "Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"write_json(Path({str(path)!r}), 'new')"
    )
    root = Path(files.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, timeout=60).returncode == -signal.SIGKILL
    assert read_json(path) == "old"
    assert set(tmp_path.iterdir()) - {path} == set(tmp_path.glob(files.TEMPORARY_FILES))


def _add_one(lock: Path, counter: Path, times: int) -> None:
    for _ in range(times):
        with file_lock(lock):
            counter.write_text(str(int(counter.read_text()) + 1))


def test_a_lock_lets_one_process_in_at_a_time(tmp_path):
    lock, counter = tmp_path / "sub" / "lock", tmp_path / "counter"
    counter.write_text("0")
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_add_one, args=(lock, counter, 200)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert counter.read_text() == "800"


def _hold_and_die(lock: Path) -> None:
    with file_lock(lock):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_lets_go_of_its_lock(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=_hold_and_die, args=(tmp_path / "lock",))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    with file_lock(tmp_path / "lock"):
        pass


def test_a_lock_is_let_go_of_when_what_it_guards_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), file_lock(tmp_path / "lock"):
        raise ZeroDivisionError
    with file_lock(tmp_path / "lock"):
        pass
