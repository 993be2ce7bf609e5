"""Only what nobody stands on is removed, and nothing while a run is going on."""

import os
from pathlib import Path

import pytest

from components.artifacts.manifest import trace
from components.errors import ComponentError
from components.storage.files import write_json
from components.storage.models import LINEAGE, MARKER
from pipelines.prune import prune
from tests.pipelines import toy


def folders_of(removals) -> set[Path]:
    return {removal.path for removal in removals}


def put_model(models: Path, artifact, version: int = 1) -> Path:
    """Put a pushed model that was made of an artifact where models are."""
    model = models / "flowers" / str(version)
    model.mkdir(parents=True)
    (model / MARKER).touch()
    write_json(model / LINEAGE, {"version": version, "pushed": "today", "model": trace(artifact.path)})
    return model


def test_what_no_kept_run_stands_on_is_removed(toy_pipeline):
    old = toy_pipeline.run()
    toy_pipeline.set("multiply", factor=3)
    toy_pipeline.run()
    removals = prune(toy_pipeline.folders, keep=1)
    # Both runs stand on the same text and count.
    assert folders_of(removals) == {old["multiply"].path}
    assert removals[0].size_bytes > 0
    assert not old["multiply"].path.exists()
    toy_pipeline.executed()
    toy_pipeline.run()
    assert toy_pipeline.executed() == []


def test_the_newest_runs_and_those_that_links_point_to_are_kept(toy_pipeline):
    toy_pipeline.run()
    toy_pipeline.set("read", shout=True)
    shouted = toy_pipeline.run(last="read")["read"]
    assert prune(toy_pipeline.folders, keep=0) == []
    toy_pipeline.set("read", shout=False)
    toy_pipeline.run(last="read")
    assert prune(toy_pipeline.folders, keep=5) == []
    assert folders_of(prune(toy_pipeline.folders, keep=0)) == {shouted.path}


def test_what_a_pushed_model_was_made_from_is_kept(toy_pipeline):
    old = toy_pipeline.run()
    model = put_model(toy_pipeline.folders.models, old["multiply"])
    toy_pipeline.text.write_text("a daisy")
    toy_pipeline.run()
    assert prune(toy_pipeline.folders, keep=1) == []
    (model / MARKER).unlink()
    assert folders_of(prune(toy_pipeline.folders, keep=1)) == {a.path for a in old.values()}


def test_a_lineage_that_cannot_be_read_stops_it(toy_pipeline):
    old = toy_pipeline.run()
    model = put_model(toy_pipeline.folders.models, old["multiply"])
    (model / LINEAGE).write_text("{")
    with pytest.raises(ComponentError, match=r"The lineage of .*/flowers/1 cannot be read .* nothing is removed"):
        prune(toy_pipeline.folders, keep=0)


def test_nothing_is_removed_in_a_dry_run(toy_pipeline):
    toy_pipeline.run()
    toy_pipeline.set("multiply", factor=3)
    toy_pipeline.run()
    (removal,) = prune(toy_pipeline.folders, keep=1, is_dry=True)
    assert removal.path.exists()
    assert prune(toy_pipeline.folders, keep=1) == [removal]


def test_what_a_killed_step_left_is_kept_as_long_as_a_run_of_its_time_is(toy_pipeline):
    toy_pipeline.run()
    partial = toy_pipeline.folders.artifacts / "multiply" / "abc.partial"
    partial.mkdir()
    assert prune(toy_pipeline.folders) == []
    os.utime(partial, (0, 0))
    assert folders_of(prune(toy_pipeline.folders)) == {partial}


def test_nothing_is_removed_while_a_run_is_going_on(toy_pipeline, monkeypatch):
    def look(*, text_dir: Path, out_dir: Path) -> dict:
        with pytest.raises(ComponentError, match=r"A run is going on in .*/runs\. Prune when it has ended\."):
            prune(toy_pipeline.folders, keep=0)
        return {}

    toy_pipeline.run(last="read")
    monkeypatch.setattr(toy, "count", look)
    assert "count" in toy_pipeline.run(last="count")


def test_artifacts_without_a_run_are_removed_and_a_damaged_record_counts_for_nothing(toy_pipeline):
    old = toy_pipeline.run()
    (toy_pipeline.folders.runs / "latest" / "run.json").write_text("{")
    assert folders_of(prune(toy_pipeline.folders)) == {a.path for a in old.values()}
    assert prune(toy_pipeline.folders) == []


def test_where_nothing_has_run_there_is_nothing_to_remove(toy_pipeline):
    assert prune(toy_pipeline.folders) == []
    assert not toy_pipeline.folders.runs.exists()
