"""Files made by a Beam pipeline: none twice, none missing, and by no other version of the project."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from components.data import beam
from components.errors import BeamError

IN_MEMORY = ["--direct_running_mode=in_memory", "--direct_num_workers=1"]


@dataclass(frozen=True)
class Note:
    path: Path
    text: str


def write(note: Note) -> None:
    if note.text:
        note.path.write_text(note.text)


def test_files_are_made_but_for_those_that_are_there(tmp_path: Path) -> None:
    notes = [Note(tmp_path / f"{number}", "made") for number in range(5)]
    notes[3].path.write_text("there")
    (tmp_path / ".2.1.tmp").write_text("half, by a worker that was killed")
    beam.make_files(write, notes, options=IN_MEMORY)
    assert len(list(tmp_path.iterdir())) == 5
    assert [note.path.read_text() for note in notes] == ["made", "made", "made", "there", "made"]


def test_files_that_are_not_there_in_the_end_are_an_error(tmp_path: Path) -> None:
    notes = [Note(tmp_path / "made", "made"), Note(tmp_path / "lost", "")]
    with pytest.raises(BeamError, match=r"share the disk of .*1 of 2 files are not there, such as lost\. Run the same"):
        beam.make_files(write, notes, options=IN_MEMORY)


def test_another_version_of_the_project_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = iter(["the command's", "the worker's"])
    monkeypatch.setattr(beam, "digest_version", lambda: next(digests, "the worker's"))
    with pytest.raises(BeamError, match=r"workers must run the version of the project.* Update its folder"):
        beam.make_files(write, [Note(tmp_path / "note", "made")], options=IN_MEMORY)
    assert not (tmp_path / "note").exists()


def test_the_version_covers_the_code_and_the_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beam, "_ROOT", tmp_path)
    module = tmp_path / "components" / "step.py"
    module.parent.mkdir()
    found = []
    for text, version in (("one", "1"), ("two", "1"), ("two", "2")):
        module.write_text(text)
        monkeypatch.setattr("importlib.metadata.version", lambda _, version=version: version)
        found.append(beam.digest_version.__wrapped__())
    assert len(set(found)) == 3


def test_the_client_that_dask_s_runner_leaves_open_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from apache_beam.runners import DirectRunner

    closed: list[str] = []

    class Client:
        def close(self) -> None:
            closed.append((tmp_path / "note").read_text())

    def run_pipeline(self, *arguments, run=DirectRunner.run_pipeline):
        result = run(self, *arguments)
        result.client = Client()
        return result

    monkeypatch.setattr(DirectRunner, "run_pipeline", run_pipeline)
    beam.make_files(write, [Note(tmp_path / "note", "made")], options=IN_MEMORY)
    assert closed == ["made"]
