"""The limits of a classifier are fitted: on features or on photos again, on however many of them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from components import limits
from components.artifacts.examples import read_index, shards
from components.artifacts.features import features_path, write_features
from components.artifacts.training import read_classifier, read_training
from components.data import transform
from components.errors import ComponentError
from components.limits import LimitsOptions
from components.storage.files import read_json
from export.embedding import add_embedding
from export.limits import Limits, LimitsModule, measure, read_limits

Fit = Callable[..., Limits]
NUM_CLASSES, NUM_FEATURES, WIDTH = 5, 48, 20


@pytest.fixture
def fit(tmp_path: Path, inputs: Callable[[str], dict[str, Path]]) -> Fit:
    """Return the function that fits limits of the tiny pipeline's classifier, or of others."""

    def fit(options: LimitsOptions | None = None, **folders: Path) -> Limits:
        out_dir = tmp_path / "limits"
        out_dir.mkdir(exist_ok=True)
        limits.fit(**{**inputs("limits"), **folders}, out_dir=out_dir, options=options or LimitsOptions())
        return read_limits(out_dir)

    return fit


def look_again(training_dir: Path, examples_dir: Path, split: str) -> tuple[Any, Any, NDArray[np.int64]]:
    """Return embeddings, probabilities and labels of the photos of a split."""
    photos = transform.read(shards(examples_dir, split), image_size_px=32).batch(100)
    images, labels = next(photos.as_numpy_iterator())
    embeddings, probabilities = add_embedding(read_classifier(training_dir))(images, training=False)
    return embeddings.numpy(), probabilities.numpy(), labels


def test_reference_to_watch_by_is_of_the_validation_photos(
    fit: Fit, training_dir: Path, tmp_path: Path, examples_dir: Path
) -> None:
    limits = fit()
    _, probabilities, labels = look_again(training_dir, examples_dir, "validation")
    reference = read_json(tmp_path / "limits" / "watch_reference.json")
    assert reference["num_examples"] == reference["num_scores"] == len(labels)
    assert reference["num_refused"] == limits.num_refused
    assert sum(reference["predicted"]) == len(labels)
    # Features on disk are float16.
    assert reference["confidence"]["mean"] == pytest.approx(probabilities.max(axis=1).mean(), abs=5e-3)
    gap = (probabilities.argmax(axis=1) == labels).mean() - probabilities.max(axis=1).mean()
    assert reference["gap"]["mean"] == pytest.approx(gap, abs=5e-3)
    rows = [row for row in read_index(examples_dir) if row["split"] == "validation"]
    assert reference["brightness"]["mean"] == pytest.approx(np.mean([row["brightness"] for row in rows]))


def test_features_of_a_frozen_backbone_stand_for_its_photos(
    fit: Fit, training_dir: Path, tmp_path: Path, examples_dir: Path
) -> None:
    of_features = fit()
    learned = shutil.copytree(training_dir, tmp_path / "learned")
    (learned / "training.json").write_text(json.dumps({**read_training(training_dir), "is_frozen": False}))
    of_photos = fit(training_dir=learned, features_dir=tmp_path)
    # Features and embeddings on disk are float16.
    np.testing.assert_allclose(of_features.scores, of_photos.scores, atol=5e-3)
    assert of_features.min_probability == of_photos.min_probability == 0
    strangers = np.random.default_rng(0).normal(size=(9, of_photos.directions.shape[0])).astype(np.float32)
    strangers /= np.linalg.norm(strangers, axis=1, keepdims=True)
    distances = [measure(strangers, each.directions, each.centres, each.offsets) for each in (of_features, of_photos)]
    np.testing.assert_allclose(*distances, atol=5e-3)


def test_backbone_that_has_learned_sees_the_photos_again(
    fit: Fit, examples_dir: Path, tuned_dir: Path, tmp_path: Path
) -> None:
    assert not read_training(tuned_dir)["is_frozen"]
    fitted = fit(training_dir=tuned_dir, features_dir=tmp_path)
    embeddings, _, _ = look_again(tuned_dir, examples_dir, "validation")
    expected = np.sort(measure(embeddings, fitted.directions, fitted.centres, fitted.offsets).numpy()[:, 0])
    np.testing.assert_allclose(fitted.scores, expected, atol=1e-5)
    means = fitted.centres.shape[1]
    assert (fitted.num_examples, means) == (5, NUM_CLASSES)


def test_few_validation_photos_refuse_nothing_and_put_all_labels_into_sets(
    fit: Fit, export_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fitted = fit()
    assert caplog.messages == [
        "limits: 5 validation photos are too few for limits.refused_share, so no photo is ever refused; it takes 33",
        "limits: 5 validation photos are too few for limits.coverage, so every prediction set holds all labels; "
        "it takes 19",
    ]
    assert (fitted.num_refused, fitted.min_probability) == (0, 0)
    noise = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
    outputs = tf.saved_model.load(str(export_dir)).signatures["images"](images=tf.constant(noise))
    assert outputs["is_known"].numpy().all()
    assert outputs["prediction_set"].numpy().all()
    assert outputs["p_value"].numpy().min() == pytest.approx(1 / 6)


def write(folder: Path, split: str, embeddings: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
    features = np.random.default_rng(1).normal(size=(len(labels), NUM_FEATURES)).astype(np.float32)
    folder.mkdir(exist_ok=True)
    shard = Path(f"{split}-00000-of-00001.tfrecord")
    write_features(features_path(folder, shard, 0), features, labels, embeddings=embeddings)


def draw(num_photos: int, *, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Draw embeddings around a mean for each class."""
    means = np.random.default_rng(9).normal(size=(NUM_CLASSES, WIDTH))
    labels = np.arange(num_photos) % NUM_CLASSES
    rows = means[labels] + np.random.default_rng(seed).normal(size=(num_photos, WIDTH)) * np.geomspace(1, 0.1, WIDTH)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), labels


def share_refused(fitted: Limits, embeddings: NDArray[np.float32]) -> float:
    probabilities = tf.fill([len(embeddings), NUM_CLASSES], 0.2)
    return 1 - float(LimitsModule(fitted)(tf.constant(embeddings), probabilities)["is_known"].numpy().mean())


@pytest.mark.parametrize("num_photos", [200, 1500])
@pytest.mark.parametrize("share", [0.0, 0.03, 0.2])
def test_the_chosen_share_of_known_photos_is_refused_and_what_is_strange_too(
    fit: Fit, tmp_path: Path, num_photos: int, share: float
) -> None:
    """Many photos are stood for by a thousand."""
    write(tmp_path / "features", "train", *draw(500))
    write(tmp_path / "features", "validation", *draw(num_photos, seed=1))
    fitted = fit(LimitsOptions(refused_share=share), features_dir=tmp_path / "features")
    assert (fitted.num_examples, len(fitted.scores)) == (num_photos, min(num_photos, 1000))
    # Of 200 photos the share is known to 3 of its deviations of 0.03.
    assert share_refused(fitted, draw(4000, seed=2)[0]) == pytest.approx(share, abs=0.09 if num_photos == 200 else 0.03)
    strange = np.random.default_rng(3).normal(size=(100, WIDTH)).astype(np.float32)
    strange /= np.linalg.norm(strange, axis=1, keepdims=True)
    assert share_refused(fitted, strange) > 0.9 or share == 0


@pytest.mark.parametrize("chosen", [slice(5), [0, 1, 3, 5, 6, 8]], ids=["one photo a class", "classes without photos"])
def test_few_train_photos_have_limits(fit: Fit, tmp_path: Path, chosen: Any) -> None:
    embeddings, labels = draw(500)
    write(tmp_path / "features", "train", embeddings[chosen], labels[chosen])
    write(tmp_path / "features", "validation", *draw(200, seed=1))
    fitted = fit(LimitsOptions(refused_share=0.1), features_dir=tmp_path / "features")
    assert fitted.centres.shape == (WIDTH, len(set(labels[chosen])))
    assert np.isfinite(fitted.scores).all()
    assert share_refused(fitted, draw(4000, seed=2)[0]) == pytest.approx(0.1, abs=0.06)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_embeddings_that_are_no_numbers_are_an_error(fit: Fit, tmp_path: Path, split: str) -> None:
    for each in ("train", "validation"):
        embeddings, labels = draw(50)
        embeddings[3, 3] = np.nan if each == split else 0.1
        write(tmp_path / "features", each, embeddings, labels)
    with pytest.raises(ComponentError, match=rf"must have finite embeddings\. Received: 1 of 50 .* {split} .*without"):
        fit(features_dir=tmp_path / "features")
    assert not list((tmp_path / "limits").iterdir())


@pytest.mark.parametrize(
    "wrong", [{"refused_share": -0.1}, {"refused_share": 0.6}, {"coverage": 0.4}, {"coverage": 1.0}], ids=str
)
def test_options_out_of_range_are_errors(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be .* Received: "):
        LimitsOptions(**wrong)
