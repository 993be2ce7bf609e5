"""The limits in a graph: each output by hand, and those of a SavedModel by numpy."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from components.artifacts.examples import read_encoded
from components.artifacts.training import read_classifier
from export import preprocessing, saved_model
from export.embedding import add_embedding
from export.limits import Limits, LimitsModule, read_limits, write_limits
from export.parity import compute_p_values
from export.spec import read_spec
from tests.export import fitted_limits

BY_HAND = Limits(
    # Nothing is to be ignored, and one class has its mean at the origin: the distance is |z|².
    directions=np.zeros((2, 1), np.float16),
    centres=np.zeros((2, 1), np.float16),
    offsets=np.zeros(1, np.float32),
    scores=np.array([0.25, 1, 4, 9], np.float32),
    num_examples=4,
    refused_share=0.4,
    coverage=0.9,
    min_probability=0.3,
)
HALVES = np.full((1, 2), 0.5, np.float32)


def describe(limits: Limits, embeddings: Any, probabilities: Any = HALVES) -> dict[str, list[Any]]:
    outputs = LimitsModule(limits)(tf.constant(embeddings, tf.float32), tf.constant(probabilities, tf.float32))
    return {name: value.numpy().tolist() for name, value in outputs.items()}


@pytest.mark.parametrize(
    ("length", "rank", "is_known"),
    [(0.0, 5, True), (0.5, 5, True), (0.6, 4, True), (2.0, 3, True), (2.5, 2, False), (3.5, 1, False)],
)
def test_p_value_is_the_rank_among_known_photos_and_the_strangest_are_refused(
    length: float, rank: int, is_known: bool
) -> None:
    """Of four photos 0.4 of five ranks may be refused: the two strangest; a tie is no stranger."""
    found = describe(BY_HAND, [[0, length]])
    assert found["p_value"] == pytest.approx([rank / 5])
    assert found["is_known"] == [is_known]


def test_an_embedding_that_is_no_number_is_refused() -> None:
    found = describe(BY_HAND, [[np.nan, 0], [np.inf, 0]], np.repeat(HALVES, 2, axis=0))
    assert found["p_value"] == pytest.approx([1 / 5, 1 / 5])
    assert found["is_known"] == [False, False]


@pytest.mark.parametrize("share", [0.0, 0.19])
def test_no_photo_is_refused_where_none_may_be_or_photos_are_too_few(share: float) -> None:
    limits = replace(BY_HAND, refused_share=share)
    assert describe(limits, [[0, 1000.0]])["is_known"] == [True]
    assert limits.describe()["score_threshold"] is None


def test_threshold_is_the_score_above_which_an_image_is_refused() -> None:
    threshold = BY_HAND.describe()["score_threshold"]
    assert threshold == 4
    for length, is_known in ((threshold, True), (threshold + 0.01, False)):
        assert describe(BY_HAND, [[0, length**0.5]])["is_known"] == [is_known]


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        ([0.6, 0.3, 0.1], [True, True, False]),
        ([0.28, 0.26, 0.27], [True, False, False]),
        ([0.2, 0.2, 0.1], [True, True, False]),
    ],
    ids=["those that are probable enough", "the most probable one always", "both that are the most probable"],
)
def test_labels_are_in_the_set_by_their_probability(probabilities: list[float], expected: list[bool]) -> None:
    limits = replace(BY_HAND, min_probability=float(np.float32(0.3)))
    assert describe(limits, [[0, 0]], [probabilities])["prediction_set"] == [expected]


def test_description_has_what_people_want_to_know() -> None:
    description = BY_HAND.describe()
    quantiles = description["score_quantiles"]
    assert (len(quantiles), quantiles[0], quantiles[10], quantiles[-1]) == (21, 0.25, 2.5, 9)
    named = {name: getattr(BY_HAND, name) for name in ("num_examples", "refused_share", "coverage", "min_probability")}
    assert named.items() <= description.items()


def test_limits_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_limits(tmp_path, BY_HAND)
    read = read_limits(tmp_path)
    for name, value in vars(BY_HAND).items():
        np.testing.assert_array_equal(getattr(read, name), value)
        assert type(getattr(read, name)) is type(value)


@pytest.fixture(scope="module")
def classifier(training_dir: Path) -> keras.Model:
    return read_classifier(training_dir)


@pytest.fixture(scope="module")
def images(examples_dir: Path) -> Any:
    photos = [
        preprocessing.load(tf.constant(encoded), 32).numpy() for _, encoded in read_encoded(examples_dir, "train")
    ]
    edges = [np.full((32, 32, 3), grey, np.uint8) for grey in (0, 255)]
    noise = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)
    return np.stack([*photos, *edges, *noise])


def test_saved_model_says_what_numpy_says(
    classifier: keras.Model, images: Any, export_dir: Path, tmp_path: Path
) -> None:
    """A black image, a white one and noise are among them."""
    limits = fitted_limits.fit(classifier, images[:35])
    saved_model.save(classifier, limits=limits, spec=read_spec(export_dir), warmup_images=[], out_dir=tmp_path)
    outputs = tf.saved_model.load(str(tmp_path)).signatures["images"](images=tf.constant(images))
    embeddings, probabilities = add_embedding(classifier)(images, training=False)
    expected = compute_p_values(embeddings.numpy(), limits)
    # float32 sums in another order may let an image change places with a known one: each of these is one.
    np.testing.assert_allclose(outputs["p_value"], expected, atol=1 / 19 + 1e-6)
    assert len(np.unique(expected)) > 10
    is_known = outputs["is_known"].numpy()
    np.testing.assert_array_equal(is_known, outputs["p_value"].numpy() > (limits.num_refused + 0.5) / 19)
    assert is_known[17:35].sum() == pytest.approx(18 - limits.num_refused + 1, abs=1)
    highest = probabilities.numpy().max(axis=1, keepdims=True)
    in_set = probabilities.numpy() >= np.minimum(highest - 1e-6, limits.min_probability)
    np.testing.assert_array_equal(outputs["prediction_set"], in_set)
