"""The LiteRT files of a small classifier: what they take, what they predict, and how close to the SavedModel."""

import json
import re
import subprocess
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from client.classifier_client.transports.litert_metadata import read_metadata
from components.artifacts.examples import shards
from components.data import transform
from components.training import networks
from export import litert, metadata
from export.spec import read_spec
from serving.local_server.litert import LiteRTServable
from tests.client import litert_files
from tests.export import fitted_limits

# How far a probability may be from the SavedModel's: float32 sums in another order; float16 has 11 bits; int8 has 8,
# and its steps add up through six layers.
TOLERANCES = {"float32": 1e-5, "float16": 1e-3, "dynamic": 0.01, "int8": 0.02}


@pytest.fixture(scope="module")
def classifier(training_dir: Path) -> keras.Model:
    return keras.models.load_model(training_dir / "model.keras", compile=False)


@pytest.fixture(scope="module")
def photos(examples_dir: Path) -> Callable[[str], NDArray[np.uint8]]:
    def read(split: str) -> NDArray[np.uint8]:
        images = transform.read(shards(examples_dir, split), image_size_px=32)
        return np.stack([image for image, _ in images.as_numpy_iterator()])

    return read


@pytest.fixture(scope="module")
def convert(
    classifier: keras.Model, photos: Callable[[str], NDArray[np.uint8]], export_dir: Path
) -> Callable[..., dict[str, Path]]:
    given = {"calibration_images": photos("train"), "spec": read_spec(export_dir), "version": "3"}

    def convert(out_dir: Path, classifier: keras.Model = classifier, **changed: Any) -> dict[str, Path]:
        limits = fitted_limits.fit(classifier, photos("train"))
        return litert.convert(classifier, limits=limits, out_dir=out_dir, **{**given, **changed})

    return convert


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, convert: Callable[..., dict[str, Path]]) -> dict[str, Path]:
    return convert(tmp_path_factory.mktemp("litert"))


@pytest.fixture(scope="module")
def expected(export_dir: Path, photos: Callable[[str], NDArray[np.uint8]]) -> NDArray[np.float32]:
    """The SavedModel's probabilities of the test photos."""
    loaded = tf.saved_model.load(str(export_dir))
    return loaded.signatures["images"](images=tf.constant(photos("test")))["probabilities"].numpy()


def predict(path: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    run = Interpreter(str(path)).get_signature_runner("images")
    dtype = run.get_input_details()["images"]["dtype"]
    return np.concatenate([run(images=image[np.newaxis].astype(dtype))["probabilities"] for image in images])


def test_a_file_of_each_kind_is_named_after_the_model(files: dict[str, Path]) -> None:
    assert {kind: path.name for kind, path in files.items()} == {
        "float32": "flowers_float32.tflite",
        "float16": "flowers_float16.tflite",
        "dynamic": "flowers_dynamic.tflite",
        "int8": "flowers_int8.tflite",
    }
    assert sorted(files.values()) == sorted(files["int8"].parent.iterdir())


@pytest.mark.parametrize("kind", litert.KINDS)
def test_signature_is_the_one_of_the_saved_model_for_one_image(files: dict[str, Path], kind: str) -> None:
    interpreter = Interpreter(str(files[kind]))
    assert interpreter.get_signature_list() == {"images": {"inputs": ["images"], "outputs": ["probabilities"]}}
    run = interpreter.get_signature_runner("images")
    images, probabilities = run.get_input_details()["images"], run.get_output_details()["probabilities"]
    assert images["dtype"] is (np.uint8 if kind == "int8" else np.float32)
    assert images["shape"].tolist() == [1, 32, 32, 3]
    assert probabilities["dtype"] is np.float32
    assert probabilities["shape"].tolist() == [1, 5]


@pytest.mark.parametrize("kind", litert.KINDS)
def test_predictions_are_those_of_the_saved_model(
    files: dict[str, Path], kind: str, photos: Callable[[str], NDArray[np.uint8]], expected: NDArray[np.float32]
) -> None:
    found = predict(files[kind], photos("test"))
    np.testing.assert_allclose(found, expected, atol=TOLERANCES[kind])
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    assert found.min() > 0
    assert np.ptp(expected, axis=0).max() > 5 * TOLERANCES[kind], "the predictions must depend on the photo"


@pytest.mark.parametrize("kind", litert.KINDS)
def test_metadata_describes_the_file(files: dict[str, Path], kind: str, export_dir: Path) -> None:
    metadata, spec = read_metadata(files[kind]), read_spec(export_dir)
    name, description = litert_files.read_names(files[kind])
    assert (name, metadata.model_version, litert_files.read_spec(files[kind])) == ("flowers", "3", spec)
    assert list(metadata.class_names) == spec["class_names"]
    assert litert.KINDS[kind] in description


def test_int8_computes_in_integers_until_the_last_layer(files: dict[str, Path]) -> None:
    graph = schema.ModelT.InitFromPackedBuf(files["int8"].read_bytes()).subgraphs[0]
    in_float = [
        t
        for t in graph.tensors
        if t.type == schema.TensorType.FLOAT32 and not re.search("limits/|embedding_|arith", t.name.decode())
    ]
    # The p-value, the last layer's input, weights and bias, what goes into the softmax, and what comes out of it.
    assert sorted(t.shape.tolist() for t in in_float) == [[1], [1, 5], [1, 5], [1, 24], [5], [5, 24]]
    kernels = [t for t in graph.tensors if t.type == schema.TensorType.INT8 and len(t.shape) == 4 and t.buffer]
    scales = sorted(len(t.quantization.scale) for t in kernels if t.quantization.quantizedDimension == 0)
    assert {16, 24, 32, 48} <= set(scales), "each channel of a kernel has a scale of its own"


def test_rows_of_a_resized_batch_are_predicted_as_they_are_alone(
    files: dict[str, Path], photos: Callable[[str], NDArray[np.uint8]]
) -> None:
    batch = photos("test")[:3]
    interpreter = Interpreter(str(files["int8"]))
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], batch.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], batch)
    interpreter.invoke()
    together = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(together, predict(files["int8"], batch), atol=1e-6)


def test_server_takes_int8_for_the_saved_model(files: dict[str, Path], export_dir: Path) -> None:
    servable = LiteRTServable(files["int8"])
    served = servable.signatures["images"]
    servable.close()
    inputs, outputs = tf.saved_model.load(str(export_dir)).signatures["images"].structured_input_signature[1], served
    assert set(served.inputs) == set(inputs) == {"images"}
    assert served.inputs["images"].dtype == inputs["images"].dtype.as_datatype_enum
    assert [d.size for d in served.inputs["images"].tensor_shape.dim] == [-1, 32, 32, 3]
    assert outputs.outputs["probabilities"].dtype == tf.float32.as_datatype_enum


def test_same_classifier_gives_the_same_files(
    files: dict[str, Path], convert: Callable[..., dict[str, Path]], tmp_path: Path
) -> None:
    for kind, path in convert(tmp_path).items():
        assert path.read_bytes() == files[kind].read_bytes(), kind


def test_channels_in_another_order_and_padding_are_folded_exactly(
    convert: Callable[..., dict[str, Path]], tmp_path: Path
) -> None:
    """ResNet50 takes BGR, centred; zeros are padded after that."""
    keras.utils.set_random_seed(3)
    maps = keras.Input((32, 32, 3))
    convolved = keras.layers.Conv2D(16, 7, strides=1)(keras.layers.ZeroPadding2D(3)(maps))
    backbone = keras.Model(maps, keras.layers.ReLU()(convolved))
    pixels = keras.Input((32, 32, 3), dtype="uint8")
    normalized = keras.applications.resnet50.preprocess_input(keras.ops.cast(pixels, "float32")) / 64
    features = keras.layers.Flatten()(backbone(normalized))
    network = keras.Model(pixels, keras.layers.Dense(5, activation="softmax")(features))
    before = [weights.copy() for weights in network.get_weights()]
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    found = predict(convert(tmp_path, network)["float32"], images)
    np.testing.assert_allclose(found, network.predict(images, verbose=0), atol=1e-5)
    for weights, kept in zip(network.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weights, kept)


def test_dynamic_keeps_the_weights_of_depthwise_convolutions_in_float32(
    convert: Callable[..., dict[str, Path]], tmp_path: Path
) -> None:
    """No runtime is fast with int8 there; a matrix product has int8, with the one scale that old runtimes read."""
    images = keras.Input((32, 32, 3), dtype="uint8")
    pixels = keras.applications.imagenet_utils.preprocess_input(keras.ops.cast(images, "float32"), mode="tf")
    maps = keras.Input((32, 32, 3))
    pointwise = keras.layers.Conv2D(32, 3, activation="relu")(maps)
    backbone = keras.Model(maps, keras.layers.DepthwiseConv2D(3, activation="relu")(pointwise))
    features = keras.layers.GlobalAveragePooling2D()(backbone(pixels))
    network = keras.Model(images, keras.layers.Dense(5, activation="softmax")(features))
    model = metadata.unpack(convert(tmp_path, network)["dynamic"].read_bytes())
    (graph,) = model.subgraphs
    codes = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    weights: dict[str, list[Any]] = {"CONV_2D": [], "DEPTHWISE_CONV_2D": [], "FULLY_CONNECTED": []}
    for operator in graph.operators:
        if (name := codes[model.operatorCodes[operator.opcodeIndex].builtinCode]) in weights:
            weights[name].append(graph.tensors[operator.inputs[1]])
    types = {name: {tensor.type for tensor in found} for name, found in weights.items()}
    assert types["DEPTHWISE_CONV_2D"] == {schema.TensorType.FLOAT32}
    assert types["CONV_2D"] == {schema.TensorType.INT8}
    products = [tensor for tensor in weights["FULLY_CONNECTED"] if tensor.type == schema.TensorType.INT8]
    assert [len(tensor.quantization.scale) for tensor in products] == [1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenet_v2", "efficientnet_v2_b0"])
def test_backbones_for_the_device_are_converted(
    convert: Callable[..., dict[str, Path]], photos: Callable[[str], NDArray[np.uint8]], tmp_path: Path, name: str
) -> None:
    """Random weights make fifty layers amplify any rounding, so that int8 need not agree here; trained ones damp it."""
    keras.utils.set_random_seed(0)
    extractor = networks.build_extractor(name, image_size_px=32)
    _set_moments(extractor, name, photos("train"))
    dense = keras.layers.Dense(5, activation="softmax", kernel_initializer=keras.initializers.RandomNormal(stddev=0.01))
    network = keras.Model(extractor.input, dense(extractor.output))
    files = convert(tmp_path, network)
    expected = network.predict(photos("test"), verbose=0)
    assert np.ptp(expected, axis=0).max() > 0.01, "the predictions must depend on the photo"
    np.testing.assert_allclose(predict(files["float32"], photos("test")), expected, atol=1e-2)
    found = predict(files["int8"], photos("test"))
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    assert np.ptp(found, axis=0).max() > 0.01
    assert files["int8"].stat().st_size < files["float32"].stat().st_size / 2


def _set_moments(extractor: keras.Model, name: str, images: NDArray[np.uint8]) -> None:
    """Set the moments of batch normalization to those of some images: with its initial ones, signals die out."""
    backbone = extractor.get_layer(name)
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    backbone.trainable = True
    before = extractor.operations[extractor.operations.index(backbone) - 1].output
    backbone(keras.Model(extractor.input, before)(images), training=True)
    backbone.trainable = False


def test_classifier_that_cannot_be_folded_is_refused(convert: Callable[..., dict[str, Path]], tmp_path: Path) -> None:
    images = keras.Input((32, 32, 3), dtype="uint8")
    pixels = (keras.ops.cast(images, "float32") / 255) ** 2
    maps = keras.Input((32, 32, 3))
    backbone = keras.Model(maps, keras.layers.Conv2D(4, 3)(maps))
    features = keras.layers.Flatten()(backbone(pixels))
    network = keras.Model(images, keras.layers.Dense(5, activation="softmax")(features))
    with pytest.raises(ValueError, match="A classifier must begin with a colour normalization"):
        convert(tmp_path, network)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((0, 32, 32, 3), np.uint8), "int8 needs at least one photo to calibrate on"),
        (np.zeros((2, 32, 32, 3), np.float32), r"must be uint8 \[M, 32, 32, 3\]. Received: float32 \[2, 32, 32, 3\]"),
        (np.zeros((2, 16, 16, 3), np.uint8), r"must be uint8 \[M, 32, 32, 3\]. Received: uint8 \[2, 16, 16, 3\]"),
    ],
    ids=["none", "float", "too small"],
)
def test_calibration_images_that_do_not_fit_are_refused(
    convert: Callable[..., dict[str, Path]], tmp_path: Path, images: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        convert(tmp_path, calibration_images=images)


CLASSIFY = """
import json, sys
import mediapipe as mp
import numpy as np
from mediapipe.tasks.python import BaseOptions, vision

options = vision.ImageClassifierOptions(base_options=BaseOptions(model_asset_path=sys.argv[1]), max_results=-1)
with vision.ImageClassifier.create_from_options(options) as classifier:
    for pixels in np.load(sys.argv[2]):
        image = mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(pixels))
        found = classifier.classify(image).classifications[0].categories
        print(json.dumps({category.category_name: category.score for category in found}))
"""


@pytest.fixture(scope="module")
def mediapipe_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment of its own, from the package index."""
    folder = tmp_path_factory.mktemp("mediapipe")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    install = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "mediapipe==1.2.2"], capture_output=True, text=True
    )
    if install.returncode:
        pytest.skip(f"mediapipe cannot be installed: {install.stderr[-500:]}")
    return python


@pytest.mark.slow
@pytest.mark.parametrize("kind", litert.KINDS)
def test_mediapipe_classifies_as_the_interpreter_does(
    mediapipe_python: Path,
    files: dict[str, Path],
    kind: str,
    photos: Callable[[str], NDArray[np.uint8]],
    export_dir: Path,
    tmp_path: Path,
) -> None:
    np.save(tmp_path / "photos.npy", photos("test"))
    command = [mediapipe_python, "-c", CLASSIFY, files[kind], tmp_path / "photos.npy"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout.splitlines()
    class_names = read_spec(export_dir)["class_names"]
    found = [[prediction[name] for name in class_names] for prediction in map(json.loads, lines)]
    # The same kernels, perhaps of another release.
    np.testing.assert_allclose(found, predict(files[kind], photos("test")), atol=1e-4)
