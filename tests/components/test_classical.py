"""The five classical models on made-up features and edges: better than chance, the same however they are computed."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

from components import classical
from components.artifacts.comparison_rows import Row, read_rows
from components.artifacts.edges import write_edges
from components.artifacts.features import write_features
from components.classical import ClassicalOptions
from components.storage.files import read_json, write_json

CLASS_NAMES = ["daisy", "rose", "tulip"]
NAMES = ["logistic regression", "k-nearest neighbours", "support vector machine", "decision tree", "random forest"]
OPTIONS = ClassicalOptions(num_trees=20)
SIZE_PX = 20


@pytest.fixture(scope="module")
def examples_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    write_json(folder / "examples.json", {"class_names": CLASS_NAMES})
    return folder


@pytest.fixture(scope="module")
def features_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of 90 and 30 photos, a cloud for each class, of inputs on very different scales."""
    folder = tmp_path_factory.mktemp("features")
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(3, 16))
    for split, count in (("train", 90), ("test", 30)):
        labels = np.arange(count) % 3
        found = (centres[labels] + rng.normal(scale=0.7, size=(count, 16))) * np.logspace(-2, 2, 16)
        write_features(folder / f"{split}-00000-of-00001.view0.npz", found, labels)
    write_json(folder / "manifest.json", {"seconds": 12.5})
    write_json(folder / "model.json", {"backbone": "small_cnn"})
    return folder


@pytest.fixture(scope="module")
def edges_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Edges of 60 and 20 photos: where a class has its edges, a photo has more."""
    folder = tmp_path_factory.mktemp("edges")
    rng = np.random.default_rng(1)
    usual = rng.random((3, SIZE_PX**2)) < 0.1
    for split, count in (("train", 60), ("test", 20)):
        labels = np.arange(count) % 3
        edges = rng.random((count, SIZE_PX**2)) < 0.05 + 0.25 * usual[labels]
        write_edges(folder / f"{split}-00000-of-00001.edges.npz", np.packbits(edges, axis=1), labels)
    write_json(folder / "manifest.json", {"seconds": 3.0})
    return folder


def compare_on_features(
    examples_dir: Path, features_dir: Path, out_dir: Path, options: ClassicalOptions = OPTIONS
) -> list[Row]:
    classical.compare_on_features(
        examples_dir=examples_dir,
        model_dir=features_dir,
        features_dir=features_dir,
        test_features_dir=features_dir,
        out_dir=out_dir,
        options=options,
    )
    return read_rows(out_dir)


@pytest.fixture(scope="module")
def compared_dir(tmp_path_factory: pytest.TempPathFactory, examples_dir: Path, features_dir: Path) -> Path:
    """All models on features."""
    folder = tmp_path_factory.mktemp("compared")
    compare_on_features(examples_dir, features_dir, folder)
    return folder


def test_models_beat_chance_on_features(compared_dir: Path) -> None:
    rows = read_rows(compared_dir)
    assert [row["model"] for row in rows] == NAMES
    for row in rows:
        assert row["accuracy_interval"][0] > 1 / 3, row["model"]
        assert row["learns_from"] == "small_cnn features"
        assert row["num_examples"] == 30
        assert (row["inputs_s"], row["int8"]) == (12.5, None)
        assert 0 <= row["fit_s"] < 60
    numbers = {row["model"]: row["num_parameters"] for row in rows}
    assert numbers["logistic regression"] == 3 * (16 + 1)
    assert numbers["k-nearest neighbours"] == 90 * 16
    assert numbers["decision tree"] < numbers["random forest"]


def test_models_beat_chance_on_edges(examples_dir: Path, edges_dir: Path, tmp_path: Path) -> None:
    classical.compare_on_edges(examples_dir=examples_dir, edges_dir=edges_dir, out_dir=tmp_path, options=OPTIONS)
    rows = {row["model"]: row for row in read_rows(tmp_path)}
    assert list(rows) == NAMES
    for name in ("logistic regression", "k-nearest neighbours", "support vector machine", "random forest"):
        assert rows[name]["accuracy_interval"][0] > 1 / 3, name
    assert rows["logistic regression"]["num_parameters"] == 3 * (SIZE_PX**2 + 1)
    assert {row["learns_from"] for row in rows.values()} == {"Canny edges"}


@pytest.mark.parametrize("made", [LogisticRegression(max_iter=1000), KNeighborsClassifier(), SVC(gamma=0.01)], ids=str)
def test_models_decide_on_rotated_inputs_as_on_all(made: Any) -> None:
    rng = np.random.default_rng(3)
    labels = np.arange(60) % 3
    train, test = (rng.normal(size=(n, 500)).astype(np.float32) for n in (60, 40))
    train[:, :3] += 3 * np.eye(3)[labels]
    expected = made.fit(train, labels).predict(test)
    rotated, rotated_test = classical.rotate(train, test)
    np.testing.assert_array_equal(made.fit(rotated, labels).predict(rotated_test), expected)
    assert len(set(expected)) == 3


def test_rotating_keeps_the_distances_to_training_photos() -> None:
    rng = np.random.default_rng(2)
    train, test = ((rng.random((n, 300)) < 0.1).astype(np.float32) for n in (20, 7))
    train[5] = train[4]  # one direction less
    rotated, rotated_test = classical.rotate(train, test)
    assert rotated.shape == (20, 19 + 1)

    def distances(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.linalg.norm(a[:, np.newaxis] - b, axis=2)

    # float32 keeps 24 bits of squares around 30; the root of what is left of two equal photos is 0.01.
    np.testing.assert_allclose(distances(rotated, rotated), distances(train, train), atol=0.01)
    np.testing.assert_allclose(distances(rotated_test, rotated), distances(test, train), atol=0.01)


def test_a_step_cut_short_goes_on_with_the_next_model(
    examples_dir: Path, features_dir: Path, compared_dir: Path, tmp_path: Path
) -> None:
    rows = read_rows(compared_dir)
    shutil.copytree(compared_dir, tmp_path, dirs_exist_ok=True)
    (tmp_path / "rows.json").unlink()
    (tmp_path / "decision_tree.json").unlink()
    kept = {**rows[0], "fit_s": -1.0}
    write_json(tmp_path / "logistic_regression.json", kept)
    again = compare_on_features(examples_dir, features_dir, tmp_path)
    assert again[0] == kept
    assert again[3]["accuracy"] == rows[3]["accuracy"]


def test_no_more_photos_are_used_than_the_options_allow(examples_dir: Path, features_dir: Path, tmp_path: Path) -> None:
    rows = compare_on_features(examples_dir, features_dir, tmp_path, ClassicalOptions(num_trees=2, max_photos=30))
    assert read_json(tmp_path / "k-nearest_neighbours.json") == rows[1]
    assert rows[1]["num_parameters"] == 30 * 16


@pytest.mark.parametrize("name", ["max_photos", "num_neighbours", "num_trees", "max_tree_inputs", "num_jobs"])
def test_options_out_of_range_are_errors(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1. Received: 0"):
        ClassicalOptions(**{name: 0})
