"""The file of a classifier holds the classifier alone."""

import json
import zipfile
from pathlib import Path

import keras
import numpy as np

from components.artifacts.training import MODEL_FILE, read_classifier, write_classifier


def test_equal_classifiers_are_saved_as_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "other"):
        keras.utils.clear_session()
        keras.utils.set_random_seed(0)
        classifier = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)])
        (tmp_path / name).mkdir()
        write_classifier(tmp_path / name / MODEL_FILE, classifier)
    assert (tmp_path / "one" / MODEL_FILE).read_bytes() == (tmp_path / "other" / MODEL_FILE).read_bytes()
    with zipfile.ZipFile(tmp_path / "one" / MODEL_FILE) as archive:
        assert {file.date_time for file in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}, "ZIP's first day"
        assert set(json.loads(archive.read("metadata.json"))) == {"keras_version"}
        assert '"shared_object_id": 0' in archive.read("config.json").decode(), "both layers share their dtype policy"
    for a, b in zip(read_classifier(tmp_path / "one").get_weights(), classifier.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
