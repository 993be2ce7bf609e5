"""The export step: the trained classifier's answers, unchanged, in a SavedModel that tells where it comes from."""

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from components import examples, exporter
from components.data import transform
from components.exporter import ExportOptions
from export import saved_model


def test_exported_model_answers_test_photos_as_the_trained_one(
    export_dir: Path, training_dir: Path, examples_dir: Path
) -> None:
    shards = examples.shards(examples_dir, "test")
    encoded = [
        tf.train.Example.FromString(record).features.feature["image/encoded"].bytes_list.value[0]
        for record in transform.records(shards).as_numpy_iterator()
    ]
    pixels = np.stack([image for image, _ in transform.read(shards, image_size_px=32).as_numpy_iterator()])
    answer = tf.saved_model.load(str(export_dir)).signatures["serving_default"](image_bytes=tf.constant(encoded))
    classifier = keras.models.load_model(training_dir / "model.keras", compile=False)
    # The same float32 sums, perhaps in another order.
    np.testing.assert_allclose(answer["probabilities"], classifier.predict(pixels, verbose=0), atol=1e-5)
    class_names = examples.describe(examples_dir)["class_names"]
    assert answer["classes"].numpy().tolist() == [[name.encode() for name in class_names]] * 10


def test_spec_says_what_the_model_was_made_from(export_dir: Path) -> None:
    spec = json.loads((export_dir / "assets.extra" / "model_spec.json").read_text())
    assert spec.pop("preprocessing")
    assert spec == {
        "model_name": "flowers",
        "backbone": "small_cnn",
        "weights": {"source": "none", "fallback": None},
        "data": {"source": "synthetic", "resolved": "synthetic", "fallback": None},
        "tensorflow": importlib.metadata.version("tensorflow"),
        "class_names": ["daisy", "dandelion", "roses", "sunflowers", "tulips"],
        "image_size_px": 32,
    }


@pytest.mark.parametrize("num_images", [0, 3])
def test_warmup_has_two_requests_for_each_photo(
    tmp_path: Path, examples_dir: Path, training_dir: Path, num_images: int
) -> None:
    options = ExportOptions(num_warmup_images=num_images)
    summary = exporter.export(examples_dir=examples_dir, training_dir=training_dir, out_dir=tmp_path, options=options)
    records = tf.data.TFRecordDataset(str(tmp_path / saved_model.WARMUP))
    assert sum(1 for _ in records) == 2 * num_images
    assert summary["signatures"] == "serving_default images"
    assert summary["size_mb"] > 0


@pytest.mark.parametrize(
    "wrong", [{"model_name": "my flowers"}, {"num_warmup_images": -1}, {"num_warmup_images": 501}], ids=str
)
def test_options_out_of_range_are_errors(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be .* Received: "):
        ExportOptions(**wrong)
