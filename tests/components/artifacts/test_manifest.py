"""The lineage of an artifact is followed back to the data, as far as it is still there."""

from pathlib import Path

import pytest

from components.artifacts import manifest as lineage
from components.storage.files import write_json


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three steps: the model is made from examples and features, the features from the same examples."""
    _add(tmp_path, "examples", "e1", {})
    _add(tmp_path, "features", "f1", {"examples_dir": ("examples", "e1")})
    _add(tmp_path, "model", "m1", {"examples_dir": ("examples", "e1"), "features_dir": ("features", "f1")})
    return tmp_path


def _add(root: Path, step: str, key: str, inputs: dict[str, tuple[str, str]]) -> None:
    (root / step / key).mkdir(parents=True)
    references = {p: {"step": s, "key": k, "digest": f"digest of {k}"} for p, (s, k) in inputs.items()}
    manifest = {
        "step": step,
        "key": key,
        "digest": f"digest of {key}",
        "options": {"seed": 1},
        "files": {"a": {"size": 1, "sha256": "…"}},
        "inputs": references,
    }
    write_json(root / step / key / "manifest.json", manifest)


def test_lineage_is_followed_back_to_the_data(root):
    origin = lineage.trace(root / "model" / "m1")
    assert (origin["step"], origin["key"], origin["options"]) == ("model", "m1", {"seed": 1})
    assert set(origin["inputs"]) == {"examples_dir", "features_dir"}
    features = origin["inputs"]["features_dir"]
    assert features["inputs"]["examples_dir"]["key"] == "e1"
    assert features["inputs"]["examples_dir"]["inputs"] == {}
    assert features["inputs"]["examples_dir"] == origin["inputs"]["examples_dir"]


def test_lineage_leaves_the_list_of_files_to_the_manifest(root):
    assert "files" not in lineage.trace(root / "model" / "m1")


def test_an_artifact_that_is_gone_is_named_without_its_inputs(root):
    (root / "features" / "f1" / "manifest.json").unlink()
    gone = lineage.trace(root / "model" / "m1")["inputs"]["features_dir"]
    assert gone == {"step": "features", "key": "f1", "digest": "digest of f1"}


def test_an_artifact_without_a_manifest_has_no_lineage(root):
    with pytest.raises(FileNotFoundError):
        lineage.trace(root / "model" / "m2")
