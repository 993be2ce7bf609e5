"""Photos examined by a Beam pipeline: the same examples, byte by byte."""

import sys
from pathlib import Path
from typing import Any

import pytest

from components import examples
from components.data import examination_beam
from components.errors import BeamError, DataError
from components.examples import ExamplesOptions
from tests.components.data.blobs import Encode, fill

IN_MEMORY = "--direct_running_mode=in_memory --direct_num_workers=1"


@pytest.fixture
def photos(tmp_path: Path, encode: Encode) -> Path:
    """Photos of two classes; one of them is damaged."""
    folder = fill(tmp_path / "photos", {"rose": 6, "tulip": 6}, encode)
    (folder / "rose" / "bad.jpg").write_bytes(b"no image")
    return folder


def build(source: str, out_dir: Path, **options: Any) -> dict[str, bytes]:
    out_dir.mkdir(exist_ok=True)
    examples.build(out_dir=out_dir, options=ExamplesOptions(source=source, **options))
    return {path.relative_to(out_dir).as_posix(): path.read_bytes() for path in out_dir.rglob("*") if path.is_file()}


def test_beam_makes_the_same_examples(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(examination_beam, "SLICE_SIZE", 5)
    local = build(str(photos), tmp_path / "local")
    assert build(str(photos), tmp_path / "beam", engine="beam", beam_options=IN_MEMORY) == local
    assert b"not an image" in local["examples.json"]
    assert not (tmp_path / "beam" / "examined").exists()


def test_what_was_examined_before_a_kill_is_not_examined_again(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(examination_beam, "SLICE_SIZE", 5)
    local = build(str(photos), tmp_path / "local")
    examined, make_examiner = [], examination_beam.make_examiner
    monkeypatch.setattr(examination_beam, "make_examiner", lambda: examined.append(1) or make_examiner())

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(examples, "_collect", lambda photos, *_, **__: next(iter(photos)) and stop())
        with pytest.raises(KeyboardInterrupt):
            build(str(photos), tmp_path / "beam", engine="beam", beam_options=IN_MEMORY)
    (tmp_path / "beam" / "index.jsonl").write_text("{}")
    (tmp_path / "beam" / "examined" / "1").unlink()
    assert build(str(photos), tmp_path / "beam", engine="beam", beam_options=IN_MEMORY) == local
    assert len(examined) == 3 + 1


@pytest.mark.slow
def test_beam_makes_the_same_examples_in_several_processes(photos, tmp_path):
    assert build(str(photos), tmp_path / "beam", engine="beam") == build(str(photos), tmp_path / "local")


def test_beam_reads_folders(tmp_path):
    with pytest.raises(DataError, match=r"Received: synthetic\. Give one, or set examples\.engine=local"):
        build("synthetic", tmp_path / "out", engine="beam")


def test_beam_that_is_not_installed_is_named(photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(BeamError, match=r"examples\.engine=beam needs apache-beam, which is not installed\. Run: make"):
        build(str(photos), tmp_path / "out", engine="beam")
