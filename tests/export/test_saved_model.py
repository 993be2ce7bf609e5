"""The SavedModel: its two signatures as a server sees them, and the files beside the graph."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image
from tensorflow.python.tools import saved_model_utils
from tensorflow_serving.apis import prediction_log_pb2

from components.data import drawn_flowers
from export import preprocessing, saved_model
from export.limits import Limits
from export.spec import read_spec
from tests.export import fitted_limits

SIZE_PX = 16
CLASS_NAMES = ["rose", "aster", "zinnia"]  # neither sorted nor reversed: an order of their own
SPEC: Any = {"model_name": "garden", "note": "größer", "class_names": CLASS_NAMES, "image_size_px": SIZE_PX}


@pytest.fixture(scope="module")
def classifier() -> keras.Model:
    keras.utils.set_random_seed(4)
    images = keras.Input((SIZE_PX, SIZE_PX, 3), dtype="uint8")
    pixels = keras.layers.Rescaling(1 / 32)(keras.ops.cast(images, "float32"))
    # It keeps the pixels, and refuses a batch of none.
    normalize = keras.Sequential([keras.Input((SIZE_PX, SIZE_PX, 3)), keras.layers.BatchNormalization()])
    features = keras.layers.Flatten()(normalize(pixels))
    return keras.Model(images, keras.layers.Dense(len(CLASS_NAMES), activation="softmax")(features))


@pytest.fixture(scope="module")
def photos(encode: Callable[..., bytes]) -> list[bytes]:
    drawn = [Image.fromarray(drawn_flowers.draw(name, seed=8, size_px=64)) for name in drawn_flowers.CLASS_NAMES[:4]]
    return [encode(image, kind) for image, kind in zip(drawn, ("JPEG", "PNG", "GIF", "BMP"), strict=True)]


@pytest.fixture(scope="module")
def pixels(photos: list[bytes]) -> NDArray[np.uint8]:
    return np.stack([preprocessing.load(tf.constant(photo), SIZE_PX).numpy() for photo in photos])


@pytest.fixture(scope="module")
def limits(classifier: keras.Model, pixels: NDArray[np.uint8]) -> Limits:
    return fitted_limits.fit(classifier, pixels)


@pytest.fixture(scope="module")
def model_dir(
    tmp_path_factory: pytest.TempPathFactory, classifier: keras.Model, limits: Limits, photos: list[bytes]
) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    saved_model.save(classifier, limits=limits, spec=SPEC, warmup_images=photos[:2], out_dir=folder)
    return folder


@pytest.fixture(scope="module")
def signatures(model_dir: Path) -> Any:
    return tf.saved_model.load(str(model_dir)).signatures


def describe(tensors: Any) -> dict[str, tuple[str, list[int]]]:
    return {
        name: (tf.as_dtype(info.dtype).name, [dim.size for dim in info.tensor_shape.dim])
        for name, info in tensors.items()
    }


def test_signatures_have_the_names_types_and_shapes_of_the_contract(model_dir: Path) -> None:
    found = saved_model_utils.get_meta_graph_def(str(model_dir), "serve").signature_def
    outputs = {
        "probabilities": ("float32", [-1, 3]),
        "classes": ("string", [-1, 3]),
        "p_value": ("float32", [-1]),
        "is_known": ("bool", [-1]),
        "prediction_set": ("bool", [-1, 3]),
    }
    assert {"serving_default", "images"} <= set(found) <= {"serving_default", "images", "__saved_model_init_op"}
    assert describe(found["serving_default"].inputs) == {"image_bytes": ("string", [-1])}
    assert describe(found["images"].inputs) == {"images": ("uint8", [-1, SIZE_PX, SIZE_PX, 3])}
    for name in ("serving_default", "images"):
        assert found[name].method_name == "tensorflow/serving/predict"
        assert describe(found[name].outputs) == outputs


def test_encoded_photos_are_predicted_as_their_pixels_are(
    signatures: Any, classifier: keras.Model, photos: list[bytes], pixels: NDArray[np.uint8]
) -> None:
    of_bytes = signatures["serving_default"](image_bytes=tf.constant(photos))["probabilities"].numpy()
    of_pixels = signatures["images"](images=tf.constant(pixels))["probabilities"].numpy()
    np.testing.assert_array_equal(of_bytes, of_pixels)
    # The same float32 sums, perhaps in another order.
    np.testing.assert_allclose(of_pixels, classifier.predict(pixels, verbose=0), atol=1e-5)
    np.testing.assert_allclose(of_pixels.sum(axis=1), 1, atol=1e-5)
    assert np.ptp(of_pixels, axis=0).max() > 1e-3, "the predictions must depend on the photo"


@pytest.mark.parametrize("num_photos", [0, 1, 3])
def test_classes_come_in_their_one_order_for_every_photo(signatures: Any, photos: list[bytes], num_photos: int) -> None:
    outputs = signatures["serving_default"](image_bytes=tf.constant(photos[:num_photos], tf.string))
    assert outputs["probabilities"].shape == (num_photos, 3)
    assert outputs["classes"].numpy().tolist() == [[name.encode() for name in CLASS_NAMES]] * num_photos


def test_no_images_have_no_predictions(signatures: Any) -> None:
    for name, none in (
        ("serving_default", {"image_bytes": tf.zeros([0], tf.string)}),
        ("images", {"images": tf.zeros([0, SIZE_PX, SIZE_PX, 3], tf.uint8)}),
    ):
        outputs = signatures[name](**none)
        assert outputs["probabilities"].shape == outputs["classes"].shape == outputs["prediction_set"].shape == (0, 3)
        assert outputs["p_value"].shape == outputs["is_known"].shape == (0,)


def test_one_broken_photo_fails_the_call_with_a_reason(signatures: Any, photos: list[bytes]) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match="An image must be a JPEG, PNG, GIF, BMP or WebP file"):
        signatures["serving_default"](image_bytes=tf.constant([photos[0], b"RIFF\xff\x80WEBP"]))


def test_warmup_requests_parse_and_can_be_replayed(model_dir: Path, signatures: Any, photos: list[bytes]) -> None:
    records = tf.data.TFRecordDataset(str(model_dir / saved_model.WARMUP)).as_numpy_iterator()
    requests = [prediction_log_pb2.PredictionLog.FromString(r).predict_log.request for r in records]
    assert [r.model_spec.signature_name for r in requests] == ["serving_default", "images"] * 2
    assert {r.model_spec.name for r in requests} == {"garden"}
    assert [r.inputs["image_bytes"].string_val[0] for r in requests[::2]] == photos[:2]
    probabilities = []
    for request in requests:
        inputs = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
        probabilities.append(signatures[request.model_spec.signature_name](**inputs)["probabilities"].numpy())
    np.testing.assert_array_equal(probabilities[0], probabilities[1])
    np.testing.assert_array_equal(probabilities[2], probabilities[3])


def test_spec_is_written_beside_the_graph(model_dir: Path) -> None:
    assert read_spec(model_dir) == SPEC
    assert "größer" in (model_dir / "assets.extra" / "model_spec.json").read_text(encoding="utf-8")
