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
"""

import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from export import metadata
from export.embedding import add_embedding
from export.limits import Limits, LimitsModule
from export.litert_limits import hide_limits
from export.litert_operators import declare_operators
from export.litert_quantization import LIMITS, SIGNATURE, quantize
from export.spec import ModelSpec

KINDS = {
    "float32": "float32 throughout",
    "float16": "float16 weights",
    "dynamic": "int8 weights, activations quantized as they come",
    "int8": "int8 weights and activations",
}

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
            **quantize(float32, calibration_images),
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
        with tf.name_scope(LIMITS):
            outputs = module.limits(embeddings, probabilities)
        return {"probabilities": probabilities, **outputs}

    images = tf.TensorSpec([1, size_px, size_px, 3], tf.float32, "images")
    signature = tf.function(classify, [images], autograph=False)
    tf.saved_model.save(module, str(folder), signatures={SIGNATURE: signature})


def _convert(folder: Path) -> bytes:
    return tf.lite.TFLiteConverter.from_saved_model(str(folder), signature_keys=[SIGNATURE]).convert()
