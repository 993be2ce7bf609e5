"""Suspect labels of the train split are listed, the most suspect first, and can be left out of training."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components import suspects
from components.artifacts.examples import read_examples, read_index, shards, write_examples, write_index
from components.artifacts.features import features_path, write_features
from components.artifacts.suspects import Suspect, read_outliers, read_suspects
from components.errors import ComponentError
from components.suspects import SuspectsOptions

NUM_CLASSES, NUM_FEATURES, WIDTH = 5, 48, 20
NUM_PHOTOS, WRONG = 300, (17, 40, 222)

Find = Callable[..., tuple[list[Suspect], dict[str, Any]]]


@pytest.fixture
def find(tmp_path: Path, examples_dir: Path) -> Find:
    """Return the function that finds suspects among 300 made-up photos, three of which have a wrong label."""

    def find(*, few: int = 0, embeddings: Any = None, **options: float) -> tuple[list[Suspect], dict[str, Any]]:
        rng = np.random.default_rng(1)
        truth = np.arange(NUM_PHOTOS) % NUM_CLASSES
        if few:  # of the last class there are no more
            truth[np.flatnonzero(truth == NUM_CLASSES - 1)[few:]] = 0
        rows = np.eye(NUM_CLASSES, WIDTH)[truth] + 0.2 * rng.normal(size=(NUM_PHOTOS, WIDTH))
        rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        labels = truth.copy()
        labels[list(WRONG)] = (truth[list(WRONG)] + 1) % NUM_CLASSES
        folders = {name: tmp_path / name for name in ("examples", "features", "out")}
        for folder in folders.values():
            folder.mkdir()
        examples = read_examples(examples_dir)
        write_examples(folders["examples"], examples)
        (row, *_) = read_index(examples_dir)
        write_index(
            folders["examples"],
            ({**row, "split": "train", "filename": f"{i}.jpg", "label": int(y)} for i, y in enumerate(labels)),  # type: ignore[typeddict-item]
        )
        path = features_path(folders["features"], shards(examples_dir, "train")[0], 0)
        write_features(
            path, np.zeros((NUM_PHOTOS, 2), np.float32), labels, embeddings=rows if embeddings is None else embeddings
        )
        summary = suspects.find(
            examples_dir=folders["examples"],
            features_dir=folders["features"],
            out_dir=folders["out"],
            options=SuspectsOptions(**options),
        )
        return read_suspects(folders["out"]), summary

    return find


def test_wrong_labels_come_first_with_what_the_photo_looks_like(find: Find, tmp_path: Path, examples_dir: Path) -> None:
    names = read_examples(examples_dir)["class_names"]
    found, summary = find()
    assert {each["photo"] for each in found[:3]} == {f"{index}.jpg" for index in WRONG}
    assert [each["is_suspect"] for each in found[:4]] == [True] * 3 + [False] * (len(found) > 3)
    for each in found[:3]:
        truth = int(each["photo"].removesuffix(".jpg")) % NUM_CLASSES
        assert (each["suggested_label"], each["label"]) == (names[truth], names[(truth + 1) % NUM_CLASSES])
    scores = [each["score"] for each in found]
    assert scores == sorted(scores, reverse=True)
    assert summary == {"num_photos": NUM_PHOTOS, "num_suspects": 3, "num_outliers": 3}
    outliers = read_outliers(tmp_path / "out")
    assert [each["p_value"] for each in outliers] == pytest.approx([1 / 300, 2 / 300, 3 / 300], abs=1e-6)


def test_threshold_decides_what_is_suspect_and_not_what_is_listed(find: Find) -> None:
    found, summary = find(max_probability=0)
    assert len(found) >= 3
    assert summary["num_suspects"] == 0


def test_labels_of_a_class_with_few_photos_are_not_judged(find: Find, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found, _ = find(few=6)
    last = "tulip"
    assert not [each for each in found if each["label"] == last]
    assert f"labels are judged of classes with 10 training photos and more; not so: {last}" in caplog.text


def test_embeddings_that_are_not_finite_are_refused(find: Find) -> None:
    with pytest.raises(ComponentError, match="must have finite embeddings"):
        find(embeddings=np.full((NUM_PHOTOS, WIDTH), np.nan, np.float32))


def test_tiny_pipeline_has_too_few_photos_to_doubt_any(artifact: Callable[[str], Path]) -> None:
    assert (artifact("suspects") / "suspects.jsonl").read_text() == ""


@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_probability_has_a_range(value: float) -> None:
    with pytest.raises(ValueError, match=r"max_probability must be 0 to 1"):
        SuspectsOptions(max_probability=value)


def test_lines_have_the_promised_keys(find: Find, tmp_path: Path) -> None:
    find()
    first = json.loads((tmp_path / "out" / "suspects.jsonl").read_text().splitlines()[0])
    assert list(first) == ["photo", "label", "suggested_label", "score", "is_suspect"]
