"""A step that a full disk stops says so, whichever library found that out."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.errors import StorageError
from pipelines import execution
from tests.pipelines import toy


class UnknownError(Exception):
    """What TensorFlow raises."""


def execute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, exc: Exception) -> None:
    def fail(*, out_dir: Path) -> Any:
        raise exc

    monkeypatch.setattr(toy, "fail", fail, raising=False)
    step = replace(toy.COUNT, function=f"{toy.MODULE}:fail", inputs={})
    origin: Any = {}
    execution.execute(step, {}, origin, inputs={}, references={}, state={}, cluster=None, out_dir=tmp_path)


def test_a_library_s_error_of_a_full_disk_names_the_folder(monkeypatch, tmp_path):
    exc = UnknownError(f"{tmp_path}/shard; No space left on device [Op:Write]")
    with pytest.raises(StorageError, match=f"^{tmp_path}: No space left on device. Free some space in {tmp_path};"):
        execute(monkeypatch, tmp_path, exc)


def test_an_error_that_no_disk_caused_stays_what_it_is(monkeypatch, tmp_path):
    with pytest.raises(UnknownError, match=r"^a shape$"):
        execute(monkeypatch, tmp_path, UnknownError("a shape"))
