"""The classifier as LiteRT (TFLite) files, for phones and small computers.

    <out_dir>/<model name>_{float32,float16,dynamic,int8}.tflite

TensorFlow converts to float; LiteRT Quantizer makes `dynamic` and `int8` of that, with ranges measured here. Measured
on a ResNet50 and the 274 photos of a test split (SavedModel: 258 right, 98.7 MB, 37.2 ms with the decoding, two cores):

| file | right | agrees | MB | ms, 2 threads |
|---|---|---|---|---|
| float32 | 258 | 274 | 96.1 | 20.7 |
| float16 | 258 | 274 | 48.1 | |
| dynamic | 257 | 271 | 24.5 | 8.1 |
| int8 | 257 | 271 | 24.8 | 6.9 |

What was tried for int8, on the same network and 100 photos to calibrate on: TensorFlow's converter takes 40 s instead
of 6 and finds 255 right, 270 in agreement. LiteRT Quantizer's own ranges, averages of the photos' extremes, find 258
and 272, but clip the outputs: probabilities are wrong by 0.030 on average, here by 0.003. With the normalization
left as the SavedModel has it a photo takes 9.6 ms instead of 6.9, and TensorFlow's int8 falls to 251 and 257.
"""

import contextlib
import io
import re
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from litert_quantizer import calibrator, quantizer, recipe
from numpy.typing import NDArray
from tqdm import tqdm

from export import metadata
from export.embedding import add_embedding
from export.limits import Limits, LimitsModule
from export.litert_limits import hide_limits
from export.litert_operators import declare_operators
from export.spec import ModelSpec

KINDS = {
    "float32": "float32 throughout",
    "float16": "float16 weights",
    "dynamic": "int8 weights, activations quantized as they come",
    "int8": "int8 weights and activations",
}

_SIGNATURE, _LIMITS = "images", "limits"
_OF_LIMITS = f"embedding_(?!pool)|{_LIMITS}/|StatefulPartitionedCall"
"""What makes the outputs of pooled maps and probabilities, by the names of its tensors; the last are the outputs."""

_FLOAT16 = {
    "weight_tensor_config": {"num_bits": 16, "dtype": "FLOAT"},
    "compute_precision": "FLOAT",
    "explicit_dequantize": True,
}
"""Weights as float16, from which the runtime makes float32 when it loads the file."""

_LARGE_MAP, _LARGE_MAP_QUANTILE = 10_000, 0.9
_ROOM = 1.25
_FOLDING_TOLERANCE = 1e-3  # of a probability: float32 sums in another order


def convert(
    classifier: keras.Model,
    *,
    limits: Limits,
    calibration_images: NDArray[np.uint8],
    spec: ModelSpec,
    version: str = "",
    author: str = "",
    license: str = "",
    out_dir: Path,
) -> dict[str, Path]:
    """Write a file of each kind, with metadata.

    Each holds one signature, `images`, as the SavedModel does, for one image: `images` `[1, size, size, 3]`, RGB,
    0–255, to `probabilities` `float32 [1, C]`. `images` is `uint8` in the int8 file and `float32` in the others. After
    a run the limits are in tensors of the outputs' names, see `litert_limits`; every file computes them in float32.

    Args:
        classifier: `uint8 [N, size, size, 3]`, RGB, 0–255, to `float32 [N, C]`.
        limits: of the classifier.
        calibration_images: `uint8 [M, size, size, 3]`, photos to train on, of all classes; a hundred are enough.
        spec: packed as `model_spec.json`; the files' names begin with its `model_name`, and its `class_names` are in
            the order of the classifier's outputs.
        version: of the model, in the metadata, as its author and its license are; each may be empty.
        author: of the model.
        license: of the model.
        out_dir: an existing folder.

    Returns:
        The file of each kind.

    Raises:
        ValueError: the calibration images are none, or not what the classifier takes; or its first layers are not a
            colour normalization and a convolution.
    """
    size_px = classifier.input_shape[1]
    if calibration_images.dtype != np.uint8 or calibration_images.shape[1:] != (size_px, size_px, 3):
        raise ValueError(
            f"The calibration images must be uint8 [M, {size_px}, {size_px}, 3]. "
            f"Received: {calibration_images.dtype} {list(calibration_images.shape)}"
        )
    if not len(calibration_images):
        raise ValueError("int8 needs at least one photo to calibrate on; a hundred are enough. Received: none")
    network = _fold_normalization(add_embedding(classifier))
    _check_same(network, classifier, calibration_images[:4])
    with tempfile.TemporaryDirectory() as folder:
        saved, float32 = Path(folder) / "saved", Path(folder) / "float32.tflite"
        _save(network, limits, saved)
        float32.write_bytes(_convert(saved))
        contents = {
            "float32": float32.read_bytes(),
            "float16": _quantize(float32, [_plan("*", "float_casting", op_config=_FLOAT16)]),
            "dynamic": _quantize(float32, _plan_dynamic()),
            "int8": _quantize_int8(float32, calibration_images),
        }
    paths = {kind: out_dir / f"{spec['model_name']}_{kind}.tflite" for kind in KINDS}
    for kind, content in contents.items():
        model = metadata.unpack(content)
        hide_limits(model)
        declare_operators(model)
        description = f"Tells {', '.join(spec['class_names'])} apart; {KINDS[kind]}."
        paths[kind].write_bytes(
            metadata.add(model, spec=spec, description=description, version=version, author=author, license=license)
        )
    return paths


def _fold_normalization(classifier: keras.Model) -> keras.Model:
    """Return a network for `float32 [N, size, size, 3]`, RGB, 0–255, with less to do before its first convolution.

    A colour normalization makes `Ax + b` of a pixel `x`: it reorders, scales and shifts channels. With `A` in the
    kernel, only `x + A⁻¹b` is left to do. To fold `b` into the bias as well would be wrong at the image's edges,
    where zeros are padded after the normalization.
    """
    network = keras.models.clone_model(classifier)
    network.set_weights(classifier.get_weights())
    backbone = next(layer for layer in network.layers if isinstance(layer, keras.Model))
    normalized = network.operations[network.operations.index(backbone) - 1].output
    colours = np.zeros((4, *network.input_shape[1:]), np.uint8)  # black, red, green, blue
    colours[1:] = 255 * np.eye(3)[:, np.newaxis, np.newaxis]
    seen = keras.Model(network.input, normalized)(colours, training=False).numpy()[:, 0, 0].astype(np.float64)
    matrix, offset = (seen[1:] - seen[0]).T / 255, seen[0]
    convolution = next(layer for layer in backbone.layers if isinstance(layer, keras.layers.Conv2D))
    kernel, *bias = convolution.get_weights()
    convolution.set_weights([np.einsum("hwjo,ji->hwio", kernel, matrix), *bias])
    images = keras.Input(network.input_shape[1:], dtype="float32", name="images")
    shifted = images + np.linalg.solve(matrix, offset).astype(np.float32)
    core = keras.Model(normalized, network.outputs, name="core")
    return keras.Model(images, core(shifted), name="classifier")


def _check_same(network: keras.Model, classifier: keras.Model, images: NDArray[np.uint8]) -> None:
    expected = classifier(images, training=False).numpy()
    found = network(images.astype(np.float32), training=False)[1].numpy()
    difference = float(np.abs(found - expected).max())
    if not difference <= _FOLDING_TOLERANCE:
        raise ValueError(
            "A classifier must begin with a colour normalization, the same for each pixel, and a backbone whose first "
            f"layer with weights is a convolution. Received: {classifier.name}; folded, its probabilities change by "
            f"{difference:.3g}"
        )


def _save(network: keras.Model, limits: Limits, folder: Path) -> None:
    """Write a SavedModel for one image."""
    size_px = network.input_shape[1]
    module = tf.Module()
    module.weights, module.limits = [variable.value for variable in network.variables], LimitsModule(limits)

    def classify(images: tf.Tensor) -> dict[str, tf.Tensor]:
        embeddings, probabilities = network(images, training=False)
        with tf.name_scope(_LIMITS):
            outputs = module.limits(embeddings, probabilities)
        return {"probabilities": probabilities, **outputs}

    images = tf.TensorSpec([1, size_px, size_px, 3], tf.float32, "images")
    signature = tf.function(classify, [images], autograph=False)
    tf.saved_model.save(module, str(folder), signatures={_SIGNATURE: signature})


def _convert(folder: Path) -> bytes:
    return tf.lite.TFLiteConverter.from_saved_model(str(folder), signature_keys=[_SIGNATURE]).convert()


def _quantize(path: Path, plan: list[dict[str, Any]], ranges: dict[str, Any] | None = None) -> bytes:
    quantizing = quantizer.Quantizer(str(path), plan)
    with _quietly():
        result = quantizing.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    return bytes(result.quantized_model)


def _plan_dynamic() -> list[dict[str, Any]]:
    """Quantize weights alone, as every runtime since 2.14 reads them, and fast.

    No runtime has a fast DEPTHWISE_CONV_2D of int8 weights and float32 activations: its few weights stay in float32.
    """
    return [
        *_with_one_scale(recipe.dynamic_wi8_afp32()),
        _plan("DEPTHWISE_CONV_2D", "no_quantize"),
        *_plan_limits(),
    ]


def _with_one_scale(plan: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give the weights of a FULLY_CONNECTED one scale each.

    Older runtimes take them for that whatever the file says, and predict wrongly: 2.14 with activations in float32,
    2.7 with those in int8.
    """
    (of_all,) = plan
    weights = {**of_all["op_config"]["weight_tensor_config"], "granularity": "TENSORWISE"}
    op_config = {**of_all["op_config"], "weight_tensor_config": weights}
    return [of_all, _plan("FULLY_CONNECTED", of_all["algorithm_key"], op_config=op_config)]


def _plan_limits() -> list[dict[str, Any]]:
    """Leave the limits and the softmax in float32, which rounds no probability to 0; large weights as float16."""
    return [
        _plan("*", "no_quantize", regex=_OF_LIMITS),
        _plan("FULLY_CONNECTED", "float_casting", regex=_OF_LIMITS, op_config=_FLOAT16),
    ]


def _plan_last_layer(path: Path) -> list[dict[str, Any]]:
    """Leave what goes into the softmax in float32: in steps of 8 bits, lesser classes get the same probability."""
    model = metadata.unpack(path.read_bytes())
    graph = model.subgraphs[0]
    names = [
        re.escape(graph.tensors[operator.inputs[0]].name.decode())
        for operator in graph.operators
        if model.operatorCodes[operator.opcodeIndex].builtinCode == schema.BuiltinOperator.SOFTMAX
    ]
    return [
        _plan("FULLY_CONNECTED", algorithm, regex=name, op_config=op_config)
        for name in names
        for algorithm, op_config in (("no_quantize", {}), ("float_casting", _FLOAT16))
    ]


def _plan(operation: str, algorithm: str, *, regex: str = ".*", op_config: Any = None) -> dict[str, Any]:
    return {"regex": regex, "operation": operation, "algorithm_key": algorithm, "op_config": op_config or {}}


def _quantize_int8(path: Path, images: NDArray[np.uint8]) -> bytes:
    """Quantize weights and activations up to the last layer; the image comes in as it is."""
    exempt = [_plan(operation, "no_quantize") for operation in ("INPUT", "OUTPUT", "SOFTMAX")]
    plan = [*_with_one_scale(recipe.static_wi8_ai8()), *exempt, *_plan_last_layer(path), *_plan_limits()]
    content = _quantize(path, plan, _measure_ranges(path, images))
    # The file begins by quantizing float32: from uint8 with a scale of 1 that is a flip of the sign bit.
    model = metadata.unpack(content)
    graph = model.subgraphs[0]
    tensor = graph.tensors[graph.inputs[0]]
    tensor.type = schema.TensorType.UINT8
    tensor.quantization = schema.QuantizationParametersT(scale=[1.0], zeroPoint=[0])
    return metadata.pack(model)


def _measure_ranges(path: Path, images: NDArray[np.uint8]) -> dict[str, Any]:
    """Return the range of each activation as LiteRT Quantizer takes it: `{tensor: {"min": [x], "max": [y]}}`.

    In a large feature map a photo's extremes are single values out of many: the range leaves out those of one photo in
    ten, for finer steps. Of small maps and vectors, such as the features and the outputs, it keeps all, and
    a quarter more: other photos go further, and a clipped output is a wrong probability.
    """
    measuring = calibrator.CalibrationInterpreter(
        str(path),
        mode=calibrator.CalibrationMode.CALIBRATION_PROFILER_BASED,
        qsv_update_func=lambda old, new: {key: np.concatenate([old[key], new[key]]) for key in ("min", "max")},
    )
    run = measuring.get_signature_runner(_SIGNATURE)
    progress = tqdm(images, desc="calibrating", unit="photo", delay=2, leave=False, disable=None)
    with _quietly():
        for image in progress:
            run(images=image[np.newaxis].astype(np.float32))
    graph = metadata.unpack(path.read_bytes()).subgraphs[0]
    sizes = {tensor.name.decode(): np.prod(tensor.shape) for tensor in graph.tensors}
    ranges = {}
    for name, extremes in measuring.get_calibration_results().items():
        is_large = sizes[name] >= _LARGE_MAP
        share, room = (_LARGE_MAP_QUANTILE, 1.0) if is_large else (1.0, _ROOM)
        ranges[name] = {
            "min": room * np.quantile(extremes["min"], [1 - share]),
            "max": room * np.quantile(extremes["max"], [share]),
        }
    ranges[graph.tensors[graph.inputs[0]].name.decode()] = {"min": np.array([0.0]), "max": np.array([255.0])}
    return ranges


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep LiteRT Quantizer's messages for its developers off the terminal: a bar for each photo, and a warning."""
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*experimental_preserve_all_tensors.*")
        yield
