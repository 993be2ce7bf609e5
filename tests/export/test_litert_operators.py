"""What each LiteRT file says of its operators, and that other runtimes read it right or refuse it."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from litert_quantizer import quantizer, recipe
from numpy.typing import NDArray

from components.artifacts.examples import shards
from components.artifacts.litert import find_litert_files
from components.data import transform
from export import litert, metadata
from export.litert_operators import MIN_RUNTIME_VERSION, declare_operators

UV = Path(sys.executable).with_name("uv")
# How far a probability may be from the SavedModel's: kernels differ in how they round what has 8 bits.
TOLERANCES = {"float32": 1e-5, "float16": 1e-3, "dynamic": 0.02, "int8": 0.03}


def versions(content: bytes) -> dict[str, int]:
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    return {names[code.builtinCode]: code.version for code in metadata.unpack(content).operatorCodes}


@pytest.fixture(scope="module")
def files(litert_dir: Path) -> dict[str, Path]:
    return find_litert_files(litert_dir, "flowers")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("float32", {"CONV_2D": 1, "FULLY_CONNECTED": 1}),
        ("float16", {"CONV_2D": 1, "FULLY_CONNECTED": 1, "DEQUANTIZE": 3}),
        ("dynamic", {"CONV_2D": 5, "FULLY_CONNECTED": 3, "DEQUANTIZE": 3}),
        ("int8", {"CONV_2D": 3, "FULLY_CONNECTED": 4, "DEQUANTIZE": 3, "MEAN": 2, "QUANTIZE": 1}),
    ],
)
def test_versions_are_those_of_the_types(files: dict[str, Path], kind: str, expected: dict[str, int]) -> None:
    found = versions(files[kind].read_bytes())
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize("kind", litert.KINDS)
def test_older_readers_find_each_operator(files: dict[str, Path], kind: str) -> None:
    codes = metadata.unpack(files[kind].read_bytes()).operatorCodes
    assert [code.deprecatedBuiltinCode for code in codes] == [min(code.builtinCode, 127) for code in codes]


@pytest.mark.parametrize("kind", litert.KINDS)
def test_oldest_runtime_is_the_one_it_is_tested_on(files: dict[str, Path], kind: str) -> None:
    model = metadata.unpack(files[kind].read_bytes())
    [entry] = [entry for entry in model.metadata if entry.name == b"min_runtime_version"]
    assert bytes(model.buffers[entry.buffer].data).rstrip(b"\0") == MIN_RUNTIME_VERSION.encode()


@pytest.mark.parametrize("kind", ["dynamic", "int8"])
def test_weights_of_a_fully_connected_have_one_scale(files: dict[str, Path], kind: str) -> None:
    """Older runtimes read no others."""
    model = metadata.unpack(files[kind].read_bytes())
    (graph,) = model.subgraphs
    weights = [
        graph.tensors[operator.inputs[1]]
        for operator in graph.operators
        if model.operatorCodes[operator.opcodeIndex].builtinCode == schema.BuiltinOperator.FULLY_CONNECTED
    ]
    scales = [len(tensor.quantization.scale) for tensor in weights if tensor.type == schema.TensorType.INT8]
    assert scales
    assert set(scales) == {1}


@pytest.fixture(scope="module")
def per_channel() -> bytes:
    """A FULLY_CONNECTED of int8 weights, a scale for each of three outputs, and float32 activations."""
    weights = np.random.default_rng(0).normal(size=(64, 3)) * [1, 10, 100]

    @tf.function(input_signature=[tf.TensorSpec([1, 64])], autograph=False)
    def classify(images: Any) -> Any:
        return images @ tf.constant(weights, tf.float32)

    converter = tf.lite.TFLiteConverter.from_concrete_functions([classify.get_concrete_function()], tf.Module())
    quantizing = quantizer.Quantizer(converter.convert(), recipe.dynamic_wi8_afp32())
    model = metadata.unpack(bytes(quantizing.quantize().quantized_model))
    declare_operators(model)
    return metadata.pack(model)


def test_scales_of_channels_need_a_newer_version(per_channel: bytes) -> None:
    assert versions(per_channel) == {"FULLY_CONNECTED": 12}


# --- other runtimes

RUN_TFLITE = """
import sys
import numpy as np
from tflite_runtime.interpreter import Interpreter

interpreter = Interpreter(sys.argv[1])
interpreter.allocate_tensors()
(image,), (probabilities,) = interpreter.get_input_details(), interpreter.get_output_details()
rows = []
for photo in np.load(sys.argv[2]):
    interpreter.set_tensor(image["index"], photo[np.newaxis].astype(image["dtype"]))
    interpreter.invoke()
    rows.append(interpreter.get_tensor(probabilities["index"])[0])
np.save(sys.argv[3], rows)
"""

RUN_OPENVINO = """
import sys
import numpy as np
import openvino

# Where the processor has bfloat16, it would compute in that.
model = openvino.Core().compile_model(sys.argv[1], "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
dtype = model.input(0).element_type.to_dtype()
np.save(sys.argv[3], [model(photo[np.newaxis].astype(dtype))[0][0] for photo in np.load(sys.argv[2])])
"""

RUN_MEDIAPIPE = """
import sys
import mediapipe
import numpy as np
from mediapipe.tasks.python import BaseOptions, vision

options = vision.ImageClassifierOptions(base_options=BaseOptions(model_asset_path=sys.argv[1]))
with vision.ImageClassifier.create_from_options(options) as classifier:
    rows = []
    for photo in np.load(sys.argv[2]):
        image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=photo)
        (found,) = classifier.classify(image).classifications
        scores = {category.category_name: category.score for category in found.categories}
        rows.append([scores[name] for name in ("daisy", "dandelion", "roses", "sunflowers", "tulips")])
np.save(sys.argv[3], rows)
"""


@pytest.fixture(scope="module")
def install(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return the function that installs packages into an environment of their own."""
    if not UV.exists():
        pytest.skip(f"needs uv beside {sys.executable}")

    def install(*packages: str) -> Path:
        python = tmp_path_factory.mktemp("runtime") / "bin" / "python"
        for words in (
            ["venv", "--python", sys.executable, python.parent.parent],
            ["pip", "install", "--python", python, *packages],
        ):
            done = subprocess.run([UV, *map(str, words)], capture_output=True, text=True, timeout=600, check=False)
            if done.returncode:
                pytest.skip(f"{packages} cannot be installed: {done.stderr[-500:]}")
        return python

    return install


@pytest.fixture(scope="module")
def oldest(install: Callable[..., Path]) -> Path:
    return install(f"tflite-runtime=={MIN_RUNTIME_VERSION}", "numpy<2")


@pytest.fixture(scope="module")
def openvino(install: Callable[..., Path]) -> Path:
    return install("openvino==2026.4.0")


@pytest.fixture(scope="module")
def mediapipe(install: Callable[..., Path]) -> Path:
    return install("mediapipe==1.2.2")


@pytest.fixture(scope="module")
def photos(examples_dir: Path) -> NDArray[np.uint8]:
    images = transform.read(shards(examples_dir, "train"), image_size_px=32)
    return np.stack([image for image, _ in images.as_numpy_iterator()])


def check(python: Path, script: str, file: Path, photos: NDArray[np.uint8], export_dir: Path, folder: Path) -> None:
    np.save(folder / "photos.npy", photos)
    words = [python, "-c", script, file, folder / "photos.npy", folder / "found.npy"]
    subprocess.run(words, capture_output=True, timeout=120, check=True)
    signature = tf.saved_model.load(str(export_dir)).signatures["images"]
    expected = signature(images=tf.constant(photos))["probabilities"].numpy()
    tolerance = TOLERANCES[file.stem.removeprefix("flowers_")]
    assert np.ptp(expected, axis=0).max() > 3 * tolerance, "the predictions must depend on the photo"
    np.testing.assert_allclose(np.load(folder / "found.npy"), expected, atol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("kind", litert.KINDS)
def test_oldest_runtime_predicts_as_the_saved_model(
    oldest: Path, files: dict[str, Path], kind: str, photos: NDArray[np.uint8], export_dir: Path, tmp_path: Path
) -> None:
    check(oldest, RUN_TFLITE, files[kind], photos, export_dir, tmp_path)


@pytest.mark.slow
def test_oldest_runtime_refuses_what_it_would_compute_wrongly(oldest: Path, per_channel: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.tflite").write_bytes(per_channel)
    words = [oldest, "-c", RUN_TFLITE, tmp_path / "model.tflite", "unread", "unwritten"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert "Didn't find op for builtin opcode 'FULLY_CONNECTED' version '12'" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("kind", litert.KINDS)
def test_openvino_predicts_as_the_saved_model(
    openvino: Path, files: dict[str, Path], kind: str, photos: NDArray[np.uint8], export_dir: Path, tmp_path: Path
) -> None:
    check(openvino, RUN_OPENVINO, files[kind], photos, export_dir, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", litert.KINDS)
def test_mediapipe_finds_labels_and_normalization_by_itself(
    mediapipe: Path, files: dict[str, Path], kind: str, photos: NDArray[np.uint8], export_dir: Path, tmp_path: Path
) -> None:
    check(mediapipe, RUN_MEDIAPIPE, files[kind], photos, export_dir, tmp_path)
