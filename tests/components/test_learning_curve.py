"""The step that tells whether it is worth labelling more."""

from pathlib import Path

import numpy as np
import pytest

from components import learning_curve
from components.artifacts.features import write_features
from components.artifacts.learning_curve import read_learning_curve
from components.errors import ComponentError
from tests.components import hand_made
from tests.components.training.test_learning_curve import draw


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Examples and features of 90 photos to train on in two shards, and 60 of validation."""
    features_dir = tmp_path / "features"
    features_dir.mkdir()
    rows = []
    for split, sizes in (("train", (50, 40)), ("validation", (60,))):
        for shard, size in enumerate(sizes):
            features, labels = draw(size, num_classes=2, seed=len(rows))
            name = Path(f"{split}-0000{shard}-of-0000{len(sizes)}.view0.npz")
            write_features(features_dir / name, features, labels, embeddings=features)
            rows += [hand_made.make_row(split, int(label)) for label in labels]
    examples_dir = hand_made.write(tmp_path / "examples", rows)
    return {"examples_dir": examples_dir, "features_dir": features_dir, "out_dir": tmp_path}


def test_the_step_writes_the_accuracy_of_each_share(folders: dict[str, Path]) -> None:
    summary = learning_curve.draw(**folders)
    curve = read_learning_curve(folders["out_dir"])
    assert [(p["share"], p["num_examples"], len(p["accuracies"])) for p in curve["points"]] == [
        (0.25, 22, 4),
        (0.5, 45, 4),
        (1.0, 90, 1),
    ]
    assert curve["num_validation"] == 60
    assert summary["accuracy"] == round(curve["points"][-1]["accuracies"][0], 4)
    assert summary["next_gain"] == curve["next_gain"]["expected"]


def test_the_step_writes_the_same_bytes_again(folders: dict[str, Path]) -> None:
    file = folders["out_dir"] / "learning_curve.json"
    learning_curve.draw(**folders)
    before = file.read_bytes()
    learning_curve.draw(**folders)
    assert file.read_bytes() == before


def test_features_that_are_not_finite_are_refused(folders: dict[str, Path]) -> None:
    features, labels = draw(50, num_classes=2)
    features[3, 0] = np.inf
    path = folders["features_dir"] / "train-00000-of-00002.view0.npz"
    write_features(path, features, labels, embeddings=features)
    with pytest.raises(ComponentError, match="1 of 50"):
        learning_curve.draw(**folders)
