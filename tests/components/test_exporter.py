"""The export step: the trained classifier's predictions, unchanged, in a SavedModel that tells where it comes from."""

import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from components import exporter
from components.artifacts.examples import read_encoded, read_examples, shards
from components.artifacts.manifest import read_manifest
from components.artifacts.training import read_classifier, read_training
from components.data import transform
from components.exporter import ExportOptions
from export import saved_model
from export.limits import read_limits
from export.spec import read_spec


def test_exported_model_predicts_as_the_trained_one(export_dir: Path, training_dir: Path, examples_dir: Path) -> None:
    encoded = [photo for _, photo in read_encoded(examples_dir, "test")]
    photos = transform.read(shards(examples_dir, "test"), image_size_px=32).as_numpy_iterator()
    outputs = tf.saved_model.load(str(export_dir)).signatures["serving_default"](image_bytes=tf.constant(encoded))
    expected = read_classifier(training_dir).predict(np.stack([image for image, _ in photos]), verbose=0)
    # The same float32 sums, perhaps in another order.
    np.testing.assert_allclose(outputs["probabilities"], expected, atol=1e-5)
    class_names = read_examples(examples_dir)["class_names"]
    assert outputs["classes"].numpy().tolist() == [[name.encode() for name in class_names]] * 10


def test_spec_says_what_the_model_was_made_from(
    artifact: Callable[[str], Path], export_dir: Path, training_dir: Path
) -> None:
    spec = read_spec(export_dir)
    assert spec.pop("preprocessing")
    assert spec == {
        "model_name": "flowers",
        "backbone": "small_cnn",
        "weights": {"source": "none", "fallback": None},
        "data": {"source": "synthetic", "resolved": "synthetic", "fallback": None},
        "tensorflow": importlib.metadata.version("tensorflow"),
        "class_names": ["daisy", "dandelion", "roses", "sunflowers", "tulips"],
        "image_size_px": 32,
        "temperature": read_training(training_dir)["temperature"],
        "limits": read_limits(artifact("limits")).describe(),
    }


def test_warmup_has_two_requests_for_each_photo(
    inputs: Callable[[str], dict[str, Path]], export_dir: Path, tmp_path: Path
) -> None:
    exporter.export(**inputs("export"), out_dir=tmp_path, options=ExportOptions(num_warmup_images=0))
    for folder, num_images in ((tmp_path, 0), (export_dir, ExportOptions().num_warmup_images)):
        assert sum(1 for _ in tf.data.TFRecordDataset(str(folder / saved_model.WARMUP))) == 2 * num_images
    summary = read_manifest(export_dir)["summary"]
    assert summary["signatures"] == "serving_default images"
    assert summary["size_mb"] > 0


@pytest.mark.parametrize(
    "wrong", [{"model_name": "my flowers"}, {"num_warmup_images": -1}, {"num_warmup_images": 501}], ids=str
)
def test_options_out_of_range_are_errors(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be .* Received: "):
        ExportOptions(**wrong)
