"""A small network from scratch: it learns, and what it writes is what the steps after the trainer read."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from components import depthwise
from components.artifacts.manifest import MANIFEST
from components.artifacts.training import read_classifier, read_history, read_training
from components.data.transform import TransformOptions
from components.depthwise import DepthwiseOptions
from components.training.fitting import compile_classifier
from export import litert
from tests.export import fitted_limits


@pytest.fixture(scope="module")
def depthwise_dir(tmp_path_factory: pytest.TempPathFactory, examples_dir: Path) -> Path:
    folder = tmp_path_factory.mktemp("depthwise")
    depthwise.train(
        examples_dir=examples_dir,
        validation_dir=folder,
        out_dir=folder,
        options=DepthwiseOptions(image_size_px=32, epochs=2, batch_size=16),
        transform=TransformOptions(),
    )
    return folder


def test_training_writes_what_the_trainer_writes(depthwise_dir: Path, training_dir: Path) -> None:
    description = read_training(depthwise_dir)
    assert description["backbone"] == depthwise.NAME
    assert description["class_names"] == read_training(training_dir)["class_names"]
    assert description["epochs"] == {"scratch": 2}
    assert not description["is_frozen"]
    assert set(read_history(depthwise_dir)["scratch"]) >= {"loss", "val_loss", "accuracy", "val_accuracy"}
    written = {path.name for path in training_dir.iterdir()} - {MANIFEST}  # which the runner writes
    assert {path.name for path in depthwise_dir.iterdir()} == written


def test_network_takes_pixels_and_gives_probabilities(depthwise_dir: Path) -> None:
    network = read_classifier(depthwise_dir)
    assert (network.input.dtype, network.input_shape) == ("uint8", (None, 32, 32, 3))
    assert network.count_params() == read_training(depthwise_dir)["num_parameters"]
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    np.testing.assert_allclose(network.predict(images, verbose=0).sum(axis=1), 1, atol=1e-6)


def test_network_learns_what_it_is_shown() -> None:
    keras.utils.set_random_seed(0)
    network = depthwise.build(num_classes=2, options=DepthwiseOptions(image_size_px=32))
    labels = np.arange(32) % 2
    images = np.random.default_rng(0).integers(0, 128, (32, 32, 32, 3), np.uint8)
    images[labels == 1, :, :, 0] += 120  # red
    compile_classifier(network, learning_rate=2e-3, label_smoothing=0.1)
    history = network.fit(images, np.eye(2)[labels], epochs=8, verbose=0).history
    assert history["accuracy"][-1] > 0.9


def test_network_can_be_converted_for_the_device(depthwise_dir: Path, tmp_path: Path) -> None:
    network = keras.models.load_model(depthwise_dir / "model.keras", compile=False)
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    spec: Any = {"model_name": "depthwise", "class_names": [str(n) for n in range(5)], "image_size_px": 32}
    limits = fitted_limits.fit(network, images)
    files = litert.convert(network, limits=limits, calibration_images=images, spec=spec, out_dir=tmp_path)
    assert files["int8"].stat().st_size < files["float32"].stat().st_size / 2


@pytest.mark.parametrize(
    "wrong", [{"image_size_px": 31}, {"epochs": 0}, {"dropout": 1.0}, {"learning_rate": 0.0}], ids=str
)
def test_options_out_of_range_are_errors(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be .* Received"):
        DepthwiseOptions(**wrong)
