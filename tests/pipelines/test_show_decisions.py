"""Which decisions of people a pushed model has learned from."""

from pathlib import Path

import pytest

from components.artifacts.labels import write_applied
from components.artifacts.manifest import write_manifest
from components.errors import PushError
from pipelines import show
from pipelines.artifact_store import ArtifactStore, complete
from tests.components.artifacts.test_labels import decide


def make_origin(runs: Path, decisions) -> dict:
    """Make an artifact of examples and the lineage of a model that was made from it."""
    folder = runs / "examples" / "kkkkkkkkkk"
    folder.mkdir(parents=True)
    write_applied(folder, decisions)
    output = {"step": "examples", "key": "kkkkkkkkkk", "created": "", "inputs": {}}
    manifest = complete(folder, output)
    write_manifest(folder, manifest)
    features = {"step": "features", "inputs": {"examples_dir": manifest}}
    return {"model": {"step": "export", "inputs": {"limits_dir": {"step": "limits", "inputs": {}}, "x": features}}}


def test_the_decisions_of_a_model_are_those_of_its_examples(tmp_path: Path) -> None:
    decisions = [
        {**decide("a", "rose", why="suspect"), "given_label": "tulip"},
        {**decide("b", None, who="ben"), "given_label": None},
    ]
    origin = make_origin(tmp_path, decisions)
    found = show.read_model_decisions(origin, ArtifactStore(tmp_path))
    assert found == decisions
    assert show.as_lines(found).splitlines() == [
        "a.jpg  tulip → rose                    anna  2026-11-26T20:00:00+00:00  suspect",
        "b.jpg  no label → none of the classes  ben   2026-11-26T20:00:00+00:00",
    ]
    assert show.as_lines([]) == "It has learned from no decision."


def test_without_its_examples_nobody_knows(tmp_path: Path) -> None:
    origin = make_origin(tmp_path / "runs", [])
    with pytest.raises(PushError, match="--runs-dir"):
        show.read_model_decisions(origin, ArtifactStore(tmp_path / "other"))
